"""Whom a header names: no recipient is lost, and what is no address is said to be none."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.cli.addresses import BadAddress, addresses, parse_list
from mailrelay.mail.address import is_address

ATOM = st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~é漢", min_size=1, max_size=8)
QUOTED = st.text('ab ,;:<>()@.[]\t\\"', max_size=8).map(
    lambda text: '"' + text.replace("\t", "").replace("\\", "\\\\").replace('"', '\\"') + '"'
)
LOCAL = st.one_of(st.lists(ATOM, min_size=1, max_size=3).map(".".join), QUOTED)
DOMAIN = st.sampled_from(["example.org", "a-b.example", "[192.0.2.1]", "[IPv6:2001:db8::1]", "xn--4gbrim.example"])
MAILBOX = st.builds(lambda local, domain: f"{local}@{domain}", LOCAL, DOMAIN)
CFWS = st.sampled_from(["", " ", "\r\n ", "(a comment, <x@y>)", " (nested (twice\\)) ) ", "\t"])
PHRASE = st.lists(st.one_of(ATOM, QUOTED, st.sampled_from(["J.", "=?utf-8?Q?Smith,_J=2E?="])), max_size=3).map(" ".join)


@st.composite
def places(draw: st.DrawFn) -> tuple[str, str]:
    """A mailbox as RFC 5322 lets one write it, and the mailbox alone."""
    mailbox = draw(MAILBOX)
    local, _, domain = mailbox.rpartition("@")
    spread = f"{draw(CFWS)}{local}{draw(CFWS)}@{draw(CFWS)}{domain}{draw(CFWS)}"
    if draw(st.booleans()):
        return spread, mailbox
    return f"{draw(CFWS)}{draw(PHRASE)}{draw(CFWS)}<{mailbox}>{draw(CFWS)}", mailbox


@given(st.lists(places(), max_size=6), st.sampled_from([",", ", ", ",,\r\n ", " ; "]))
def test_every_mailbox_of_a_list_is_found_in_its_order(written: list[tuple[str, str]], between: str) -> None:
    text = between.join(place for place, _ in written)
    assert addresses(text.encode()) == [mailbox.encode() for _, mailbox in written]


@given(st.lists(places(), max_size=3), st.lists(places(), max_size=3), PHRASE)
def test_the_members_of_a_group_are_found_and_its_name_is_not(
    members: list[tuple[str, str]], others: list[tuple[str, str]], name: str
) -> None:
    text = f"{name}: {', '.join(place for place, _ in members)};{', '.join(place for place, _ in others)}"
    assert addresses(text.encode()) == [mailbox.encode() for _, mailbox in [*members, *others]]


@given(st.one_of(st.binary(), st.text('ab@.,;:<>()"\\[] \r\n').map(str.encode)))
@example(b"(a@b)")
def test_anything_gives_addresses_that_can_be_read_again_or_says_that_it_cannot(text: bytes) -> None:
    try:
        found = addresses(text)
    except BadAddress:
        return
    assert addresses(b", ".join(found)) == found
    if b"@" in text and not found:
        # Only in a comment or in the name of a group, quoted, is a sign like that no part of an address.
        assert b"(" in text or b'"' in text or b"=?" in text or b"[" in text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", []),
        (b" , ,, ", []),
        (b"undisclosed-recipients:;", []),
        (b"root", [b"root"]),
        (b"Smith, John <j@example.org>", [b"Smith", b"j@example.org"]),
        (b'"Smith, John" <j@example.org>', [b"j@example.org"]),
        (b"j@example.org (John, Smith)", [b"j@example.org"]),
        (b"<@a.example,@b.example:j@example.org>", [b"j@example.org"]),
        (b"j . smith @ example . org", [b"j.smith@example.org"]),
        (b"taro..y.@docomo.ne.jp, <.a@x.example>", [b"taro..y.@docomo.ne.jp", b".a@x.example"]),
        (b"CORP\\alice@example.org", [b"CORP\\alice@example.org"]),
        (b"CORP\\alice <a@example.org>", [b"a@example.org"]),
        (b"Alice <CORP\\alice@example.org>", [b"CORP\\alice@example.org"]),
        (b"a@b_c.example, b@example.org.", [b"a@b_c.example", b"b@example.org."]),
        (b'"a".b@example.org', [b'"a".b@example.org']),
        (b"bob@example.org alice@example.org", [b"bob@example.org", b"alice@example.org"]),
        (b"bob@example.org\r\n alice@example.org", [b"bob@example.org", b"alice@example.org"]),
        (b"Bob <bob@example.org> alice@example.org", [b"bob@example.org", b"alice@example.org"]),
        (b"Bob <bob@example.org> (B) Al <al@example.org>", [b"bob@example.org", b"al@example.org"]),
        (b'\\"Bob\\" <bob@example.org>, al@example.org', [b"bob@example.org", b"al@example.org"]),
        (b"Bob\\, B\\. <bob@example.org>", [b"bob@example.org"]),
        (b"me@example.org <j@example.org>", [b"j@example.org"]),
        (b'"a b"@example.org', [b'"a b"@example.org']),
        (b'"x>y"@example.org', [b'"x>y"@example.org']),
        (b'<"x>y"@example.org>', [b'"x>y"@example.org']),
        (b"=?utf-8?Q?a=40b,_c?= <j@example.org>", [b"j@example.org"]),
        (b"=?utf-8?Q?bob=0D=0ARCPT?=@example.org", [b"=?utf-8?Q?bob=0D=0ARCPT?=@example.org"]),
        ("jürgen@müller.example".encode(), ["jürgen@müller.example".encode()]),
    ],
)
def test_what_people_and_programs_write_is_read(text: bytes, found: list[bytes]) -> None:
    assert addresses(text) == found


@pytest.mark.parametrize(
    "text",
    [
        b"bob alice",
        b"bob alice@example.org",
        b"bob@example.org alice",
        b"<bob@example.org> alice",
        b"bob@example.org alice@example.org eve",
        b"bob@example.org: alice@example.org;",
        b"<bob@example.org>: alice@example.org;",
        b"bob\\@example.org: alice@example.org;",
        b"\\@:",
        b"<>",
        b"bob@",
        b"@example.org",
        b"bob@.example",
        b"bob@exa..mple",
        b"bob@example.org)",
        b"(bob@example.org",
        b'"bob@example.org',
        b"<bob@example.org",
        b"bob\\@example.org",
        b"bob\x00@example.org",
        b"bob\xff@example.org",
        b"bob@exa\x1bmple.org",
    ],
)
def test_what_would_lose_somebody_is_refused(text: bytes) -> None:
    with pytest.raises(BadAddress):
        addresses(b"first@example.org, " + text)


@pytest.mark.parametrize("piece", [b"(", b'"', b"<", b"a,", b"(\\", b'<"', b"a ", b". ", b"()", b"[", b"=?a?Q?"])
def test_a_long_list_of_anything_is_read_in_time_that_grows_with_its_length(piece: bytes) -> None:
    # The suite's own limit of time is what fails here.
    try:
        found = addresses(piece * 200_000)
    except BadAddress:
        return
    assert len(found) in (0, 200_000)


@pytest.mark.parametrize(
    ("text", "found", "bad"),
    [
        (b"a@x.example, b c@x.example, d@x.example", [b"a@x.example", b"d@x.example"], [b"b c@x.example"]),
        (b'a@x.example, "b <b@x.example>, c@x.example', [b"a@x.example", b"c@x.example"], [b'"b <b@x.example>']),
        (b"b@x.example (oh, c@x.example", [b"c@x.example"], [b"b@x.example (oh"]),
        (b"Bob <b@x.example, c@x.example", [b"c@x.example"], [b"Bob <b@x.example"]),
        (b"Bob <b@x.example; Al <a@x.example>", [b"a@x.example"], [b"Bob <b@x.example"]),
        (b"a@x.example, @, <>, c@x.example", [b"a@x.example", b"c@x.example"], [b"@", b"<>"]),
        (b"list: a@x.example, b c@x.example;, d@x.example", [b"a@x.example", b"d@x.example"], [b"b c@x.example"]),
        (b"a@x.example: b@x.example;", [b"b@x.example"], [b"a@x.example:"]),
        (b"b\x01c@x.example, d@x.example", [b"d@x.example"], [b"b c@x.example"]),
        (b"b@x.example\x00, d@x.example", [b"d@x.example"], [b"b@x.example (not an address)"]),
        (b"\x1b, d@x.example", [b"d@x.example"], [b" (not an address)"]),
        (b"x" * 600 + b"@x.example, d@x.example", [b"d@x.example"], [b"x" * 300 + b" ..."]),
    ],
)
def test_a_part_that_is_no_mailbox_costs_no_other_one(text: bytes, found: list[bytes], bad: list[bytes]) -> None:
    good, wrong = parse_list(text)
    assert (good, [error.text for error in wrong]) == (found, bad)


@given(
    st.lists(st.one_of(places(), st.text('ab@.:<>()"\\[] \x00\r', min_size=1).map(lambda text: (text, ""))), max_size=6)
)
def test_nothing_that_is_kept_in_place_of_an_address_is_one(parts: list[tuple[str, str]]) -> None:
    _, bad = parse_list(", ".join(text for text, _ in parts).encode())
    for error in bad:
        assert error.text
        assert not is_address(error.text)
        assert not any(octet < 32 or octet == 127 for octet in error.text)
