"""Replies of mail servers as people read them: each code once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.outcome import Outcome, Reply, Stage
from mailrelay.mail.printable import printable
from mailrelay.mail.reply_text import names_status, reply_text


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        (b"550 5.1.1 nobody here", "550 5.1.1 nobody here"),
        (b"550 nobody here", "550 nobody here"),
        (b"550", "550"),
        (b"550 5.1.1", "550 5.1.1"),
        (b"550 550 nobody here", "550 nobody here"),
        (b"550 550 5.1.1 nobody here", "550 5.1.1 nobody here"),
        (b"550 5.1.1 550 5.1.1 <bob@example.org>: no", "550 5.1.1 <bob@example.org>: no"),
        (b"550 5.1.1 550-5.1.1 one 550 5.1.1 two", "550 5.1.1 one two"),
        (b"450 4.2.0 550 5.1.1 said the other server", "450 4.2.0 550 5.1.1 said the other server"),
        (b"550 5.1.1 at 5.1.10 and 15.1.1, flat 550", "550 5.1.1 at 5.1.10 and 15.1.1, flat 550"),
        (b"250 2.0.0 Ok: queued as 250", "250 2.0.0 Ok: queued as 250"),
        (b"the connection broke", "the connection broke"),
        (b"5.1.1 is not a reply, 5.1.1", "5.1.1 is not a reply, 5.1.1"),
        (b"2nd 2nd try", "2nd 2nd try"),
        (b"5501 5501 tries", "5501 5501 tries"),
        (b"550 5.a.1 5.a.1 no code", "550 5.a.1 5.a.1 no code"),
        (b"", ""),
        (b"550 5.1.1 \x1b 5.1.1", "550 5.1.1 \\x1b"),
    ],
)
def test_a_reply_is_read_with_each_code_once(reply: bytes, read: str) -> None:
    assert reply_text(reply) == read


def test_the_lines_of_a_reply_that_repeat_its_code_are_read_as_one_text() -> None:
    reply = Reply(
        550, (b"5.1.1 The account does not exist. Please try", b"5.1.1 double-checking the", b"5.1.1 address")
    )
    read = reply_text(Outcome(Stage.RCPT, reply).description)
    assert read == "550 5.1.1 The account does not exist. Please try double-checking the address"
    assert names_status(read, reply.status)
    assert not names_status(read, "5.1.10")


@given(st.text())
def test_our_own_text_is_only_escaped(text: str) -> None:
    assert reply_text(f"we: {text}") == printable(f"we: {text}")


@given(st.from_regex(r"\A[45]\d\d(-| )[45]\.\d\.\d [ -~]{0,40}\Z"), st.integers(1, 60))
def test_a_reply_that_was_read_reads_the_same_again(text: str, limit: int) -> None:
    read = reply_text(text)
    assert reply_text(read) == read
    assert len(reply_text(text, limit)) <= limit
