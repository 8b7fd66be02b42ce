"""Properties of every message with our header fields."""

import encodings.aliases
import unicodedata
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail import trace

LINES = st.sampled_from(
    [
        b"Date: x", b"date:", b"Message-ID: <a@b>", b"Subject: =?utf-8?q?=C3?=", b"Subject: x", b"Received: y",
        b"DKIM-Signature: h=date:message-id", b"DKIM-Signature: h=from", b" folded", b"no field", b"", b"X:\ny", b"\xff: z",
    ]
)  # fmt: skip
ANY_CONTENT = st.one_of(st.lists(LINES).map(b"\r\n".join), st.binary(max_size=300))
# Below such a first line, nothing is a header any more.
CONTENT = ANY_CONTENT.filter(lambda content: content[:1] not in (b" ", b"\t"))
CHARSETS = st.sampled_from(sorted({*encodings.aliases.aliases, "undefined", "idna", "punycode", "unicode_escape", "x"}))


def stamp(content: bytes) -> bytes:
    return trace.stamp(content, queue_id="3kQ7x", now=1_700_000_000.0, message_id=b"<i@d>")


@given(ANY_CONTENT)
def test_content_is_only_added_to_at_its_top(content: bytes) -> None:
    stamped = stamp(content)
    assert stamped.startswith(b"Received: by localhost (mailrelay) ")
    assert stamped.endswith(content)


@given(CONTENT)
def test_a_stamp_adds_one_received_field(content: bytes) -> None:
    assert trace.count_received(stamp(content)) == trace.count_received(content) + 1


@given(CONTENT)
def test_a_second_stamp_adds_one_received_field_alone(content: bytes) -> None:
    once = stamp(content)
    assert stamp(once) == once[: once.index(b"+0000\r\n") + 7] + once


@given(CONTENT)
def test_a_message_that_has_an_id_keeps_it(content: bytes) -> None:
    if found := trace.message_id(content):
        assert trace.message_id(stamp(content)) == found


@given(CHARSETS, st.sampled_from("bBqQ"), st.one_of(st.binary(max_size=80), st.from_regex(rb"[A-Za-z0-9+/=_]{0,80}")))
def test_every_subject_can_be_shown_on_one_line(charset: str, encoding: str, octets: bytes) -> None:
    word = f"=?{charset}?{encoding}?".encode() + octets + b"?="
    shown = trace.subject(b"Subject: a " + word + word + b"\r\n\r\n")
    assert len(shown) <= trace.MAX_SUBJECT
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in shown)
    shown.encode()


@given(st.text(max_size=150))
def test_a_subject_in_base64_comes_back(text: str) -> None:
    word = b"=?utf-8?b?" + b64encode(text.encode("utf-8", "replace")) + b"?="
    kept = trace.subject(
        b"Subject: " + text.replace("\r", "").replace("\n", "").encode("utf-8", "replace") + b"\r\n\r\n"
    )
    if "=?" not in text:
        assert trace.subject(b"Subject: " + word + b"\r\n\r\n") == kept
