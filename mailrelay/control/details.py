"""One message: its envelope and recipients, its timeline, and its content."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailrelay.control.changing import no_such_message
from mailrelay.control.records import EventRecord, MessageRecord, event_record, message_record
from mailrelay.mail.printable import printable
from mailrelay.spool import actions, correspondents, listing
from mailrelay.spool.database import Connection, connect, reading
from mailrelay.spool.listing import Event as Event
from mailrelay.spool.listing import Listed as Listed


@dataclass(frozen=True, slots=True)
class Details:
    """likely: for each recipient of the message an address that was reached before and may have been meant, or b""."""

    message: Listed
    timeline: list[Event]
    likely: list[bytes]


class DetailsRecord(MessageRecord):
    timeline: list[EventRecord]


def whole_id(directory: Path, given: str) -> str:
    """The queue id that begins with `given`. Raises NoSuchMessage, SpoolError."""
    with _found(directory, given) as (_, _, queue_id):
        return queue_id


def details(directory: Path, given: str) -> Details:
    """All that is known of the message whose id begins with `given`. Raises NoSuchMessage, SpoolError."""
    with _found(directory, given) as (db, key, _):
        message = listing.one(db, key)
        likely = [correspondents.likely(db, to.address, to.stage) for to in message.recipients]
        return Details(message, listing.story(db, key), likely)


def content(directory: Path, given: str) -> tuple[str, bytes]:
    """The whole id of the message whose id begins with `given`, and its content as it is sent; b"" if it is no longer kept.

    Raises NoSuchMessage, SpoolError.
    """
    with _found(directory, given) as (db, key, queue_id):
        return queue_id, b"".join(listing.content(db, key))


def details_record(found: Details) -> DetailsRecord:
    """The record of a message with its timeline, and with `did_you_mean` for each recipient. Text is escaped."""
    record = message_record(found.message)
    for recipient, likely in zip(record["recipients"], found.likely, strict=True):
        recipient["did_you_mean"] = printable(likely)
    return {**record, "timeline": [event_record(event) for event in found.timeline]}


@contextmanager
def _found(directory: Path, given: str) -> Iterator[tuple[Connection, int, str]]:
    """The spool inside one view, and key and queue id of the message whose id begins with `given`."""
    try:
        db = connect(directory, create=False)
    except FileNotFoundError:
        raise no_such_message(given) from None
    try:
        with reading(db):
            yield db, *actions.find(db, given)
    finally:
        db.close()
