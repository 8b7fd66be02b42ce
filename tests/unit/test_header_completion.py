"""Bare addresses in a header are completed, and nothing else of a message changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.cli.addresses import BadAddress, addresses
from mailrelay.mail.address_tokens import Damaged, tokens
from mailrelay.mail.completion import is_bare
from mailrelay.mail.header_completion import complete, needs_completion

DOMAIN = b"a.example"


def value(text: bytes, name: bytes = b"From") -> bytes:
    """The value of a field after the completion of a message with it."""
    content = b"%b: %b\r\nSubject: root\r\n\r\nFrom: root\r\n" % (name, text)
    found = complete(content, DOMAIN)
    assert found.startswith(name + b": ")
    assert found.endswith(b"\r\nSubject: root\r\n\r\nFrom: root\r\n")
    return found[len(name) + 2 : -len(b"\r\nSubject: root\r\n\r\nFrom: root\r\n")]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"root", b"root@a.example"),
        (b"root (Cron Daemon)", b"root@a.example (Cron Daemon)"),
        (b"(Cron) root (Cron (Daemon))", b"(Cron) root@a.example (Cron (Daemon))"),
        (b"Cron <root>", b"Cron <root@a.example>"),
        (b"<root >", b"<root@a.example >"),
        (b'"root, the first" <root>', b'"root, the first" <root@a.example>'),
        (b'"root"', b'"root"@a.example'),
        (b'"a@b"', b'"a@b"@a.example'),
        (b"first.last", b"first.last@a.example"),
        (b"first.middle.last", b"first.middle.last@a.example"),
        (b'"first"."last"', b'"first"."last"@a.example'),
        (b"root, me@b.example, taro", b"root@a.example, me@b.example, taro@a.example"),
        (b"root,\r\n taro", b"root@a.example,\r\n taro@a.example"),
        (b"friends: root, Me <me>;", b"friends: root@a.example, Me <me@a.example>;"),
        (b"J. Smith <js>", b"J. Smith <js@a.example>"),
        ("Tarō <tarō>".encode(), "Tarō <tarō@a.example>".encode()),
        (b"postmaster", b"postmaster@a.example"),
    ],
)
def test_a_bare_address_is_completed(written: bytes, expected: bytes) -> None:
    assert value(written) == expected
    assert value(expected) == expected


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b" ",
        b"me@b.example",
        b"Me <me@b.example>",
        b"undisclosed-recipients:;",
        b"<>",
        b"Cron Daemon",
        b"first.last Daemon",
        b"first.last Daemon.x",
        b"root (Cron",
        b"<root",
        b"root, <",
        b"=?utf-8?q?root?=",
        b"root <a> <b>",
        b"<a> root",
        b".root",
        b"a b@c.example",
        b"<@a,@b:me@c.example>",
        b"me@[127.0.0.1]",
        b"\x01",
        b"\\",
    ],
)
def test_a_whole_address_and_what_is_none_stay_as_they_are(written: bytes) -> None:
    assert value(written) == written


@pytest.mark.parametrize("name", [b"From", b"SENDER", b"reply-to", b"To", b"Cc", b"Resent-From", b"Resent-To"])
def test_every_field_with_addresses_is_completed(name: bytes) -> None:
    assert value(b"root", name) == b"root@a.example"


@pytest.mark.parametrize("name", [b"Subject", b"X-From", b"Received", b"Return-Path", b"List-Id"])
def test_other_fields_stay(name: bytes) -> None:
    assert value(b"root", name) == b"root"


def test_a_message_id_that_mailrelay_added_without_a_domain_gets_one() -> None:
    assert value(b"<a.b.mailrelay@localhost>", b"Message-ID") == b"<a.b.mailrelay@a.example>"
    assert value(b"<a.b@localhost>", b"Message-ID") == b"<a.b@localhost>"


def test_a_signed_header_and_a_body_stay() -> None:
    for content in (
        b"From: root\r\nDKIM-Signature: v=1\r\n\r\n",
        b"\r\nFrom: root\r\n",
        b"no header\r\nFrom: root\r\n",
        b"",
    ):
        assert complete(content, DOMAIN) == content
        assert not needs_completion(content)
    assert needs_completion(b"To: root\r\n\r\n")


ADDRESS = st.sampled_from([b"root", b"Cron <root>", b"me@b.example", b"Me <me@b.example>", b'"a b"', b"(x) taro (y)"])


@given(st.lists(ADDRESS, min_size=1, max_size=6), st.sampled_from([b",", b", ", b",\r\n\t"]))
def test_of_a_list_every_address_is_whole_afterwards_and_none_is_lost(written: list[bytes], between: bytes) -> None:
    before, after = addresses(between.join(written)), addresses(value(between.join(written)))
    assert [one + b"@a.example" * is_bare(one) for one in before] == after


TOKENS = st.sampled_from(
    [
        b"root",
        b"@",
        b".",
        b",",
        b";",
        b":",
        b"<",
        b">",
        b"(",
        b")",
        b'"',
        b"\\",
        b" ",
        b"\r\n ",
        b"a.b",
        b"\xff",
        b"=?u?q?x?=",
    ]
)


@given(st.lists(TOKENS, max_size=20).map(b"".join))
def test_any_value_is_completed_once_and_only_by_the_domain(written: bytes) -> None:
    once = value(written)
    assert value(once) == once
    assert once.replace(b"@a.example", b"") == written.replace(b"@a.example", b"")
    try:
        found = addresses(written)
    except BadAddress:
        return
    assert len(addresses(once)) == len(found)


@given(st.binary(max_size=300))
def test_any_octets_are_accepted(content: bytes) -> None:
    once = complete(content, DOMAIN)
    assert complete(once, DOMAIN) == once


def test_a_domain_that_is_not_ascii_is_written_in_its_ascii_form() -> None:
    assert complete(b"From: root\r\n\r\n", "bücher.example".encode()) == b"From: root@xn--bcher-kva.example\r\n\r\n"
    assert complete(b"From: root\r\n\r\n", b"\xff.example") == b"From: root@\xff.example\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'"a\\\nb"', [("word", b'"a\\\nb"')]),
        (b'<"a\\\nb"@c>', [("angle", b'<"a\\\nb"@c>')]),
        (b"(a\\\nb) c", [("word", b"c")]),
        (b"(a\\)b) c", [("word", b"c")]),
        (b"=?utf-8?q?a,b?= c", [("word", b"=?utf-8?q?a,b?="), ("word", b"c")]),
        (b"=?utf-8?x?a,b?=", [("word", b"=?utf-8?x?a"), ("separator", b","), ("word", b"b?=")]),
        (b"[::1]", [("word", b"[::1]")]),
        (b"a\\,b", [("word", b"a\\,b")]),
        (b"\xc3\xa9\\\xc3\xa9", [("word", b"\xc3\xa9\\\xc3\xa9")]),
        (b"a:b;", [("word", b"a"), ("group", b":"), ("word", b"b"), ("separator", b";")]),
    ],
)
def test_what_is_quoted_ends_no_token_be_it_a_line_end(text: bytes, found: list[tuple[str, bytes]]) -> None:
    seen = list(tokens(text))
    assert [(kind, octets) for kind, octets, _ in seen] == found
    for _, octets, end in seen:
        assert text[end - len(octets) : end] == octets
    # From any other place on, too.
    assert [one[:2] for one in tokens(b", " + text, 2)] == found


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (b"a (b", 2),
        (b"(a (b) c", 0),
        (b"a )", 2),
        (b'a "b', 2),
        (b"a <b", 2),
        (b"a\\ b", 1),
        (b"a [b", 2),
        (b"a\x7f", 1),
    ],
)
def test_a_list_is_damaged_where_the_token_without_an_end_begins(text: bytes, at: int) -> None:
    with pytest.raises(Damaged) as found:
        list(tokens(text))
    assert found.value.at == at
