"""The network and the clock of this computer, as they change: addresses and routes come and go, it slept, its clock was set.

    async for change in changes(): ...

On Linux, without polling and without a privilege: rtnetlink(7) tells of the network, and a timer that is never due, but is
cancelled when the clock is set (TFD_TIMER_CANCEL_ON_SET of timerfd_create(2)), wakes us when the clock leaps. It leaps when
the computer wakes up, too: which of both it was, the other clocks tell. Elsewhere nothing is told here, and the person's
hooks ring in place of it (`contrib/networkmanager`, `contrib/launchd`).

Promises: what comes in one burst is told as one change, a moment after it began; a storm is told every two seconds at most.
Never: an exception of the operating system's; where it does not let us listen, one line in the log says so.
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
from mailrelay.network.events import Change, Clocks, between

log = logging.getLogger("mailrelay.relay")

SETTLE = 0.5
"""Seconds from the first sign of a change until it is told: addresses and routes come together."""
REST = 1.5
"""Seconds after that in which nothing is told."""
_FAR = 2**31 - 1
"""The last time of day that every system can write down, epoch seconds; should it come, nothing happens then."""
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE (linux/rtnetlink.h)."""
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_ITIMERSPEC = struct.Struct("@llll")


def read_clocks() -> Clocks:
    """What the clocks show now."""
    return Clocks(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())


async def changes() -> AsyncGenerator[Change, None]:
    """What changes, for as long as it is asked for. Ends at once on systems that have no rtnetlink."""
    if sys.platform != "linux":
        return
    begun = asyncio.Event()
    pending = Change()

    def note(change: Change) -> None:
        nonlocal pending
        if change:
            pending |= change
            begun.set()

    with contextlib.ExitStack() as open_here:
        for what, listen in (("network", _network), ("clock", _clock)):
            try:
                open_here.enter_context(listen(note))
            except OSError as error:
                log.warning("it will not be noticed when the %s changes: %s", what, error)
        while True:
            await begun.wait()
            await asyncio.sleep(SETTLE)
            begun.clear()
            told, pending = pending, Change()
            yield told
            await asyncio.sleep(REST)


@contextlib.contextmanager
def _network(note: Callable[[Change], None]) -> Iterator[None]:
    """Notes what rtnetlink tells. Raises OSError where it cannot be listened to."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.setblocking(False)
        sock.bind((0, _GROUPS))
        picture = rtnetlink.Picture()
        # What there is already is no news, but what comes later is held against it. One at a time: so the kernel wants it.
        wanted = [rtnetlink.RTM_GETADDR]
        sock.send(rtnetlink.dump(rtnetlink.RTM_GETLINK))
        is_drawn = False

        def hear() -> None:
            nonlocal is_drawn
            while True:
                try:
                    data, (sender, _) = sock.recvfrom(65536)
                except BlockingIOError:
                    return
                except OSError:
                    # More has happened than was kept for us (ENOBUFS); nobody knows what.
                    note(Change(opens=True))
                    return
                if sender != 0:
                    continue
                change = picture.hear(data)
                if is_drawn:
                    note(change)
                elif rtnetlink.ends_dump(data):
                    is_drawn = not wanted
                    if wanted:
                        sock.send(rtnetlink.dump(wanted.pop()))

        loop.add_reader(sock, hear)
        try:
            yield
        finally:
            loop.remove_reader(sock)


@contextlib.contextmanager
def _clock(note: Callable[[Change], None]) -> Iterator[None]:
    """Notes when the clock is set and when the computer wakes up. Raises OSError where that cannot be waited for."""
    loop = asyncio.get_running_loop()
    # os.timerfd_create came with Python 3.13.
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

    def hear() -> None:
        nonlocal clocks
        # Fails with ECANCELED, after which it waits for the next time.
        with contextlib.suppress(OSError):
            os.read(timer, 8)
        before, clocks = clocks, read_clocks()
        note(between(before, clocks))

    try:
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        checked(libc.timerfd_settime(timer, flags, _ITIMERSPEC.pack(0, 0, _FAR, 0), None))
        loop.add_reader(timer, hear)
        try:
            yield
        finally:
            loop.remove_reader(timer)
    finally:
        os.close(timer)
