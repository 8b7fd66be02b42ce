"""A spool in which one bit was flipped, and what the product makes of it."""

import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from harness.messages import BUSY, LIMIT, NO_SUCH_USER, NOW, TAKEN, letter
from mailrelay.mail.completion import NOTHING_KNOWN
from mailrelay.mail.envelope import Message
from mailrelay.mail.lifecycle import State
from mailrelay.mail.notice import Backend
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.record import Record, Settled
from mailrelay.mail.spool_errors import Damaged, SpoolError
from mailrelay.spool import accepting, attempts, inspection, listing, log_end, stored
from mailrelay.spool.database import FILE, PIECE, connect, transaction

BACKENDS = (Backend.MAILBOX,)
UNREADABLE = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="damaged")
SENDER = b"a@example.org"


@dataclass
class Sample:
    """A spool with mail in many states. expected: address and whole content of what must be sent, and of what must be kept.

    live: what the person sees in the queue without having to send it: address and state."""

    directory: Path
    is_checkpointed: bool
    expected: dict[bytes, bytes] = field(default_factory=dict)
    live: dict[bytes, str] = field(default_factory=dict)


def make(directory: Path, *, checkpointed: bool) -> Sample:
    """Makes a spool in `directory`. checkpointed: all is in the file; otherwise a part is in the log, as after a crash."""
    sample = Sample(directory, checkpointed)
    working = directory.with_name(directory.name + "-working")
    db = connect(working)
    draw = random.Random(1)
    for number in range(12):
        if number == 6 and not checkpointed:
            db.pragma("wal_checkpoint", "TRUNCATE")
        size = draw.choice([10, 700, 3_000, 9_000, PIECE, 150_000])
        to = [b"%d-%d@example.net" % (number, each) for each in range(1 + number % 3)]
        arrival = letter(*to, content=draw.randbytes(size // 2).hex().encode() + b"\r\n")
        with transaction(db):
            key = accepting.accept(db, arrival, LIMIT)
        if number % 4 == 3:
            _settle(db, key, number)
        states = [recipient.state for recipient in listing.one(db, key).recipients]
        for address, state in zip(to, states, strict=True):
            if state in ("queued", "deferred"):
                sample.expected[address] = arrival.content
            else:
                sample.live[address] = state
    with transaction(db):
        accepting.stage(db, None, b"x" * 5_000)
    if checkpointed:
        db.close()
    shutil.copytree(working, directory)
    shutil.rmtree(working)
    (directory / f"{FILE}-shm").unlink(missing_ok=True)
    return sample


def _settle(db: apsw.Connection, key: int, number: int) -> None:
    """Ends an attempt: deferred, held, bounced, one state for each recipient."""
    with transaction(db):
        (message,) = [one for one in attempts.take(db, "default", (key,), 1, "1", NOW) if one.id == key]
        kinds = [(State.DEFERRED, BUSY), (State.BOUNCED, NO_SUCH_USER), (State.HELD, UNREADABLE)]
        settled = tuple(
            Settled(recipient, *kinds[(number // 4 + place) % 3], uncertain=False)
            for place, recipient in enumerate(message.recipient_ids)
        )
        waits = any(one.state is State.DEFERRED for one in settled)
        attempts.record(db, Record(key, NOW, settled, NOW + 1 if waits else None, ()), "1")


@dataclass
class Result:
    """What the product made of a spool. broken: the error that ended it, "" if none. sent: content by address. told: the
    addresses that are held or failed in the queue of the person. reported: what the log says of damage."""

    broken: str = ""
    sent: dict[bytes, bytes] = field(default_factory=dict)
    told: dict[bytes, str] = field(default_factory=dict)
    reported: list[str] = field(default_factory=list)


def run(directory: Path) -> Result:
    """What a daemon does: start, send everything, look for damage, send again."""
    result = Result()
    try:
        with closing(connect(directory)) as db:
            # No power is cut here.
            db.pragma("synchronous", "OFF")
            lost = log_end.unreadable_commits(db)
            if lost:
                result.reported.append(f"{lost} commits")
            with transaction(db):
                attempts.recover(db, NOW + 10, "2")
                accepting.unstage_all(db)
                attempts.reroute(db, {"default"}, lambda _sender: "default", NOW + 10)
            _send_all(db, result)
            found = inspection.findings(db)
            if found and not inspection.is_repairable(found):
                raise SpoolError(found[0])
            if found:
                result.reported += found
                with transaction(db):
                    inspection.repair(db, lambda _kind, _sender, _notify: BACKENDS, NOW + 10)
                found = inspection.findings(db)
                if found:
                    raise SpoolError(found[0])
                with transaction(db):
                    attempts.reroute(db, {"default"}, lambda _sender: "default", NOW + 10)
                _send_all(db, result)
            for one in listing.everything(db):
                result.told |= {to.address: to.state for to in one.recipients if to.state in ("held", "bounced")}
    except SpoolError as error:
        result.broken = str(error)
    except (apsw.Error, UnicodeDecodeError) as error:
        # Commands and the daemon translate it.
        result.broken = str(error)
    return result


def _send_all(db: apsw.Connection, result: Result) -> None:
    for _ in range(100):
        with transaction(db):
            messages = attempts.take(db, "default", (), 4, "2", NOW + 10, 4, NOTHING_KNOWN)
        if not messages:
            return
        for message in messages:
            _send(db, message, result)
    raise AssertionError("it is sent without end")


def _send(db: apsw.Connection, message: Message, result: Result) -> None:
    envelope = message.envelope
    octets = None
    if not envelope.is_damaged:
        try:
            octets = b"".join(_pieces(db, message.id))
        except Damaged:
            octets = None
        if octets is not None and len(octets) != message.size:
            # The session refuses that.
            octets = None
    settled = []
    for key, to in zip(message.recipient_ids, envelope.recipients, strict=True):
        if octets is None or to.is_damaged:
            settled.append(Settled(key, State.HELD, UNREADABLE, uncertain=False))
            continue
        assert envelope.sender == SENDER
        assert to.address not in result.sent, "sent twice"
        result.sent[to.address] = octets
        settled.append(Settled(key, State.SENT, TAKEN, uncertain=False))
    with transaction(db):
        assert attempts.record(db, Record(message.id, NOW + 10, tuple(settled), None, ()), "2")


def _pieces(db: apsw.Connection, key: int) -> Iterator[bytes]:
    seq = 0
    while (found := stored.piece(db, key, seq)) is not None:
        yield found[0]
        seq += 1
