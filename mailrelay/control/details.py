"""One message: its envelope and recipients, its timeline, and its content."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mailrelay.control.errors import no_such_message
from mailrelay.control.records import EventRecord, MessageRecord, event_record, message_record
from mailrelay.mail.overview import Event, Listed
from mailrelay.mail.printable import printable
from mailrelay.ports import SpoolView
from mailrelay.spool.command_spool import CommandSpool


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
    with _found(directory, given) as (view, key, _):
        message = view.one(key)
        likely = [view.suggestion(to.address, to.stage) for to in message.recipients]
        return Details(message, view.events(key), likely)


def content(directory: Path, given: str) -> tuple[str, bytes]:
    """The whole id of the message whose id begins with `given`, and its content as it is sent; b"" if it is no longer kept.

    Raises NoSuchMessage, SpoolError.
    """
    with _found(directory, given) as (view, key, queue_id):
        return queue_id, b"".join(view.content(key))


def details_record(found: Details) -> DetailsRecord:
    """The record of a message with its timeline, and with `did_you_mean` for each recipient. Text is escaped."""
    record = message_record(found.message)
    for recipient, likely in zip(record["recipients"], found.likely, strict=True):
        recipient["did_you_mean"] = printable(likely)
    return {**record, "timeline": [event_record(event) for event in found.timeline]}


@contextmanager
def _found(directory: Path, given: str) -> Iterator[tuple[SpoolView, int, str]]:
    """The spool inside one view, and key and queue id of the message whose id begins with `given`."""
    try:
        with CommandSpool(directory).reading() as view:
            yield view, *view.find(given)
    except FileNotFoundError:
        raise no_such_message(given) from None
