"""`mailrelay queue show ID`: one message's envelope, timeline and replies, or its content.

    queue show ID [--content] [--json]

`--json` prints the record of the listing (`control.records`) with `timeline` besides: a list of at (epoch seconds), what,
address, status, stage, reply; and in each of recipients did_you_mean, an address that was reached before and may have been
meant, or "".
`--content` prints the message as it is sent, octet for octet; on a terminal it is escaped.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from mailrelay.cli import lazy, rows
from mailrelay.cli.base import Failed, load_settings
from mailrelay.cli.terminal import clock, is_terminal, moment
from mailrelay.control.details import Details, content, details, details_record
from mailrelay.mail.address_suggestion import suggestion
from mailrelay.mail.lifecycle import ACT_TABLE, Act, State
from mailrelay.mail.overview import Event, Listed
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size
from mailrelay.mail.sender_refusal import is_sender_refused

_RESENDABLE = frozenset(state.value for state in State if (state, Act.RESEND) in ACT_TABLE)


@click.command("show")
@click.argument("queue_id", metavar="ID")
@click.option("--content", "wants_content", is_flag=True, help="Print the message itself.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(queue_id: str, wants_content: bool, as_json: bool) -> None:
    """Show one message: envelope, timeline, replies of the mail server."""
    if wants_content and as_json:
        raise click.UsageError("--content and --json do not go together", click.get_current_context())
    directory = load_settings().queue.directory
    if wants_content:
        _print_content(directory, queue_id)
        return
    found = details(directory, queue_id)
    if as_json:
        lazy.print_json(details_record(found))
    else:
        print("\n\n".join(map("\n".join, _parts(found, time.time()))))


def _parts(found: Details, now: float) -> Iterator[Iterator[str]]:
    """The paragraphs of the text, as lines. now: epoch seconds."""
    yield _envelope(found.message, now)
    yield _recipients(found.message, found.likely)
    if found.message.queue_name in ("failed", "hold"):
        yield _to_do(found.message)
    yield map(_event_line, found.timeline)


def _print_content(directory: Path, given: str) -> None:
    queue_id, octets = content(directory, given)
    if not octets:
        raise Failed(f"the content of {queue_id} is no longer kept; see `mailrelay queue show {queue_id}`")
    if is_terminal(sys.stdout):
        for line in octets.split(b"\r\n"):
            print("\t".join(map(printable, line.split(b"\t"))))
    else:
        sys.stdout.buffer.write(octets)


def _envelope(message: Listed, now: float) -> Iterator[str]:
    yield f"id         {message.queue_id}"
    yield f"queue      {message.queue_name}"
    yield f"from       <{printable(message.sender)}>"
    yield f"subject    {printable(message.subject)}"
    yield f"size       {size(message.size)}"
    yield f"arrived    {clock(message.arrival)} ({moment(message.arrival, now)})"
    yield f"relayhost  {message.relayhost}"
    if message.fault_text:
        yield f"fault      {printable(message.fault_text)}"
    yield f"attempts   {message.attempts}"
    if message.next_attempt is not None:
        yield f"next       {clock(message.next_attempt)} ({moment(max(now, message.next_attempt), now)})"


def _recipients(message: Listed, likely: Sequence[bytes]) -> Iterator[str]:
    resendable = [to for to in message.recipients if to.state in _RESENDABLE]
    for to, meant in zip(message.recipients, likely, strict=True):
        facts = (f"<{printable(to.address)}>", to.state, to.status, rows.uncertainty(to))
        yield "to         " + "  ".join(filter(None, facts))
        if to.description:
            yield f"           {printable(to.description)}"
        if hint := suggestion(message.queue_id, meant, alone=resendable == [to]):
            yield f"           {' '.join(hint)}"


def _to_do(message: Listed) -> Iterator[str]:
    """The commands for a message that failed or is held."""
    states = {to.state for to in message.recipients}
    refuses_sender = any(
        is_sender_refused(to.stage, to.status, to.description) for to in message.recipients if to.state == "bounced"
    )
    commands = [
        (Act.RELEASE, "release {}", "send it as it is"),
        (Act.RESEND, "resend {} --from ADDRESS", "send it again, with another sender")
        if refuses_sender
        else (Act.RESEND, "resend {} [--to ADDRESS]", "send it again, if need be to another address"),
        (Act.EDIT, "edit {}", "change it in your editor, and send it"),
        (Act.DROP, "drop {}", "you have dealt with it: do not keep it"),
        (Act.CANCEL, "cancel {}", "do not send it"),
    ]
    allowed = [(words, use) for act, words, use in commands if any((state, act) in ACT_TABLE for state in states)]
    for place, (words, use) in enumerate(allowed):
        command_line = "mailrelay queue " + words.format(message.queue_id)
        yield f"{'' if place else 'to do':<11}{command_line:<50}  {use}"


def _event_line(event: Event) -> str:
    address = f"<{printable(event.address)}>" if event.address else ""
    stage = f"at {event.stage}" if event.stage else ""
    return "  ".join(
        filter(None, (clock(event.at), event.what, address, event.status, stage, printable(event.description)))
    )
