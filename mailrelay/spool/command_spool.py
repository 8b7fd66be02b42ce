"""The spool for commands (`ports.CommandPort`): synchronous, with or without a running daemon.

Each context opens a connection of its own, and closes it at its end. A change is one commit. Where no daemon runs, what a
crash has left open is closed before the change, by the same rules as at the start of a daemon.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw

from mailrelay import ports
from mailrelay.mail.backends import BackendsFor
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.handed_in import HandedIn
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.overview import Event, Listed, SpoolStatus
from mailrelay.mail.record import Arrival, arrive
from mailrelay.mail.there import Retried, RetryThere
from mailrelay.mail.trace import subject
from mailrelay.spool import (
    accepting,
    actions,
    attempts,
    correspondents,
    followed,
    handing_in,
    listing,
    lock,
    ownership,
    queue_ids,
    replacement,
    space,
    stored,
)
from mailrelay.spool.database import connect, opened_for_reading, transaction
from mailrelay.spool.files import SpoolFiles
from mailrelay.spool.successors import successors


@contextmanager
def _durable(directory: Path, db: apsw.Connection) -> Iterator[None]:
    """One commit for everything inside, at its end on disk and in the files at their paths. Raises SpoolError."""
    with closing(SpoolFiles(directory, db)) as files:
        with transaction(db):
            yield
        files.check()


class _View(ports.SpoolView):
    """A view on an open transaction."""

    def __init__(self, db: apsw.Connection, max_size: int, now: Callable[[], float]) -> None:
        self._db = db
        self._max_size = max_size
        self._now = now

    def find(self, prefix: str) -> tuple[int, str]:
        return actions.find(self._db, prefix)

    def live(self) -> Iterator[Listed]:
        return listing.live(self._db)

    def everything(self) -> Iterator[Listed]:
        return listing.everything(self._db)

    def one(self, key: int) -> Listed:
        return listing.one(self._db, key)

    def events(self, key: int) -> list[Event]:
        return listing.events(self._db, key)

    def content(self, key: int) -> Iterator[bytes]:
        return stored.content(self._db, key)

    def content_as_stored(self, key: int) -> bytes:
        return listing.content_as_stored(self._db, key)

    def senders(self) -> list[tuple[bytes, bytes]]:
        return listing.senders(self._db)

    def status(self) -> SpoolStatus:
        return listing.status(self._db, now=self._now())

    def successors(self, queue_id: str) -> list[str]:
        return successors(self._db, queue_id)

    def retry_there(self, key: int) -> RetryThere | None:
        return followed.retry_there(self._db, key)

    def suggestion(self, address: bytes, stage: str) -> bytes:
        # Whom other accounts write to is not for this one.
        return b"" if ownership.limit() is not None else correspondents.suggestion(self._db, address, stage)

    def check_space(self, size: int) -> None:
        space.check_space(self._db, size, self._max_size)


class _Change(_View, ports.SpoolChange):
    """A change on an open transaction."""

    def act(self, key: int, queue_id: str, what: Act) -> int:
        return actions.act(self._db, key, queue_id, what, self._now())

    def retry(self, key: int, queue_id: str) -> Retried:
        return actions.retry(self._db, key, queue_id, self._now())

    def retry_all(self) -> int:
        return actions.retry_all(self._db, self._now())

    def dial_now(self, relayhost: str) -> None:
        actions.dial_now(self._db, relayhost, self._now())

    def replaceable(self, prefix: str, what: Act) -> tuple[Message, bytes]:
        return replacement.replaceable(self._db, prefix, what)

    def replace(self, old: Message, what: Act, envelope: Envelope, content: bytes, relayhost: str) -> str:
        now = self._now()
        queue_id = queue_ids.new_for_command(self._db, now)
        new = Arrival(
            queue_id, envelope, content, relayhost, now, subject(content), has_bare_header=old.has_bare_header
        )
        replacement.replace(self._db, old, what, new, self._max_size)
        return queue_id


class CommandSpool(ports.CommandPort):
    """The spool in `directory`. max_size: octets; 0 if it accepts no message. now: the clock, epoch seconds."""

    def __init__(self, directory: Path, max_size: int = 0, now: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._max_size = max_size
        self._now = now

    @contextmanager
    def reading(self) -> Iterator[ports.SpoolView]:
        with opened_for_reading(self._directory) as db:
            yield _View(db, self._max_size, self._now)

    @contextmanager
    def changing(self) -> Iterator[ports.SpoolChange]:
        with closing(connect(self._directory, create=False)) as db:
            # Asked first: to get a lock that a daemon holds is tried for a while.
            if lock.holder(self._directory) is None:
                with suppress(lock.Held), lock.lock(self._directory), transaction(db):
                    attempts.recover(db, self._now())
            with _durable(self._directory, db):
                yield _Change(db, self._max_size, self._now)

    def enqueue(self, envelope: Envelope, content: bytes, relayhost: str) -> tuple[int, str]:
        now = self._now()
        with closing(connect(self._directory)) as db, _durable(self._directory, db):
            queue_id, token = queue_ids.new_for_command(db, now), queue_ids.message_id_token()
            arrival = arrive(
                envelope,
                content,
                queue_id=queue_id,
                token=token,
                relayhost=relayhost,
                now=now,
                completes_header=True,
            )
            return accepting.accept(db, arrival, self._max_size), queue_id

    def hand_in(self, message: HandedIn, relayhost: str, backends_for: BackendsFor) -> tuple[int, Arrival]:
        now = self._now()
        bad = tuple(Recipient(text, message.notify) for text, _ in message.bad)
        envelope = dataclasses.replace(message.envelope, recipients=(*message.envelope.recipients, *bad))
        problems = [message.problem] * len(message.envelope.recipients) + [problem for _, problem in message.bad]
        with closing(connect(self._directory)) as db, _durable(self._directory, db):
            queue_id, token = queue_ids.new_for_command(db, now), queue_ids.message_id_token()
            if message.content:
                arrival = arrive(
                    envelope,
                    message.content,
                    queue_id=queue_id,
                    token=token,
                    relayhost=relayhost,
                    now=now,
                    completes_header=True,
                )
            else:
                arrival = Arrival(queue_id, envelope, b"", relayhost, now, "")
            return handing_in.hand_in(db, arrival, problems, backends_for, self._max_size), arrival
