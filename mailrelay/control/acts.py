"""What the person does to messages in the queue: retry, hold, release, cancel, drop.

Several ids are one commit. An id that fails does not keep the others from being done. Messages that a filter selects:
`control.bulk`. A message that is being sent can only be cancelled: the daemon stops it, if the end of its content was not
written yet (`control.progress`).
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mailrelay.control.daemon import wake
from mailrelay.control.errors import NoSuchMessage, NotAllowed, no_such_message
from mailrelay.control.progress import stop_sending
from mailrelay.mail.lifecycle import ACT_TABLE, Act
from mailrelay.mail.overview import Listed
from mailrelay.mail.there import Retried
from mailrelay.ports import SpoolChange
from mailrelay.spool.command_spool import CommandSpool

if TYPE_CHECKING:
    from mailrelay.control.system import Queue


@dataclass(frozen=True, slots=True)
class Done:
    """changed: whole queue ids, in the order given. failures: one sentence for each id that could not be changed.

    only_there: those of `changed` that concern the relayhost only: its mail server is asked to try them again, or they have
    bounced there and are dismissed.

    lacks_daemon: something has changed, and no daemon runs. error: of the spool, because of which the rest of the selected
    messages are as they were; "" if there was none. is_interrupted: it is the person's interrupt (Ctrl-C).
    """

    changed: list[str]
    failures: list[str]
    lacks_daemon: bool
    only_there: Sequence[str] = ()
    error: str = ""
    is_interrupted: bool = False


def act(queue: "Queue", ids: Sequence[str], what: Act) -> Done:
    """Does `what` to each message, to all recipients in whose state it is allowed. ids: whole, or unique beginnings.

    Raises SpoolError; then nothing has changed, but for messages that were being sent.
    """
    if not isinstance(queue, Path):
        return queue.ask(Done, "act", ids, what)
    stopped = stop_sending(queue, ids) if what is Act.CANCEL else ()

    def do(change: SpoolChange, key: int, queue_id: str) -> bool:
        return queue_id not in stopped and act_on(change, change.one(key), what)

    return _change(queue, ids, do)


def act_on(change: SpoolChange, message: Listed, what: Act) -> bool:
    """Does `what` to one message. Returns whether it is one of `Done.only_there`. Raises NotAllowed."""
    change.act(message.id, message.queue_id, what)
    return not any((to.state, what) in ACT_TABLE for to in message.recipients)


def retry(queue: "Queue", ids: Sequence[str]) -> Done:
    """Makes each message due now, also before its send time, and ends the back-off of its relayhost; asks the mail server
    there to try again what waits there. ids: as for `act`. Raises SpoolError."""
    if not isinstance(queue, Path):
        return queue.ask(Done, "retry", ids)
    return _change(queue, ids, lambda change, key, queue_id: change.retry(key, queue_id) is Retried.THERE)


def retry_all(queue: "Queue") -> tuple[int, bool]:
    """Makes all messages that wait due now, but for those that wait for their time. Returns how many, and
    `Done.lacks_daemon`. Raises SpoolError."""
    if not isinstance(queue, Path):
        return queue.ask(tuple[int, bool], "retry_all")
    try:
        with CommandSpool(queue).changing() as change:
            due = change.retry_all()
    except FileNotFoundError:
        due = 0
    return due, due > 0 and not wake(queue)


def dial_now(directory: Path, relayhosts: Iterable[str]) -> None:
    """Ends the back-off of these relayhosts, by name: their mail is tried now. Raises SpoolError."""
    with suppress(FileNotFoundError), CommandSpool(directory).changing() as change:
        for relayhost in relayhosts:
            change.dial_now(relayhost)
    wake(directory)


def _change(directory: Path, ids: Sequence[str], do: Callable[[SpoolChange, int, str], bool]) -> Done:
    """do: returns whether the message is one of `Done.only_there`."""
    changed, failures, only_there = [], [], []
    try:
        with CommandSpool(directory).changing() as change:
            for given in ids:
                try:
                    key, queue_id = change.find(given)
                    is_only_there = do(change, key, queue_id)
                except (NoSuchMessage, NotAllowed) as error:
                    failures.append(str(error))
                else:
                    changed.append(queue_id)
                    if is_only_there:
                        only_there.append(queue_id)
    except FileNotFoundError:
        failures = [str(no_such_message(given)) for given in ids]
    return Done(changed, failures, bool(changed) and not wake(directory), only_there)
