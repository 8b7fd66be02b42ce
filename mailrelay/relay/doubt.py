"""Whether a connection, or the dial for one, still works after a client has waited for a result in vain.

Promises: the server is asked for a response. While it gives none, the connection is in doubt: no message begins on it, and
no client waits for it. A reply of the mail server is not needed, so a slow mail server loses no connection. A connection
that is only slow is not given up (`dial_policy.is_dead`).
"""

import asyncio
import enum
import logging
from collections.abc import Callable

from mailrelay.config import Relayhost
from mailrelay.relay import dial_policy
from mailrelay.ssh.interface import Connection

log = logging.getLogger("mailrelay.relay")


class DoubtPhase(enum.Enum):
    NONE = enum.auto()
    WAITED_IN_VAIN = enum.auto()
    """A client has waited in vain; the server has not been asked for a response yet."""
    ASKED = enum.auto()
    """The server was asked for a response, and has CHECK_GRACE seconds to give it."""
    NO_RESPONSE = enum.auto()
    """In doubt: clients get their reply without waiting."""


class Doubt:
    """The doubt about one connection, and about the dial that replaces it. `Connector` makes a new object when a dial has
    ended.

    changed: called when the scheduler should decide again.
    """

    def __init__(self, relayhost: Relayhost, changed: Callable[[], None]) -> None:
        self.phase = DoubtPhase.NONE
        self._relayhost = relayhost
        self._changed = changed

    def waited_in_vain(self) -> None:
        """A client has waited in vain on a connection that is up."""
        if self.phase is DoubtPhase.NONE:
            self._set(DoubtPhase.WAITED_IN_VAIN)

    def dialled_in_vain(self) -> None:
        """A client has waited in vain during a dial: until the dial ends, no other client waits."""
        self.phase = DoubtPhase.NO_RESPONSE

    def text(self, *, is_dialling: bool) -> str:
        """Why no client should wait, not escaped; "" if there is no doubt."""
        if self.phase is not DoubtPhase.NO_RESPONSE:
            return ""
        if is_dialling:
            return f"there is no connection to {self._relayhost.ssh} yet"
        return f"the connection to {self._relayhost.ssh} does not respond; it is being checked"

    async def check(self, connection: Connection, patience: Callable[[], float]) -> bool:
        """Asks the server for a response and waits for it. Returns whether the connection works; False if it is dead, or
        ended while it was in doubt.

        patience: returns the seconds to wait for a response or an acknowledgement before the connection counts as dead.
        """
        name = self._relayhost.name
        response = asyncio.ensure_future(connection.response())
        try:
            while True:
                wait = dial_policy.CHECK_GRACE if self.phase is not DoubtPhase.NO_RESPONSE else patience()
                done, _ = await asyncio.wait({response}, timeout=wait)
                if done:
                    break
                state = connection.tcp_state
                if dial_policy.is_moving(state, wait):
                    continue
                if self.phase is not DoubtPhase.NO_RESPONSE:
                    self._set(DoubtPhase.NO_RESPONSE)
                    log.warning("relay=%s does not respond; new mail waits until its connection has been checked", name)
                elif dial_policy.is_dead(state, wait):
                    return False
            if self.phase is DoubtPhase.NO_RESPONSE:
                if not connection.is_up:
                    return False
                log.info("relay=%s responds again", name)
            self._set(DoubtPhase.NONE)
            return True
        finally:
            response.cancel()

    def _set(self, phase: DoubtPhase) -> None:
        self.phase = phase
        self._changed()
