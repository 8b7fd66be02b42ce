"""Reports changes of this computer's network and clock.

    async for change in changes(): ...

On Linux it needs no polling and no privilege. rtnetlink(7) reports changes of the network. A timer that is cancelled when
the clock is set (TFD_TIMER_CANCEL_ON_SET of timerfd_create(2)) reports that the clock was set. The kernel also sets the
clock when the computer resumes; a comparison with two other clocks distinguishes a suspend from a step of the clock
(`events.change_between`). On other systems nothing is reported, and hooks trigger the daemon instead
(`contrib/networkmanager`, `contrib/launchd`).

Promises: the changes of a burst are reported as one, SETTLE seconds after the first. Two reports are at least SETTLE + PAUSE
seconds apart.
Never: an exception of the operating system. If changes of the network or of the clock cannot be observed, one line in the
log says so.
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
"""Seconds from the first change until its report, because addresses and routes change in steps."""
PAUSE = 1.5
"""Seconds after a report in which changes are only collected."""
_FAR_FUTURE = 2**31 - 1
"""The expiry of the timer in epoch seconds, the last time that all systems can represent. Expiry has no effect."""
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE (linux/rtnetlink.h)."""
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_ITIMERSPEC = struct.Struct("@llll")


def read_clocks() -> Clocks:
    """The clocks now."""
    return Clocks(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())


async def changes() -> AsyncGenerator[Change, None]:
    """The changes from now on. On systems other than Linux it ends at once; otherwise it ends when it is closed."""
    if sys.platform != "linux":
        return
    has_pending = asyncio.Event()
    pending = Change()

    def add(change: Change) -> None:
        nonlocal pending
        if change:
            pending |= change
            has_pending.set()

    with contextlib.ExitStack() as observers:
        for what, observe in (("network", _observe_network), ("clock", _observe_clock)):
            try:
                observers.enter_context(observe(add))
            except OSError as error:
                log.warning("changes of the %s will not be noticed: %s", what, error)
        while True:
            await has_pending.wait()
            await asyncio.sleep(SETTLE)
            has_pending.clear()
            reported, pending = pending, Change()
            yield reported
            await asyncio.sleep(PAUSE)


@contextlib.contextmanager
def _observe_network(report: Callable[[Change], None]) -> Iterator[None]:
    """Passes changes of the network to `report`. Raises OSError if rtnetlink is not available."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.setblocking(False)
        sock.bind((0, _GROUPS))
        state = rtnetlink.NetworkState()
        # First the present state is read, without a report. The kernel accepts one dump request at a time.
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
                    # The buffer of the socket was full, and the kernel dropped changes (ENOBUFS).
                    report(Change(may_connect=True))
                    return
                if sender != 0:
                    # Not from the kernel.
                    continue
                change = state.update(data)
                if is_complete:
                    report(change)
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
def _observe_clock(report: Callable[[Change], None]) -> Iterator[None]:
    """Passes suspends and steps of the clock to `report`. Raises OSError if there is no such timer."""
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
        # A C library without this function.
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None

    clocks = read_clocks()

    def compare() -> None:
        nonlocal clocks
        # The read fails with ECANCELED. After it, the timer reports the next time that the clock is set.
        with contextlib.suppress(OSError):
            os.read(timer, 8)
        before, clocks = clocks, read_clocks()
        report(change_between(before, clocks))

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
