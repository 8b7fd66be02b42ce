"""Sockets that a service manager has opened for the daemon: socket activation.

systemd passes them as descriptors from 3 on (sd_listen_fds(3)), launchd hands them out by a name of the agent's `Sockets`
(launch_activate_socket(3)). A FIFO among them is the trigger, which the daemon opens by its path. The service manager goes
on listening to both when the daemon has ended.

Promises: no program that the daemon starts gets the descriptors or their variables.
"""

import ctypes
import os
import socket
import stat
import sys
from collections.abc import MutableMapping

FIRST = 3
"""The first descriptor that systemd passes (SD_LISTEN_FDS_START)."""
LAUNCHD_NAME = b"Listeners"
"""The key of the listening sockets in `Sockets` of the launchd agent."""


def inherited_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The stream sockets on which the service manager listens for this process; none without a service manager. Closes
    the other descriptors that it has passed, and removes the variables about them from `environ`."""
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    pid, count, _ = (environ.pop(name, "") for name in names)
    if pid == str(os.getpid()) and count.isdecimal():
        handles = list(range(FIRST, FIRST + int(count)))
    else:
        handles = _from_launchd() if sys.platform == "darwin" else []
    return [opened for handle in handles if (opened := _listening(handle)) is not None]


def _listening(handle: int) -> socket.socket | None:
    """The socket if the descriptor is a listening stream socket; any other descriptor is closed, and gives None."""
    try:
        os.set_inheritable(handle, False)
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            os.close(handle)
            return None
    except OSError:
        # systemd passes only open descriptors, but another program may have set the variables by mistake.
        return None
    opened = socket.socket(fileno=handle)
    if opened.type == socket.SOCK_STREAM and opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return opened
    opened.close()
    return None


def _from_launchd() -> list[int]:
    """The descriptors that launchd has for this process; none if launchd has not started the process, or the agent has
    no `Sockets`."""
    system = ctypes.CDLL(None)
    if not hasattr(system, "launch_activate_socket"):
        return []
    handles, count = ctypes.POINTER(ctypes.c_int)(), ctypes.c_size_t()
    if system.launch_activate_socket(LAUNCHD_NAME, ctypes.byref(handles), ctypes.byref(count)) != 0:
        return []
    found = [handles[index] for index in range(count.value)]
    system.free(handles)
    return found
