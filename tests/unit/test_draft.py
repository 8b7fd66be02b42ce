"""Drafts: the text for the editor, and the message that is read from it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.mail.draft import BadDraft, draft, read_draft, readdressed
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.trace import is_signed

BOB = Recipient(b"bob@example.net", b"NEVER", b"rfc822;bob@example.net")
OLD = Envelope(b"me@example.org", (BOB, Recipient(b"eve@example.net")), ret=b"HDRS", envid=b"x")
LINE = b"---- The message begins below this line ----\n"
ENVELOPE_LINES = (b"Envelope-From: <a@b>", b"Envelope-To: <c@d>", LINE, LINE + b"x")


@given(st.binary().filter(bytes.strip))
def test_read_draft_returns_any_content_unchanged(content: bytes) -> None:
    assert read_draft(draft(OLD, content)) == (b"me@example.org", [b"bob@example.net", b"eve@example.net"], content)


def test_a_message_that_holds_the_line_itself_is_not_cut_at_it() -> None:
    content = b"Envelope-To: <x@example.net>\n\n" + LINE + b"Envelope-To: <y@example.net>\n"
    assert read_draft(draft(OLD, content))[1:] == ([b"bob@example.net", b"eve@example.net"], content)


def test_lines_of_the_envelope_are_read_as_people_write_them() -> None:
    text = b"# note\r\n\r\nenvelope-from: <>\r\nEnvelope-To:bob@example.net \r\n" + LINE + b"x"
    assert read_draft(text) == (b"", [b"bob@example.net"], b"x")


def test_empty_lines_of_the_envelope_are_passed_over_also_at_its_beginning() -> None:
    text = b"\n\nEnvelope-From: <>\n\nEnvelope-To: <a@b>\n" + LINE + b"x"
    assert read_draft(text) == (b"", [b"a@b"], b"x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"Envelope-From: <>\nEnvelope-To: <a@b>\nSubject: x\n", "line 3 is neither"),
        (b"Envelope-From: <>\nEnvelope-To: <a@b>\n", "begins below this line"),
        (b"Envelope-To: <a@b>\n" + LINE + b"x", "one line Envelope-From"),
        (b"Envelope-From: <>\nEnvelope-From: <>\nEnvelope-To: <a@b>\n" + LINE + b"x", "one line Envelope-From"),
        (b"Envelope-From: <>\n" + LINE + b"x", "no line Envelope-To"),
        (b"Envelope-From: <>\nEnvelope-To: <>\n" + LINE + b"x", "line 2: the path is empty"),
        (b"Envelope-From: <>\nEnvelope-To: <a@b..c>\n" + LINE + b"x", "line 2: the domain"),
        (b"Envelope-From: <>\nEnvelope-To: <a@b> <c@d>\n" + LINE + b"x", "line of its own"),
        (b"Envelope-From: <>\nEnvelope-To: a@b, c@d\n" + LINE + b"x", "line 2: the path"),
        (b"Envelope-From: <>\nEnvelope-To: <a@b>\n" + LINE + b" \n", "no message"),
    ],
)
def test_a_draft_that_cannot_be_sent_says_where_and_why(text: bytes, why: str) -> None:
    with pytest.raises(BadDraft, match=why):
        read_draft(text)


@given(
    st.one_of(st.binary(), st.lists(st.one_of(st.sampled_from(ENVELOPE_LINES), st.binary(max_size=9))).map(b"\n".join))
)
@example(draft(OLD, b"x"))
def test_any_octets_are_a_draft_or_a_reason(text: bytes) -> None:
    try:
        _, recipients, content = read_draft(text)
    except BadDraft:
        return
    assert recipients
    assert content


def test_dsn_parameters_stay_with_their_recipient() -> None:
    new = readdressed(OLD, b"other@example.org", [b"bob@example.net", b"ann@example.net", b"ann@example.net"])
    assert new == Envelope(b"other@example.org", (BOB, Recipient(b"ann@example.net")), ret=b"HDRS", envid=b"x")


def test_an_address_that_is_not_ascii_asks_for_smtputf8() -> None:
    assert not readdressed(OLD, b"", [b"ann@example.net"]).smtputf8
    assert readdressed(OLD, b"", ["jörg@example.net".encode()]).smtputf8
    assert readdressed(OLD, "jörg@example.net".encode(), [b"ann@example.net"]).smtputf8


@pytest.mark.parametrize(
    ("content", "signed"),
    [
        (b"DKIM-Signature: v=1; h=from\r\n\r\nx", True),
        (b"Content-Type: Multipart/Signed;\r\n boundary=x\r\n\r\nx", True),
        (b"Content-Type:\r\n multipart/signed; boundary=x\r\n\r\nx", True),
        (b"Content-Type: multipart/mixed\r\n\r\nDKIM-Signature: x\r\n", False),
        (b"", False),
    ],
)
def test_a_signature_is_seen_in_the_header_alone(content: bytes, signed: bool) -> None:
    assert is_signed(content) is signed
