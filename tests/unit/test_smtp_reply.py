"""The parser of replies: replies of real servers, and octets that are no reply."""

import pytest

from mailrelay.mail.outcome import Reply
from mailrelay.smtp.reply import MAX_LINE, MAX_LINES, MAX_REPLY, MalformedReply, ReplyParser


def test_a_reply_of_several_lines_keeps_each() -> None:
    assert list(ReplyParser().feed(b"250-mx at your service\r\n250-SIZE 100\r\n250 DSN\r\n")) == [
        Reply(250, (b"mx at your service", b"SIZE 100", b"DSN"))
    ]


def test_a_bare_lf_ends_a_line() -> None:
    assert list(ReplyParser().feed(b"220-a\n220 b\n")) == [Reply(220, (b"a", b"b"))]


def test_a_code_may_stand_alone() -> None:
    assert list(ReplyParser().feed(b"354\r\n250 \r\n250-\r\n250\r\n")) == [Reply(354), Reply(250), Reply(250)]


def test_an_empty_line_of_a_reply_is_kept_beside_others() -> None:
    assert list(ReplyParser().feed(b"550-\r\n550 no such user\r\n")) == [Reply(550, (b"", b"no such user"))]


def test_replies_before_garbage_count() -> None:
    replies = ReplyParser().feed(b"250 ok\r\nwhat?\r\n")
    assert next(replies) == Reply(250, (b"ok",))
    with pytest.raises(MalformedReply, match=r"what\?"):
        next(replies)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n",
        b"\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"250_ok\r\n",
        b"250\tok\r\n",
        b" 250 ok\r\n",
        b"199 ok\r\n",
        b"600 ok\r\n",
        b"000 ok\r\n",
        "\u0662\u0665\u0660 ok\r\n".encode(),
        b"250-ok\r\n251 ok\r\n",
        b"250-ok\r\n\r\n",
        b"250 ok\r250 ok" + b"\xff" * MAX_LINE + b"\r\n",
    ],
)
def test_what_is_not_a_reply_is_malformed(garbage: bytes) -> None:
    with pytest.raises(MalformedReply):
        list(ReplyParser().feed(garbage))


def test_the_excerpt_of_garbage_is_short_and_escaped() -> None:
    with pytest.raises(MalformedReply) as caught:
        list(ReplyParser().feed(b"\x1b[2J" + b"x" * 1000 + b"\r\n"))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_line_of_the_limit_is_read_and_one_octet_more_is_not() -> None:
    most = b"250 " + b"x" * (MAX_LINE - 4)
    assert list(ReplyParser().feed(most + b"\r\n")) == [Reply(250, (b"x" * (MAX_LINE - 4),))]
    with pytest.raises(MalformedReply):
        list(ReplyParser().feed(most + b"x\r\n"))
    # Also if its end has not come.
    parser = ReplyParser()
    assert [*parser.feed(most), *parser.feed(b"\r"), *parser.feed(b"\n")] == [Reply(250, (b"x" * (MAX_LINE - 4),))]
    with pytest.raises(MalformedReply):
        list(ReplyParser().feed(most + b"xx"))


@pytest.mark.parametrize(
    ("octets", "within"),
    [
        (b"", False),
        (b"2", True),
        (b"250 ok", True),
        (b"250-ok\r\n", True),
        (b"250-ok\r\n250 ok\r\n", False),
        (b"250 ok\r\n250-", True),
    ],
)
def test_a_reply_that_is_not_complete_is_noticed(octets: bytes, within: bool) -> None:
    parser = ReplyParser()
    list(parser.feed(octets))
    assert parser.is_within_reply is within


def test_a_line_without_end_is_not_collected() -> None:
    parser = ReplyParser()
    with pytest.raises(MalformedReply):
        for _ in range(100):
            list(parser.feed(b"2" * 100))


def test_a_reply_of_the_most_lines_is_read_and_one_more_is_not() -> None:
    assert len(next(ReplyParser().feed(b"250-x\r\n" * (MAX_LINES - 1) + b"250 x\r\n")).lines) == MAX_LINES
    with pytest.raises(MalformedReply):
        list(ReplyParser().feed(b"250-x\r\n" * (MAX_LINES + 1)))


def test_a_reply_of_too_many_octets_is_malformed() -> None:
    line = b"250-" + b"x" * (MAX_LINE - 4) + b"\r\n"
    count = MAX_REPLY // MAX_LINE
    assert list(ReplyParser().feed(line * count)) == []
    with pytest.raises(MalformedReply):
        list(ReplyParser().feed(line * (count + 1)))


def test_each_reply_may_have_the_most_octets() -> None:
    lines = MAX_REPLY // MAX_LINE
    line = b" " + b"x" * (MAX_LINE - 4) + b"\r\n"
    most = (b"250-" + line[1:]) * (lines - 1) + b"250" + line
    parser = ReplyParser()
    assert [len(one.lines) for one in (*parser.feed(most), *parser.feed(most))] == [lines, lines]
    with pytest.raises(MalformedReply):
        list(parser.feed(b"250-\r\n" + most))


def test_the_limits_are_for_each_reply_and_not_for_the_conversation() -> None:
    parser = ReplyParser()
    reply = (b"250-" + b"x" * 1000 + b"\r\n") * 60 + b"250 x\r\n"
    assert sum(len(list(parser.feed(reply))) for _ in range(20)) == 20
