"""What holds of every settings text: it is read, or one line says why not."""

import math
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay import config, grammar, tables

KEYS = {
    "listen": tables.keys(config.Listen),
    "relayhost.default": ("ssh", "ssh_config", "smtp", "command", "senders", "linger", "channels", "backlog_channels"),
    "queue": tables.keys(config.Queue),
    "notify": tables.keys(config.Notify),
}
WORDS = st.sampled_from(
    [
        "",
        "~",
        "/a",
        "$HOME",
        "$",
        "${",
        "self",
        "*",
        "*@a.org",
        "me@a.org",
        "5s",
        "always",
        "50MB",
        "[::1]:25",
        "unix:/a",
        "a\x1b",
    ]
)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.dates(),
    st.datetimes(),
    st.times(),
    WORDS,
    st.text(max_size=9),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3))
LIKELY: tuple[Any, ...] = (False, True, 0, 1, 300, 2**30, "0s", "1h", "50MB", "/a", "self", "mail", "me@a.org", ["1m"])
SETTINGS = st.sampled_from([f"{table}.{key}" for table, keys in KEYS.items() for key in keys])


def toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return '"' + "".join(f"\\U{ord(char):08x}" for char in value if not 0xD800 <= ord(char) < 0xE000) + '"'
        case float():
            return str(value) if not math.isfinite(value) or "." in str(value) else f"{value:.1f}"
        case int():
            return str(value)
        case _:
            return str(value.isoformat())


def outcome(text: str) -> config.Settings | None:
    try:
        return config.parse(text, "config.toml", {"HOME": "/home/me"})
    except config.SettingsError as error:
        assert str(error).startswith("config.toml: ")
        assert str(error).isprintable()
        return None


@given(st.text())
def test_every_text_is_read_or_refused_in_one_line(text: str) -> None:
    outcome(text)


@cache
def accepted() -> list[tuple[str, Any]]:
    """Settings of which each alone is read: chance would hardly find one."""
    pairs = [(f"{table}.{key}", value) for table, keys in KEYS.items() for key in keys for value in LIKELY]
    return [(key, value) for key, value in pairs if outcome(f"{config.EXAMPLE}\n{key} = {toml(value)}\n")]


@given(
    st.deferred(lambda: st.lists(st.sampled_from(accepted()), max_size=3)),
    st.dictionaries(SETTINGS, VALUES, max_size=1),
)
def test_every_value_is_read_or_refused_in_one_line(likely: list[tuple[str, Any]], values: dict[str, Any]) -> None:
    values = {"relayhost.default.ssh": "me@mail.example.org"} | dict(likely) | values
    settings = outcome("".join(f"{key} = {toml(value)}\n" for key, value in values.items()))
    if settings is not None:
        assert settings.queue.directory.is_absolute()
        assert 0 <= settings.listen.answer_within <= 300
        assert all(wait >= 1 for wait in settings.queue.retry)
        assert 1 <= settings.listen.max_message_size <= settings.queue.max_size
        assert all(found.ssh and found.linger >= 0 and found.channels >= 1 for found in settings.relayhosts)


@given(st.lists(st.dictionaries(st.sampled_from(tables.keys(config.Forward)), VALUES), max_size=2))
@example([{}])
def test_every_forward_is_read_or_refused_in_one_line(forwards: list[dict[str, Any]]) -> None:
    forwards = [{"listen": "localhost:5432", "to": "localhost:5432"} | forward for forward in forwards]
    tables = [", ".join(f"{key} = {toml(value)}" for key, value in forward.items()) for forward in forwards]
    settings = outcome(f"{config.EXAMPLE}\nforward = [{', '.join(f'{{{table}}}' for table in tables)}]\n")
    if settings is not None:
        assert all(found.listen and found.to and found.relayhost == "default" for found in settings.forwards)


@given(
    st.sampled_from(sorted(KEYS)), st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=9)
)
def test_every_key_that_nobody_knows_is_refused(table: str, key: str) -> None:
    text = f"{'' if table.startswith('relayhost') else config.EXAMPLE}\n{table}.{key} = 5\n"
    assert key in KEYS[table] or outcome(text) is None


@given(st.integers(0, 10**6), st.sampled_from(sorted(grammar.DURATIONS)))
def test_a_duration_is_as_many_of_its_unit(number: int, unit: str) -> None:
    read = grammar.duration(0, math.inf, "")
    assert read(f"{number}{unit}") == number * grammar.DURATIONS[unit]


@given(st.integers(0, 10**6), st.sampled_from(sorted(grammar.SIZES)))
def test_a_size_is_exactly_as_many_of_its_unit(number: int, unit: str) -> None:
    assert grammar.size(0, 10**30, "")(f"{number}{unit}") == number * grammar.SIZES[unit]


@given(st.one_of(WORDS, st.text()))
def test_every_path_is_absolute_or_refused(text: str) -> None:
    try:
        assert isinstance(grammar.path(text, {"HOME": "/home/me"}), Path)
        assert grammar.path(text, {"HOME": "/home/me"}).is_absolute()
    except config.SettingsError:
        assert not text.startswith("/") or "$" in text or not text.isprintable()
