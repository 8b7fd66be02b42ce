"""Commands that act on messages in the queue.

    queue retry ID…|--all                    makes messages due now
    queue retry --network                    tells the daemon that the network has changed
    queue hold|release|cancel ID…            holds, releases or cancels messages
    queue drop ID…                           drops failed messages

Of several ids, all are done that can be done. For each of the others there is one line on stderr, and the exit status is 1.
See `control.acts`.
"""

from collections.abc import Sequence

import click

from mailrelay.cli.base import NO_DAEMON, load_settings, say
from mailrelay.cli.terminal import put
from mailrelay.cli.waiting import waiting_for
from mailrelay.control import acts
from mailrelay.control.acts import Done
from mailrelay.control.daemon import report_network_change
from mailrelay.mail.lifecycle import Act

_PARTICIPLES = {Act.HOLD: "held", Act.RELEASE: "released", Act.CANCEL: "cancelled", Act.DROP: "dropped"}

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "everything", is_flag=True, help="Try all messages that wait.")
@click.option("--network", is_flag=True, help="Tell the daemon that the network has changed; for hooks.")
def retry(ids: Sequence[str], everything: bool, network: bool) -> int:
    """Try to send messages now, whatever the retry schedule says."""
    if [bool(ids), everything, network].count(True) != 1:
        raise click.UsageError("Give ids, --all or --network", click.get_current_context())
    directory = load_settings().queue.directory
    if ids:
        with waiting_for("the spool"):
            done = acts.retry(directory, ids)
        return _tell(done, "is due now")
    if network:
        lacks_daemon = not report_network_change(directory)
    else:
        with waiting_for("the spool"):
            due, lacks_daemon = acts.retry_all(directory)
        put(f"{due} {'message is' if due == 1 else 'messages are'} due now")
    if lacks_daemon:
        say(NO_DAEMON)
    return 0


@click.command("hold")
@_ids
def hold(ids: Sequence[str]) -> int:
    """Hold messages: they are not sent until they are released."""
    return _act(ids, Act.HOLD)


@click.command("release")
@_ids
def release(ids: Sequence[str]) -> int:
    """Release messages that are held."""
    return _act(ids, Act.RELEASE)


@click.command("cancel")
@_ids
def cancel(ids: Sequence[str]) -> int:
    """Cancel messages that have not been sent yet. They are not sent any more."""
    return _act(ids, Act.CANCEL)


@click.command("drop")
@_ids
def drop(ids: Sequence[str]) -> int:
    """Drop failed messages that you have dealt with. They are not kept any longer."""
    return _act(ids, Act.DROP)


def _act(ids: Sequence[str], what: Act) -> int:
    directory = load_settings().queue.directory
    with waiting_for("the spool"):
        done = acts.act(directory, ids, what)
    return _tell(done, f"is {_PARTICIPLES[what]}")


def _tell(done: Done, words: str) -> int:
    """Prints what was done; returns the exit status."""
    for queue_id in done.changed:
        put(f"{queue_id} {words}")
    for failure in done.failures:
        say(failure)
    if done.lacks_daemon:
        say(NO_DAEMON)
    return 1 if done.failures else 0
