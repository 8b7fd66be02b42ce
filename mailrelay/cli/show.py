"""`mailrelay queue show ID`: envelope, replies, commands and timeline of one message, or its content.

    queue show ID [--content] [--json] [--follow]

`--json` prints the record of the listing (`control.records`) with `timeline` besides: a list of at (epoch seconds), what,
address, status, stage, reply, planned; `replaced_by`, the newest messages that replaced this one; and in each of recipients
did_you_mean, an address that was reached before and may have been meant, or "".

Beside `sent` stands what became of the message on the relayhost (`mail.there_wording`).

Times are local, with their offset from UTC. The timeline ends with what is planned. An enhanced status code is
shown beside a reply only if the reply does not contain it.

`--content` prints the message as it is sent, octet for octet; on a terminal it is escaped. Content that is damaged in the
spool is printed as it is there, with a sentence on stderr and exit status 1.

`--follow` goes on with what still happens to it (`follow`).
"""

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import click

from mailrelay.cli import lazy, rows
from mailrelay.cli.base import NO_DAEMON, Failed, load_queue
from mailrelay.cli.queue_ids import queue_ids
from mailrelay.cli.terminal import age, clock, is_terminal, moment, put
from mailrelay.cli.waiting import waiting_for
from mailrelay.control.daemon import is_served
from mailrelay.control.details import Details, content, details, details_record, whole_id
from mailrelay.control.progress import sending
from mailrelay.control.records import WAITING
from mailrelay.control.system import Queue
from mailrelay.mail.address_suggestion import suggestion
from mailrelay.mail.lifecycle import ACT_TABLE, FAILED, Act, State
from mailrelay.mail.overview import Event, Listed
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size
from mailrelay.mail.reply_text import names_status, reply_text
from mailrelay.mail.sender_refusal import is_sender_refused
from mailrelay.mail.sending import progress_text
from mailrelay.mail.there import There
from mailrelay.submission import account_name

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
_TO_DO_THERE = (
    ("resend", " [--to ADDRESS]", "send it again, if need be to another address"),
    ("edit", "", "change it in your editor, and send it"),
    ("cancel", "", "you have dealt with it: dismiss it"),
)
"""For what has bounced on the relayhost."""
_RETRY_THERE = ("retry", "", "ask the mail server there to try it again")
_TO_DO_BEFORE_ITS_TIME = (
    ("retry", "", "send it now"),
    ("edit", "", "change it in your editor"),
    ("cancel", "", "do not send it"),
)
_RESENDABLE = frozenset(state.value for state in State if (state, Act.RESEND) in ACT_TABLE)


@click.command("show")
@click.argument("queue_id", metavar="ID", shell_complete=queue_ids)
@click.option("--content", "wants_content", is_flag=True, help="Print the message itself.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("-f", "--follow", "follows", is_flag=True, help="Go on until nothing is waited for, with progress.")
def command(queue_id: str, wants_content: bool, as_json: bool, follows: bool) -> None:
    """Show one message: envelope, timeline, replies of the mail server."""
    kinds = (("--content", wants_content), ("--json", as_json), ("--follow", follows))
    given = [name for name, is_given in kinds if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{given[0]} and {given[1]} do not go together", click.get_current_context())
    queue = load_queue()
    if wants_content:
        _print_content(queue, queue_id)
        return
    with waiting_for("the spool", quiet=as_json):
        found = details(queue, queue_id)
    now = time.time()
    if as_json:
        lazy.print_json(details_record(found, now))
    else:
        is_here_served = not isinstance(queue, Path) or is_served(queue)
        parts = _parts(found, now, _progress(found.message, queue), is_served=is_here_served)
        # An empty line between two paragraphs, none before the first.
        put(*islice((line for part in parts for line in ("", *part)), 1, None))
        if follows:
            usual = _usual(found.message)
            lazy.follow_events(
                queue, found.message.queue_id, found.timeline, lambda event, now: _event_line(event, now, usual)
            )


def _progress(message: Listed, queue: Queue) -> str:
    """How far a message is that is being sent; "" if it is not, or if that is not known."""
    found = sending(queue) if message.queue_name == "active" else []
    return next((progress_text(one) for one in found if one.queue_id == message.queue_id), "")


def _parts(found: Details, now: float, progress: str, *, is_served: bool) -> Iterator[Iterator[str]]:
    """The paragraphs of the text, as lines. now: epoch seconds. progress: as text. is_served: whether a daemon runs."""
    yield _envelope(found, now, progress, is_served=is_served)
    yield _recipients(found.message, found.likely, now)
    if to_do := list(_to_do(found.message, now)):
        yield iter(to_do)
    usual = _usual(found.message)
    yield (_event_line(event, now, usual) for event in found.timeline)


def _usual(message: Listed) -> str:
    """The relayhost that need not be named in the timeline."""
    return message.fallback_for or message.relayhost


def _print_content(queue: Queue, given: str) -> None:
    queue_id, octets, damage = content(queue, given)
    if not (octets or damage):
        _, newer = whole_id(queue, queue_id)
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


def _envelope(found: Details, now: float, progress: str, *, is_served: bool) -> Iterator[str]:
    message = found.message
    yield f"id         {message.queue_id}"
    for newer in found.replaced_by:
        yield f"replaced   by {newer}; see `mailrelay queue show {newer}`"
    yield f"queue      {message.queue_name}"
    yield f"from       <{printable(message.sender)}>"
    if message.owner is not None:
        yield f"account    {printable(account_name(message.owner))}"
    yield f"subject    {printable(message.subject)}"
    yield f"size       {size(message.size)}"
    yield f"arrived    {clock(message.arrival)} ({age(message.arrival, now)})"
    fallback = (
        f", as the fallback for {message.fallback_for}, which could not be reached" if message.fallback_for else ""
    )
    yield f"relayhost  {message.relayhost}{fallback}"
    is_scheduled = message.waits_for_its_time(now)
    if message.fault_text and not is_scheduled and any(to.state in WAITING for to in message.recipients):
        yield f"fault      {reply_text(message.fault_text)}"
        if message.stand_in:
            yield f"fallback   {message.stand_in} sends it"
    if message.send_time is not None and message.send_time > now:
        yield f"not before {clock(message.send_time)}"
    yield f"attempts   {message.attempts}"
    if progress:
        yield f"progress   {progress}"
    if found.retry_there is not None:
        text = found.retry_there.text or "its mail server is to be asked to try the message again"
        yield f"retry      {message.relayhost}: {printable(text)}"
    if message.next_attempt is not None:
        why = f", {rows.WAITS_FOR_ITS_TIME}" if is_scheduled else ""
        yield f"next       {clock(message.next_attempt)} ({moment(max(now, message.next_attempt), now)}){why}"
        if not is_served:
            yield f"           {NO_DAEMON}"


def _recipients(message: Listed, likely: Sequence[bytes], now: float) -> Iterator[str]:
    resendable = [to for to in message.recipients if to.state in _RESENDABLE]
    for to, meant in zip(message.recipients, likely, strict=True):
        reply = reply_text(to.description)
        status = "" if names_status(reply, to.status) else to.status
        facts = (f"<{printable(to.address)}>", to.state, status, rows.uncertainty(to), rows.replaced(to))
        yield "to         " + "  ".join(filter(None, facts))
        if reply:
            yield f"           {reply}"
        if there := rows.there(to, now):
            yield f"           {there}"
        if to in resendable and (hint := suggestion(message.queue_id, meant, alone=resendable == [to])):
            yield f"           {' '.join(hint)}"


def _to_do(message: Listed, now: float) -> Iterator[str]:
    """The commands for a message that failed, was refused or is held, waits for its time, or has bounced or waits on the
    relayhost."""
    states = {State(to.state) for to in message.recipients if to.state in _DEAL_WITH}
    is_refused_sender = any(
        is_sender_refused(to.stage, to.status, to.description) for to in message.recipients if to.state == "bounced"
    )
    commands: list[tuple[str, str, str]] = [
        command
        for command in (_RESEND_FROM if is_refused_sender else _RESEND_TO, *_TO_DO)
        if any((state, command[0]) in ACT_TABLE for state in states)
    ]
    if any(to.has_bounced_there for to in message.recipients):
        named = {name for name, *_ in commands}
        commands += [command for command in _TO_DO_THERE if command[0] not in named]
    if any(to.there is not None and to.there.state is There.DEFERRED for to in message.recipients):
        commands.append(_RETRY_THERE)
    if message.waits_for_its_time(now):
        named = {name for name, *_ in commands}
        commands += [command for command in _TO_DO_BEFORE_ITS_TIME if command[0] not in named]
    label = "to do"
    for name, option, meaning in commands:
        command_line = f"mailrelay queue {name} {message.queue_id}{option}"
        yield f"{label:11}{command_line:{len(message.queue_id) + 39}}{meaning}"
        label = ""


def _event_line(event: Event, now: float, usual: str) -> str:
    """usual: the relayhost that need not be named."""
    address = f"<{printable(event.address)}>" if event.address else ""
    stage = f"at {event.stage}" if event.stage and event.what != State.SENT else ""
    reply = reply_text(event.description)
    status = "" if names_status(reply, event.status) else event.status
    if event.planned:
        when = f"planned, {moment(event.at, now)}:" if event.at > now else "due:"
    else:
        when = f"({age(event.at, now)})" if event.at > now + 1 else ""
    through = f"through {event.relayhost}" if event.relayhost not in ("", usual) else ""
    return "  ".join(filter(None, (clock(event.at), when, event.what, through, address, status, stage, reply)))
