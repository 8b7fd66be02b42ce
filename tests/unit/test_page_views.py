"""What the page shows of a message: its time as a picture, its content, the last days, how things stand."""

import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrelay.control.details import Details
from mailrelay.control.last_days import Day, read_last_days
from mailrelay.control.log_file import FILE, local_time
from mailrelay.control.status import Level, Space, Status
from mailrelay.mail.overview import Event, Listed, ListedRecipient, RelayhostFault, SpoolStatus
from mailrelay.mail.quantity import number_of_messages
from mailrelay.mail.selection import EVERYTHING, Filter
from mailrelay.mail.there import There, Verdict
from mailrelay.page import content, days, site, story, views
from mailrelay.page.forms import read_form
from mailrelay.page.standing import standing

NOW = 1_795_000_000.0


def message(*to: ListedRecipient, queue: str = "deferred", arrival: float = NOW - 100) -> Listed:
    return Listed(1, "3aaaaaa1", queue, "default", arrival, 9, b"me@example.org", "hi", 1, None, "", to)


def to(state: str, there: Verdict | None = None, description: bytes = b"", status: str = "") -> ListedRecipient:
    return ListedRecipient(b"bob@example.org", state, status, "", description, None, "", there)


def activities(listed: Listed, *events: Event) -> list[tuple[str, float]]:
    return [(str(span.activity), round(span.end - span.start)) for span in story.spans(listed, events, NOW)]


def test_the_time_of_a_message_is_waiting_dialling_sending_and_at_the_next_server() -> None:
    start = NOW - 100
    events = (
        Event(start, "accepted"),
        Event(start + 10, "dialled, in 5.00 s"),
        Event(start + 15, "attempt"),
        Event(start + 20, "deferred"),
        Event(start + 50, "attempt"),
        Event(start + 60, "sent"),
        Event(start + 90, "delivered there"),
        Event(NOW + 9, "notice", planned=True),
    )
    done = message(to("sent", Verdict(There.DELIVERED)), queue="sent")
    assert activities(done, *events) == [
        ("waiting", 10), ("dialling", 5), ("sending", 5), ("waiting", 30), ("sending", 10), ("there", 30),
    ]  # fmt: skip
    assert story.end_of(done) == ("✓", "sent")
    going = message(to("sent", Verdict(There.WAITING)), queue="sent")
    assert activities(going, *events[:6])[-1] == ("there", 40)
    assert story.end_of(going) == ("", "")
    assert story.end_of(message(to("bounced")))[0] == "✗"
    assert story.end_of(message(to("cancelled")))[1] == "cancelled"


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6), st.sampled_from(["attempt", "sent", "held", "deferred", "dialled, in x s", "<b>"])
        )
    )
)
def test_any_timeline_makes_a_picture_that_is_well_formed(found: list[tuple[float, str]]) -> None:
    events = [Event(NOW - 100, "accepted"), *(Event(NOW + at, what, b"<&\x1b>", "", b"\xff") for at, what in found)]
    for state in ("queued", "sent", "bounced"):
        drawn = story.picture(message(to(state)), events, NOW)
        ET.fromstring(drawn)
        assert len(drawn) < 20_000
    assert story.picture(message(to("queued")), [], NOW) == ""


def test_the_log_tells_of_the_last_days(tmp_path: Path) -> None:
    now = time.time()
    lines = [
        (-8 * 86_400, "INFO 3a to=<a@b> relay=default delay=1 delays=0/0/1 dsn=2.0.0 status=sent (old)"),
        (-7200, "INFO relay=default connected in 0.30 s"),
        (-7190, "INFO 3a to=<a@b> relay=default delay=1 delays=0/0/1 dsn=2.0.0 status=sent (250 status=bounced)"),
        (-7180, "INFO 3b to=<a@b> relay=default delay=2e+03 delays=0/0/1 dsn=2.0.0 status=sent (250 ok)"),
        (-7170, "ERROR 3c to=<a@b> relay=default delay=1 delays=0/0/1 dsn=5.1.1 status=bounced (550 no)"),
        (-7160, "INFO 3a to=<a@b> relay=default there=bounced source=log (no)"),
        (-7100, "INFO relay=default closed"),
        (-3600, "WARNING relay=default unusable (dial: away)"),
        (-3000, "WARNING relay=default unusable (dial: away)"),
        (-1800, "INFO relay=default connected in 1.00 s"),
        (0, "no line of a log"),
    ]
    assert read_last_days(tmp_path, now, 900).periods == []
    text = "".join(f"{local_time(now + at)} {line}\n" for at, line in lines) + "\xff torn"
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    found = read_last_days(tmp_path, now, 900)
    assert sum(day.sent for day in found.days) == 2
    assert sum(day.late for day in found.days) == 1
    assert sum(day.failed for day in found.days) == 2
    assert [period.is_connected for period in found.periods] == [True, False, True]
    assert [period.end - period.start for period in found.periods] == pytest.approx([100, 1800, 1800], abs=2)
    assert len(found.days) == 7
    ET.fromstring(days.picture(found))


def test_html_of_a_message_keeps_its_words_and_loads_nothing() -> None:
    tamed = content.tame(
        "<!doctype html><p onclick=x style='color:red'>a&lt;b 1 < 2<script>x</script><img src=http://x>"
        "<img src='data:image/png;base64,AA'><a href='http://x'>link</a><link rel=preconnect href=//x><svg><b>y</b></svg>"
        "<style>p{} <</style><!-- <i> --></p><td background=http://x><STYLE>@import 'x'"
    )
    assert tamed == (
        '<p style="color:red">a&lt;b 1 &lt; 2<img><img src="data:image/png;base64,AA"><a title="http://x">link</a>'
        "<style>p{} </style></p><td><style>@import 'x'</style>"
    )


@given(st.text(st.sampled_from("<>/ab=\"' !-script")) | st.text())
def test_tamed_html_has_no_script_and_stays_as_it_is(text: str) -> None:
    tamed = content.tame(text)
    assert "<script" not in tamed.lower()
    assert content.tame(tamed) == tamed


def as_html(text: str) -> bytes:
    return b"Content-Type: text/html\r\n\r\n" + text.encode("utf-8", "replace")


@settings(max_examples=50)
@given(st.binary(max_size=400) | st.text(max_size=300).map(as_html))
def test_any_message_is_shown(octets: bytes) -> None:
    found = content.read(octets)
    assert all(line.replace("\t", "").isprintable() for line in found.text.split("\n"))
    content.html_of(octets)
    assert content.part_of(octets, 500) is None


NESTED = b"Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n"


@pytest.mark.parametrize(
    "octets",
    [
        NESTED * 3000,
        NESTED + b"Content-Type: text/plain\r\n\r\nx\r\n--B\r\n" * 20_000,
        b"Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n" * 50,
        b"Content-Type: text/html; charset=idna\r\n\r\n" + b"<b <!-- <script '" * 50_000,
        b"Content-Type: text/html\r\n\r\n<b " + b"a='" * 150_000 + b">",
        b"Content-Type: message/rfc822\r\n\r\n" * 500,
        b'Content-Disposition: attachment; filename*0*=x; filename*2="; name==?x?q?=FF?=\r\n\r\nx',
        b"Subject: " + b"(" * 100_000 + b"\r\nContent-Type: " + b"(" * 100_000 + b"\r\n\r\nx",
    ],
    ids=[
        "nested",
        "many parts",
        "no boundary",
        "open tags",
        "open quotes",
        "messages in messages",
        "broken names",
        "comments",
    ],
)
def test_a_hostile_message_is_shown_in_bounded_time(octets: bytes) -> None:
    begun = time.process_time()
    found = content.read(octets)
    content.html_of(octets)
    assert len(found.attachments) <= content.MAX_PARTS
    # Hundreds of times what it takes, so that only a time that is not linear fails.
    assert time.process_time() - begun < 20


def test_attachments_have_a_name_without_a_path_and_their_size() -> None:
    octets = (
        b"Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n\r\nHello\r\n--B\r\nContent-Type: application/pdf\r\n"
        b"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename*=utf-8''..%2F..%2Fa%0D%0Ab.pdf\r\n"
        b"\r\nJVBERi0=\r\n--B\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny\r\n--B--\r\n"
    )
    found = content.read(octets)
    assert found.text == "Hello"
    assert [(file.number, file.kind, file.size > 0) for file in found.attachments] == [
        (1, "application/pdf", True), (2, "message/rfc822", True),
    ]  # fmt: skip
    assert "/" not in found.attachments[0].name and "\n" not in found.attachments[0].name
    part = content.part_of(octets, 1)
    assert part is not None
    assert part[1] == b"%PDF-"


EMPTY = SpoolStatus(0, None, 0, 0, 0, 0, (), ())


def status(
    spool: SpoolStatus | None = EMPTY, pid: str | None = "1", level: Level = Level.FINE, failure: str = ""
) -> Status:
    return Status(Path("/s"), spool, Space(), failure, pid, True, False, (), [(level, "why")] if level else [])


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (status(), "All is well: no mail waits, and none has failed."),
        (status(EMPTY._replace(failed=1)), "1 message needs you."),
        (status(EMPTY._replace(failed=1, held=1, pending=2)), "2 messages need you, and 2 messages wait to be sent."),
        (status(EMPTY._replace(pending=1), pid=None), "1 message waits to be sent, but mailrelay does not run."),
        (status(EMPTY._replace(pending=1, scheduled=1)), "1 message waits to be sent at its time."),
        (status(None, failure="torn"), "The spool cannot be used, so mailrelay accepts no mail."),
    ],
)
def test_how_things_stand_is_one_sentence(found: Status, sentence: str) -> None:
    assert standing(found, NOW).sentence == sentence


def test_a_fault_is_shown_with_its_fix_and_leads_to_the_keys() -> None:
    fault = RelayhostFault("default", NOW - 60, NOW, True, "The host key is unknown.", "mailrelay trust default")
    (problem,) = standing(status(EMPTY._replace(faults=(fault,))), NOW).problems
    assert problem.title == "default cannot be reached (for 1 min)"
    assert problem.fix == ("mailrelay trust default",)
    assert problem.link[0] == "/host-key/default"


def test_a_refusal_has_its_meaning() -> None:
    listed = message(to("bounced", description=b"550 5.1.1 no such user", status="5.1.1"))
    (shown,) = views.recipients(listed, NOW)
    assert shown.is_of_server
    assert shown.meaning == "The mailbox does not exist. Check the spelling of the address."
    assert views.headline(listed, NOW) == "This message was refused."
    assert views.possible_verbs(listed) == ["drop"]


@given(st.binary(max_size=300))
def test_any_body_is_a_form_or_refused(body: bytes) -> None:
    form = read_form(body)
    assert form.one("nothing") == ""
    views.wanted(form, NOW)


HTML = b"Content-Type: text/html\r\n\r\n<p>Hello<script>x</script></p>"


@pytest.mark.parametrize(
    ("octets", "html"),
    [
        (HTML, "<p>Hello</p>"),
        (NESTED + b"Content-Type: text/plain\r\n\r\nHello\r\n--B\r\n" + HTML + b"\r\n--B--\r\n", "<p>Hello</p>"),
        (NESTED + HTML.replace(b"\r\n\r\n", b"\r\nContent-Disposition: attachment\r\n\r\n") + b"\r\n--B--\r\n", ""),
        (HTML.replace(b"text/html", b"text/plain"), ""),
        (b"", ""),
    ],
    ids=["alone", "beside plain text", "attached", "plain text", "nothing"],
)
def test_the_html_of_a_message_is_its_first_part_that_is_html_and_not_attached(octets: bytes, html: str) -> None:
    assert content.html_of(octets).strip() == html


@pytest.mark.parametrize(("charset", "codec"), [("latin1", "iso8859-1"), ("UTF8", "utf-8"), ("ks_c_5601", "euc_kr")])
def test_a_charset_is_read_by_the_codec_of_its_name(charset: str, codec: str) -> None:
    assert content.text_codec(charset) == codec


@pytest.mark.parametrize("charset", ["idna", "Punycode", "unicode_escape", "undefined", "x-unknown", ""])
def test_a_codec_that_is_no_charset_of_mail_is_not_used(charset: str) -> None:
    with pytest.raises(LookupError):
        content.text_codec(charset)


@pytest.mark.parametrize(("month", "day", "name"), [(11, 28, "Sat 28"), (12, 1, "Tue 01")])
def test_a_day_is_named_by_its_weekday_and_its_number(month: int, day: int, name: str) -> None:
    start, end = (time.mktime((2026, month, at, 0, 0, 0, 0, 0, -1)) for at in (day, day + 1))
    assert days.day_name(Day(start, end)) == name


def test_a_field_is_its_first_value_or_all_of_them_with_unix_line_ends() -> None:
    form = read_form(b"id=a&text=one%0D%0Atwo%0Dthree&id=b&empty=&plus=a+b%C3%A4")
    assert (form.one("id"), form.all("id")) == ("a", ["a", "b"])
    assert form.one("text") == "one\ntwo\nthree"
    assert (form.one("plus"), form.one("empty"), form.one("nothing")) == ("a bä", "", "")
    assert ("empty" in form, "nothing" in form) == (True, False)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", EVERYTHING),
        (b"from=+&to=&state=nonsense&age=2y", EVERYTHING),
        (b"from=+ann+&to=bob", Filter(senders=("ann",), recipients=("bob",))),
        (b"state=held&age=1h", Filter(states=("held",), since=NOW - 3600)),
        (b"age=7d", Filter(since=NOW - 7 * 86_400)),
    ],
)
def test_the_list_is_narrowed_by_the_fields_that_are_known(query: bytes, found: Filter) -> None:
    assert views.wanted(read_form(query), NOW) == found
    assert views.is_narrow(found) == (found != EVERYTHING)


def test_a_time_is_shown_whole_and_how_long_ago_it_was() -> None:
    at = time.mktime((2026, 11, 28, 14, 3, 0, 0, 0, -1))
    assert views.clock(at) == "2026-11-28 14:03:00"
    assert [views.ago(at, at + age) for age in (-5, 59, 60, 86_399)] == ["now", "now", "1 min ago", "23 h ago"]
    assert views.ago(at, at + 86_400) == "28 Nov 14:03"


def test_an_event_is_a_row_of_printable_text_with_the_stage_where_there_was_a_reply() -> None:
    happened = Event(NOW, "deferred", b"bob@example.org", "4.2.2", b"452 4.2.2 full\x1b", "RCPT")
    planned = Event(NOW + 300, "attempt", stage="RCPT", planned=True)
    late = Event(NOW - 300, "attempt", planned=True)
    first, *others = views.events([happened, planned, late], NOW)
    assert (first.at, first.what, first.address, first.is_planned) == (
        views.clock(NOW), "deferred", "bob@example.org", False,
    )  # fmt: skip
    assert first.reply.startswith("at RCPT: 452 4.2.2 full")
    assert "\x1b" not in first.reply
    assert [(one.at, one.reply, one.is_planned) for one in others] == [("in 5 min", "", True), ("in 0 s", "", True)]


def test_a_recipient_is_suggested_where_one_was_reached_or_a_refused_one_is_near_a_common_domain() -> None:
    def suggested(one: ListedRecipient, likely: bytes = b"") -> dict[bytes, bytes]:
        return views.suggestions(Details(message(one), [], [likely], []))

    mistyped = to("bounced")._replace(address=b"bob@gmial.com")
    assert suggested(mistyped, b"bob@example.org") == {b"bob@gmial.com": b"bob@example.org"}
    assert suggested(mistyped) == {}
    assert suggested(mistyped._replace(stage="RCPT")) == {b"bob@gmial.com": b"bob@gmail.com"}
    assert suggested(mistyped._replace(there=Verdict(There.BOUNCED))) == {b"bob@gmial.com": b"bob@gmail.com"}
    assert suggested(to("bounced")._replace(stage="RCPT")) == {}


@pytest.mark.parametrize("state", ["queued", "active", "deferred", "held"])
def test_a_message_is_unfinished_while_a_recipient_waits_here(state: str) -> None:
    assert story.is_unfinished(message(to("sent"), to(state)))


@pytest.mark.parametrize(
    ("there", "is_unfinished"),
    [(There.WAITING, True), (There.DEFERRED, True), (There.DELIVERED, False), (There.BOUNCED, False), (None, False)],
)
def test_a_message_that_was_sent_is_unfinished_while_it_waits_there(there: There | None, is_unfinished: bool) -> None:
    assert story.is_unfinished(message(to("sent", Verdict(there) if there else None))) is is_unfinished


def test_messages_are_counted_and_errors_are_told_in_words() -> None:
    assert [number_of_messages(count) for count in (0, 1, 2)] == ["0 messages", "1 message", "2 messages"]
    assert site.error_text(FileNotFoundError(2, "No such file", "/a/b")) == "/a/b: No such file"
    assert site.error_text(ValueError("it is held")) == "it is held"
