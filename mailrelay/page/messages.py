"""The list of messages: the queue with its filters, a mark by which the script sees changes, and the form of the list.

    GET  /            the status in one sentence, and the queue
    GET  /live.json   the mark: a hash of the data that a page shows, of the list or of the message `id`
    POST /act         applies a verb of `views.VERBS` to the selected messages

Promises: the person is asked before a verb that cannot be undone.
"""

import hashlib
import json
import time
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mailrelay.control import acts, bulk, listing
from mailrelay.control.details import details
from mailrelay.control.records import message_record
from mailrelay.control.status import read_status
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.overview import Listed
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import number_of_messages, size
from mailrelay.mail.selection import EVERYTHING, Filter, matches
from mailrelay.page import views
from mailrelay.page.forms import Form
from mailrelay.page.progress import progress
from mailrelay.page.site import ON_A_PAGE, Site, go, query
from mailrelay.page.standing import standing

EVERYTHING_STATE = "everything"
"""The value of the filter's state that selects the history, too."""
MAX_SHOWN = 20
"""Messages that the question before a verb shows, at most."""
MAX_FAILURES = 10
"""Failures of one form that are shown, at most."""
_PARTICIPLES = {
    bulk.RETRY: "tried now",
    Act.HOLD: "held",
    Act.RELEASE: "released",
    Act.CANCEL: "cancelled",
    Act.DROP: "dropped",
}


def show_queue(site: Site, request: Request) -> Response:
    form, now = query(request), time.time()
    wanted = views.wanted(form, now)
    found = _listed(site, form, wanted)
    pages = max(1, -(-len(found) // ON_A_PAGE))
    given = form.one("page")
    number = min(pages, max(1, int(given))) if given.isdecimal() and len(given) < 6 else 1
    shown = found[(number - 1) * ON_A_PAGE : number * ON_A_PAGE]
    return site.show(
        "queue.html",
        standing=standing(read_status(site.settings, now), now),
        rows=[views.row(message, now) for message in shown],
        going=progress(site.directory),
        count=len(found),
        octets=size(sum(message.size for message in found)),
        number=number,
        pages=pages,
        page_link=lambda number: "/?" + urlencode({**_fields(form), "page": number}),
        filter=_fields(form),
        is_filtered=views.is_narrow(wanted) or form.one("state") == EVERYTHING_STATE,
        states=views.STATE_CHOICES,
        ages=views.AGES,
        verbs=views.VERBS,
        explained=views.EXPLAINED,
        live="/live.json?" + urlencode(_fields(form)),
    )


def _listed(site: Site, form: Form, wanted: Filter) -> list[Listed]:
    """The messages that the filter selects, the newest first."""
    with_history = wanted.needs_history or form.one("state") == EVERYTHING_STATE
    found = [one for one in listing.messages(site.directory, history=with_history) if matches(wanted, one)]
    return found[::-1]


def live(site: Site, request: Request) -> Response:
    form, now = query(request), time.time()
    directory = site.directory
    going = progress(directory)
    if given := form.one("id"):
        found = details(directory, given)
        shown: object = (
            message_record(found.message, now),
            found.replaced_by,
            len(found.timeline),
            going.get(found.message.queue_id),
        )
    else:
        listed = _listed(site, form, views.wanted(form, now))
        status = standing(read_status(site.settings, now), now)
        # Without the length of time in a title, which changes each minute: the page would be loaded again for it.
        problems = [problem.title.partition(" (for ")[0] for problem in status.problems]
        shown = ([message_record(one, now) for one in listed], status.level, problems, list(going.items()))
    mark = hashlib.sha256(json.dumps(shown, default=str).encode()).hexdigest()[:16]
    return JSONResponse({"mark": mark})


def act(site: Site, _request: Request, form: Form) -> Response:
    verb = form.one("verb")
    if verb not in views.VERBS:
        return site.failed("There is no such action.", 400)
    back = _own_path(form.one("back"))
    ids, skipped = form.all("id"), ""
    if "all" in form:
        wanted = views.wanted(form, time.time())
        selected = bulk.select(site.directory, wanted, verb)
        ids = selected.ids
        others = sum(map(len, selected.skipped.values()))
        skipped = f"{number_of_messages(others)} cannot be changed in this way" if others else ""
    if not ids:
        site.tell(f"No message was selected{f': {skipped}' if skipped else ''}.", is_error=True)
        return go(back)
    if verb in views.ASKED_BEFORE and "sure" not in form:
        rows = _rows(site, ids[:MAX_SHOWN])
        return site.show(
            "ask.html", verb=verb, ids=ids, rows=rows, back=back, explained=views.EXPLAINED[verb], skipped=skipped
        )
    _do(site, ids, verb)
    return go(back)


def _rows(site: Site, ids: list[str]) -> list[views.Row]:
    now = time.time()
    return [views.row(details(site.directory, given).message, now) for given in ids]


def _do(site: Site, ids: list[str], verb: str) -> None:
    """Applies the verb to the messages; the next page shows the result."""
    # Many messages take several commits, so that the daemon can write in between.
    if len(ids) > ON_A_PAGE:
        done = bulk.change(site.directory, bulk.Selected(EVERYTHING, ids=ids), verb)
    elif verb == bulk.RETRY:
        done = acts.retry(site.directory, ids)
    else:
        done = acts.act(site.directory, ids, Act(verb))
    there = len(done.only_there)
    here = len(done.changed) - there
    if here:
        site.tell(f"{number_of_messages(here)} {'is' if here == 1 else 'are'} {_PARTICIPLES[verb]}.")
    if there and verb == bulk.RETRY:
        site.tell(f"The mail server on the relayhost is asked to try {number_of_messages(there)} again.")
    elif there:
        site.tell(f"{number_of_messages(there)} {'is' if there == 1 else 'are'} dismissed.")
    for failure in filter(None, (*done.failures[:MAX_FAILURES], done.error)):
        site.tell(f"{printable(failure)}.", is_error=True)
    if done.lacks_daemon and verb in (bulk.RETRY, Act.RELEASE):
        site.tell("mailrelay does not run: start `mailrelay serve`.", is_error=True)


def _fields(form: Form) -> dict[str, str]:
    """The fields of the filter that are not empty."""
    return {name: form.one(name) for name in ("state", "from", "to", "age") if form.one(name)}


def _own_path(path: str) -> str:
    """`path` if it is a path of this page, with no other host; "/" otherwise."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"
