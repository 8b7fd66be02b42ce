"""`mailrelay queue show ID`: one message's envelope, its timeline and the remote's words, or the message itself.

    queue show ID [--content] [--json]

`--json` prints the listing's record (see `records`) with `timeline` besides: a list of at (epoch seconds), what, address,
status, stage, reply; and in each of recipients did_you_mean, an address reached before for which this one may be a slip, or
"".
`--content` gives the message as it will be sent, octet for octet; on a terminal it is escaped.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence

import click

from mailrelay.cli import Failed, load_settings, rows
from mailrelay.cli.change import no_such
from mailrelay.cli.records import record
from mailrelay.cli.terminal import clock, is_terminal, moment, size
from mailrelay.mail.address_suggestion import suggestion
from mailrelay.mail.lifecycle import ACT_TABLE, Act, State
from mailrelay.mail.printable import printable
from mailrelay.spool import actions, correspondents, listing
from mailrelay.spool.database import connect, reading

_RESENDABLE = frozenset(state.value for state in State if (state, Act.RESEND) in ACT_TABLE)


@click.command("show")
@click.argument("queue_id", metavar="ID")
@click.option("--content", is_flag=True, help="The message itself.")
@click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
def _show(queue_id: str, content: bool, as_json: bool) -> None:
    """One message: its envelope, its timeline, the remote's words."""
    if content and as_json:
        raise click.UsageError("--content and --json do not go together", click.get_current_context())
    directory = load_settings().queue.directory
    try:
        db = connect(directory, create=False)
    except FileNotFoundError:
        raise no_such(queue_id) from None
    with reading(db):
        key, queue_id = actions.find(db, queue_id)
        message, story = listing.one(db, key), listing.story(db, key)
        meant = [correspondents.suggestion(db, to.address, to.stage) for to in message.recipients]
        pieces = list(listing.content(db, key)) if content else []
    db.close()
    if content:
        _print_content(queue_id, b"".join(pieces))
    elif as_json:
        found = record(message)
        for to, likely in zip(found["recipients"], meant, strict=True):
            to["did_you_mean"] = printable(likely)
        print(json.dumps(found | {"timeline": [_event(event) for event in story]}))
    else:
        fixing = [_to_fix(message)] if message.queue_name == "failed" else []
        parts = _envelope(message, time.time()), _recipients(message, meant), *fixing, map(_line, story)
        print("\n\n".join(map("\n".join, parts)))


commands = {"show": _show}


def _print_content(queue_id: str, content: bytes) -> None:
    if not content:
        raise Failed(f"the content of {queue_id} is no longer kept; `mailrelay queue show {queue_id}` tells its story")
    if is_terminal(sys.stdout):
        for line in content.split(b"\r\n"):
            print("\t".join(map(printable, line.split(b"\t"))))
    else:
        sys.stdout.buffer.write(content)


def _envelope(message: listing.Listed, now: float) -> Iterator[str]:
    yield f"id         {message.queue_id}"
    yield f"queue      {message.queue_name}"
    yield f"from       <{printable(message.sender)}>"
    yield f"subject    {printable(message.subject)}"
    yield f"size       {size(message.size)}"
    yield f"arrived    {clock(message.arrival)} ({moment(message.arrival, now)})"
    yield f"relayhost  {message.relayhost}"
    if message.trouble:
        yield f"trouble    {printable(message.trouble)}"
    yield f"attempts   {message.attempts}"
    if message.next_attempt is not None:
        yield f"next       {clock(message.next_attempt)} ({moment(max(now, message.next_attempt), now)})"


def _recipients(message: listing.Listed, meant: Sequence[bytes]) -> Iterator[str]:
    fixable = [to for to in message.recipients if to.state in _RESENDABLE]
    for to, likely in zip(message.recipients, meant, strict=True):
        facts = (f"<{printable(to.address)}>", to.state, to.status, rows.uncertainty(to))
        yield "to         " + "  ".join(filter(None, facts))
        if to.words:
            yield f"           {printable(to.words)}"
        if hint := suggestion(message.queue_id, likely, alone=fixable == [to]):
            yield f"           {' '.join(hint)}"


def _to_fix(message: listing.Listed) -> Iterator[str]:
    command = f"mailrelay queue {{}} {message.queue_id}".format
    yield f"to do      {command('resend')} [--to ADDRESS]   send it again, to somebody else if need be"
    yield f"           {command('edit')}                    change it in your editor, and send it"
    if any((to.state, Act.DROP) in ACT_TABLE for to in message.recipients):
        yield f"           {command('drop')}                    let it go"


def _line(event: listing.Event) -> str:
    address = f"<{printable(event.address)}>" if event.address else ""
    stage = f"at {event.stage}" if event.stage else ""
    return "  ".join(filter(None, (clock(event.at), event.what, address, event.status, stage, printable(event.words))))


def _event(event: listing.Event) -> dict[str, object]:
    return {
        "at": event.at,
        "what": event.what,
        "address": printable(event.address),
        "status": event.status,
        "stage": event.stage,
        "reply": printable(event.words),
    }
