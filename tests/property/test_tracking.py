"""Hostile words of recipients and other mail servers, in what is read on the relayhost: no parser raises, no words of one
message become those of another, and no words become a line, an entry, a field or a state."""

import json

import pytest
from harness.tracking_samples import IDS, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrelay.mail.printable import printable
from mailrelay.mail.there import MAX_WORDS
from mailrelay.tracking.listing import Listed, read_listing
from mailrelay.tracking.queue_id import Server, is_safe, queue_id_in
from mailrelay.tracking.report import Ours, read_reports
from mailrelay.tracking.schedule import LIFETIME, MIN_GAP, next_question
from mailrelay.tracking.server_log import read_log
from mailrelay.tracking.sighting import MAX_RECIPIENT, Seen, Sighting, assign
from mailrelay.tracking.verdict import Evidence, judge

SAMPLES = {
    name: sample(name)
    for kind in ("log", "listing", "report")
    for name in (f"{one}.{kind}" for one in IDS)
    if name not in ("opensmtpd.listing", "opensmtpd.report")
}
LINES = [line for name, text in SAMPLES.items() for line in text.split(b"\n") if not name.endswith(".report")]
FRAGMENTS = st.sampled_from(
    [
        *LINES,
        b", dsn=2.0.0, stat=Sent (ok)",
        b", stat=Sent (AAAAAAAA012345 Message accepted for delivery)",
        b"> status=sent (250 ok)",
        b'" stat="Ok" result="Ok"',
        b' C="250 ok"',
        b" R=out T=out: ",
        b' <"a b"@far.example> R=out',
        b"\t\tTotal requests: 0",
        b"\x00\x1b[2J\x07",
        b"\xff\xfe\x85\xe2\x80\xa8",
        b"\r\x0b\x0c\x1c",
        b"word " * 300,
        b"x" * 3000,
        b'"',
        b"\\",
        b"<>),(",
    ]
)
WORDS = st.lists(st.one_of(FRAGMENTS, st.binary(max_size=20)), max_size=4).map(
    lambda some: b" ".join(some).replace(b"\n", b" ")
)
SOUP = st.lists(
    st.one_of(st.sampled_from(sorted(SAMPLES.values())), FRAGMENTS, st.binary(max_size=40), st.just(b"\n")), max_size=8
).map(b"".join)
CUT = st.tuples(st.sampled_from(sorted(SAMPLES.values())), st.integers(0, 6000), st.integers(0, 6000), WORDS).map(
    lambda four: four[0][: four[1]] + four[3] + four[0][four[2] :]
)
EVERY_ID = [name for names in IDS.values() for name in names]
QUOTED = st.binary(max_size=60).map(
    lambda raw: b'"%b"@far.example' % raw.replace(b"\\", b"/").replace(b'"', b"'").replace(b"\n", b" ")
)

PREFIX = b"Nov 28 10:50:22 mx "
EVENTS = {
    "sendmail": b"sendmail[226]: 6ASAlPhe000224: to=<%b>, delay=00:00:00, xdelay=00:00:00, mailer=relay, pri=9,"
    b" relay=mx.far.example. [192.0.2.1], dsn=%b",
    "postfix": b"postfix/smtp[127]: 6076427E9A1: to=<%b>, relay=mx.far.example[192.0.2.1]:25, delay=0.04,"
    b" delays=0.01/0.01/0/0.02, dsn=%b",
    "opensmtpd": b"smtpd[2]: 3ff61342c74b99c5 mta delivery evpid=14970b17e1c4eb26 from=<me@mx.example> to=<%b> rcpt=<->"
    b' source="127.0.0.1" relay="192.0.2.1 (mx)" delay=0s result=%b',
    "exim": b"exim[81]: 1xXG0k-000024-2n %b",
}
ENDS = {
    ("sendmail", Seen.DELIVERED): b"2.0.0, stat=Sent (%b)",
    ("sendmail", Seen.DEFERRED): b"4.3.0, reply=451 %b, stat=Deferred: 451 %b",
    ("sendmail", Seen.BOUNCED): b"5.1.1, reply=550 %b, stat=User unknown",
    ("postfix", Seen.DELIVERED): b"2.0.0, status=sent (250 %b)",
    ("postfix", Seen.DEFERRED): b"4.7.1, status=deferred (host said: %b)",
    ("postfix", Seen.BOUNCED): b"5.1.1, status=bounced (host said: %b)",
    ("opensmtpd", Seen.DELIVERED): b'"Ok" stat="250 %b"',
    ("opensmtpd", Seen.DEFERRED): b'"TempFail" stat="451 %b"',
    ("opensmtpd", Seen.BOUNCED): b'"PermFail" stat="550 %b"',
    ("exim", Seen.DELIVERED): b'=> %b R=out T=out H=mx.far.example [192.0.2.1] C="250 %b"',
    ("exim", Seen.DEFERRED): b"== %b R=out T=out defer (-44) H=mx.far.example [192.0.2.1]: SMTP error: 451 %b",
    ("exim", Seen.BOUNCED): b"** %b R=out T=out H=mx.far.example [192.0.2.1]: SMTP error: 550 %b",
}


def check(sightings: tuple[Sighting, ...]) -> None:
    for one in sightings:
        assert len(one.words) <= MAX_WORDS
        assert len(one.recipient) <= MAX_RECIPIENT
        verdict = judge(Evidence(log=[one]))
        assert printable(verdict.shown_words) == verdict.shown_words
        assert verdict.shown_words.isprintable() or "\u200c" in verdict.shown_words or "\u200d" in verdict.shown_words


@given(st.one_of(SOUP, CUT), st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_no_text_makes_a_parser_raise(text: bytes, status: int) -> None:
    log = read_log(text, EVERY_ID)
    check(log.sightings)
    assert {one.queue_id for one in log.sightings} | log.removed <= set(EVERY_ID)
    for server in Server:
        listing = read_listing(server, text, status)
        if isinstance(listing, Listed):
            assert status == 0
            check(listing.sightings)
            assert all(is_safe(name) for name in listing.ids)
    check(read_reports(text, [Ours((EVERY_ID[0],), b"3KQ7ZABC", b"m3.A@laptop.example")]))
    found = queue_id_in(text)
    assert found is None or is_safe(found.id)


@pytest.mark.parametrize(("server", "seen"), ENDS)
@given(words=WORDS)
@settings(max_examples=60, deadline=None)
def test_no_words_of_another_server_change_an_event_or_make_one(server: str, seen: Seen, words: bytes) -> None:
    address = b"bob@far.example"
    if server == "exim":
        # Exim escapes what is in C="…".
        words = words.replace(b"\\", b"\\\\").replace(b'"', b'\\"') if seen is Seen.DELIVERED else words
        line = EVENTS[server] % (ENDS[server, seen] % (address, words))
    else:
        end = ENDS[server, seen]
        line = EVENTS[server] % (address, end % ((words,) * end.count(b"%b")))
    found = read_log(PREFIX + line + b"\n", EVERY_ID)
    if len(PREFIX + line) <= 16 * 1024 and b' <"' not in words:
        assert [(one.queue_id, one.recipient, one.seen) for one in found.sightings] == [(IDS[server][0], address, seen)]
    else:
        assert {(one.queue_id, one.seen) for one in found.sightings} <= {(IDS[server][0], seen)}
    assert not found.removed


@pytest.mark.parametrize("server", ["sendmail", "postfix", "opensmtpd"])
@given(
    recipient=st.one_of(
        QUOTED, FRAGMENTS.map(lambda raw: b'"%b"@far.example' % raw.replace(b"\\", b"").replace(b'"', b""))
    )
)
@settings(max_examples=60, deadline=None)
def test_no_recipient_makes_an_event(server: str, recipient: bytes) -> None:
    line = EVENTS[server] % (recipient, ENDS[server, Seen.DEFERRED].replace(b"%b", b"later"))
    found = read_log(PREFIX + line, EVERY_ID)
    assert [(one.queue_id, one.recipient, one.seen) for one in found.sightings] == [
        (IDS[server][0], recipient[:MAX_RECIPIENT], Seen.DEFERRED)
    ]


@given(WORDS, WORDS)
@settings(max_examples=100, deadline=None)
def test_each_entry_of_a_queue_keeps_its_own_words(one: bytes, two: bytes) -> None:
    postfix = b"".join(
        json.dumps(
            {"queue_id": name, "recipients": [{"address": "bob@x", "delay_reason": words.decode("utf-8", "replace")}]}
        ).encode()
        + b"\n"
        for name, words in (("AAAAAA1", one), ("BBBBBB2", two))
    )
    sendmail = (
        b"\t\t/q (2 requests)\n"
        + b"".join(
            b"%b        6      90114 Nov 28 10:47 <me@x>\n\t\t\t\t\t\t<bob@x>\n\t\t (Deferred: %b)\n"
            % (name, words[:80])
            for name, words in ((b"AAAAAAAA00001", one), (b"BBBBBBBB00002", two))
        )
        + b"\t\tTotal requests: 2\n"
    )
    for server, text in ((Server.POSTFIX, postfix), (Server.SENDMAIL, sendmail)):
        found = read_listing(server, text, 0)
        assert isinstance(found, Listed)
        assert [sighting.queue_id[0] for sighting in found.sightings] == ["A", "B"]
        assert len(found.ids) == 2
        for sighting, words in zip(found.sightings, (one, two), strict=True):
            if sighting.seen is Seen.DEFERRED and sighting.words != b"Deferred" and server is Server.SENDMAIL:
                assert sighting.words in words


@given(WORDS)
@settings(max_examples=100, deadline=None)
def test_no_diagnostic_words_or_returned_text_change_a_report(words: bytes) -> None:
    words = words.replace(b"\r", b" ")
    text = sample("postfix.report").replace(b"No such user here", words).replace(b"hello", words)
    ours = [Ours(("A1",), envid=b"3KQ7ZABC"), Ours(("B2",), envid=b"OTHER", message_id=b"other@x")]
    found = read_reports(text, ours)
    assert [(one.queue_id, one.recipient, one.seen) for one in found] == [("A1", b"bad1@far.example", Seen.BOUNCED)]


@given(st.lists(st.sampled_from([b"bob@x", b"Bob@x", b"bob", b"eve@x"]), unique=True), st.lists(st.binary(max_size=6)))
def test_a_sighting_is_given_to_at_most_one_recipient(ours: list[bytes], theirs: list[bytes]) -> None:
    sightings = [Sighting("A1", one, Seen.DELIVERED) for one in (*theirs, *ours)]
    found = assign(ours, sightings)
    assert sum(map(len, found.of.values())) + len(found.others) == len(sightings)
    assert all(Sighting("A1", one, Seen.DELIVERED) in found.of[one] for one in ours)


TIMES = st.floats(0, 1e9)


@given(st.lists(TIMES, max_size=5), st.one_of(st.none(), TIMES), TIMES)
def test_the_next_question_is_after_the_last_one(accepted: list[float], asked: float | None, now: float) -> None:
    found = next_question(accepted, asked, now)
    if asked is not None and found is not None:
        assert found >= min(asked, now) + MIN_GAP
    assert found is None or found <= max(accepted) + LIFETIME or asked is not None


@given(
    WORDS, st.sampled_from([b"3KQ7ZABC", b"<m3.A@laptop.example>", b"6076427E9A1", b"Original-Envelope-Id: 3KQ7ZABC"])
)
@settings(max_examples=100, deadline=None)
def test_no_words_make_a_report_about_another_message_ours(words: bytes, mark: bytes) -> None:
    words = b"%b %b %b" % (mark, words.replace(b"\r", b" "), mark)
    text = sample("postfix.report").replace(b"3KQ7ZABC", b"ELSE").replace(b"6076427E9A1", b"ELSE")
    text = text.replace(b"m3.A@laptop.example", b"else@x").replace(b"No such user here", words)
    ours = [Ours(("A1", "6076427E9A1"), b"3KQ7ZABC", b"m3.A@laptop.example")]
    assert read_reports(text.replace(b"hello", words), ours) == ()
