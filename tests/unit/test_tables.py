"""A setting is one field; a table is read into its NamedTuple, or the first mistake in it is told."""

from typing import Annotated, NamedTuple

import pytest

from mailrelay import grammar, tables
from mailrelay.grammar import SettingsError
from mailrelay.tables import Expanded, Written


class House(NamedTuple):
    """Settings of every form."""

    number: Annotated[int, grammar.count(1, 99), Written(example="number = 7")]
    street: Annotated[object, Expanded(grammar.path), Written(default="~/street")]
    owner: str
    is_open: Annotated[bool, grammar.truth, Written(key="open")] = False


def read(table: object) -> House:
    return tables.read(House, table, "house", {"HOME": "/home/me"}, owner="me")


def complaint(table: object) -> str:
    with pytest.raises(SettingsError) as error:
        read(table)
    return str(error.value)


def test_a_field_without_a_reader_is_no_setting() -> None:
    assert tables.keys(House) == ["number", "street", "open"]
    assert complaint({"number": 1, "owner": "you"}).startswith("house.owner: no such setting")


def test_what_is_not_written_has_its_default() -> None:
    assert list(map(str, read({"number": 5}))) == ["5", "/home/me/street", "me", "False"]
    assert list(map(str, read({"number": 5, "open": True, "street": "$HOME/a"}))) == ["5", "/home/me/a", "me", "True"]


def test_what_must_be_written_is_shown() -> None:
    assert complaint({}) == "house.number: missing; for example: number = 7"


def test_the_first_mistake_of_the_file_is_told() -> None:
    assert complaint({"open": 1, "number": 0}) == "house.open: expected true or false, found 1"
    assert complaint({"number": 0, "open": 1}) == "house.number: 0 is out of range; at least 1"
    assert complaint({"number": 100}) == "house.number: 100 is out of range; at most 99"
    assert complaint({"number": True}) == "house.number: expected a whole number, found true"
    assert complaint([]) == "house: expected a table, found a list; write [house], and its settings below it"


def test_a_name_of_the_code_is_no_key_of_the_file() -> None:
    assert complaint({"is_open": True}) == 'house.is_open: no such setting; did you mean "open"?'
