"""The routes of the page. Each one reads or changes the spool through `control`, and shows a template.

    GET  /, /live.json, POST /act      `messages`
    /message/ID…                       `message`
    GET  /days                         the last days
    GET  /host-key/RELAYHOST           the host keys of the server and the known ones, with their pictures

Functions that read the spool are not asynchronous: they run on threads. Every form goes through `_posted`, which compares
the token of the form before it calls a handler.

Never: a change by GET.
"""

import subprocess
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mailrelay.config import Settings
from mailrelay.control import last_days, listing
from mailrelay.control.errors import CONTROL_ERRORS, NoSuchMessage
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import length
from mailrelay.page import days, message, messages, views
from mailrelay.page.forms import Form, TooManyFields, read_form
from mailrelay.page.guard import Session
from mailrelay.page.site import HERE, ON_A_PAGE, Site, error_text

MAX_BODY = 4_000_000
"""Octets of the body of a request, at most; 413 for more."""
SCAN_TIMEOUT = 60.0
"""Seconds to wait for the host keys of a relayhost."""

ReadHandler = Callable[[Site, Request], Response]
FormHandler = Callable[[Site, Request, Form], Response]


def make_app(settings: Settings, command: tuple[str, ...], session: Session) -> Starlette:
    """The ASGI application. command: the argv that runs mailrelay with these settings."""
    site = Site(settings, command, session)

    async def not_found(_request: Request, _error: Exception) -> Response:
        return site.failed("There is no such page.", 404)

    async def internal_error(_request: Request, error: Exception) -> Response:
        return site.failed(f"An error of mailrelay itself: {type(error).__name__}: {error}", 500)

    return Starlette(
        routes=[
            Route("/", _read(site, messages.show_queue)),
            Route("/live.json", _read(site, messages.live)),
            Route("/act", _posted(site, messages.act), methods=["POST"]),
            Route("/days", _read(site, _days)),
            Route("/message/{id}", _read(site, message.show_message)),
            Route("/message/{id}/html", _read(site, message.html)),
            Route("/message/{id}/source", _read(site, message.source)),
            Route("/message/{id}/part/{number:int}", _read(site, message.part)),
            Route("/message/{id}/send", _posted(site, message.send), methods=["POST"]),
            Route("/host-key/{name}", _read(site, _host_key)),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        max_body_size=MAX_BODY,
        exception_handlers={404: not_found, 500: internal_error},
    )


def _read(site: Site, handler: ReadHandler) -> Callable[[Request], Response]:
    """An endpoint that shows the errors of `control` as a page: 404 for an unknown message, 503 for the others."""

    def read(request: Request) -> Response:
        try:
            return handler(site, request)
        except NoSuchMessage as error:
            return site.failed(str(error), 404)
        except TooManyFields:
            return site.failed("The form has too many fields.", 413)
        except (*CONTROL_ERRORS, OSError) as error:
            return site.failed(error_text(error), 503)

    return read


def _posted(site: Site, handler: FormHandler) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for a form: 413 if it has too many fields, 403 if its token is not that of the session."""

    async def posted(request: Request) -> Response:
        body = await request.body()

        def handle(site: Site, request: Request) -> Response:
            form = read_form(body)
            if not site.session.has_form_token(form.one("token")):
                return site.failed(
                    "This form is from another page, or from an earlier run of this one. Load the page again.", 403
                )
            return handler(site, request, form)

        return await run_in_threadpool(_read(site, handle), request)

    return posted


def _days(site: Site, _request: Request) -> Response:
    now = time.time()
    found = last_days.read_last_days(site.directory, now, site.settings.queue.delay_notice_after)
    newest_first = list(listing.messages(site.directory, history=True))[::-1]
    return site.show(
        "days.html",
        picture=days.picture(found),
        days=[(days.day_name(day), day.sent, day.late, day.failed) for day in found.days],
        late_after=length(site.settings.queue.delay_notice_after),
        has_periods=bool(found.periods),
        rows=[views.row(message, now) for message in newest_first[:ON_A_PAGE]],
    )


def _host_key(site: Site, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in [relayhost.name for relayhost in site.settings.relayhosts]:
        return site.failed("There is no such relayhost in the settings.", 404)
    # A process of its own: the SSH library would stay in the memory of this one. `trust` accepts no key without a terminal.
    try:
        done = subprocess.run(
            (*site.command, "trust", name),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SCAN_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return site.failed(
            f"The host keys of {name} could not be read: no reply within {SCAN_TIMEOUT:.0f} seconds.", 503
        )
    # stderr has the reason if no key was found. If keys were found, it only says that none was accepted: not shown.
    lines = [printable(line) for line in (done.stdout or done.stderr).decode("utf-8", "replace").splitlines()]
    return site.show("host_key.html", name=name, lines=lines, is_trusted=done.returncode == 0)
