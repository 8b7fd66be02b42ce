"""One message: its envelope and recipients, its timeline, and its content."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mailrelay.control.errors import no_such_message
from mailrelay.control.records import EventRecord, MessageRecord, event_record, message_record
from mailrelay.mail.overview import Event, Listed
from mailrelay.mail.printable import printable
from mailrelay.mail.spool_errors import Damaged
from mailrelay.mail.there import RetryThere
from mailrelay.ports import SpoolView
from mailrelay.spool.command_spool import CommandSpool

if TYPE_CHECKING:
    from mailrelay.control.system import Queue


@dataclass(frozen=True, slots=True)
class Details:
    """likely: for each recipient of the message an address that was reached before and may have been meant, or b"".

    replaced_by: the ids of the newest messages that replaced it, [] if none did. retry_there: what became of the last wish
    that the mail server on the relayhost try it again; None if there was none.
    """

    message: Listed
    timeline: list[Event]
    likely: list[bytes]
    replaced_by: list[str]
    retry_there: RetryThere | None = None


class DetailsRecord(MessageRecord):
    """The record of a message with its timeline, and the ids of the newest messages that replaced it."""

    replaced_by: list[str]
    timeline: list[EventRecord]


def whole_id(queue: "Queue", given: str) -> tuple[str, list[str]]:
    """The queue id that begins with `given`, and the ids of the newest messages that replaced it. Raises NoSuchMessage,
    SpoolError."""
    if not isinstance(queue, Path):
        return queue.ask(tuple[str, list[str]], "whole_id", given)
    with _found(queue, given) as (view, _, queue_id):
        return queue_id, view.successors(queue_id)


def details(queue: "Queue", given: str) -> Details:
    """All that is known of the message whose id begins with `given`. Raises NoSuchMessage, SpoolError."""
    if not isinstance(queue, Path):
        return queue.ask(Details, "details", given)
    with _found(queue, given) as (view, key, queue_id):
        message = view.one(key)
        likely = [view.suggestion(to.address, to.stage) for to in message.recipients]
        return Details(message, view.events(key), likely, view.successors(queue_id), view.retry_there(key))


def content(queue: "Queue", given: str) -> tuple[str, bytes, str]:
    """The whole id of the message whose id begins with `given`, and its content as it is sent; b"" if it is no longer kept.

    The last value says in a sentence that the content is damaged, "" if it is not. Raises NoSuchMessage, SpoolError.
    """
    if not isinstance(queue, Path):
        return queue.ask(tuple[str, bytes, str], "content", given)
    with _found(queue, given) as (view, key, queue_id):
        try:
            return queue_id, b"".join(view.content(key)), ""
        except Damaged as error:
            return queue_id, view.content_as_stored(key), str(error)


def details_record(found: Details, now: float) -> DetailsRecord:
    """The record of a message with its timeline, and with `did_you_mean` for each recipient. Text is escaped. now: epoch
    seconds."""
    record = message_record(found.message, now)
    for recipient, likely in zip(record["recipients"], found.likely, strict=True):
        recipient["did_you_mean"] = printable(likely)
    return {**record, "replaced_by": found.replaced_by, "timeline": [event_record(event) for event in found.timeline]}


@contextmanager
def _found(directory: Path, given: str) -> Iterator[tuple[SpoolView, int, str]]:
    """The spool inside one view, and key and queue id of the message whose id begins with `given`."""
    try:
        with CommandSpool(directory).reading() as view:
            yield view, *view.find(given)
    except FileNotFoundError:
        raise no_such_message(given) from None
