"""`mailrelay queue`: what is pending or failed, one message's story, and what the person does to mail.

    queue [list] [--all] [--json]            the listing; --all adds history. One line for each recipient, JSON Lines with
                                             one message a line (see `rows`), and a table on a terminal
    queue show ID [--content] [--json]       envelope, timeline and the remote's words, or the message itself
    queue retry ID…|--all                    due now
    queue retry --network                    the network has changed: what waits for a way leaves if there is one now
    queue hold|release|cancel|drop ID…       out of the way, back again; taken out; failed mail let go
    queue resend ID, queue edit ID           another message in its place (see `resend` and `edit`)

An id may be shortened as long as one message alone has it. Of several ids all are done that can be done; each of the others
is one line on stderr, and the status is 1. What changes something rings the daemon's bell.

`show --json` is the listing's record with `timeline` besides: a list of at (epoch seconds), what, address, status, reply;
and in each of recipients did_you_mean, an address reached before for which this one may be a slip, or "".
`show --content` gives the message as it will be sent, octet for octet; on a terminal it is escaped.

Works with the daemon down; then, before anything is changed, what a crash has left open is closed.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from mailrelay.cli import Failed, Table, load, load_settings, rows, say
from mailrelay.cli.change import NOBODY_SERVES, changing, no_such, ring
from mailrelay.cli.terminal import clock, is_terminal, moment, size
from mailrelay.mail.lifecycle import ACT_TABLE, Act, State
from mailrelay.mail.likeness import suggestion
from mailrelay.mail.printable import printable
from mailrelay.spool import correspondents, listing, lock, trigger, verbs
from mailrelay.spool.database import connect, reading

_MENDING = {
    "resend": "Send failed, refused or held mail again, to somebody else if need be.",
    "edit": "Change a message in your editor, and send it.",
}
_DONE = {Act.HOLD: "held", Act.RELEASE: "released", Act.CANCEL: "cancelled", Act.DROP: "dropped"}

_RESENDABLE = frozenset(state.value for state in State if (state, Act.RESEND) in ACT_TABLE)

_all = click.option("--all", "history", is_flag=True, help="What is over too.")
_json = click.option("--json", "as_json", is_flag=True, help="JSON Lines, for programs.")
_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.group(cls=Table, modules=_MENDING, invoke_without_command=True)
@_all
@_json
@click.pass_context
def command(context: click.Context, history: bool, as_json: bool) -> None:
    """What is pending or failed, and what you may do to it. Without a command: list."""
    if context.invoked_subcommand is None:
        show_list(history=history, as_json=as_json)
    elif history or as_json:
        raise click.UsageError("Options stand behind the command that they belong to", context)


@command.command("list")
@_all
@_json
def _list(history: bool, as_json: bool) -> None:
    """What is pending or failed."""
    show_list(history=history, as_json=as_json)


@command.command("show")
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
        key, queue_id = verbs.find(db, queue_id)
        message, story = listing.one(db, key), listing.story(db, key)
        meant = [correspondents.likely(db, to.address, to.stage) for to in message.recipients]
        pieces = list(listing.content(db, key)) if content else []
    db.close()
    if content:
        _print_content(queue_id, b"".join(pieces))
    elif as_json:
        record = rows.record(message)
        for to, likely in zip(record["recipients"], meant, strict=True):
            to["did_you_mean"] = printable(likely)
        print(json.dumps(record | {"timeline": [_event(event) for event in story]}))
    else:
        mending = [_to_mend(message)] if message.queue_name == "failed" else []
        parts = _envelope(message, time.time()), _recipients(message, meant), *mending, map(_line, story)
        print("\n\n".join(map("\n".join, parts)))


@command.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "everything", is_flag=True, help="All that waits.")
@click.option("--network", is_flag=True, help="What waits for a way there: the network has changed. For hooks.")
def _retry(ids: Sequence[str], everything: bool, network: bool) -> int:
    """Try now, whatever the schedule says."""
    if [bool(ids), everything, network].count(True) != 1:
        raise click.UsageError("Give ids, --all or --network", click.get_current_context())
    if ids:
        return _change(ids, verbs.retry, "is due now")
    directory = load_settings().queue.directory
    if network:
        ring(directory, trigger.NETWORK)
        return 0
    try:
        with changing(directory) as db:
            due = verbs.retry_all(db, time.time())
    except FileNotFoundError:
        due = 0
    print(f"{due} {'message is' if due == 1 else 'messages are'} due now")
    if due:
        ring(directory)
    return 0


@command.command("hold")
@_ids
def _hold(ids: Sequence[str]) -> int:
    """Keep from being sent until it is released."""
    return _act(ids, Act.HOLD)


@command.command("release")
@_ids
def _release(ids: Sequence[str]) -> int:
    """Let go on what is held."""
    return _act(ids, Act.RELEASE)


@command.command("cancel")
@_ids
def _cancel(ids: Sequence[str]) -> int:
    """Take out what has not been sent yet. It is not sent any more."""
    return _act(ids, Act.CANCEL)


@command.command("drop")
@_ids
def _drop(ids: Sequence[str]) -> int:
    """Let go of failed mail: it has been dealt with, and is not kept any longer."""
    return _act(ids, Act.DROP)


def show_list(*, history: bool = False, as_json: bool = False) -> None:
    """Prints the listing. Also what `mailq` and `sendmail -bp` do."""
    directory = load_settings().queue.directory
    messages: list[listing.Listed] = []
    records: list[bytes] = []
    try:
        db = connect(directory, create=False)
    except FileNotFoundError:
        pass
    else:
        # Read to the end before anything is shown: a pager would keep the view open, and the log growing.
        with reading(db):
            found = listing.everything(db) if history else listing.live(db)
            if as_json:
                records = [rows.line(message) for message in found]
            else:
                messages = list(found)
        db.close()
    if as_json:
        if sys.stdout is not None:
            # JSON is UTF-8, whatever the terminal's encoding.
            sys.stdout.buffer.writelines(records)
    elif not messages:
        print("the queue is empty")
    else:
        now = time.time()
        listed = (row for message in messages for row in rows.rows(message, now))
        if is_terminal(sys.stdout):
            load("table").show(listed)
        else:
            for row in (rows.HEADINGS, *listed):
                print(rows.plain(row))
        for trouble in rows.troubles(messages):
            print(f"{trouble.rstrip('.')}; see `mailrelay status`")
        print(_summary(messages, directory))


def _summary(messages: Sequence[listing.Listed], directory: Path) -> str:
    counted = Counter(message.queue_name for message in messages)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))
    octets = size(sum(message.size for message in messages))
    line = f"{len(messages)} {'message' if len(messages) == 1 else 'messages'}, {octets}: {counts}"
    waits = any(to.state in rows.WAITING for message in messages for to in message.recipients)
    if counted["failed"]:
        line += "; what to do: `mailrelay queue show ID`"
    return f"{line}; {NOBODY_SERVES}" if waits and lock.holder(directory) is None else line


def _act(ids: Sequence[str], what: Act) -> int:
    def act(db: Any, key: int, queue_id: str, now: float) -> object:
        return verbs.act(db, key, queue_id, what, now)

    return _change(ids, act, f"is {_DONE[what]}")


def _change(ids: Sequence[str], do: Callable[[Any, int, str, float], object], done: str) -> int:
    """Does something to each message, all in one commit, and says so; returns the exit status."""
    directory = load_settings().queue.directory
    changed, troubles = [], []
    try:
        with changing(directory) as db:
            for given in ids:
                try:
                    key, queue_id = verbs.find(db, given)
                    do(db, key, queue_id, time.time())
                except (verbs.NoSuchMessage, verbs.NotAllowed) as error:
                    troubles.append(str(error))
                else:
                    changed.append(queue_id)
    except FileNotFoundError:
        troubles = [str(no_such(given)) for given in ids]
    for queue_id in changed:
        print(f"{queue_id} {done}")
    for trouble in troubles:
        say(trouble)
    if changed:
        ring(directory)
    return 1 if troubles else 0


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
    mendable = [to for to in message.recipients if to.state in _RESENDABLE]
    for to, likely in zip(message.recipients, meant, strict=True):
        facts = (f"<{printable(to.address)}>", to.state, to.status, rows.uncertainty(to))
        yield "to         " + "  ".join(filter(None, facts))
        if to.words:
            yield f"           {printable(to.words)}"
        if hint := suggestion(message.queue_id, likely, alone=mendable == [to]):
            yield f"           {' '.join(hint)}"


def _to_mend(message: listing.Listed) -> Iterator[str]:
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
