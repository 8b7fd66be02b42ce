"""Single lines of listings, single fields of reports, and what an answer means for a verdict that there is already."""

import json
from dataclasses import replace

import pytest

from mailrelay.mail.there import Source, There, Verdict
from mailrelay.tracking import listing
from mailrelay.tracking.conclusion import (
    MAX_QUEUE_IDS,
    MAX_REASON,
    Known,
    conclude,
    is_open,
    known_of,
    learn,
    not_followed,
    parse,
    reports_come_to,
)
from mailrelay.tracking.followed import Followed, Found
from mailrelay.tracking.listing import Listed, NotPermitted, Unreadable, read_listing
from mailrelay.tracking.question import Answer, Output, Place
from mailrelay.tracking.queue_id import Server, is_safe, queue_id_in
from mailrelay.tracking.report import MAX_REPORT, Ours, read_reports
from mailrelay.tracking.schedule import AWAITED, FIRST, INTERVAL, LIFETIME, is_followed, next_question
from mailrelay.tracking.sighting import MAX_RECIPIENT, Seen, Sighting

ID = "4fXyZ12345"

# Listings.


def postfix(**entry: object) -> bytes:
    whole = {"queue_id": ID, "arrival_time": 900, "recipients": [{"address": "b@x.example"}]}
    return json.dumps({name: value for name, value in (whole | entry).items() if value is not None}).encode() + b"\n"


@pytest.mark.parametrize("server", [Server.POSTFIX, Server.OTHER])
@pytest.mark.parametrize(
    ("entry", "sightings"),
    [
        ({}, [(b"b@x.example", Seen.WAITING, b"", 900.0)]),
        ({"arrival_time": 0}, [(b"b@x.example", Seen.WAITING, b"", 0.0)]),
        ({"arrival_time": (1 << 40) - 1}, [(b"b@x.example", Seen.WAITING, b"", float((1 << 40) - 1))]),
        ({"arrival_time": 1 << 40}, [(b"b@x.example", Seen.WAITING, b"", None)]),
        ({"arrival_time": -1}, [(b"b@x.example", Seen.WAITING, b"", None)]),
        ({"arrival_time": "900"}, [(b"b@x.example", Seen.WAITING, b"", None)]),
        ({"arrival_time": None}, [(b"b@x.example", Seen.WAITING, b"", None)]),
        ({"recipients": []}, []),
        (
            {"recipients": [{"address": "b@x", "delay_reason": " no "}, {"address": "c@x", "delay_reason": 5}]},
            [(b"b@x", Seen.DEFERRED, b"no", 900.0), (b"c@x", Seen.WAITING, b"", 900.0)],
        ),
        ({"recipients": [{"address": "\ud800é"}]}, [(b"\xed\xa0\x80\xc3\xa9", Seen.WAITING, b"", 900.0)]),
        ({"recipients": [{"address": "\udcff"}]}, [(b"\xff", Seen.WAITING, b"", 900.0)]),
        (
            {"recipients": [{"address": "x" * (MAX_RECIPIENT + 1)}]},
            [(b"x" * MAX_RECIPIENT, Seen.WAITING, b"", 900.0)],
        ),
    ],
)
def test_an_entry_of_postfix(server: Server, entry: dict[str, object], sightings: list[tuple[object, ...]]) -> None:
    found = read_listing(server, postfix(**entry) + b"\n", 0)
    assert isinstance(found, Listed)
    assert [(one.recipient, one.seen, one.words, one.since) for one in found.sightings] == sightings
    assert {one.queue_id for one in found.sightings} <= {ID}
    assert found.ids == {ID}


@pytest.mark.parametrize(
    "line",
    [
        postfix(queue_id=5),
        postfix(queue_id="a b"),
        postfix(queue_id=None),
        postfix(recipients={}),
        postfix(recipients=None),
        postfix(recipients=["b@x"]),
        postfix(recipients=[{"address": 5}]),
        postfix(recipients=[{}]),
        b'["x"]\n',
        b"{\n",
        b"[" * 100_000 + b"\n",
        b" " + postfix(),
        b'{"a":' + b"[" * 100_000 + b"\n",
        postfix(x="x" * 1024 * 1024),
    ],
)
def test_what_is_no_entry_of_postfix_makes_the_listing_unreadable(line: bytes) -> None:
    assert isinstance(read_listing(Server.POSTFIX, postfix() + line, 0), Unreadable)


def test_octets_of_postfix_that_are_not_utf_8_stay() -> None:
    found = read_listing(Server.POSTFIX, postfix().replace(b"b@x.example", b"\xfc@x.example"), 0)
    assert isinstance(found, Listed)
    assert found.sightings[0].recipient == b"\xfc@x.example"


def test_a_listing_of_the_longest_length_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listing.MAX_LISTING == 16 * 1024 * 1024
    monkeypatch.setattr(listing, "MAX_LISTING", 1000)
    line = postfix()
    empty = b"\n" * (1000 - len(line))
    assert isinstance(read_listing(Server.POSTFIX, line + empty, 0), Listed)
    assert read_listing(Server.POSTFIX, line + empty + b"\n", 0) == Unreadable(
        b"the listing is longer than 1000 octets"
    )


SENDMAIL = "\t\t/var/spool/mqueue (1 request)\n-----Q-ID-----\n{}\t\tTotal requests: 1\n"
MESSAGE = "6ASAlU6m000370*      14 Sat Nov 28 10:47 <me@mx.example>\n"
REASON = "                 ({})\n"
RECIPIENT = "\t\t\t\t\t <{}>\n"


def sendmail(*lines: str) -> list[tuple[bytes, Seen, bytes, bool]] | None:
    found = read_listing(Server.SENDMAIL, SENDMAIL.format(MESSAGE + "".join(lines)).encode(), 0)
    if not isinstance(found, Listed):
        return None
    assert found.ids == {"6ASAlU6m000370"}
    return [(one.recipient, one.seen, one.words, one.is_cut) for one in found.sightings]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((), []),
        ((RECIPIENT.format("a@x"),), [(b"a@x", Seen.WAITING, b"", False)]),
        (
            (REASON.format("Deferred: no route"), RECIPIENT.format("a@x"), RECIPIENT.format("b@x")),
            [(b"a@x", Seen.DEFERRED, b"no route", False), (b"b@x", Seen.DEFERRED, b"no route", False)],
        ),
        ((REASON.format("host unknown"), RECIPIENT.format("a@x")), [(b"a@x", Seen.WAITING, b"", False)]),
        (
            (REASON.format("Deferred"), RECIPIENT.format("a@x")),
            [(b"a@x", Seen.DEFERRED, b"Deferred", False)],
        ),
        (
            (REASON.format("Deferred: "), RECIPIENT.format("a@x")),
            [(b"a@x", Seen.DEFERRED, b"Deferred", False)],
        ),
        (
            (
                REASON.format("Deferred: of one"),
                RECIPIENT.format("a@x"),
                RECIPIENT.format("b@x"),
                REASON.format("Deferred: of one"),
            ),
            [(b"a@x", Seen.WAITING, b"", False), (b"b@x", Seen.DEFERRED, b"of one", False)],
        ),
        (
            ("  (---alias---)\n", RECIPIENT.format("a@x"), "\t\t(---alias---)\n"),
            [(b"a@x", Seen.WAITING, b"", False)],
        ),
        (("\t\t\t\t\t <" + "a" * 77 + "\n",), [(b"a" * 77, Seen.WAITING, b"", True)]),
        (("\t\t\t\t\t" + "a" * 77 + "\n",), [(b"a" * 77, Seen.WAITING, b"", False)]),
        (("\t\t\t\t\t" + "a" * 78 + "\n",), [(b"a" * 78, Seen.WAITING, b"", True)]),
        (("\t\t\t\t\t<" + "a" * 100 + ">\n",), [(b"a" * 100, Seen.WAITING, b"", False)]),
        (("what\n",), None),
    ],
)
def test_the_lines_of_a_message_of_sendmail(
    lines: tuple[str, ...], found: list[tuple[bytes, Seen, bytes, bool]] | None
) -> None:
    assert sendmail(*lines) == found


@pytest.mark.parametrize(
    "header", ["MSP Queue status...\n", "WARNING: local host name (mx) is not qualified\n", "\n", ""]
)
def test_the_lines_before_and_after_a_listing_of_sendmail(header: str) -> None:
    text = SENDMAIL.format(MESSAGE)
    assert isinstance(read_listing(Server.SENDMAIL, (header + text + header).encode(), 0), Listed)
    assert isinstance(read_listing(Server.OTHER, (header + text).encode(), 0), Listed)
    # Without its end, it may be a part of one; before the first message, there are no other lines.
    assert isinstance(read_listing(Server.SENDMAIL, text.replace("Total requests", "").encode(), 0), Unreadable)
    assert isinstance(read_listing(Server.SENDMAIL, ("\t\t\tx\n" + text).encode(), 0), Unreadable)


EXIM = "25m  2.9K 1xXG0k-000024-2n <me@mx.example>\n          a@x\n        D b@x\n       +D c@x\n\n"


@pytest.mark.parametrize("server", [Server.EXIM, Server.OTHER])
def test_the_lines_of_exim(server: Server) -> None:
    text = EXIM + EXIM.replace("000024", "000025").replace("25m", " 1d")
    absent = " 1xXG0k-000099-2n\n *** spool read error: No such file or directory ***\n"
    for one in (text, "\n" + text, text + absent):
        found = read_listing(server, one.encode(), 0)
        assert isinstance(found, Listed)
        assert [(one.queue_id, one.recipient, one.seen) for one in found.sightings] == [
            ("1xXG0k-000024-2n", b"a@x", Seen.WAITING),
            ("1xXG0k-000025-2n", b"a@x", Seen.WAITING),
        ]
        assert found.ids == {"1xXG0k-000024-2n", "1xXG0k-000025-2n"}
    assert read_listing(server, b"", 0) == Listed((), frozenset())


@pytest.mark.parametrize(
    "text",
    ["          a@x\n", EXIM + "          a@x\n", EXIM + "what\n", EXIM.rstrip("\n") + "\n         a@x\n"],
)
def test_a_recipient_of_exim_is_below_its_message(text: str) -> None:
    assert isinstance(read_listing(Server.EXIM, text.encode(), 0), Unreadable)


@pytest.mark.parametrize(
    ("text", "status", "kind"),
    [
        ("postqueue: fatal: not permitted", 69, NotPermitted),
        ("Permission denied", 0, NotPermitted),
        ("exim: you are NOT ALLOWED to do this", 1, NotPermitted),
        ("a\nb\nneed root privileges", 1, NotPermitted),
        ("\n" * 20 + "must be setgid", 1, NotPermitted),
        ("command not found", 127, Unreadable),
        ("", 1, Unreadable),
        ("notpermitted", 1, Unreadable),
        ("cr\rin the line: not permitted", 1, NotPermitted),
        # Not in the first lines, and not in or behind a line of a listing.
        ("x\n" * 7 + "not permitted", 1, NotPermitted),
        ("x\n" * 8 + "not permitted", 1, Unreadable),
        (" 451 not permitted", 1, Unreadable),
        ("\t451 not permitted", 1, Unreadable),
        ('{"x": 1} not permitted', 1, Unreadable),
        (" listed\nnot permitted", 1, Unreadable),
        (MESSAGE + "not permitted", 1, Unreadable),
    ],
)
def test_a_program_that_fails_was_refused_only_if_it_says_so(
    text: str, status: int, kind: type[NotPermitted | Unreadable]
) -> None:
    found = read_listing(Server.POSTFIX, text.encode(), status)
    assert isinstance(found, kind)
    if "\n" not in text:
        assert found.words == text.strip().encode()


# Reports.


def report(fields: str, *, message_fields: str = "X: y", kind: str = "delivery-status", returned: str = "") -> bytes:
    return (
        'From x Sat Nov 28 10:00:00 2026\nContent-Type: multipart/report; boundary="b"\nSubject: failed\n\n'
        f"--b\nContent-Type: text/plain\n\nno\n--b \nContent-Type: message/{kind}\n\n{message_fields}\n\n{fields}\n--b\n"
        f"Content-Type: message/rfc822\n\n{returned}\n\nbody\n--b--\n"
    ).encode()


OURS = Ours(("A1", "B2"), envid=b"env1", message_id=b"m@x")
ENVID = "Original-Envelope-Id: env1"


def only(text: bytes) -> Sighting | None:
    found = read_reports(text, [OURS])
    assert len(found) <= 1
    return found[0] if found else None


FINAL = "Final-Recipient: rfc822; b@x.example\nAction: failed"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (FINAL, Sighting("A1", b"b@x.example", Seen.BOUNCED)),
        (f"{FINAL}\nStatus: 5.1.1", Sighting("A1", b"b@x.example", Seen.BOUNCED, b"5.1.1")),
        (
            f"{FINAL}\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550\n no\n\tuser\nRemote-MTA: dns; mx.x.example",
            Sighting("A1", b"b@x.example", Seen.BOUNCED, b"550 no user", by=b"mx.x.example"),
        ),
        (
            f"{FINAL}\nDiagnostic-Code: smtp; 550 5.1.1 no <b@x>",
            Sighting("A1", b"b@x.example", Seen.BOUNCED, b"550 5.1.1 no <b@x>"),
        ),
        (
            f"{FINAL}\nDiagnostic-Code: smtp; <b@x> is unknown",
            Sighting("A1", b"b@x.example", Seen.BOUNCED, b"<b@x> is unknown"),
        ),
        (
            f"Original-Recipient: rfc822; <t@x.example>\n{FINAL}",
            Sighting("A1", b"t@x.example", Seen.BOUNCED, final=b"b@x.example"),
        ),
        (f"Original-Recipient: rfc822; b@x.example\n{FINAL}", Sighting("A1", b"b@x.example", Seen.BOUNCED)),
        (FINAL.upper(), Sighting("A1", b"B@X.EXAMPLE", Seen.BOUNCED)),
        (f"{FINAL}\nAction: delayed", Sighting("A1", b"b@x.example", Seen.BOUNCED)),
        (FINAL.replace("failed", "failed (really)"), Sighting("A1", b"b@x.example", Seen.BOUNCED)),
        (FINAL.replace("failed", "delayed"), Sighting("A1", b"b@x.example", Seen.DEFERRED)),
        (FINAL.replace("failed", "delivered"), Sighting("A1", b"b@x.example", Seen.DELIVERED)),
        (FINAL.replace("failed", "relayed"), Sighting("A1", b"b@x.example", Seen.DELIVERED)),
        (FINAL.replace("failed", "expanded"), Sighting("A1", b"b@x.example", Seen.DELIVERED)),
        (FINAL.replace("failed", "lost"), None),
        (FINAL.replace("rfc822;", "rfc822"), None),
        ("Action: failed", None),
        (f" folded\n{FINAL}", Sighting("A1", b"b@x.example", Seen.BOUNCED)),
        (f"Action\n{FINAL}", Sighting("A1", b"b@x.example", Seen.BOUNCED)),
        (f"no field\n folded\n{FINAL}", Sighting("A1", b"b@x.example", Seen.BOUNCED)),
        (f": x\n y\n{FINAL}", Sighting("A1", b"b@x.example", Seen.BOUNCED)),
        (f"{FINAL}\nFinal-Recipient: rfc822; c@x\n tail", Sighting("A1", b"b@x.example", Seen.BOUNCED)),
    ],
)
def test_the_fields_of_a_recipient_of_a_report(fields: str, expected: Sighting | None) -> None:
    assert only(report(fields, message_fields=ENVID)) == expected
    assert only(report(fields, message_fields=ENVID, kind="global-delivery-status")) == expected
    assert only(report(fields, message_fields=ENVID).replace(b"\n", b"\r\n")) == expected


@pytest.mark.parametrize(
    ("message_fields", "returned", "is_ours"),
    [
        (ENVID, "", True),
        ("X-Postfix-Queue-ID: A1", "", True),
        ("X-Postfix-Queue-ID: B2", "", True),
        ("X: y", "Message-ID: <m@x>", True),
        ("X: y", "Message-ID:\n <m@x>", True),
        (ENVID, "Message-ID: <other@x>", True),
        (f"\n\n{ENVID}", "", True),
        ("X: y", "\n\nMessage-ID: <m@x>", True),
        ("X: y", "Message-ID: <other@x>", False),
        ("X-Postfix-Queue-ID: C3", "", False),
        ("Original-Envelope-Id: env2", "", False),
        ("X: y", "X-Message-ID: <m@x>", False),
    ],
)
def test_a_report_is_about_ours_by_any_of_its_ids(message_fields: str, returned: str, is_ours: bool) -> None:
    found = only(report(FINAL, message_fields=message_fields, returned=returned))
    assert (found is not None) is is_ours


@pytest.mark.parametrize(
    "text",
    [
        report(FINAL, message_fields=ENVID).replace(b"multipart/report", b"multipart/mixed"),
        report(FINAL, message_fields=ENVID).replace(b"multipart/report", b"multipart/reports"),
        report(FINAL, message_fields=ENVID).replace(b"boundary=", b"border="),
        report(FINAL, message_fields=ENVID).replace(b"--b", b"--c"),
        report(FINAL, message_fields=ENVID, kind="status"),
        b"X: " + b"x" * MAX_REPORT + b"\n" + report(FINAL, message_fields=ENVID).partition(b"\n")[2],
    ],
)
def test_what_has_not_the_form_of_a_report_is_none(text: bytes) -> None:
    assert only(text) is None
    assert only(report(FINAL, message_fields=ENVID).replace(b'"b"', b"b")) is not None


def test_the_type_of_a_report_is_known_in_any_case() -> None:
    text = report(FINAL, message_fields=ENVID).replace(b"multipart/report; boundary", b"MultiPart/REPORT; BOUNDARY")
    assert only(text) is not None


STATUS = f"--b\nContent-Type: message/delivery-status\n\n{ENVID}\n\nFinal-Recipient: rfc822; {{}}\nAction: failed\n"


def test_a_report_may_begin_with_its_status_and_only_the_first_status_counts() -> None:
    head = 'From x\nContent-Type: multipart/report; boundary="b"\n\nno part\n'
    found = only((head + STATUS.format("b@x") + STATUS.format("c@x")).encode())
    assert found is not None
    assert found.recipient == b"b@x"


@pytest.mark.parametrize("before", ["see -", "x", "-"])
def test_a_boundary_that_does_not_begin_its_line_ends_no_part(before: str) -> None:
    """Words that the report quotes make no status."""
    text = report(FINAL, message_fields=ENVID).replace(b"\n\nno\n", f"\n\n{before}{STATUS.format('c@x')}".encode(), 1)
    found = only(text)
    assert found is not None
    assert found.recipient == b"b@x.example"


# Queue ids.


@pytest.mark.parametrize(
    ("name", "safe"), [("a" * 40, True), ("a" * 41, False), ("", False), ("-a", False), ("a.-", True), ("a b", False)]
)
def test_an_id_that_a_shell_may_see(name: str, safe: bool) -> None:
    assert is_safe(name) is safe


@pytest.mark.parametrize(
    ("text", "server", "name"),
    [
        (b"2.0.0 Ok: queued as 4fXyZ12345", Server.POSTFIX, ID),
        (b"Ok: 12 bytes queued as ABCDEF", Server.POSTFIX, "ABCDEF"),
        (b"2.0.0 6ASAlPhe000224 Message accepted for delivery", Server.SENDMAIL, "6ASAlPhe000224"),
        (b"OK id=1xXG0k-000024-2n", Server.EXIM, "1xXG0k-000024-2n"),
        (b"2.0.0 14970b17 Message accepted for delivery", Server.OPENSMTPD, "14970b17"),
        (b"ok 1700000000 qp 4711", Server.QMAIL, "4711"),
        (b"2.0.0 Message queued with id 1a2b.", Server.STALWART, "1a2b"),
        (b"thanks, Queued as <x.y-z.> now", Server.OTHER, "x.y-z"),
        (b" Ok: queued as ABCDEF " + b"\n" * 2000, Server.POSTFIX, "ABCDEF"),
    ],
)
def test_the_id_in_a_reply(text: bytes, server: Server, name: str) -> None:
    found = queue_id_in(text)
    assert found is not None
    assert (found.server, found.id) == (server, name)
    assert [one.value for one in Server] == ["postfix", "sendmail", "exim", "opensmtpd", "qmail", "stalwart", "other"]


# Times of questions.


def test_the_questions_follow_their_table() -> None:
    assert FIRST == (2.0, 10.0, 28.0, 120.0, 600.0, 1800.0)
    assert AWAITED == 3
    for is_late, first in ((False, FIRST), (True, FIRST[AWAITED:])):
        asked = None
        for point in (*first, FIRST[-1] + INTERVAL, FIRST[-1] + 2 * INTERVAL):
            assert next_question([0.0], asked, asked or 0.0, is_worth_dialling=is_late) == point
            asked = point
    assert next_question([0.0], FIRST[-1] + 1.5 * INTERVAL, FIRST[-1] + 1.5 * INTERVAL) == FIRST[-1] + 2 * INTERVAL
    assert (is_followed(0.0, LIFETIME), is_followed(0.0, LIFETIME + 1)) == (True, False)
    assert next_question([0.0], LIFETIME - 1, LIFETIME - 1) is None


# Conclusions.

ONE = Followed(
    1, 7, "abcdefgh", b"a@b.example", b"me@mx.example", b"", b"250 2.0.0 Ok: queued as " + ID.encode(), 1000.0,
    Verdict(There.WAITING),
)  # fmt: skip
EMPTY = Output(b"", 0)
KNOWN = known_of(ONE, b"envelope", b"m@x.example")


def answer(
    listed: Output | None = EMPTY, log: bytes | None = None, reports: bytes | None = b"", ahead: float = 0.0
) -> Answer:
    return replace(Answer(Server.POSTFIX, listed, log, reports, None, "me", Place()), seconds_ahead=ahead)


def concluded(
    given: Answer, before: Verdict, *, known: Known = KNOWN, here: bool | None = True, now: float = 2000.0
) -> Found:
    parsed = parse(given, [known])
    _, (found,) = conclude([replace(ONE, verdict=before)], learn(known, parsed), parsed, is_reported_here=here, now=now)
    return found


def log_line(status: str, *, relay: str = "next.example[192.0.2.1]:25", words: str = "no", name: str = ID) -> bytes:
    return (
        f"Nov 28 12:00:00 mx postfix/smtp[12]: {name}: to=<a@b.example>, relay={relay}, delay=0.1,"
        f" delays=0/0/0/0.1, dsn=2.0.0, status={status} ({words})\n"
    ).encode()


WAITING = Verdict(There.WAITING)


@pytest.mark.parametrize("state", list(There))
def test_what_has_left_stays_so_unless_it_bounces(state: There) -> None:
    before = Verdict(state, Source.LOG, b"before", since=1500.0)
    listed = answer(Output(postfix(recipients=[{"address": "a@b.example", "delay_reason": "later"}]), 0))
    found = concluded(listed, before)
    if state in (There.DELIVERED, There.LEFT, There.LEFT_UNWATCHED):
        assert found.verdict == before
    else:
        assert (found.verdict.state, found.verdict.words) == (There.DEFERRED, b"later")
    bounced = concluded(answer(log=log_line("bounced")), before)
    assert (bounced.verdict.state, bounced.is_over) == (There.BOUNCED, True)
    assert is_open(before) is (state in (There.WAITING, There.DEFERRED))
    left = not_followed([replace(ONE, verdict=before)], b"why")
    assert left == ([Found(1, Verdict(There.NOT_FOLLOWED, words=b"why"), is_blind=True)] if is_open(before) else [])


@pytest.mark.parametrize(
    ("given", "before", "since"),
    [
        (answer(None, log=log_line("deferred")), WAITING, 2000.0),
        (answer(None, log=log_line("deferred")), Verdict(There.DEFERRED, since=1500.0), 1500.0),
        (answer(None, log=log_line("deferred")), Verdict(There.DEFERRED), 2000.0),
        (answer(Output(postfix(recipients=[{"address": "a@b.example"}]), 0)), WAITING, 900.0),
        (answer(Output(postfix(recipients=[{"address": "a@b.example"}]), 0), ahead=100.0), WAITING, 800.0),
        (answer(Output(postfix(recipients=[{"address": "a@b.example"}]), 0), ahead=-5000.0), WAITING, 2000.0),
        (answer(Output(postfix(recipients=[{"address": "x@y"}]), 0)), WAITING, None),
        (answer(None), WAITING, None),
    ],
)
def test_a_verdict_is_dated_by_its_source_or_by_when_it_was_first_seen(
    given: Answer, before: Verdict, since: float | None
) -> None:
    assert concluded(given, before).verdict.since == since


@pytest.mark.parametrize(
    ("given", "here", "is_over"),
    [
        (answer(log=log_line("sent", words="250 ok")), True, False),
        (answer(log=log_line("sent", words="250 ok")), None, False),
        (answer(log=log_line("sent", words="250 ok")), False, True),
        (answer(log=log_line("sent", words="250 ok"), reports=None), True, True),
        (answer(log=log_line("deferred")), False, False),
    ],
)
def test_what_was_delivered_is_asked_about_while_a_report_may_come(
    given: Answer, here: bool | None, is_over: bool
) -> None:
    found = concluded(given, WAITING, here=here)
    assert found.is_over is is_over
    assert concluded(given, WAITING, here=here, now=1000.0 + LIFETIME + 1).is_over


@pytest.mark.parametrize(
    ("listed", "reason", "is_blind"),
    [
        (None, b"the server has no queue that this account can list", True),
        (Output(b"odd\nmore", 1), b"the listing of the queue there cannot be read: odd", True),
        (Output(b"", 1), b"the listing of the queue there cannot be read", True),
        (Output(b"x" * 300, 1), b"the listing of the queue there cannot be read: " + b"x" * MAX_REASON, True),
        (Output(b"Permission denied\nmore", 1), b"this account may not see the queue there: Permission denied", True),
    ],
)
def test_where_nothing_can_be_seen_the_reason_is_said(listed: Output | None, reason: bytes, is_blind: bool) -> None:
    given = answer(listed, reports=None)
    assert parse(given, [KNOWN]).reason == reason
    found = concluded(given, WAITING)
    assert found.verdict == Verdict(There.NOT_FOLLOWED, words=reason)
    assert found.is_blind is is_blind
    assert not concluded(answer(listed), WAITING).is_blind
    assert concluded(answer(listed, log=b""), WAITING).verdict == WAITING
    assert parse(answer(), [KNOWN]).reason_for(KNOWN) == b""


def test_a_message_without_an_id_and_one_of_another_server_say_why() -> None:
    nameless = known_of(replace(ONE, reply=b"250 ok"), b"", b"")
    assert nameless == Known("abcdefgh", ())
    found = concluded(answer(), WAITING, known=nameless)
    assert found.verdict.words == b"the reply of the mail server names no queue id"
    other = known_of(replace(ONE, reply=b"250 OK id=1xXG0k-000024-2n"), b"", b"")
    found = concluded(answer(), WAITING, known=other)
    assert found.verdict.words == b"the queue there is not that of the mail server that has accepted it"
    assert other.not_before == 0.0
    assert known_of(replace(ONE, is_successor=True), b"", b"").not_before == 1000.0
    assert known_of(replace(ONE, is_successor=True, reply=b"250 ok"), b"", b"").not_before == 1000.0


@pytest.mark.parametrize(
    ("text", "is_mark"),
    [
        (b"x" * 8, True),
        (b"x" * 7, False),
        (b"x" * 200, True),
        (b"x" * 201, False),
        (b"x" * 8 + b" ", False),
        (b"!" * 8, True),
        (b"~" * 8, True),
        (b"\x7f" * 8, False),
    ],
)
def test_the_marks_of_a_message_are_printable_and_bounded(text: bytes, is_mark: bool) -> None:
    known = Known("n", (), envid=text, message_id=b"!~" + text)
    assert (text.decode() in known.marks) is is_mark
    assert Known("n", ("12345678", "1234567")).marks == ["12345678"]


def test_a_message_is_followed_from_one_id_to_the_next_up_to_a_limit() -> None:
    known = KNOWN
    names = [f"6076427E9A{number}" for number in range(1, 10)]
    taken = b"".join(
        log_line("sent", relay="localhost[127.0.0.1]:25", words=f"250 2.0.0 Ok: queued as {new}", name=old)
        for old, new in zip((ID, *names), names, strict=False)
    )
    for _ in range(12):
        known = learn(known, parse(answer(log=taken), [known]))
    assert known.queue_ids == (ID, *names)[:MAX_QUEUE_IDS]
    gone = b"".join(b"Nov 28 12:00:01 mx postfix/qmgr[1]: %s: removed\n" % name.encode() for name in (ID, "AAAAAAAAAA"))
    known = learn(known, parse(answer(log=gone), [known]))
    assert known.removed == {ID}
    assert learn(known, parse(answer(), [known])) == known


def test_where_there_is_no_listing_the_log_says_when_a_message_has_left() -> None:
    gone = b"Nov 28 12:00:01 mx postfix/qmgr[1]: %s: removed\n" % ID.encode()
    parsed = parse(answer(None, log=gone), [KNOWN])
    known, (found,) = conclude([ONE], learn(KNOWN, parsed), parsed, is_reported_here=True, now=2000.0)
    assert (known.gone_since, found.verdict) == ({1: 2000.0}, WAITING)
    again = parse(answer(None, log=b""), [known])
    known, (found,) = conclude([ONE], learn(known, again), again, is_reported_here=True, now=2100.0)
    assert (known.gone_since, found.verdict) == (
        {1: 2000.0},
        Verdict(There.LEFT, Source.QUEUE, since=2000.0),
    )
    without = parse(answer(None, log=b""), [KNOWN])
    known, (found,) = conclude([ONE], learn(KNOWN, without), without, is_reported_here=True, now=2000.0)
    assert (known.gone_since, found.verdict) == ({}, WAITING)


@pytest.mark.parametrize(
    ("sender", "account", "hosts", "comes"),
    [
        (b"me@x.example", "me", [b"x.example"], True),
        (b"Me+tag@X.example", "ME", [b"mx.x.EXAMPLE"], True),
        (b"me@x.example", "me", [b"", b"yx.example"], False),
        (b"me@mx.x.example", "me", [b"x.example"], False),
        (b"you@x.example", "me", [b"x.example"], False),
        (b"me", "me", [b"x.example"], False),
        (b"", "", [b""], False),
        (b"@", "", [b""], False),
        ("jö@x".encode(), "jö", [b"x"], True),
        (b"j?@x", "j\ud800", [b"x"], True),
    ],
)
def test_reports_to_a_sender_come_to_its_account(sender: bytes, account: str, hosts: list[bytes], comes: bool) -> None:
    assert reports_come_to(sender, account, hosts) is comes
