"""The choice of the relayhost by the reverse path."""

from dataclasses import dataclass

import pytest

from mailrelay.mail import routing


@dataclass(frozen=True)
class Way:
    name: str
    senders: tuple[str, ...]


WAYS = (
    Way("rest", ("*",)),
    Way("below", ("*@*.example.org",)),
    Way("deeper", ("*@*.lab.example.org",)),
    Way("domain", ("*@example.org", "*@lab.example.org")),
    Way("person", ("me@example.org", '"a b"@example.org')),
)


@pytest.mark.parametrize(
    ("sender", "name"),
    [
        (b"me@example.org", "person"),
        (b"ME@Example.ORG", "person"),
        (b'"a b"@example.org', "person"),
        (b"you@example.org", "domain"),
        (b"me@lab.example.org", "domain"),
        (b"me@www.example.org", "below"),
        (b"me@a.lab.example.org", "deeper"),
        (b"me@notexample.org", "rest"),
        (b"me@example.org.evil", "rest"),
        (b'"me@example.org"@elsewhere.net', "rest"),
        (b"me@.example.org", "rest"),
        (b"postmaster", "rest"),
        (b"", "rest"),
    ],
)
def test_the_most_specific_pattern_wins(sender: bytes, name: str) -> None:
    assert routing.choose(sender, WAYS) == name
    assert routing.choose(sender, reversed(WAYS)) == name


def test_between_equal_patterns_the_first_relayhost_of_the_file_wins() -> None:
    ways = (Way("a", ("*@example.org",)), Way("b", ("*@example.org",)))
    assert routing.choose(b"me@example.org", ways) == "a"
    assert routing.choose(b"me@example.org", ways[::-1]) == "b"


def test_a_sender_without_a_matching_pattern_has_no_relayhost() -> None:
    ways = WAYS[1:]
    assert routing.choose(b"me@elsewhere.net", ways) is None
    assert routing.choose(b"", ways) is None
    assert routing.choose(b"me", ways) is None


def test_letters_outside_ascii_match_as_they_are_written() -> None:
    ways = (Way("a", ("*@bücher.example",)),)
    assert routing.choose("é@bücher.example".encode(), ways) == "a"
    assert routing.choose(b"me@xn--bcher-kva.example", ways) is None
    assert routing.choose(b"me@b\xfccher.example", ways) is None


@pytest.mark.parametrize(
    "text", ["*", "*@a.org", "*@*.a.org", "me@a.org", "*@localhost", '"a b"@a.org', "me@[192.0.2.1]"]
)
def test_the_four_forms_are_patterns(text: str) -> None:
    assert routing.is_pattern(text)


@pytest.mark.parametrize(
    "text",
    ["", "a.org", "@a.org", "*@", "me@*.a.org", "m*@a.org", "*@*", "*@.a.org", "*@a.org.", "*@a*.org", "<me@a.org>x y"],
)
def test_a_text_that_can_never_match_is_no_pattern(text: str) -> None:
    assert not routing.is_pattern(text)
