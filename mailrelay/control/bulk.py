"""Changes all messages that a filter selects (`mail.selection`), with or without a running daemon.

    select(queue, wanted, verb)       the messages that the filter selects: those that the verb can change, and the others
    change(queue, selected, verb)     retries, holds, releases, cancels or drops the former

Between the two, the person may be asked. So `change` looks at each message again, in the commit that changes it. A message
that does not fit the filter any more, or cannot be changed any more, is left as it is. A commit has at most BATCH messages,
because the daemon cannot write meanwhile.
"""

import enum
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mailrelay.control.acts import Done, act_on
from mailrelay.control.daemon import daemon_pid, wake
from mailrelay.control.errors import NoSuchMessage, NotAllowed, SpoolError
from mailrelay.control.progress import stop_sending
from mailrelay.mail.lifecycle import ACT_TABLE, ENDS_BOUNCE, PENDING, Act, State
from mailrelay.mail.overview import Listed, ListedRecipient
from mailrelay.mail.selection import Filter, matches
from mailrelay.mail.there import Retried, There
from mailrelay.ports import SpoolChange
from mailrelay.spool.command_spool import CommandSpool

if TYPE_CHECKING:
    from mailrelay.control.system import Queue

BATCH = 500
"""Messages in one commit, at most: about 0.06 s."""
PAUSE = 0.1
"""Seconds between two commits while a daemon runs: as long as SQLite waits between two tries to write."""
RETRY = "retry"
"""The verb that is no `Act`: it changes the state of no recipient."""
_HELD = {"held", "hold"}
"""The values of --state that name held recipients."""


class Skip(enum.StrEnum):
    """Why a selected message is left as it is, as the end of a line on stderr."""

    ACTIVE = "being sent at this moment"
    STATE = "in a state that does not allow it"
    SCHEDULED = "waiting for their time: give their ids to send them now"
    HELD = "held: give --state held, too, or release them"
    CHANGED = "not what they were when they were selected"


@dataclass(frozen=True, slots=True)
class Selected:
    """wanted: the filter. ids: the whole queue ids of the messages that fit it and that the verb can change, in order
    of arrival. skipped: by the reason, those of the others that fit it; `change` adds more. looked_at: the number of
    all messages, also of those that do not fit."""

    wanted: Filter
    looked_at: int = 0
    ids: list[str] = field(default_factory=list)
    skipped: dict[Skip, list[str]] = field(default_factory=dict)

    def skip(self, queue_id: str, why: Skip) -> None:
        self.skipped.setdefault(why, []).append(queue_id)


def select(queue: "Queue", wanted: Filter, verb: str) -> Selected:
    """The messages that the filter selects in the queue; in the history, too, if it names a state that only the history
    has. None if there is no spool.

    verb: an `Act` or RETRY. Raises SpoolError.
    """
    if not isinstance(queue, Path):
        return queue.ask(Selected, "select", wanted, verb)
    try:
        spool = CommandSpool(queue)
        # If no daemon runs, this closes the attempts that a crash has left open: their messages would count as active.
        with spool.changing():
            pass
        with spool.reading() as view:
            found = list(view.everything() if wanted.needs_history else view.live())
    except FileNotFoundError:
        found = []
    selected, now = Selected(wanted, len(found)), time.time()
    for message in found:
        if matches(wanted, message):
            why = skip_reason(message, verb, wanted, now)
            if why is None or (why is Skip.ACTIVE and verb == Act.CANCEL):
                selected.ids.append(message.queue_id)
            else:
                selected.skip(message.queue_id, why)
    return selected


def skip_reason(message: Listed, verb: str, wanted: Filter, now: float) -> Skip | None:
    """Why the verb does not change a message that the filter selects; None if it does. now: epoch seconds."""
    if message.queue_name == "active":
        return Skip.ACTIVE
    if not any(_is_possible(verb, to) for to in message.recipients):
        return Skip.STATE
    if verb == RETRY and message.waits_for_its_time(now):
        return Skip.SCHEDULED
    # A message that the person holds must not be sent only because failed mail is sent again.
    if verb == Act.RESEND and _HELD.isdisjoint(wanted.states) and any(to.state == "held" for to in message.recipients):
        return Skip.HELD
    return None


def _is_possible(verb: str, to: ListedRecipient) -> bool:
    if verb == RETRY:
        # Only the spool knows whether such a message still waits there; `change` finds out.
        return to.state in PENDING or (to.there is not None and to.there.state in (There.WAITING, There.DEFERRED))
    act = Act(verb)
    return (to.state in list(State) and (State(to.state), act) in ACT_TABLE) or (
        act in ENDS_BOUNCE and to.has_bounced_there
    )


def change(queue: "Queue", selected: Selected, verb: str) -> Done:
    """Changes the messages in `selected.ids`. verb: RETRY, or an `Act` other than RESEND and EDIT.

    Raises SpoolError if nothing has changed. An error after the first change is `Done.error`; the remaining messages
    are left as they are. It is the same with KeyboardInterrupt.
    """
    if not isinstance(queue, Path):
        done, skipped = queue.ask(tuple[Done, dict[Skip, list[str]]], "change", selected, verb)
        selected.skipped.update(skipped)
        return done
    changed: list[str] = []
    only_there: dict[str, None] = {}
    failures: list[str] = []
    error = ""
    is_interrupted = False
    for at in range(0, len(selected.ids), BATCH):
        batch = selected.ids[at : at + BATCH]
        if at and daemon_pid(queue) is not None:
            time.sleep(PAUSE)
        try:
            stopped = _stop_sending(queue, selected, batch) if verb == Act.CANCEL else ()
            with CommandSpool(queue).changing() as spool:
                told = {
                    queue_id: False if queue_id in stopped else _change_one(spool, selected, queue_id, verb, failures)
                    for queue_id in batch
                }
        except SpoolError as reason:
            if not changed:
                raise
            error = f"{reason}; not done: {len(selected.ids) - at} of {len(selected.ids)} messages"
            break
        except KeyboardInterrupt:
            if not changed:
                raise
            error = f"interrupted; not done: {len(selected.ids) - at} of {len(selected.ids)} messages"
            is_interrupted = True
            break
        changed += [queue_id for queue_id, is_only_there in told.items() if is_only_there is not None]
        only_there |= dict.fromkeys(queue_id for queue_id, is_only_there in told.items() if is_only_there)
    return Done(changed, failures, bool(changed) and not wake(queue), list(only_there), error, is_interrupted)


def _stop_sending(directory: Path, selected: Selected, batch: Sequence[str]) -> Collection[str]:
    """Cancels those of the messages that are being sent and can be stopped. Returns their ids."""
    return stop_sending(directory, batch, lambda message: matches(selected.wanted, message))


def _change_one(spool: SpoolChange, selected: Selected, queue_id: str, verb: str, failures: list[str]) -> bool | None:
    """Changes a message. Returns whether it is one of `Done.only_there`; None if it was left as it is: then it was added to
    `selected.skipped` or `failures`."""
    with suppress(NoSuchMessage):
        key, found = spool.find(queue_id)
        message = spool.one(key)
        if found == queue_id and matches(selected.wanted, message):
            why = skip_reason(message, verb, selected.wanted, time.time())
            try:
                if why is None and verb == RETRY:
                    return spool.retry(key, queue_id) is Retried.THERE
                if why is None:
                    return act_on(spool, message, Act(verb))
            except NotAllowed as error:
                failures.append(str(error))
                return None
            selected.skip(queue_id, why)
            return None
    selected.skip(queue_id, Skip.CHANGED)
    return None
