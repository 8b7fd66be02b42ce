"""`sendmail -bs`: SMTP on stdin and stdout. Octets are passed on unchanged between them and the daemon.

Promises: nothing is sent before the daemon's greeting, as the daemon closes connections of clients that send first. The
dialogue ends when the daemon closes the connection; the end of stdin is passed on.
"""

import errno
import os
import selectors
import socket
import sys

from mailrelay.cli.base import NO_DAEMON, Failed
from mailrelay.endpoint import Endpoint, Unix

PIECE = 1 << 16
"""Octets in one read, at most."""


def run(address: Endpoint) -> None:
    """Runs the dialogue. address: `listen.address` of the settings. Raises Failed."""
    try:
        daemon = _connected(address)
    except OSError as error:
        raise Failed(f"{address}: {error.strerror or error}; {NO_DAEMON}", os.EX_TEMPFAIL) from None
    with daemon:
        try:
            _pass_on(daemon)
        except OSError as error:
            raise Failed(f"the SMTP dialogue ended: {error.strerror or error}; try again", os.EX_TEMPFAIL) from None


def _connected(address: Endpoint) -> socket.socket:
    if isinstance(address, Unix):
        opened = socket.socket(socket.AF_UNIX)
        opened.connect(address.path)
        return opened
    return socket.create_connection((address.host, address.port))


def _pass_on(daemon: socket.socket) -> None:
    """Passes octets on between stdin, stdout and the daemon, until the daemon closes. Raises OSError."""
    if sys.stdin is None or sys.stdout is None:
        raise OSError(errno.EBADF, "stdin or stdout is closed")
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    # Not epoll or kqueue, which do not take a file, and stdin may be one.
    with selectors.SelectSelector() as selector:
        selector.register(daemon, selectors.EVENT_READ)
        greeted = False
        while True:
            for key, _ in selector.select():
                if key.fileobj is daemon:
                    octets = daemon.recv(PIECE)
                    if not octets:
                        return
                    while octets:
                        octets = octets[os.write(stdout, octets) :]
                    if not greeted:
                        greeted = True
                        selector.register(stdin, selectors.EVENT_READ)
                else:
                    octets = os.read(stdin, PIECE)
                    if octets:
                        daemon.sendall(octets)
                    else:
                        selector.unregister(stdin)
                        daemon.shutdown(socket.SHUT_WR)
