"""Runs the page until it has no reader any more.

It listens on 127.0.0.1, on a free port. It ends `IDLE` seconds after the last request of its reader. The script of a page in
a visible tab sends requests every few seconds; in a background tab it sends none.
"""

import asyncio
import os
import signal
import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from mailrelay.config import Settings
from mailrelay.page.app import make_app
from mailrelay.page.guard import Guard, Session
from mailrelay.page.same_account import SameAccountProtocol

IDLE = 900.0
"""Seconds without a reader after which the page ends."""
MAX_CONNECTIONS = 50
"""Connections at once, at most; uvicorn replies with 503 to more."""


def run(
    settings: Settings,
    command: tuple[str, ...],
    start: str,
    *,
    opens_browser: bool,
    say: Callable[[str, bool], None],
    idle: float = IDLE,
) -> None:
    """Runs the page until it ends, or until SIGTERM or Ctrl-C.

    command: the argv that runs mailrelay with these settings. start: the path to begin with. say: called once, on a thread,
    when the page can be opened, with its address and whether a browser was opened. idle: as IDLE. Sets the umask of the
    process to 077. Raises OSError if it cannot listen.
    """
    os.umask(0o077)
    # SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that the file with the token is removed.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    listening = socket.create_server(("127.0.0.1", 0))
    # The connections inherit it. Otherwise the body of a response waits 40 ms for the acknowledgement of its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    session = Session(f"http://127.0.0.1:{listening.getsockname()[1]}", start)
    server = uvicorn.Server(
        uvicorn.Config(
            Guard(make_app(settings, command, session), session),
            http=SameAccountProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
    )
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(
                _serve(
                    server,
                    listening,
                    session,
                    idle,
                    lambda: say(session.url, opens_browser and _open_browser(session)),
                )
            )
    finally:
        session.entry.remove_file()
        listening.close()
        signal.signal(signal.SIGTERM, before)


async def _serve(
    server: uvicorn.Server, listening: socket.socket, session: Session, idle: float, open_page: Callable[[], None]
) -> None:
    """Serves the page, and calls `open_page` on a thread."""
    watching = asyncio.create_task(_end_without_reader(server, session, idle))
    # On a thread, because a text browser in the terminal returns only when the person quits it.
    opening = asyncio.create_task(asyncio.to_thread(open_page))
    try:
        await server.serve([listening])
    finally:
        watching.cancel()
    await opening


async def _end_without_reader(server: uvicorn.Server, session: Session, idle: float) -> None:
    while True:
        left = session.read_at + idle - asyncio.get_running_loop().time()
        if left <= 0:
            break
        await asyncio.sleep(left)
    server.should_exit = True


def _open_browser(session: Session) -> bool:
    """Opens the person's browser with the file that leads to the page. Returns whether a browser was found."""
    try:
        return webbrowser.open(session.entry.write_file(session.url).as_uri())
    except (OSError, webbrowser.Error):
        return False
