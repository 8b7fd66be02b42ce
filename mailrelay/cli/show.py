"""`mailrelay queue show ID`: envelope, replies, commands and timeline of one message, or its content.

    queue show ID [--content] [--json]

`--json` prints the record of the listing (`control.records`) with `timeline` besides: a list of at (epoch seconds), what,
address, status, stage, reply, planned; `replaced_by`, the newest messages that replaced this one; and in each of recipients
did_you_mean, an address that was reached before and may have been meant, or "".

Times are local, with their offset from UTC. The timeline ends with what is planned. An enhanced status code is
shown beside a reply only if the reply does not contain it.

`--content` prints the message as it is sent, octet for octet; on a terminal it is escaped. Content that is damaged in the
spool is printed as it is there, with a sentence on stderr and exit status 1.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import click

from mailrelay.cli import lazy, rows
from mailrelay.cli.base import NO_DAEMON, Failed, load_settings
from mailrelay.cli.terminal import age, clock, is_terminal, moment, put
from mailrelay.cli.waiting import waiting_for
from mailrelay.control.daemon import daemon_pid
from mailrelay.control.details import Details, content, details, details_record, whole_id
from mailrelay.control.records import WAITING
from mailrelay.mail.address_suggestion import suggestion
from mailrelay.mail.lifecycle import ACT_TABLE, FAILED, Act, State
from mailrelay.mail.overview import Event, Listed
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size
from mailrelay.mail.reply_text import names_status, reply_text
from mailrelay.mail.sender_refusal import is_sender_refused

_DEAL_WITH = FAILED | {State.REFUSED, State.HELD}
"""States of a recipient for which commands are shown."""
_RESEND_TO = (Act.RESEND, " [--to ADDRESS]", "send it again, if need be to another address")
_RESEND_FROM = (Act.RESEND, " --from ADDRESS", "send it again, with another sender")
_TO_DO = (
    # A command, its options, and what it does.
    (Act.RELEASE, "", "try it again"),
    (Act.EDIT, "", "change it in your editor, and send it"),
    (Act.DROP, "", "you have dealt with it: do not keep it"),
    (Act.CANCEL, "", "do not send it"),
)
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
    with waiting_for("the spool", quiet=as_json):
        found = details(directory, queue_id)
    if as_json:
        lazy.print_json(details_record(found))
    else:
        parts = _parts(found, time.time(), is_served=daemon_pid(directory) is not None)
        # An empty line between two paragraphs, none before the first.
        put(*islice((line for part in parts for line in ("", *part)), 1, None))


def _parts(found: Details, now: float, *, is_served: bool) -> Iterator[Iterator[str]]:
    """The paragraphs of the text, as lines. now: epoch seconds. is_served: whether a daemon runs."""
    yield _envelope(found, now, is_served=is_served)
    yield _recipients(found.message, found.likely)
    if any(to.state in _DEAL_WITH for to in found.message.recipients):
        yield _to_do(found.message)
    yield (_event_line(event, now) for event in found.timeline)


def _print_content(directory: Path, given: str) -> None:
    queue_id, octets, damage = content(directory, given)
    if not (octets or damage):
        _, newer = whole_id(directory, queue_id)
        see = f"--content {newer[0]}`, which replaced it" if newer else f"{queue_id}`"
        raise Failed(f"the content of {queue_id} is no longer kept; see `mailrelay queue show {see}")
    if is_terminal(sys.stdout):
        for line in octets.split(b"\r\n"):
            print("\t".join(map(printable, line.split(b"\t"))))
    else:
        sys.stdout.buffer.write(octets)
    if damage:
        sys.stdout.flush()
        raise Failed(f"{queue_id} is shown as it is in the spool, but {damage}")


def _envelope(found: Details, now: float, *, is_served: bool) -> Iterator[str]:
    message = found.message
    yield f"id         {message.queue_id}"
    for newer in found.replaced_by:
        yield f"replaced   by {newer}; see `mailrelay queue show {newer}`"
    yield f"queue      {message.queue_name}"
    yield f"from       <{printable(message.sender)}>"
    yield f"subject    {printable(message.subject)}"
    yield f"size       {size(message.size)}"
    yield f"arrived    {clock(message.arrival)} ({age(message.arrival, now)})"
    yield f"relayhost  {message.relayhost}"
    if message.fault_text and any(to.state in WAITING for to in message.recipients):
        yield f"fault      {reply_text(message.fault_text)}"
    yield f"attempts   {message.attempts}"
    if message.next_attempt is not None:
        yield f"next       {clock(message.next_attempt)} ({moment(max(now, message.next_attempt), now)})"
        if not is_served:
            yield f"           {NO_DAEMON}"


def _recipients(message: Listed, likely: Sequence[bytes]) -> Iterator[str]:
    resendable = [to for to in message.recipients if to.state in _RESENDABLE]
    for to, meant in zip(message.recipients, likely, strict=True):
        reply = reply_text(to.description)
        status = "" if names_status(reply, to.status) else to.status
        facts = (f"<{printable(to.address)}>", to.state, status, rows.uncertainty(to), rows.replaced(to))
        yield "to         " + "  ".join(filter(None, facts))
        if reply:
            yield f"           {reply}"
        if to in resendable and (hint := suggestion(message.queue_id, meant, alone=resendable == [to])):
            yield f"           {' '.join(hint)}"


def _to_do(message: Listed) -> Iterator[str]:
    """The commands for a message that failed, was refused or is held."""
    states = {State(to.state) for to in message.recipients if to.state in _DEAL_WITH}
    is_refused_sender = any(
        is_sender_refused(to.stage, to.status, to.description) for to in message.recipients if to.state == "bounced"
    )
    label = "to do"
    for act, option, meaning in (_RESEND_FROM if is_refused_sender else _RESEND_TO, *_TO_DO):
        if any((state, act) in ACT_TABLE for state in states):
            command_line = f"mailrelay queue {act} {message.queue_id}{option}"
            yield f"{label:11}{command_line:{len(message.queue_id) + 39}}{meaning}"
            label = ""


def _event_line(event: Event, now: float) -> str:
    address = f"<{printable(event.address)}>" if event.address else ""
    stage = f"at {event.stage}" if event.stage and event.what != State.SENT else ""
    reply = reply_text(event.description)
    status = "" if names_status(reply, event.status) else event.status
    if event.planned:
        when = f"planned, {moment(event.at, now)}:" if event.at > now else "due:"
    else:
        when = f"({age(event.at, now)})" if event.at > now + 1 else ""
    return "  ".join(filter(None, (clock(event.at), when, event.what, address, status, stage, reply)))
