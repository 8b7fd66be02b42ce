"""One message: its state, the form that mends it, its story, and its content.

    GET  /message/ID                          the page of the message
    GET  /message/ID/html, /source, /part/N   its HTML, its source, and one part, such as an attachment
    POST /message/ID/send                     the form that mends it

Promises: the same form sends a message once only, because the spool replaces a message once only.
"""

import time
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from mailrelay.control import replacement
from mailrelay.control.daemon import is_served
from mailrelay.control.details import Details, content, details
from mailrelay.control.errors import CONTROL_ERRORS
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.overview import Listed
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size
from mailrelay.page import content as contents
from mailrelay.page import story, views
from mailrelay.page.forms import Form
from mailrelay.page.mend_form import InvalidForm, Mend, mend_form, mended_message
from mailrelay.page.progress import progress
from mailrelay.page.site import Site, download, error_text, go

FOLLOW = "follow"
"""In the query of the address of a message that was just sent."""


def show_message(site: Site, request: Request) -> Response:
    return _show(site, details(site.directory, request.path_params["id"]), follows=FOLLOW in request.url.query)


def _show(
    site: Site,
    found: Details,
    entered: Mend | None = None,
    error: str = "",
    status: int = 200,
    *,
    follows: bool = False,
) -> Response:
    """The page of a message. entered: the form as the person has filled it in, if it was not sent; None for a new form.
    error: why it could not be sent, a sentence; "" for no error.

    follows: whether the message was just sent. Then the page has no form, because without script it is loaded again
    every few seconds, which would empty the form.
    """
    message, now = found.message, time.time()
    _, octets, damage = content(site.directory, message.queue_id)
    act = views.mending_act(message)
    mend = entered
    if mend is None and act is not None and octets and not damage:
        mend = mend_form(message, octets, act, views.suggestions(found))
    path = f"/message/{quote(message.queue_id)}"
    return site.show(
        "message.html",
        status,
        message=views.row(message, now),
        path=path,
        headline=views.headline(message, now),
        recipients=views.recipients(message, now),
        facts=[*_facts(site, message, now), *_asked_there(found)],
        replaced_by=found.replaced_by,
        going=progress(site.directory).get(message.queue_id),
        mend=mend,
        is_waiting=act is Act.EDIT,
        follows=follows,
        error=error,
        story=story.picture(message, found.timeline, now),
        events=views.events(found.timeline, now),
        verbs=views.possible_verbs(message),
        explained=views.EXPLAINED,
        content=contents.read(octets) if octets else None,
        damage=damage,
        size_of=size,
        live=f"/live.json?id={quote(message.queue_id)}",
        is_over=not story.is_unfinished(message),
    )


def _facts(site: Site, message: Listed, now: float) -> list[tuple[str, str]]:
    fallback = f", as the fallback for {printable(message.fallback_for)}" if message.fallback_for else ""
    facts = [
        ("From", printable(message.sender) or "<> (nobody)"),
        ("Arrived", views.clock(message.arrival)),
        ("Size", size(message.size)),
        ("Relayhost", f"{printable(message.relayhost)}{fallback}"),
        ("Attempts", str(message.attempts)),
    ]
    if message.next_attempt is not None:
        when = views.clock(max(now, message.next_attempt))
        runs = is_served(site.directory)
        facts.append(("Next attempt", when if runs else f"{when}, but mailrelay does not run"))
    return facts


def _asked_there(found: Details) -> list[tuple[str, str]]:
    """Whether the mail server on the relayhost was asked to try the message again, and its reply; [] if it was not."""
    if found.retry_there is None:
        return []
    return [("Asked there", printable(found.retry_there.text) or "its mail server is to be asked to try it again")]


def _octets(site: Site, request: Request) -> tuple[str, bytes]:
    """The whole queue id and the content of the message in the address; b"" if it is no longer kept."""
    queue_id, octets, _ = content(site.directory, request.path_params["id"])
    return queue_id, octets


def html(site: Site, request: Request) -> Response:
    """The tamed HTML of a message, for the frame."""
    _, octets = _octets(site, request)
    headers = {"content-security-policy": contents.HTML_POLICY, "x-frame-options": "SAMEORIGIN"}
    return HTMLResponse(f"<!doctype html><meta charset=utf-8>{contents.html_of(octets)}", headers=headers)


def source(site: Site, request: Request) -> Response:
    """The content of a message, as a file."""
    queue_id, octets = _octets(site, request)
    return download(octets, f"{queue_id}.eml")


def part(site: Site, request: Request) -> Response:
    """One part of a message, as a file."""
    found = contents.part_of(_octets(site, request)[1], request.path_params["number"])
    if found is None:
        return site.failed("The message has no such part.", 404)
    name, octets = found
    return download(octets, name)


def send(site: Site, request: Request, form: Form) -> Response:
    """Sends what the form makes of the message, in place of it; or shows the form again, with a suggestion or an error."""
    found = details(site.directory, request.path_params["id"])
    queue_id = found.message.queue_id
    act = views.mending_act(found.message)
    _, octets, damage = content(site.directory, queue_id)
    if act is None or not octets or damage:
        newer = f" It was replaced by {found.replaced_by[0]}." if found.replaced_by else ""
        site.tell(f"{queue_id} cannot be sent again in its present state.{newer}", is_error=True)
        return go(f"/message/{quote(queue_id)}")
    mend = mend_form(found.message, octets, act, views.suggestions(found)).with_entered(form)
    if "meant" in form:
        return _show(site, found, mend.with_suggestion(form.one("meant")))
    try:
        old, octets = replacement.replaceable(site.directory, queue_id, act)
        envelope, changed = mended_message(mend, old, octets, site.settings.listen.max_message_size)
        new = replacement.replace(site.settings, site.directory, old, act, envelope, changed)
    except InvalidForm as error:
        return _show(site, found, mend, f"{printable(str(error))}.", 422)
    except CONTROL_ERRORS as error:
        return _show(site, found, mend, f"It was not sent: {printable(error_text(error))}.", 409)
    site.tell(f"{queue_id} is sent again as {new.queue_id}.")
    if changed != octets and mend.editable.is_signed:
        site.tell("The message was signed: it has changed, so the signature is no longer valid.", is_error=True)
    if not new.daemon_runs:
        site.tell("mailrelay does not run: start `mailrelay serve` to send it.", is_error=True)
    return go(f"/message/{quote(new.queue_id)}?{FOLLOW}")
