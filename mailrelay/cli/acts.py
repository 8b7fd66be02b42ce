"""What the person does to mail in the queue.

    queue retry ID…|--all                    due now
    queue retry --network                    the network has changed: what waits for a way leaves if there is one now
    queue hold|release|cancel|drop ID…       out of the way, back again; taken out; failed mail let go

Of several ids all are done that can be done; each of the others is one line on stderr, and the status is 1. What changes
something rings the daemon's bell.

Works with the daemon down; then, before anything is changed, what a crash has left open is closed.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from mailrelay.cli import load_settings, say
from mailrelay.cli.change import changing, no_such, ring
from mailrelay.mail.lifecycle import Act
from mailrelay.spool import actions, trigger

_DONE = {Act.HOLD: "held", Act.RELEASE: "released", Act.CANCEL: "cancelled", Act.DROP: "dropped"}

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "everything", is_flag=True, help="All that waits.")
@click.option("--network", is_flag=True, help="What waits for a way there: the network has changed. For hooks.")
def _retry(ids: Sequence[str], everything: bool, network: bool) -> int:
    """Try now, whatever the schedule says."""
    if [bool(ids), everything, network].count(True) != 1:
        raise click.UsageError("Give ids, --all or --network", click.get_current_context())
    if ids:
        return _change(ids, actions.retry, "is due now")
    directory = load_settings().queue.directory
    if network:
        ring(directory, trigger.NETWORK)
        return 0
    try:
        with changing(directory) as db:
            due = actions.retry_all(db, time.time())
    except FileNotFoundError:
        due = 0
    print(f"{due} {'message is' if due == 1 else 'messages are'} due now")
    if due:
        ring(directory)
    return 0


@click.command("hold")
@_ids
def _hold(ids: Sequence[str]) -> int:
    """Keep from being sent until it is released."""
    return _act(ids, Act.HOLD)


@click.command("release")
@_ids
def _release(ids: Sequence[str]) -> int:
    """Let go on what is held."""
    return _act(ids, Act.RELEASE)


@click.command("cancel")
@_ids
def _cancel(ids: Sequence[str]) -> int:
    """Take out what has not been sent yet. It is not sent any more."""
    return _act(ids, Act.CANCEL)


@click.command("drop")
@_ids
def _drop(ids: Sequence[str]) -> int:
    """Let go of failed mail: it has been dealt with, and is not kept any longer."""
    return _act(ids, Act.DROP)


commands = {"retry": _retry, "hold": _hold, "release": _release, "cancel": _cancel, "drop": _drop}


def _act(ids: Sequence[str], what: Act) -> int:
    def act(db: Any, key: int, queue_id: str, now: float) -> object:
        return actions.act(db, key, queue_id, what, now)

    return _change(ids, act, f"is {_DONE[what]}")


def _change(ids: Sequence[str], do: Callable[[Any, int, str, float], object], done: str) -> int:
    """Does something to each message, all in one commit, and says so; returns the exit status."""
    directory = load_settings().queue.directory
    changed, troubles = [], []
    try:
        with changing(directory) as db:
            for given in ids:
                try:
                    key, queue_id = actions.find(db, given)
                    do(db, key, queue_id, time.time())
                except (actions.NoSuchMessage, actions.NotAllowed) as error:
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
