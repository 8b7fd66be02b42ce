"""Who may use the page. Every request passes through `Guard` before it reaches the app.

    Host             must be the address of the page: a host name of an attacker that resolves to 127.0.0.1 is refused
    Sec-Fetch-Site   must not be another site, or another port of this computer
    Origin           of a POST must be the page's
    cookie           of the session that a one-time token has opened (`entry`); HttpOnly, SameSite=Strict
    form token       in the body of each form; `app` compares it

A browser sends a cookie to all ports of a host, so another program of this computer may get our cookie. Another account
cannot use it, because its connections are closed (`same_account`).

Promises: each response has the headers of HEADERS. The response to a refused request has only a sentence with the reason.
"""

import secrets
import time
from dataclasses import dataclass, field
from http import cookies

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mailrelay.page.entry import Entry

ENTER = "/enter/"
"""The beginning of the path with a one-time token."""
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; frame-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-dns-prefetch-control": "off",
    # Not "no-referrer": with that a browser sends the Origin "null" with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""The headers of each response that does not set them itself."""
_METHODS = ("GET", "HEAD", "POST")
_CLOSED = "This page is for the person who opened it. Run `mailrelay web` to open it."
_ENTERED = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={path}"><title>mailrelay</title>
<link rel="icon" href="/static/icon.svg">
<p><a href="{path}">Go on to the page</a></p></html>
"""


@dataclass
class Session:
    """The one session of this process. origin: "http://127.0.0.1:PORT". start: the path that is opened first. cookie: its
    value, "" until the token was used. form_token: in every form.

    results: sentences about what the last form did, for the next page, each with whether it is an error. read_at: the time
    of the last accepted request, in seconds of `time.monotonic`.
    """

    origin: str
    start: str
    entry: Entry = field(default_factory=Entry)
    cookie: str = ""
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    results: list[tuple[str, bool]] = field(default_factory=list)
    read_at: float = field(default_factory=time.monotonic)

    @property
    def host(self) -> str:
        return self.origin.removeprefix("http://")

    @property
    def cookie_name(self) -> str:
        """With the port, because a browser sends the cookies of a host to all its ports, so also to a second page."""
        return f"mailrelay-{self.host.rpartition(':')[2]}"

    @property
    def url(self) -> str:
        """The address with the one-time token."""
        return f"{self.origin}{ENTER}{self.entry.token}"

    def knows(self, cookie: str) -> bool:
        """Whether `cookie` is the value of the session's cookie."""
        return bool(self.cookie) and secrets.compare_digest(cookie.encode("utf-8", "replace"), self.cookie.encode())

    def has_form_token(self, token: str) -> bool:
        """Whether `token` is the form token."""
        return secrets.compare_digest(token.encode("utf-8", "replace"), self.form_token.encode())


class Guard:
    """An ASGI application that passes the requests of the session's browser to `app`, and refuses others."""

    def __init__(self, app: ASGIApp, session: Session) -> None:
        self._app = app
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        response = self._own_response(scope)
        app = self._app if response is None else response
        await app(scope, receive, send_with_headers)

    def _own_response(self, scope: Scope) -> Response | None:
        """The response to a request with the one-time token, or to one that is refused; None for a request to pass on."""
        headers = Headers(scope=scope)
        session, method, path = self._session, scope["method"], scope["path"]
        is_known = session.knows(_cookie(headers, session.cookie_name))
        if headers.getlist("host") != [session.host]:
            refused = "This is not the address of the page.", 421
        elif method not in _METHODS:
            refused = "The page has no such method.", 405
        elif method == "GET" and path.startswith(ENTER):
            return self._enter(path.removeprefix(ENTER), is_known=is_known)
        elif headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            refused = "Another page has no access to this one.", 403
        elif method == "POST" and headers.getlist("origin") != [session.origin]:
            refused = "A form of another page is not accepted here.", 403
        elif not is_known:
            refused = _CLOSED, 403
        else:
            session.read_at = time.monotonic()
            return None
        return PlainTextResponse(*refused)

    def _enter(self, token: str, *, is_known: bool) -> Response:
        """Opens the session, if the token is right; a browser that has the cookie is led to the page again."""
        session = self._session
        if session.entry.redeem(token):
            session.cookie = secrets.token_urlsafe(32)
        elif not is_known:
            return PlainTextResponse(f"This address was used already, or belongs to another page. {_CLOSED}", 403)
        session.read_at = time.monotonic()
        # No redirect: a browser sends a Strict cookie only with a request that starts on a page of this site.
        response = HTMLResponse(_ENTERED.format(path=session.start))
        response.set_cookie(session.cookie_name, session.cookie, httponly=True, samesite="strict", path="/")
        return response


def _cookie(headers: Headers, name: str) -> str:
    """The value of a cookie of the request; "" if there is none, or if the header is malformed."""
    found: cookies.SimpleCookie = cookies.SimpleCookie()
    for line in headers.getlist("cookie"):
        try:
            found.load(line)
        except cookies.CookieError:
            return ""
    return found[name].value if name in found else ""
