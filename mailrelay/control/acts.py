"""What the person does to messages in the queue: retry, hold, release, cancel, drop.

Several ids are one commit. An id that fails does not keep the others from being done.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mailrelay.control.daemon import wake
from mailrelay.control.errors import NoSuchMessage, NotAllowed, no_such_message
from mailrelay.mail.lifecycle import Act
from mailrelay.ports import SpoolChange
from mailrelay.spool.command_spool import CommandSpool


@dataclass(frozen=True, slots=True)
class Done:
    """changed: whole queue ids, in the order given. failures: one sentence for each id that could not be changed.

    lacks_daemon: something has changed, and no daemon runs.
    """

    changed: list[str]
    failures: list[str]
    lacks_daemon: bool


def act(directory: Path, ids: Sequence[str], what: Act) -> Done:
    """Does `what` to each message, to all recipients in whose state it is allowed. ids: whole, or unique beginnings.

    Raises SpoolError; then nothing has changed.
    """
    return _change(directory, ids, lambda change, key, queue_id: change.act(key, queue_id, what))


def retry(directory: Path, ids: Sequence[str]) -> Done:
    """Makes each message due now, and ends the back-off of its relayhost. ids: as for `act`. Raises SpoolError."""
    return _change(directory, ids, lambda change, key, queue_id: change.retry(key, queue_id))


def retry_all(directory: Path) -> tuple[int, bool]:
    """Makes all messages that wait due now. Returns how many, and `Done.lacks_daemon`. Raises SpoolError."""
    try:
        with CommandSpool(directory).changing() as change:
            due = change.retry_all()
    except FileNotFoundError:
        due = 0
    return due, due > 0 and not wake(directory)


def dial_now(directory: Path, relayhosts: Iterable[str]) -> None:
    """Ends the back-off of these relayhosts, by name: their mail is tried now. Raises SpoolError."""
    with suppress(FileNotFoundError), CommandSpool(directory).changing() as change:
        for relayhost in relayhosts:
            change.dial_now(relayhost)
    wake(directory)


def _change(directory: Path, ids: Sequence[str], do: Callable[[SpoolChange, int, str], object]) -> Done:
    changed, failures = [], []
    try:
        with CommandSpool(directory).changing() as change:
            for given in ids:
                try:
                    key, queue_id = change.find(given)
                    do(change, key, queue_id)
                except (NoSuchMessage, NotAllowed) as error:
                    failures.append(str(error))
                else:
                    changed.append(queue_id)
    except FileNotFoundError:
        failures = [str(no_such_message(given)) for given in ids]
    return Done(changed, failures, bool(changed) and not wake(directory))
