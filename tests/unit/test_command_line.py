"""The check of a line that a client sent in place of a command: every row of the decision."""

import pytest

from mailrelay.listener.command_line import LAST_IN_GROUP, LineError, check_in_session, check_line


def judged(
    line: bytes, *, known: bool = False, first: bool = False, followed: bool = False, refused: bool = False
) -> LineError | None:
    verb = line.split(b" ")[0].upper()
    mistake = check_line(line, verb, known, followed)
    return mistake and check_in_session(verb, mistake, first, refused)


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_known_command_is_one_whatever_was_before_it(first: bool, refused: bool) -> None:
    assert judged(b"RSET", known=True, first=first, refused=refused, followed=True) is None
    assert judged(b"mail FROM:<a@b>", known=True, first=first, refused=refused) is None
    assert judged(b"DATA", known=True, first=first, refused=refused) is None


@pytest.mark.parametrize("verb", sorted(LAST_IN_GROUP))
def test_nothing_may_follow_the_last_command_of_a_group(verb: bytes) -> None:
    assert judged(verb, known=True, followed=True, first=True, refused=True) is LineError.EARLY
    assert judged(verb, known=True, followed=False) is None


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"post /", b"Host: localhost", b"Cookie: x", b"PRI * HTTP/2.0"])
def test_a_line_of_a_browser_is_another_protocol_at_any_time(line: bytes) -> None:
    assert judged(line, first=True) is judged(line, followed=True) is LineError.NOT_SMTP


@pytest.mark.parametrize(("line", "known"), [(b"FROB", False), (b"", False), (b"NOOP \x1b[2J", True), (b"\x00", False)])
def test_a_first_line_that_is_no_command_is_another_protocol(line: bytes, known: bool) -> None:
    assert judged(line, known=known, first=True) is LineError.NOT_SMTP


def test_a_later_line_that_is_no_command_is_an_error() -> None:
    assert judged(b"FROB") is LineError.UNKNOWN
    assert judged(b"RSET \x07", known=True) is LineError.BAD
    assert judged(b"NOOP \x07", known=True, followed=True) is LineError.EARLY


@pytest.mark.parametrize("line", [b"From: me@example.org", b"", b"Hello,", b".", b"GET well soon"])
def test_lines_after_a_refused_data_are_its_content(line: bytes) -> None:
    assert judged(line, refused=True, followed=True) is LineError.CONTENT
