"""The parser of paths in MAIL and RCPT."""

import pytest

from mailrelay.mail.address import MAX_MAILBOX, BadPath, is_address, parse_path

LABEL = b"x" * 63


@pytest.mark.parametrize(
    ("arg", "mailbox", "rest"),
    [
        (b"<a@b.example>", b"a@b.example", b""),
        (b" <a@b.example>", b"a@b.example", b""),
        (b"<a@b.example> SIZE=1  BODY=7BIT", b"a@b.example", b"SIZE=1  BODY=7BIT"),
        (b"<a@b.example> ", b"a@b.example", b""),
        (b"<Me+Tag.x=y~@B.Example>", b"Me+Tag.x=y~@B.Example", b""),
        (b"<postmaster>", b"postmaster", b""),
        (b"<root>", b"root", b""),
        (b'<"a b"@c.example>', b'"a b"@c.example', b""),
        (b'<"a>\\" @<,"@c.example>', b'"a>\\" @<,"@c.example', b""),
        (b'<""@c.example>', b'""@c.example', b""),
        (b"<@x.example,@y.example:a@b.example>", b"a@b.example", b""),
        (b"<a@[192.0.2.1]>", b"a@[192.0.2.1]", b""),
        (b"<a@[IPv6:2001:db8::1]>", b"a@[IPv6:2001:db8::1]", b""),
        (b"<a@xn--exmple-cua.example>", b"a@xn--exmple-cua.example", b""),
        (b"<a@1.2-3.example>", b"a@1.2-3.example", b""),
        (b"<" + b"l" * 200 + b"@b>", b"l" * 200 + b"@b", b""),
        ("<a@col·lecció.example>".encode(), "a@col·lecció.example".encode(), b""),
        ("<jö.ü@exämple-1.рф>".encode(), "jö.ü@exämple-1.рф".encode(), b""),
        ('<"你 好"@b>'.encode(), '"你 好"@b'.encode(), b""),
        (b"<=?utf-8?q?=0D=0A?=@b>", b"=?utf-8?q?=0D=0A?=@b", b""),
        (b"<taro..y.@docomo.ne.jp>", b"taro..y.@docomo.ne.jp", b""),
        (b"<.a@b>", b".a@b", b""),
        (b"<a.@b>", b"a.@b", b""),
        (b"<...a...b...@c>", b"...a...b...@c", b""),
        (b'<"taro..y."@docomo.ne.jp>', b'"taro..y."@docomo.ne.jp', b""),
        (b'<"a".b."c d"@e>', b'"a".b."c d"@e', b""),
        (b"<CORP\\alice@b.example>", b"CORP\\alice@b.example", b""),
        (b"<CORP\\\\alice@b.example>", b"CORP\\\\alice@b.example", b""),
        (b"<CORP\\alice>", b"CORP\\alice", b""),
        (b"<a\\.b@c>", b"a\\.b@c", b""),
        (b"<a@b_c.example>", b"a@b_c.example", b""),
        (b"<a@_dmarc.b.example>", b"a@_dmarc.b.example", b""),
        (b"<a@b.example.> SIZE=1", b"a@b.example.", b"SIZE=1"),
        ("<a@müller.example.>".encode(), "a@müller.example.".encode(), b""),
        (b"<a@-b.example>", b"a@-b.example", b""),
        (b"<a@b-.example>", b"a@b-.example", b""),
        (b"<a@b>", b"a@b", b""),
        (b"<a%b@c>", b"a%b@c", b""),
        (b"<host!user@c>", b"host!user@c", b""),
        (b"<a@1.2.3.4>", b"a@1.2.3.4", b""),
        (b"<@-b:a@c>", b"a@c", b""),
    ],
)
def test_an_address_is_returned_as_it_was_sent(arg: bytes, mailbox: bytes, rest: bytes) -> None:
    assert parse_path(arg, smtputf8=True, null=False) == (mailbox, rest)


@pytest.mark.parametrize(
    "arg",
    [
        b"",
        b"<",
        b"<>",
        b"< >",
        b"a@b",
        b"<a@b",
        b"a@b>",
        b"<a@b>x",
        b"<a@b>\tSIZE=1",
        b"<a@b>>",
        b"<<a@b>>",
        b"<a@>",
        b"<@b>",
        b"<.>",
        b"<..@b>",
        b"<a b@c>",
        b"< a@b>",
        b"<a@b >",
        b"<a@b@c>",
        b"<a(comment)@b>",
        b"<a@b..c>",
        b"<a@b..>",
        b"<a@.b>",
        b"<a@.>",
        b"<a@b+c>",
        b"<a@b!c>",
        b"<a@b\\c>",
        b"<@b\\:a@c>",
        b'<"a@b>',
        b'<"a"b@c>',
        b"<a\\@b@c>",
        b"<a\\@b>",
        b"<a@b\\>",
        b"<a\\>",
        b"<a\\>x>",
        b"<a\\ b@c>",
        b'<a\\"b@c>',
        b"<a\\<b@c>",
        b"<a\\\r\n@c>",
        b"<a\\\x00@c>",
        b'<a"b"@c>',
        b'<a."b"c@d>',
        b'<"a""b"@c>',
        b"<a@[1.2.3]>",
        b"<a@[1.2.3.4>",
        b"<a@[IPv6:fe80::1%eth0]>",
        b"<a@[x:y]>",
        b"<@b:>",
        b"<a@b>\r\nRCPT TO:<c@d>",
        b"<a\r\n@b>",
        b'<"a\x00"@b>',
        b'<"a\\\x1b"@b>',
        b'<"a\tb"@c>',
        b"<a\x7f@b>",
        b"<\xff@b>",
        b"<\xed\xa0\x80@b>",
        "<a\u0085@b>".encode(),
        "<a\u2028@b>".encode(),
        "<a@b\u3002c>".encode(),
        "<a@b\uff0ec>".encode(),
        "<a@\u202eb>".encode(),
        "<a@ä_b>".encode(),
        "<a@-ä>".encode(),
        b"<a@" + b"x" * 64 + b">",
        b"<a@" + b".".join([LABEL] * 4) + b".x>",
        b"<" + b"l" * MAX_MAILBOX + b"@b>",
    ],
)
def test_an_invalid_path_is_refused_with_a_reason_that_repeats_nothing_of_it(arg: bytes) -> None:
    with pytest.raises(BadPath) as caught:
        parse_path(arg, smtputf8=True, null=False)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_the_null_reverse_path_is_one_only_where_it_may_be() -> None:
    assert parse_path(b"<> RET=HDRS", smtputf8=False, null=True) == (b"", b"RET=HDRS")


def test_utf8_is_refused_without_smtputf8() -> None:
    with pytest.raises(BadPath):
        parse_path("<jö@b>".encode(), smtputf8=False, null=False)


@pytest.mark.parametrize(
    ("arg", "smtputf8", "why"),
    [
        (b"a@b.example>", True, "in angle brackets"),
        (b"xa@b.example>", True, "in angle brackets"),
        (b"", True, "in angle brackets"),
        (b"<\xff@b.example>", True, "not valid UTF-8"),
        (b"<\xc3\xa9@b.example>", False, "not ASCII"),
        *((f'<"a{char}b"@b.example>'.encode(), True, "control character") for char in "\x85\u2028\u2029"),
        (b"<@b.example:>", True, "does not follow"),
    ],
)
def test_the_reason_says_what_is_wrong_with_a_path(arg: bytes, smtputf8: bool, why: str) -> None:
    with pytest.raises(BadPath, match=why):
        parse_path(arg, smtputf8=smtputf8, null=True)


@pytest.mark.parametrize(
    "text", [b"", b"<a@b.example>", b"a@b.example> X=y", b"a@b.example ", b" a@b.example", b"\xff"]
)
def test_what_is_more_or_less_than_a_mailbox_is_no_address(text: bytes) -> None:
    assert not is_address(text)
