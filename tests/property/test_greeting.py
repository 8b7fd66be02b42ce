"""The greeting of a mail server behind the output of a login shell."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.smtp.reply import ReplyParser
from mailrelay.ssh.greeting import LONG_QUIET, SHORT_QUIET, Greeting, find_greeting

CODES = st.sampled_from(["", "220", "250", "354", "421", "427", "452", "520", "550", "554", "600"])
NOISE = st.lists(
    st.one_of(
        st.tuples(CODES, st.sampled_from(["", " ", "-"]), st.text("ab 2-", max_size=5)).map("".join),
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=10),
    ),
    max_size=6,
).map(lambda lines: "".join(line.rstrip("\r") + "\n" for line in lines).encode())
GREETINGS = st.sampled_from(
    [b"220 mx.example.org ESMTP\r\n", b"220-mx.example.org\r\n220-no spam\r\n220 ESMTP\r\n", b"220\r\n"]
)


@given(NOISE, GREETINGS)
@example(b"427 packages can be updated.\n12 updates are security updates.\n", b"220 mx\r\n")
@example(b"520 days up\n", b"220 mx\r\n")
@example(b"220 packages can be updated.\n", b"220 mx\r\n")
@example(b"220-hello\n", b"220 mx\r\n")
@example(b"554-no\n554 \n", b"220 mx\r\n")
def test_no_line_of_a_shell_keeps_the_greeting_from_being_found(noise: bytes, greeting: bytes) -> None:
    output = noise + greeting
    found = find_greeting(output)
    assert found is not None and found.quiet == 0
    [reply] = ReplyParser().feed(output[found.start :])
    assert reply.code == 220
    for end in range(len(output)):
        early = find_greeting(output[:end])
        assert early is None or early.quiet > 0


@given(NOISE, st.sampled_from([b"421 busy\r\n", b"554-go\r\n554 away\r\n"]))
def test_a_refusal_is_believed_after_a_while_or_at_the_end(noise: bytes, refusal: bytes) -> None:
    output = noise + refusal
    found = find_greeting(output)
    assert found is not None and found.quiet == SHORT_QUIET
    ended = find_greeting(output + b"Connection closed by foreign host.\n", is_complete=True)
    assert ended is not None
    for greeting in (found, ended):
        assert re.match(rb"(?:421|554)", output[greeting.start :])


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"", None),
        (b"hello\n", None),
        (b"2200 days up\r\n", None),
        (b"220 mx", None),
        (b"220-mx\r\n", None),
        (b"220 mx\r\n", Greeting(0, 8, 0.0)),
        (b"220 mx\n", Greeting(0, 7, SHORT_QUIET)),
        (b"220 mx\r\nhello\n", Greeting(0, 8, LONG_QUIET)),
        (b"220 mx\r\n220", Greeting(0, 8, LONG_QUIET)),
        (b"\x1b]0;host\x07\x1b[0m\r220 mx\r\n", Greeting(14, 22, 0.0)),
        (b"welcome 220 mx\r\n", Greeting(8, 16, SHORT_QUIET)),
        (b"welcome220-mx\r\n220 ok\r\n", Greeting(7, 23, 0.0)),
        (b"2026-01-01 10.220 mx\r\n", None),
        (b"welcome 220 mx\n", None),
        (b"welcome 554 no\r\n", None),
        (b"250 mx\r\n", None),
        (b"427 packages can be updated.\n", Greeting(0, 29, LONG_QUIET)),
        (b"427 packages can be updated.\n12 updates are security updates.\n", None),
        (b"x\n554 no\r\n", Greeting(2, 10, SHORT_QUIET)),
    ],
)
def test_what_counts_as_a_greeting(output: bytes, expected: Greeting | None) -> None:
    assert find_greeting(output) == expected


@pytest.mark.parametrize(
    "output", [b"", b"427 packages\nsecurity updates\n", b"sh: sendmail: not found\n", b"220-mx\r\n"]
)
def test_a_command_that_ends_without_a_greeting_had_none(output: bytes) -> None:
    assert find_greeting(output, is_complete=True) is None
