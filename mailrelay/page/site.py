"""What all routes of the page share: the settings, the session, the templates, and common responses."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from mailrelay.config import Settings
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import number_of_messages
from mailrelay.page.forms import Form, read_form
from mailrelay.page.guard import Session

HERE = Path(__file__).parent
ON_A_PAGE = 100
"""Messages on one page of a list, at most."""


class Site:
    """The state of one run of the page. command: the argv that runs mailrelay with these settings."""

    def __init__(self, settings: Settings, command: tuple[str, ...], session: Session) -> None:
        self.settings = settings
        self.directory = settings.queue.directory
        self.command = command
        self.session = session
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters["number_of_messages"] = number_of_messages

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        """The response made from a template. It shows the sentences of `tell`, once."""
        results, self.session.results = self.session.results, []
        text = self._templates.get_template(template).render(token=self.session.form_token, results=results, **values)
        return HTMLResponse(text, status)

    def failed(self, sentence: str, status: int) -> Response:
        """A page with the reason why the request could not be fulfilled."""
        return self.show("failed.html", status, sentence=printable(sentence))

    def tell(self, sentence: str, *, is_error: bool = False) -> None:
        """Keeps a sentence about the result of a form; the next page shows it."""
        self.session.results.append((sentence, is_error))


def query(request: Request) -> Form:
    """The fields in the query of a request's address. Raises TooManyFields."""
    return read_form(request.url.query.encode("ascii", "replace"))


def go(path: str) -> Response:
    """The response to a form: a redirect (303) to `path`, which the browser asks for by GET."""
    return RedirectResponse(path, 303)


def download(octets: bytes, name: str) -> Response:
    """A file that the browser saves, whatever its type, and never shows as a page. 404 if `octets` is empty."""
    if not octets:
        return PlainTextResponse("The content is empty or no longer kept.", 404)
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\%;' else "_" for char in name)
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    headers = {"content-disposition": disposition, "content-security-policy": "sandbox; default-src 'none'"}
    return Response(octets, headers=headers, media_type="application/octet-stream")


def error_text(error: Exception) -> str:
    """The sentence of an error of `control` or of the system, without a full stop."""
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
