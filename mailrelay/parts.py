"""The parts of a running daemon: builds them, and replaces those whose settings have changed (`Parts.change`).

At a reload the process stays the same: clients' connections, mail in progress and the connections to relayhosts that
are still in the settings go on. First everything that can fail is done, while the old parts run; then they are replaced
in one step.

    a relayhost                   its scheduler ends once its messages in progress have ended; a new one sends the other mail
    listen, queue, submission     take effect at once, also for the connections of clients that are open
    notify                        a new notifier
    forward                       a forward that was changed or removed is closed, with its connections
    queue.directory               cannot be changed: SettingsError

Promises: settings that cannot be used change nothing. An address that the settings still name is never closed meanwhile.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mailrelay import lazy, submission
from mailrelay.config import Forward, Listen, Relayhost, Settings, SettingsError
from mailrelay.endpoint import Endpoint
from mailrelay.health import Health
from mailrelay.intake import Intake
from mailrelay.listener.forwarding import Forwarding, forward
from mailrelay.listener.listening import Listening, NoSuchAccount, accounts, listen
from mailrelay.listener.sockets import CannotListen, Sockets
from mailrelay.mail.backends import backends_of
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.routing import choose
from mailrelay.mail.sending import Stop
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.emergency import Emergency
from mailrelay.notify.memory import Memory, memory_file
from mailrelay.notify.notifier import Notifier
from mailrelay.relay.fallback import Group
from mailrelay.relay.scheduler import Scheduler
from mailrelay.relay.waiters import Queued, Waiters
from mailrelay.spool.spool import Spool
from mailrelay.ssh.interface import Connection

log = logging.getLogger("mailrelay.daemon")


class CannotStart(Exception):
    """The daemon cannot start, for a reason other than the spool and the settings. The text is one sentence."""


@dataclass(slots=True)
class Parts:
    """The parts. schedulers: by the relayhost's name. is_inspected: whether the whole spool was searched for damage at
    the start. forwardings: by their settings. group: runs the tasks of the parts, once the daemon has started.
    relaying: the tasks of the schedulers, also of replaced ones that have not ended. notifying: the notifier's task.
    retiring: tasks that end replaced schedulers. triggered: how often the trigger was used. fallbacks: through which the
    schedulers ask each other. must_reroute: whether mail of relayhosts that the settings no longer have could not be
    moved."""

    settings: Settings
    spool: Spool
    schedulers: dict[str, Scheduler]
    policy: RetryPolicy
    notifier: Notifier
    intake: Intake
    health: Health
    sockets: Sockets
    is_inspected: bool
    listening: Listening | None = None
    forwardings: dict[Forward, Forwarding] = field(default_factory=dict)
    group: asyncio.TaskGroup | None = None
    relaying: dict[Scheduler, "asyncio.Task[None]"] = field(default_factory=dict)
    notifying: "asyncio.Task[None] | None" = None
    retiring: "set[asyncio.Task[None]]" = field(default_factory=set)
    triggered: int = 0
    must_reroute: bool = False
    fallbacks: Group[Scheduler] = field(init=False)

    def __post_init__(self) -> None:
        self.fallbacks = Group(self.schedulers)

    @property
    def addresses(self) -> list[Endpoint]:
        """Where the daemon listens, first for mail."""
        listening = self.listening.addresses if self.listening is not None else []
        return [*listening, *(address for one in self.forwardings.values() for address in one.addresses)]

    async def listen(self) -> None:
        """Opens the listener for mail and all forwards, or none of them. Raises SettingsError, CannotStart."""
        settings = self.settings
        async with contextlib.AsyncExitStack() as opened:
            with _converting_errors():
                listening = await listen(settings.listen, self.intake, self.sockets)
                opened.push_async_callback(listening.close)
                for each in settings.forwards:
                    self.forwardings[each] = await self._open_forward(each, settings.listen, self.schedulers)
                    opened.push_async_callback(self.forwardings[each].close)
            self.listening = listening
            opened.pop_all()

    async def close(self, grace: float | None = None) -> None:
        """Closes the listener and the forwards. grace: seconds for contents in progress; None for the usual ones."""
        for one in self.forwardings.values():
            await one.close()
        if self.listening is not None:
            await (self.listening.close() if grace is None else self.listening.close(grace))

    @property
    def activity(self) -> int:
        """Grows with each connection of a mail client, and each use of the trigger."""
        return self.triggered + (self.listening.accepted if self.listening is not None else 0)

    @property
    def is_busy(self) -> bool:
        """Whether something prevents the end of an idle daemon that is known without a look into the spool: a client, a
        connection to a relayhost, outcomes that are not recorded, a scheduler that ends, or a failure of the spool."""
        return bool(
            (self.listening is not None and self.listening.is_busy)
            or any(one.connections for one in self.forwardings.values())
            or any(one.is_connected or one.is_stuck for one in self.relaying)
            or self.retiring
            or self.health.has_failure
        )

    async def cancel(self, message: int) -> Stop:
        """Stops a message that is being sent, and cancels it (`Scheduler.cancel`). message: the spool's key."""
        for scheduler in list(self.relaying):
            stop = await scheduler.cancel(message)
            if stop is not Stop.NOT_SENDING:
                return stop
        return Stop.NOT_SENDING

    def ask_before_end(self) -> bool:
        """To be called when the daemon has nothing else to do. Returns whether it must not end, because mail waits in
        the queue of a relayhost; asks about this mail there if it has not asked yet."""
        must_stay = [one.ask_before_end() for one in self.relaying]
        return any(must_stay)

    def pause(self) -> None:
        """Accepts no more connections: they wait in the kernel. Only while all sockets are inherited."""
        for one in self.forwardings.values():
            one.pause()
        if self.listening is not None:
            self.listening.pause()

    async def resume(self) -> None:
        """Ends `pause`. Raises CannotListen if a socket was not inherited."""
        self.sockets.reset_claims()
        if self.listening is not None:
            await self.listening.resume()
        for one in self.forwardings.values():
            await one.resume()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Starts the schedulers and the notifier."""
        self.group = group
        self._start_new()

    def notices_pending(self) -> None:
        """A commit has made notices pending."""
        self.notifier.wake()

    def wake(self) -> None:
        """The spool has changed: schedulers and notifier read it again."""
        for scheduler in self.schedulers.values():
            scheduler.look_again()
        self.notifier.wake()

    async def change(self, settings: Settings) -> None:
        """Replaces the settings. Raises SettingsError, CannotStart: then nothing has changed. Raises SpoolError: then
        the settings have changed, and mail of relayhosts that were removed waits."""
        old = self.settings
        if settings.queue.directory != old.queue.directory:
            raise SettingsError("queue.directory: a running daemon cannot change it; stop it, and start it again")
        emergency = emergency_of(settings)
        notifier = self._changed_notifier(settings)
        schedulers = self._changed_schedulers(settings)
        kept = {
            each: self.forwardings[each]
            for each in settings.forwards
            if each in self.forwardings and schedulers[each.relayhost] is self.schedulers.get(each.relayhost)
        }
        is_listening_kept = (settings.listen.address, settings.listen.everyone) == (
            old.listen.address,
            old.listen.everyone,
        )
        assert self.listening is not None  # noqa: S101 - the daemon has started
        async with contextlib.AsyncExitStack() as opened:
            with _converting_errors():
                allowed = accounts(settings.listen)
                claimed = [address for one in kept.values() for address in one.addresses]
                self.sockets.reset_claims([*claimed, *(self.listening.addresses if is_listening_kept else ())])
                accepting = None if is_listening_kept else await self.listening.open(settings.listen)
                if accepting is not None:
                    opened.callback(accepting.close)
                forwardings = {}
                for each in settings.forwards:
                    if each not in kept:
                        forwardings[each] = await self._open_forward(each, settings.listen, schedulers)
                        opened.push_async_callback(forwardings[each].close)
            opened.pop_all()
        # From here on nothing fails, and up to the next await nothing else runs.
        removed = [one for each, one in self.forwardings.items() if each not in kept]
        self.forwardings = {**kept, **forwardings}
        self.listening.change(settings.listen, allowed, accepting)
        for one in kept.values():
            one.change(settings.listen, allowed)
        self._take(settings, emergency, notifier, schedulers)
        for one in removed:
            await one.close()
        await self.try_rerouting()

    async def try_rerouting(self) -> None:
        """Moves mail of relayhosts that the settings no longer have. After an error of the spool it waits for
        `reroute_again`. Schedulers and notifier look into the spool."""
        self.must_reroute = False
        try:
            await self._reroute()
        except SpoolError as error:
            self.must_reroute = True
            # The daemon itself reports a broken spool, and ends.
            if not isinstance(error, SpoolBroken):
                log.error("mail of relayhosts that are no longer in the settings waits: %s", error)
        self.wake()

    def reroute_again(self) -> None:
        """The spool can be used again: does what failed in `try_rerouting`."""
        if self.must_reroute and self.group is not None:
            self.group.create_task(self.try_rerouting())

    async def _reroute(self) -> None:
        """Assigns mail of relayhosts that are no longer in the settings to other relayhosts. Raises SpoolError."""
        names = {relayhost.name for relayhost in self.settings.relayhosts}
        moved, left = await self.spool.reroute(names, lambda sender: choose(sender, self.settings.relayhosts))
        for scheduler in self.schedulers.values():
            scheduler.stand_ins_cleared()
        if moved:
            log.warning(
                "%d messages of relayhosts that are no longer in the settings are sent through another relayhost now",
                moved,
            )
        if left:
            log.error("%d messages wait for relayhosts that are not in the settings: see `mailrelay queue`", left)

    def _take(
        self, settings: Settings, emergency: Emergency, notifier: Notifier | None, schedulers: dict[str, Scheduler]
    ) -> None:
        """Replaces the settings, the notifier and the schedulers."""
        self.settings = settings
        self.spool.limit(settings.queue.max_size)
        self.health.tell_by(emergency)
        self.policy.schedule, self.policy.expire_after = settings.queue.retry, settings.queue.expire_after
        self.policy.backends_for = backends_of(settings.notify)
        completion = submission.completion(settings.submission)
        retired = [one for one in self.schedulers.values() if one not in schedulers.values()]
        self.schedulers.clear()
        self.schedulers.update(schedulers)
        for scheduler in self.schedulers.values():
            scheduler.complete_by(completion)
        self.intake.change(settings.relayhosts, settings.listen.answer_within, completion, settings.queue.undo)
        if notifier is not None:
            self.notifier = notifier
            if self.notifying is not None:
                self.notifying.cancel()
                self.notifying = None
        self._start_new()
        assert self.group is not None  # noqa: S101 - the daemon has started
        for scheduler in retired:
            task = self.group.create_task(self._retire(scheduler))
            self.retiring.add(task)
            task.add_done_callback(self.retiring.discard)

    def _start_new(self) -> None:
        assert self.group is not None  # noqa: S101 - the daemon has started
        for scheduler in self.schedulers.values():
            if scheduler not in self.relaying:
                self.relaying[scheduler] = self.group.create_task(scheduler.run())
        if self.notifying is None:
            self.notifying = self.group.create_task(self.notifier.run())

    async def _retire(self, scheduler: Scheduler) -> None:
        """Ends a scheduler that is no longer in use, once its messages in progress have ended, however long that takes: they
        would be sent twice. They have time limits of their own."""
        await scheduler.finish()
        task = self.relaying.pop(scheduler)
        task.cancel()
        await asyncio.wait({task})
        try:
            await self.spool.dial_now(scheduler.name)
        except SpoolError as error:
            if not isinstance(error, SpoolBroken):
                log.error("relay=%s waits for its back-off, in spite of new settings: %s", scheduler.name, error)
        if all(one.waiters is not scheduler.waiters for one in self.schedulers.values()):
            # The relayhost was removed, not changed: no new scheduler has taken over the waiters.
            for queue_id in scheduler.waiters.queue_ids:
                scheduler.waiters.tell(queue_id, Queued(""))
        # The scheduler has put back messages that it had claimed and not begun.
        await self.try_rerouting()

    def _changed_notifier(self, settings: Settings) -> Notifier | None:
        """A new notifier; None if its settings are the same. Raises SettingsError."""
        old = self.settings
        if (settings.notify, settings.queue.delay_notice_after) == (old.notify, old.queue.delay_notice_after):
            return None
        return _notifier(settings, self.spool)

    def _changed_schedulers(self, settings: Settings) -> dict[str, Scheduler]:
        """All schedulers for other settings: those of relayhosts that stay as they are, and new ones."""
        before = {relayhost.name: relayhost for relayhost in self.settings.relayhosts}
        schedulers = {}
        for relayhost in settings.relayhosts:
            old = self.schedulers.get(relayhost.name)
            if old is None or relayhost != before[relayhost.name]:
                schedulers[relayhost.name] = self.new_scheduler(relayhost, old.waiters if old is not None else None)
            else:
                schedulers[relayhost.name] = old
        return schedulers

    def new_scheduler(self, relayhost: Relayhost, waiters: Waiters | None = None) -> Scheduler:
        """A scheduler that does not run yet. waiters: those of the scheduler that it replaces, None for none."""
        completion = submission.completion(self.settings.submission)
        return Scheduler(
            relayhost,
            self.spool,
            _dial,
            self.policy,
            self.notices_pending,
            completion=completion,
            waiters=waiters,
            group=self.fallbacks,
        )

    async def _open_forward(self, settings: Forward, access: Listen, schedulers: Mapping[str, Scheduler]) -> Forwarding:
        return await forward(settings, access, schedulers[settings.relayhost].stream, self.sockets)


def build(
    settings: Settings,
    spool: Spool,
    schedulers: dict[str, Scheduler],
    health: Health,
    sockets: Sockets,
    *,
    is_inspected: bool,
) -> Parts:
    """Builds all parts; puts the schedulers into `schedulers`."""

    def accepted() -> None:
        parts.notifier.start_delay_checks()

    notifier = _notifier(settings, spool)
    policy = RetryPolicy(settings.queue.retry, settings.queue.expire_after, backends_of(settings.notify))
    intake = Intake(
        settings.relayhosts,
        schedulers,
        spool,
        accepted,
        settings.listen.answer_within,
        completion=submission.completion(settings.submission),
        undo=settings.queue.undo,
    )
    parts = Parts(settings, spool, schedulers, policy, notifier, intake, health, sockets, is_inspected)
    for relayhost in settings.relayhosts:
        schedulers[relayhost.name] = parts.new_scheduler(relayhost)
    return parts


def emergency_of(settings: Settings) -> Emergency:
    """The part that gives the person notices about a failure of the spool. Raises SettingsError if a notice backend can
    never work."""
    directory = settings.queue.directory
    try:
        return Emergency(settings.notify, directory, lazy, Memory(memory_file(directory, os.environ)))
    except BackendFailed as error:
        raise SettingsError(f"notify: {error}") from None


def _notifier(settings: Settings, spool: Spool) -> Notifier:
    return Notifier(settings.notify, spool, settings.queue.delay_notice_after, lazy)


@contextlib.contextmanager
def _converting_errors() -> Iterator[None]:
    """Raises the errors of the listener as SettingsError or CannotStart."""
    try:
        yield
    except NoSuchAccount as error:
        raise SettingsError(str(error)) from None
    except CannotListen as error:
        raise CannotStart(str(error)) from None


async def _dial(relayhost: Relayhost) -> Connection:
    dial = await asyncio.to_thread(lazy.ssh_dial)
    return await dial(relayhost)
