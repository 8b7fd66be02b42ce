"""The health of the daemon, and its reports to the person, to `mailrelay status` and to the service manager.

- The person gets a notice about a failure of the spool at once (`notify.emergency`), also if it prevents the start.
- `mailrelay status` connects to a socket (`spool.liveness`) and reads the failure there. A daemon whose event loop is
  blocked does not answer.
- The event loop reports to the watchdog of the service manager (`service_manager`).

A failure lasts from its report until an ordinary message can be stored again. If the space is too small for one large
message only, that is no failure.

Promises: delays the end of the daemon by at most FINISH seconds. Programs that connect to the socket cannot block the
daemon: it sends them one line, and reads nothing. No error here ends the daemon.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from mailrelay import service_manager
from mailrelay.mail.sending import Sending
from mailrelay.mail.spool_errors import SpoolBroken, SpoolError, SpoolFull
from mailrelay.notify.emergency import Emergency
from mailrelay.spool import liveness

log = logging.getLogger("mailrelay.health")

FINISH = 5.0
"""Seconds to wait at the end for deliveries of a notice."""
SETTLE = 0.5
"""Seconds between a report and the look at the spool, in which the content that did not fit is removed."""
LOOK_INTERVAL = 5.0
"""Seconds between two looks at the spool during a failure."""
LASTING = 60.0
"""Seconds after the start until a remembered failure of an earlier daemon can count as over."""
MAX_TEXT, MAX_ERRORS = 300, 5
"""Characters of a text in an answer, and errors in it: it must fit into `liveness.MAX_ANSWER`."""
ACCEPT_RETRY = 1.0
"""Seconds until the next try after the socket could not accept a connection."""


class Health:
    """A context around the whole life of the daemon. If a SpoolError or OSError ends it, the person gets a notice."""

    def __init__(self, directory: Path, emergency: Emergency, environ: Mapping[str, str] = os.environ) -> None:
        self._directory = directory
        self._emergency = emergency
        self._environ = environ
        self._failure: SpoolError | None = None
        self._has_started = False
        self._is_looking = False
        self._is_work_waiting = False
        self._look_now = asyncio.Event()
        # How often the settings were read again, and why they were not taken the last time.
        self._reloads, self._refusal = 0, ""
        self._errors: Callable[[], Mapping[str, str]] = dict
        self._sending: Callable[[], Sequence[Sending]] = tuple
        self._listening: socket.socket | None = None
        self._watchdog: asyncio.Task[None] | None = None
        self._connected: Callable[[], Iterable[str]] = tuple

    async def __aenter__(self) -> Self:
        interval = service_manager.watchdog_interval(self._environ)
        if interval is not None:
            self._watchdog = asyncio.create_task(self._report_to_watchdog(interval))
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            error = SpoolError(f"{error.filename or self._directory}: {error.strerror or error}")
        if isinstance(error, SpoolError):
            # A service manager may start the daemon again and again: no notice that could not be remembered.
            self._emergency.tell(error, only_if_remembered=not self._has_started)
        await self.finish()
        self._stop_answering()
        if self._watchdog is not None:
            self._watchdog.cancel()

    @property
    def has_failure(self) -> bool:
        """Whether the spool cannot be used now."""
        return self._failure is not None

    def tell_by(self, emergency: Emergency) -> None:
        """Replaces what tells the person: the settings were read again."""
        self._emergency = emergency

    def reloaded(self, refusal: str) -> None:
        """The settings were read again. refusal: why they were not taken, "" if they were."""
        self._reloads += 1
        self._refusal = refusal

    def report(self, error: SpoolError | None) -> None:
        """To be called in the event loop when the spool could not do its work, and with None when it can again."""
        if (error is None) == (self._failure is not None) and not self._is_looking:
            self._look_now.set()
        if error is not None and not (isinstance(error, SpoolFull) and error.left is not None):
            self._is_work_waiting = True
        # Other errors may concern only one message that is too large, or be over in a moment.
        if isinstance(error, SpoolBroken) or (isinstance(error, SpoolFull) and error.left is None):
            self._begin(error)

    async def watch(self, look: Callable[[], Awaitable[None]], resume: Callable[[], None]) -> None:
        """Finds out after each report whether a failure begins or ends. Ends by cancellation only.

        look: raises SpoolError if the spool cannot store an ordinary message. resume: called when it can again; not if only
        a message was too large.
        """
        clock = asyncio.get_running_loop().time
        lasting = clock() + LASTING
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL):
                    await self._look_now.wait()
            self._repair_socket()
            is_over = self._emergency.is_remembered and clock() > lasting
            if self._look_now.is_set() or self._failure is not None or is_over:
                await asyncio.sleep(SETTLE)
                self._look_now.clear()
                await self._look(look, resume)

    async def _look(self, look: Callable[[], Awaitable[None]], resume: Callable[[], None]) -> None:
        if isinstance(self._failure, SpoolBroken):
            return
        self._is_looking = True
        try:
            await look()
        except SpoolError as error:
            self._begin(error)
        else:
            self._end()
            if self._is_work_waiting:
                self._is_work_waiting = False
                resume()
        finally:
            self._is_looking = False

    def _begin(self, error: SpoolError) -> None:
        self._failure = error
        self._is_work_waiting = True
        self._emergency.tell(error)

    def _end(self) -> None:
        if self._failure is not None or self._emergency.is_remembered:
            log.warning("the spool can be used again")
            self._emergency.over()
        self._failure = None

    async def finish(self) -> None:
        """Waits for the deliveries of notices, up to FINISH seconds."""
        await self._emergency.finish(FINISH)

    def answer(
        self,
        errors: Callable[[], Mapping[str, str]] = dict,
        connected: Callable[[], Iterable[str]] = tuple,
        sending: Callable[[], Sequence[Sending]] = tuple,
    ) -> None:
        """Begins to answer `mailrelay status`: the daemon has started. Call it while holding the lock of the spool.

        errors: why relayhosts' mail cannot be sent, by name; "" for those whose mail can. connected: the names of the
        relayhosts to which there is a connection. sending: the messages that are being sent. They are called only when a
        command asks.
        """
        self._has_started = True
        self._errors, self._connected, self._sending = errors, connected, sending
        try:
            self._listen()
        except OSError as error:
            log.warning("`mailrelay status` cannot ask the daemon: %s", error.strerror or error)

    def _listen(self) -> None:
        self._listening = socket.socket(fileno=liveness.listen(self._directory))
        asyncio.get_running_loop().add_reader(self._listening, self._answer_all, self._listening)

    def _repair_socket(self) -> None:
        """Makes the socket again if it is gone."""
        with contextlib.suppress(OSError):
            if not (self._directory / liveness.FILE).is_socket():
                self._stop_answering()
                self._listen()

    def _stop_answering(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _answer_all(self, listening: socket.socket) -> None:
        is_full = isinstance(self._failure, SpoolFull)
        text = "" if self._failure is None else str(self._failure)
        answer = liveness.Answer(
            os.getpid(),
            text if is_full else "",
            "" if is_full else text,
            tuple((name, why[:MAX_TEXT]) for name, why in self._errors().items() if why)[:MAX_ERRORS],
            self._reloads,
            self._refusal[:MAX_TEXT],
            tuple(islice(self._connected(), liveness.MAX_CONNECTED)),
            tuple(self._sending()),
        )
        line = liveness.line(answer)
        for _ in range(liveness.BACKLOG):
            try:
                asking, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError:
                # For instance, no descriptors are left.
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(ACCEPT_RETRY, self._accept_again, listening)
                return
            with asking, contextlib.suppress(OSError):
                asking.setblocking(False)
                asking.send(line)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening is self._listening:
            asyncio.get_running_loop().add_reader(listening, self._answer_all, listening)

    async def _report_to_watchdog(self, interval: float) -> None:
        while True:
            service_manager.notify("WATCHDOG=1", self._environ)
            await asyncio.sleep(interval)
