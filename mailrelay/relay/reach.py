"""Remembers whether one relayhost can be reached, and which fallback sends its mail meanwhile (`fallback`). Each change is
logged, and written into the spool, where commands and notices read it."""

import logging

from mailrelay.config import Relayhost
from mailrelay.ports import RelayhostPort

log = logging.getLogger("mailrelay.relay")


class Reach:
    """What `update` was last given. stand_in: the fallback that sends, "" for none."""

    def __init__(self, relayhost: Relayhost, spool: RelayhostPort) -> None:
        self.is_unreachable = False
        self.stand_in = ""
        self._name = relayhost.name
        self._has_fallback = bool(relayhost.fallback)
        self._spool = spool
        # The stand-in in the spool. `relayhost_up` clears it there.
        self._noted = ""

    async def update(self, stand_in: str, *, is_unreachable: bool, has_fault: bool) -> bool:
        """Returns whether anything has changed. has_fault: whether a fault is known, also one of a mail server that was
        reached. Raises SpoolError; then the next call finds the change again."""
        if has_fault:
            await self.note(stand_in)
        else:
            self._noted = ""
        if (stand_in, is_unreachable) == (self.stand_in, self.is_unreachable):
            return False
        if stand_in:
            log.warning("relay=%s cannot be reached: %s sends its mail until it can", self._name, stand_in)
        elif is_unreachable and self._has_fallback:
            log.warning("relay=%s cannot be reached, and no fallback of it: its mail waits", self._name)
        elif self.stand_in:
            log.info("relay=%s can be reached again: it sends its mail itself", self._name)
        self.stand_in, self.is_unreachable = stand_in, is_unreachable
        return True

    def cleared(self) -> None:
        """The spool has cleared the stand-ins (`reroute`): `update` writes it again."""
        self._noted = ""

    async def note(self, stand_in: str) -> None:
        """Writes which fallback sends the mail, or is about to. Raises SpoolError."""
        if stand_in != self._noted:
            await self._spool.note_stand_in(self._name, stand_in)
            self._noted = stand_in
