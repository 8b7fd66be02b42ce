"""Suggestions for mistyped addresses."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.address_suggestion import distance, nearest, normal, parts, suggestion

KNOWN = (b"bob.miller@example.net", b"ann@gmail.com", b"jo@x.de", "jörg@bücher.example".encode())


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        (b"ann@gmial.com", b"ann@gmail.com"),
        (b"ann@gmai.com", b"ann@gmail.com"),
        (b"ann@gmail.co", b"ann@gmail.com"),
        (b"ann@gmail.de", b"ann@gmail.com"),
        (b"ANN@GMIAL.COM", b"ann@gmail.com"),
        (b"bob.miller@exmaple.net", b"bob.miller@example.net"),
        (b"bob.miler@example.net", b"bob.miller@example.net"),
        (b"bobmiller@Example.NET", b"bob.miller@example.net"),
        (b"ana@gmail.com", b"ann@gmail.com"),
        ("jörg@bucher.example".encode(), "jörg@bücher.example".encode()),
    ],
)
def test_a_mistyped_address_gets_the_right_suggestion(mistyped: bytes, meant: bytes) -> None:
    assert nearest(mistyped, KNOWN) == meant


@pytest.mark.parametrize(
    "address",
    [
        b"ann@gmail.com",
        b"Ann@GMAIL.com",
        b"eve@gmail.com",
        b"ann@yahoo.com",
        b"bob.smith@example.net",
        b"jp@x.de",
        b"anne@gmial.com",
        b"ann",
        b"",
    ],
    ids=[
        "known",
        "known in other letters",
        "stranger",
        "other host",
        "namesake",
        "short",
        "two slips",
        "bare",
        "empty",
    ],
)
def test_dissimilar_addresses_get_no_suggestion(address: bytes) -> None:
    assert nearest(address, KNOWN) is None


def test_a_similar_domain_comes_before_a_similar_name_and_the_first_known_before_the_others() -> None:
    assert nearest(b"ann@gmial.com", (b"anna@gmial.com", b"ann@gmail.com")) == b"ann@gmail.com"
    assert nearest(b"anm@example.net", (b"ann@example.net", b"ant@example.net")) == b"ann@example.net"
    assert nearest(b"ann@example.nett", (b"ann@example.test", b"ann@example.net")) == b"ann@example.net"


@pytest.mark.parametrize(
    ("one", "other", "slips"),
    [("", "", 0), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "abcd", 1), ("abc", "xbc", 1), ("abcd", "badc", 2)],
)
def test_a_swap_of_neighbours_is_one_error(one: str, other: str, slips: int) -> None:
    assert distance(one, other, 5) == slips


def plainly(one: str, other: str) -> int:
    """The same by its definition, without a bound."""
    if not one or not other:
        return len(one) + len(other)
    ways = [
        plainly(one[1:], other) + 1,
        plainly(one, other[1:]) + 1,
        plainly(one[1:], other[1:]) + (one[0] != other[0]),
    ]
    if len(one) > 1 and len(other) > 1 and one[:2] == other[1::-1]:
        ways.append(plainly(one[2:], other[2:]) + 1)
    return min(ways)


WORD = st.text("abc", max_size=5)


@given(WORD, WORD, st.integers(0, 4))
def test_the_bound_changes_nothing_below_it(one: str, other: str, most: int) -> None:
    assert distance(one, other, most) == min(plainly(one, other), most + 1)
    assert distance(one, other, most) == distance(other, one, most)


ADDRESS = st.one_of(st.from_regex(rb"[a-cA-C.]{0,7}(@[a-cA-C.]{0,7})?", fullmatch=True), st.binary(max_size=12))


@given(ADDRESS, st.lists(ADDRESS, max_size=6))
def test_a_suggestion_is_a_known_address_and_another_one(address: bytes, known: list[bytes]) -> None:
    found = nearest(address, known)
    assert found is None or (found in known and normal(found).lower() != normal(address).lower())
    assert nearest(address, [*known, address]) is None


def test_only_the_domain_is_remembered_in_lower_case() -> None:
    assert normal(b"Bob.Miller@Example.NET") == b"Bob.Miller@example.net"
    assert normal(b"ROOT") == b"ROOT"


@given(ADDRESS)
def test_the_form_that_is_remembered_stays_as_it_is(address: bytes) -> None:
    assert normal(normal(address)) == normal(address)
    assert parts(normal(address)) == parts(address) or address.endswith(b"@")


@pytest.mark.parametrize(
    ("likely", "alone", "command"),
    [
        (b"bob@example.net", True, "resend abcd --to bob@example.net"),
        (b"o'neil@example.net", True, """resend abcd --to 'o'"'"'neil@example.net'"""),
        (b"bob@example.net", False, "edit abcd"),
        (b"x" * 100, False, "edit abcd"),
    ],
)
def test_an_address_that_can_be_shown_is_asked_about_with_the_command_that_fixes_it(
    likely: bytes, alone: bool, command: str
) -> None:
    asked = f"Did you mean {likely.decode()}?"
    assert suggestion("abcd", likely, alone=alone) == (asked, f"mailrelay queue {command}")


@pytest.mark.parametrize("likely", [b"", b"bob\x1b@example.net", b"\xff@example.net", b"x" * 101])
def test_an_address_that_cannot_be_shown_as_it_is_is_not_suggested(likely: bytes) -> None:
    assert suggestion("abcd", likely, alone=True) == ()


@given(st.text(st.characters(), max_size=120), st.booleans())
def test_a_suggested_command_is_the_same_words_to_a_shell(address: str, alone: bool) -> None:
    question_and_command = suggestion("abcd", address.encode("utf-8", "surrogatepass"), alone=alone)
    if question_and_command:
        expected = ["resend", "abcd", "--to", address] if alone else ["edit", "abcd"]
        assert shlex.split(question_and_command[1]) == ["mailrelay", "queue", *expected]
