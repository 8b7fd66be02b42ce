"""Reports changes of this computer's network and clock.

    async for change in changes(): ...

On Linux it needs no polling and no privilege. rtnetlink(7) reports changes of the network. A timer that never expires, but
is cancelled when the clock is set (TFD_TIMER_CANCEL_ON_SET of timerfd_create(2)), wakes us when the clock jumps. The clock
also jumps when the computer resumes; the other clocks tell the two apart. On other systems nothing is reported, and hooks
trigger the daemon instead (`contrib/networkmanager`, `contrib/launchd`).

Promises: the changes of a burst are reported as one, SETTLE seconds after the first; there is at most one report in two
seconds.
Never: an exception of the operating system. If it does not allow us to listen, one line in the log says so.
"""

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator

from mailrelay.network import rtnetlink
from mailrelay.network.events import Change, Clocks, change_between

log = logging.getLogger("mailrelay.network")

SETTLE = 0.5
"""Seconds from the first news until a report, because addresses and routes come in steps."""
PAUSE = 1.5
"""Seconds after a report without another one."""
_FAR_FUTURE = 2**31 - 1
"""The last time of day that all systems can represent, in epoch seconds. The timer has no effect when it expires."""
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE (linux/rtnetlink.h)."""
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_ITIMERSPEC = struct.Struct("@llll")


def read_clocks() -> Clocks:
    """The clocks now."""
    return Clocks(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())


async def changes() -> AsyncGenerator[Change, None]:
    """The changes from now on. Ends at once on systems without rtnetlink."""
    if sys.platform != "linux":
        return
    has_news = asyncio.Event()
    pending = Change()

    def note(change: Change) -> None:
        nonlocal pending
        if change:
            pending |= change
            has_news.set()

    with contextlib.ExitStack() as open_here:
        for what, listen in (("network", _network), ("clock", _clock)):
            try:
                open_here.enter_context(listen(note))
            except OSError as error:
                log.warning("changes of the %s will not be noticed: %s", what, error)
        while True:
            await has_news.wait()
            await asyncio.sleep(SETTLE)
            has_news.clear()
            reported, pending = pending, Change()
            yield reported
            await asyncio.sleep(PAUSE)


@contextlib.contextmanager
def _network(note: Callable[[Change], None]) -> Iterator[None]:
    """Passes changes of the network to `note`. Raises OSError if rtnetlink is not available."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.setblocking(False)
        sock.bind((0, _GROUPS))
        state = rtnetlink.NetworkState()
        # First read the present state, which is no change. The kernel accepts one dump request at a time.
        next_dumps = [rtnetlink.RTM_GETADDR]
        sock.send(rtnetlink.dump_request(rtnetlink.RTM_GETLINK))
        is_complete = False

        def receive() -> None:
            nonlocal is_complete
            while True:
                try:
                    data, (sender, _) = sock.recvfrom(65536)
                except BlockingIOError:
                    return
                except OSError:
                    # The kernel had more news than its buffer holds and dropped some (ENOBUFS).
                    note(Change(may_connect=True))
                    return
                if sender != 0:
                    continue
                change = state.update(data)
                if is_complete:
                    note(change)
                elif rtnetlink.ends_dump(data):
                    is_complete = not next_dumps
                    if next_dumps:
                        sock.send(rtnetlink.dump_request(next_dumps.pop()))

        loop.add_reader(sock, receive)
        try:
            yield
        finally:
            loop.remove_reader(sock)


@contextlib.contextmanager
def _clock(note: Callable[[Change], None]) -> Iterator[None]:
    """Passes suspends and steps of the clock to `note`. Raises OSError if there is no such timer."""
    loop = asyncio.get_running_loop()
    # os.timerfd_create exists since Python 3.13.
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    try:
        timer = checked(libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC))
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None

    clocks = read_clocks()

    def compare() -> None:
        nonlocal clocks
        # The read fails with ECANCELED and makes the timer wait for the next step.
        with contextlib.suppress(OSError):
            os.read(timer, 8)
        before, clocks = clocks, read_clocks()
        note(change_between(before, clocks))

    try:
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        checked(libc.timerfd_settime(timer, flags, _ITIMERSPEC.pack(0, 0, _FAR_FUTURE, 0), None))
        loop.add_reader(timer, compare)
        try:
            yield
        finally:
            loop.remove_reader(timer)
    finally:
        os.close(timer)
