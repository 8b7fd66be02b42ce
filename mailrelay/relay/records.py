"""The records that one relayhost keeps of conversations: which conversations get one, and what the unread ones say.

A connection may break after the final dot, or the daemon may die: then nobody has read the reply, and the message is
uncertain. The record over there holds the reply (`ssh.recorder`). It is read after the next dial, beside the first
conversations. Whether the relayhost can keep records is found out once, and remembered (`recording`).

Promises: a message whose record may be read is not sent again before that, or before the next time of the retry schedule. A
record is removed only after what it says is on disk. A failure here is no fault of the relayhost and delays no other mail:
the messages stay uncertain, as without a record.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mailrelay.config import Relayhost
from mailrelay.mail.printable import printable
from mailrelay.mail.recorded import ReadExchange, Recording, RecordingState, UnreadExchange
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.ports import RelayPort
from mailrelay.relay.recording import after_refusal, is_trial_due
from mailrelay.relay.results import Results
from mailrelay.smtp.record import Exchange, Proof, Record
from mailrelay.ssh.interface import Connection, Fault, NotRecorded, RecordRead

log = logging.getLogger("mailrelay.relay")

MOST = 8
"""Recorded conversations at once. sshd allows ten sessions in a connection by default (MaxSessions)."""
READ_LIMIT = 30.0
"""Seconds after which a record is not read again, although the mail server still works. Less than `spool.exchanges.HOLD`
with the time that reading takes."""

AGAIN = 2.0
"""Seconds to the next try to read records, where the server opens no session now."""


@dataclass(frozen=True, slots=True)
class Reading:
    """unread: the attempts whose records are to be read. over: the tokens of conversations that ended before
    the spool was read; their records can be removed."""

    unread: Sequence[UnreadExchange]
    over: Sequence[str]


class Records:
    """The records of one relayhost. changed: called when the scheduler should decide again. now: the clock, epoch seconds.

    is_wanted: there are records to be read, as far as is known; None before the spool was asked. is_reading: they are being
    read or removed.
    """

    def __init__(
        self,
        relayhost: Relayhost,
        spool: RelayPort,
        results: Results,
        changed: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.is_wanted: bool | None = None
        self.is_reading = False
        self._relayhost = relayhost
        self._spool = spool
        self._results = results
        self._changed = changed
        self._now = now
        self._is_allowed = relayhost.record == "auto" and not relayhost.command
        self._known = Recording()
        self._open = 0
        self._most = MOST
        # Tokens of conversations that are over.
        self._over: list[str] = []

    @property
    def has_needless(self) -> bool:
        """Whether there are records that can be removed. Some of them may have to be read first."""
        return bool(self._over)

    async def ask(self) -> None:
        """Asks the spool what is known, if it was not asked yet. Raises SpoolError."""
        if self.is_wanted is None:
            self._known = await self._spool.recording(self._relayhost.name)
            self.is_wanted = bool(await self._spool.unread_exchanges(self._relayhost.name))

    async def begin_reading(self) -> Reading:
        """What `read` is to do. From now on the messages of these attempts are not due. Raises SpoolError."""
        over = list(self._over)
        unread = await self._spool.unread_exchanges(self._relayhost.name)
        del self._over[: len(over)]
        self.is_reading, self.is_wanted = True, False
        return Reading(unread, over)

    def connected(self) -> None:
        """There is a new connection: as many conversations may be recorded as at first."""
        self._most = MOST

    @property
    def is_possible(self) -> bool:
        """Whether the relayhost is known to record conversations."""
        return self._known.state is RecordingState.POSSIBLE

    def begin(self) -> str:
        """The token of the record for a new conversation, 32 hexadecimal digits; "" if it gets none. The caller calls
        `started` or `refused`, and after `started`, `ended` when the conversation is over."""
        if not self._is_allowed or self._open >= self._most:
            return ""
        if not self.is_possible and (self._open or not is_trial_due(self._known, self._now())):
            return ""
        self._open += 1
        return secrets.token_hex(16)

    def started(self) -> None:
        """The recorder of a conversation has started."""
        self._note(Recording(RecordingState.POSSIBLE))

    def refused(self, error: NotRecorded) -> None:
        """A conversation could not be recorded."""
        self._open -= 1
        if error.is_temporary:
            # The server allows no more sessions, or is slow to open one.
            self._most = self._open
        self._note(after_refusal(error, self._known, self._now(), others=self._open > 0), error)

    def _note(self, known: Recording, error: NotRecorded | None = None) -> None:
        if known == self._known:
            return
        self._known = known
        if error is None:
            log.info("relay=%s records conversations from now on", self._relayhost.name)
        else:
            log.info("relay=%s keeps no record of conversations: %s", self._relayhost.name, error)
        self._results.run_to_end(self._spool.note_recording(self._relayhost.name, known))

    def ended(self, token: str, *, leaves_doubt: bool) -> None:
        """A recorded conversation is over, and its results are in the spool."""
        self._open -= 1
        self._over.append(token)
        if leaves_doubt:
            self.is_wanted = True
        self._changed()

    async def read(self, connection: Connection, reading: Reading) -> None:
        """Reads records, writes what they say, and removes them. Raises nothing."""
        try:
            if await self._read(connection, reading.unread):
                await self._remove(connection, reading.over)
            else:
                self._not_read(reading)
        except SpoolError as error:
            self._not_read(reading)
            log.error("relay=%s: records could not be used: %s", self._relayhost.name, error)
        finally:
            self.is_reading = False
            self._changed()

    def _not_read(self, reading: Reading) -> None:
        """The next connection reads and removes them."""
        self.is_wanted = True
        self._over += reading.over

    async def _read(self, connection: Connection, unread: Sequence[UnreadExchange]) -> bool:
        """Returns whether all were read, or can never be. Raises SpoolError."""
        limit = time.monotonic() + READ_LIMIT
        while unread:
            tokens = sorted({one.exchange.token for one in unread})
            found: Mapping[str, RecordRead] = {}
            growing: set[str] = set()
            is_last = time.monotonic() > limit
            try:
                found = await connection.read_records(tokens)
                growing = {token for token, read in found.items() if read.is_growing and not is_last}
            except (Fault, NotRecorded) as error:
                log.info("relay=%s: no record could be read: %s", self._relayhost.name, printable(str(error)))
                if not connection.is_up:
                    return False
                if isinstance(error, NotRecorded) and error.is_temporary and not is_last:
                    growing = set(tokens)
                    await asyncio.sleep(AGAIN)
            await self._resolve([one for one in unread if one.exchange.token not in growing], found)
            await self._remove(connection, [token for token in tokens if token in found and token not in growing])
            unread = [one for one in unread if one.exchange.token in growing]
        return True

    async def _remove(self, connection: Connection, tokens: Sequence[str]) -> None:
        # A failure leaves them for a week.
        with contextlib.suppress(Fault, NotRecorded):
            if tokens:
                await connection.remove_records(tokens)

    async def _resolve(self, unread: Sequence[UnreadExchange], found: Mapping[str, RecordRead]) -> None:
        read = [judge(one, found.get(one.exchange.token)) for one in unread]
        await self._results.read_later(read)
        for one, result in zip(unread, read, strict=True):
            if not result.sent:
                log.info("%s: %s", one.queue_id, _said(result, self._relayhost.name))


def judge(unread: UnreadExchange, read: RecordRead | None) -> ReadExchange:
    """What a record says of an attempt; None if there is none. Pure."""
    if read is None:
        return ReadExchange(unread.attempt, unread.message)
    noted = unread.exchange
    exchange = Exchange(noted.first, tuple(range(len(noted.recipients))), noted.has_data)
    record = Record(read.octets, is_complete=read.is_complete)
    proofs = list(zip(noted.recipients, record.proofs(exchange), strict=True))
    return ReadExchange(
        unread.attempt,
        unread.message,
        tuple(key for key, proof in proofs if proof is Proof.SENT),
        tuple(key for key, proof in proofs if proof is Proof.NOT_TAKEN),
        record.reply_to_content(exchange),
    )


def _said(read: ReadExchange, relayhost: str) -> str:
    """The log line about a message that the mail server has for no recipient, as far as its record says. Escaped."""
    if read.not_taken:
        return f"relay={relayhost}: its record says that the mail server has not taken it; it is sent again"
    return f"relay={relayhost}: there is no record of it; it is sent again and may arrive twice"
