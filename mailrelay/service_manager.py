"""What the daemon sends to the service manager that started it (sd_notify(3)), and the environment in which a command
reaches the service manager of the account."""

import contextlib
import os
import socket
from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str]) -> None:
    """Sends a state, such as "READY=1", to the service manager. Never waits. Does nothing if there is none,
    or if it cannot take the state now."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Seconds between two states "WATCHDOG=1": half the time after which the service manager ends a daemon that sends none
    (sd_watchdog_enabled(3)). None if it does not expect them."""
    try:
        limit = int(environ.get("WATCHDOG_USEC") or "0")
        is_ours = int(environ.get("WATCHDOG_PID") or os.getpid()) == os.getpid()
    except ValueError:
        return None
    return limit / 2_000_000 if limit > 0 and is_ours else None


def session_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as `systemctl --user` needs it: with XDG_RUNTIME_DIR, which su, sudo, cron and some logins by SSH do
    not set."""
    directory = f"/run/user/{os.getuid()}"
    found = {} if environ.get("XDG_RUNTIME_DIR") or not os.path.isdir(directory) else {"XDG_RUNTIME_DIR": directory}  # noqa: PTH112
    return {**environ, **found}
