"""What has become of a recipient on the relayhost, in words beside `sent`."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.printable import printable
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.mail.there_wording import there_text

NOW = 1_795_874_400.0
"""2026-11-28 14:00 in UTC."""
HOUR = 3600.0


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def verdict(
    state: There, words: bytes = b"", by: bytes = b"", source: Source = Source.LOG, since: float | None = None
) -> Verdict:
    return Verdict(state, source, words, by, since)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (verdict(There.DELIVERED, b"250 2.0.0 OK", b"gmail.com[192.0.2.1]:25"), "gmail.com said 250 2.0.0 OK"),
        (verdict(There.DELIVERED, b"ok: queued", b"mx.example.net. [192.0.2.1]"), "mx.example.net said ok: queued"),
        (verdict(There.DELIVERED, b"250 OK", b"[192.0.2.1]"), "192.0.2.1 said 250 OK"),
        (verdict(There.DELIVERED, b"delivered to mailbox", b"local"), "delivered there"),
        (verdict(There.DELIVERED, b"250 2.1.5 Saved", b"host.example[127.0.0.1]:24"), "delivered there"),
        (verdict(There.DELIVERED, b"250 2.1.5 Saved", b"mail[private/lmtp]"), "delivered there"),
        (verdict(There.DELIVERED, b"Sent"), "delivered there"),
        (verdict(There.DELIVERED, b"250 OK", b"mx.example.net[IPv6:::1]:25"), "delivered there"),
        (verdict(There.DELIVERED, b"250 OK", b"mx.example.net[::1]:25"), "delivered there"),
        (verdict(There.DELIVERED, b"250 OK", b"[IPv6:2001:db8::1]:25"), "IPv6:2001:db8::1 said 250 OK"),
        (verdict(There.BOUNCED, b"550 no", source=Source.QUEUE), "bounced there: 550 no (the queue there says so)"),
        (verdict(There.BOUNCED, b"550 no", source=Source.NONE), "bounced there: 550 no"),
        (
            verdict(There.DEFERRED, b"451 4.7.1 Greylisted", source=Source.QUEUE, since=NOW + 120),
            "deferred there since 14:02: 451 4.7.1 Greylisted",
        ),
        (verdict(There.DEFERRED, b"451 no", since=NOW - 15 * HOUR), "deferred there since 2026-11-27 23:00: 451 no"),
        (
            verdict(There.DEFERRED, b"host mx.example.net[192.0.2.1] said: 451 4.7.1 Greylisted (in reply to RCPT)"),
            "deferred there: 451 4.7.1 Greylisted (in reply to RCPT) (from mx.example.net)",
        ),
        (verdict(There.DEFERRED), "deferred there"),
        (
            verdict(There.BOUNCED, b"550 5.1.1 unknown", source=Source.REPORT),
            "bounced there: 550 5.1.1 unknown (a report in your mailbox there says so)",
        ),
        (
            verdict(There.BOUNCED, b"550 5.1.1 unknown", b"mx.example.net[192.0.2.1]:25"),
            "bounced there: 550 5.1.1 unknown (from mx.example.net; the log there says so)",
        ),
        (verdict(There.BOUNCED, source=Source.REPORT), "bounced there (a report in your mailbox there says so)"),
        (verdict(There.WAITING, source=Source.QUEUE, since=NOW), "waiting there"),
        (verdict(There.LEFT, b"250 OK", b"mx.example.net", since=NOW), "left your server, no bounce came"),
        (verdict(There.LEFT_UNWATCHED, since=NOW), "left your server"),
        (
            verdict(There.NOT_FOLLOWED, b"your login may not see the queue", source=Source.NONE),
            "not followed: your login may not see the queue",
        ),
        (verdict(There.NOT_FOLLOWED, source=Source.NONE), "not followed"),
    ],
)
def test_each_verdict_has_its_words(found: Verdict, text: str) -> None:
    assert there_text(found, NOW) == text


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            verdict(There.DEFERRED, b"451 4.7.1 Greylisted", source=Source.QUEUE),
            "The queue there says: 451 4.7.1 Greylisted",
        ),
        (verdict(There.BOUNCED, b"550 \x1b no", b"mx.example"), "The log there says: 550 \\x1b no (from mx.example)"),
        (verdict(There.BOUNCED, source=Source.REPORT), "A report in your mailbox there says nothing about the reason"),
        (verdict(There.NOT_FOLLOWED, b"no", source=Source.NONE), "The server there says: no"),
    ],
)
def test_the_sentence_names_who_says_what(found: Verdict, sentence: str) -> None:
    assert found.sentence == sentence


def test_the_heading_is_how_the_text_begins_where_no_server_said_more() -> None:
    headings = {state: Verdict(state).heading for state in There}
    assert headings == {state: there_text(Verdict(state), NOW) for state in There}
    assert len(set(headings.values())) == len(There)


@given(
    st.sampled_from(There),
    st.sampled_from(Source),
    st.binary(max_size=900),
    st.binary(max_size=300),
    st.none() | st.floats(0, 4e9),
)
def test_hostile_words_are_escaped_and_only_a_delivery_is_called_one(
    state: There, source: Source, words: bytes, by: bytes, since: float | None
) -> None:
    text = there_text(Verdict(state, source, words, by, since), NOW)
    assert printable(text) == text
    if state in (There.LEFT, There.LEFT_UNWATCHED):
        assert "deliver" not in text
    else:
        assert state in (There.DELIVERED,) or text.startswith(state.value)
