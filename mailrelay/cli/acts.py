"""Commands that act on messages in the queue.

    queue retry ID…|--all                    makes messages due now, with ID also those that wait for their time; those that
                                             wait on the relayhost: asks its mail server to try them again, and waits until
                                             it was asked
    queue retry --network                    tells the daemon that the network has changed
    queue hold|release|cancel ID…|--all      holds, releases or cancels messages; cancel also dismisses those that have
                                             bounced on the relayhost
    queue drop ID…|--all                     drops failed messages

With several ids, all messages are changed that can be changed. For each of the others there is one line on stderr, and
the exit status is 1. See `control.acts`.

In place of ids, filters may select messages (`filters`). Of the messages that --all or filters select, those that
cannot be changed are counted on stderr. The exit status is 0 if at least one was changed. On a terminal, cancel and
drop ask before they change anything. See `control.bulk`.
"""

import sys
from collections.abc import Iterator, Sequence

import click

from mailrelay.cli.base import NO_DAEMON, Failed, load_queue, load_settings, say
from mailrelay.cli.bulk import check_choice, is_or_are, report_unchanged
from mailrelay.cli.filters import filters
from mailrelay.cli.questions import confirm
from mailrelay.cli.queue_ids import queue_ids
from mailrelay.cli.terminal import is_terminal, put
from mailrelay.cli.waiting import waiting_for
from mailrelay.control import acts, bulk
from mailrelay.control.acts import Done
from mailrelay.control.bulk import RETRY
from mailrelay.control.daemon import report_network_change
from mailrelay.control.following import AskedThere, await_retries
from mailrelay.control.system import Queue
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import number_of_messages
from mailrelay.mail.selection import EVERYTHING, Filter

_PARTICIPLES: dict[str, str] = {Act.HOLD: "held", Act.RELEASE: "released", Act.CANCEL: "cancelled", Act.DROP: "dropped"}

ASK_WAIT = 10.0
"""Seconds to wait until the mail server on a relayhost was asked to try a message again."""

_ids = click.argument("ids", nargs=-1, metavar="[ID...]", shell_complete=queue_ids)
_all = click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All messages that this command concerns; with filters, only those that fit.",
)
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command("retry")
@_ids
@click.option("--all", "everything", is_flag=True, help="Try all messages that wait, but not for their time.")
@click.option("--network", is_flag=True, help="Tell the daemon that the network has changed; for hooks.")
@filters
def retry(ids: Sequence[str], everything: bool, network: bool, wanted: Filter) -> int:
    """Try to send messages now, whatever the retry schedule says, and with ID also before its time (sendmail --at).

    If a message waits on the relayhost, its mail server is asked to try it again.
    """
    if [bool(ids), everything or wanted != EVERYTHING, network].count(True) != 1:
        raise click.UsageError("Give ids, filters, --all or --network", click.get_current_context())
    queue = load_queue()
    if ids:
        with waiting_for("the spool"):
            done = acts.retry(queue, ids)
        return _report(done, _retry_lines(queue, done))
    if wanted != EVERYTHING:
        return _change_selected(queue, wanted, RETRY)
    if network:
        lacks_daemon = not report_network_change(load_settings().queue.directory)
    else:
        with waiting_for("the spool"):
            due, lacks_daemon = acts.retry_all(queue)
        put(f"{number_of_messages(due)} {is_or_are(due)} due now")
    if lacks_daemon:
        say(NO_DAEMON)
    return 0


@click.command("hold")
@_ids
@_all
@filters
def hold(ids: Sequence[str], everything: bool, wanted: Filter) -> int:
    """Hold messages: they are not sent until they are released."""
    return _act(ids, everything, wanted, Act.HOLD)


@click.command("release")
@_ids
@_all
@filters
def release(ids: Sequence[str], everything: bool, wanted: Filter) -> int:
    """Release messages that are held."""
    return _act(ids, everything, wanted, Act.RELEASE)


@click.command("cancel")
@_ids
@_all
@_yes
@filters
def cancel(ids: Sequence[str], everything: bool, yes: bool, wanted: Filter) -> int:
    """Cancel messages that have not been sent yet. They are not sent any more.

    Of a message that has bounced on the relayhost, dismiss the bounce: you have dealt with it.
    """
    return _act(ids, everything, wanted, Act.CANCEL, asks=not yes)


@click.command("drop")
@_ids
@_all
@_yes
@filters
def drop(ids: Sequence[str], everything: bool, yes: bool, wanted: Filter) -> int:
    """Drop failed messages that you have dealt with. They are not kept any longer."""
    return _act(ids, everything, wanted, Act.DROP, asks=not yes)


def _act(ids: Sequence[str], everything: bool, wanted: Filter, verb: Act, *, asks: bool = False) -> int:
    """Does the verb to messages given by ids or selected. Returns the exit status. asks: as for `_change_selected`."""
    check_choice(ids, everything=everything, wanted=wanted)
    queue = load_queue()
    if not ids:
        return _change_selected(queue, wanted, verb, asks=asks)
    with waiting_for("the spool"):
        done = acts.act(queue, ids, verb)
    return _report(done, _act_lines(done, verb))


def _change_selected(queue: Queue, wanted: Filter, verb: str, *, asks: bool = False) -> int:
    """Changes what the filter selects, and prints what was done. Returns the exit status.

    verb: an `Act` or RETRY. asks: on a terminal, the person is asked before the change.
    """
    with waiting_for("the spool"):
        selected = bulk.select(queue, wanted, verb)
    if selected.ids and asks and not _agrees(f"{verb.capitalize()} {number_of_messages(len(selected.ids))}?"):
        raise Failed("nothing was changed")
    with waiting_for("the spool"):
        done = bulk.change(queue, selected, verb)
    put(*(_act_lines(done, verb) if verb in _PARTICIPLES else _retry_lines(queue, done)))
    put(*_count_lines(done, verb))
    status = report_unchanged(selected, done)
    if done.is_interrupted:
        raise KeyboardInterrupt
    return status


def _agrees(question: str) -> bool:
    """Whether the person agrees; true without a terminal, where the person cannot be asked."""
    if not is_terminal(sys.stdin) or not (is_terminal(sys.stderr) or is_terminal(sys.stdout)):
        return True
    return confirm(question, default=False, err=is_terminal(sys.stderr))


def _count_lines(done: Done, verb: str) -> Iterator[str]:
    """How many messages were changed here, and how many only on the relayhost; no line if none was."""
    there = len(done.only_there)
    if here := len(done.changed) - there:
        yield f"{number_of_messages(here)} {is_or_are(here)} {_PARTICIPLES.get(verb, 'due now')}"
    if there:
        participle = "dismissed" if verb in _PARTICIPLES else "waiting on the relayhost"
        yield f"{number_of_messages(there)} {is_or_are(there)} {participle}"


def _act_lines(done: Done, verb: str) -> list[str]:
    """A line for each message that was changed."""
    participle = _PARTICIPLES[verb]
    return [f"{queue_id} is {'dismissed' if queue_id in done.only_there else participle}" for queue_id in done.changed]


def _retry_lines(queue: Queue, done: Done) -> list[str]:
    """A line for each message that was made due, or that the relayhost's mail server was or is asked to try again."""
    here = [f"{queue_id} is due now" for queue_id in done.changed if queue_id not in done.only_there]
    return [*here, *_lines_from_relayhost(queue, done)] if done.only_there else here


def _lines_from_relayhost(queue: Queue, done: Done) -> list[str]:
    """A line for each message that waits on its relayhost: whether the mail server there was asked to try it again."""
    with waiting_for("the relayhost's mail server to be asked"):
        asked = await_retries(queue, list(done.only_there), 0.0 if done.lacks_daemon else ASK_WAIT)
    return [f"{one.queue_id} waits on {one.relayhost}: {_asked_text(one, done)}" for one in asked]


def _asked_text(one: AskedThere, done: Done) -> str:
    if not one.retry.is_wanted:
        return printable(one.retry.text) or "there is nothing to ask its mail server about any more"
    when = "when the daemon runs" if done.lacks_daemon else "as soon as the relayhost can be reached"
    return f"its mail server is asked to try again {when}"


def _report(done: Done, lines: Sequence[str]) -> int:
    """Prints the lines on stdout, and failures on stderr. Returns the exit status."""
    put(*lines)
    for failure in done.failures:
        say(failure)
    if done.lacks_daemon:
        say(NO_DAEMON)
    return 1 if done.failures else 0
