"""The choice of the relayhost by the reverse path."""

from dataclasses import dataclass

import pytest

from mailrelay.mail import routing


@dataclass(frozen=True)
class Route:
    name: str
    senders: tuple[str, ...]


ROUTES = (
    Route("rest", ("*",)),
    Route("below", ("*@*.example.org",)),
    Route("deeper", ("*@*.lab.example.org",)),
    Route("domain", ("*@example.org", "*@lab.example.org")),
    Route("person", ("me@example.org", '"a b"@example.org')),
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
    assert routing.choose(sender, ROUTES) == name
    assert routing.choose(sender, reversed(ROUTES)) == name


def test_between_equal_patterns_the_first_relayhost_of_the_file_wins() -> None:
    routes = (Route("a", ("*@example.org",)), Route("b", ("*@example.org",)))
    assert routing.choose(b"me@example.org", routes) == "a"
    assert routing.choose(b"me@example.org", routes[::-1]) == "b"


def test_a_sender_without_a_matching_pattern_has_no_relayhost() -> None:
    routes = ROUTES[1:]
    assert routing.choose(b"me@elsewhere.net", routes) is None
    assert routing.choose(b"", routes) is None
    assert routing.choose(b"me", routes) is None


def test_letters_outside_ascii_match_as_they_are_written() -> None:
    routes = (Route("a", ("*@bücher.example",)),)
    assert routing.choose("é@bücher.example".encode(), routes) == "a"
    assert routing.choose(b"me@xn--bcher-kva.example", routes) is None
    assert routing.choose(b"me@b\xfccher.example", routes) is None


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
