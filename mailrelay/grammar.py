"""The grammar of single settings: what a duration, a size, a path or an address may look like, and what it comes to.

Readers take a value as TOML gives it and return it as the settings have it. A reader raises SettingsError with what is
wrong and what is allowed; `config` puts the file and the key before it.

    durations   a number and one of ms s m h d w: "8s", "1.5h"          seconds
    sizes       a number and one of B kB MB GB TB KiB MiB GiB TiB        octets
    paths       `~` and `$NAME` are expanded, here and nowhere else; a path is absolute after that

Promises: total, every value of any type is read or refused. Never: a guess at what was meant.
Patterns are compiled when they are first needed: every command pays for importing this file.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mailrelay.mail import routing

SECOND, MINUTE, WEEK = 1.0, 60.0, 604_800.0
UNITS = {"ms": 0.001, "s": SECOND, "m": MINUTE, "h": 3600.0, "d": 86_400.0, "w": WEEK}
SIZES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
XDG = {
    "XDG_CACHE_HOME": "~/.cache",
    "XDG_CONFIG_HOME": "~/.config",
    "XDG_DATA_HOME": "~/.local/share",
    "XDG_STATE_HOME": "~/.local/state",
}
"""What the XDG Base Directory Specification says where a variable is unset or relative."""
SOCKET_PATH_MAX = 107
"""Octets of sun_path on Linux, without the final NUL."""

_QUANTITY = r"([0-9]{1,12}(?:\.[0-9]{1,12})?)([A-Za-z]+)"
_VARIABLE = r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))"
_LOOPBACK = r"(localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]):([0-9]{1,5})"
_HOST_PORT = r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})"
_URL = r"[A-Za-z][A-Za-z0-9+.-]*://\S+"


class SettingsError(Exception):
    """What is wrong with the settings, as one line for the person: file, key, what is wrong, what is allowed."""


def shown(value: object) -> str:
    """A value much as the file has it, bounded, on one line."""
    match value:
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 10**20:
            # Python refuses to write very long ones out.
            return "a number of many digits"
        case dict():
            return "a table"
        case list():
            return "a list"
        case str():
            return repr(value if len(value) <= 60 else value[:60] + "…")
        case _:
            return str(value)


def text(value: object) -> str:
    """Text that a terminal and a protocol can bear: no control characters, no line ends."""
    if not isinstance(value, str):
        raise SettingsError(f"{shown(value)} where text in quotes belongs")
    if not value.isprintable():
        raise SettingsError(f"{shown(value)} has characters that cannot be printed; take them out")
    return value


def each(reader: Callable[[Any], Any]) -> Callable[[object], list[Any]]:
    """A list, each entry read by `reader`."""

    def read(value: object) -> list[Any]:
        if not isinstance(value, list):
            raise SettingsError(f"{shown(value)} where a list in brackets belongs")
        return [reader(item) for item in value]

    return read


def some(reader: Callable[[Any], Any]) -> Callable[[object], list[Any]]:
    """A list with at least one entry."""

    def read(value: object) -> list[Any]:
        if value == []:
            raise SettingsError("the list is empty; at least one entry is needed")
        return each(reader)(value)

    return read


def duration(least: float, most: float, allowed: str) -> Callable[[object], float]:
    """Seconds, from `least` to `most`; `allowed` says that range to the person."""

    def read(value: object) -> float:
        seconds = _quantity(value, UNITS)
        if seconds is None:
            raise SettingsError(f"{shown(value)} is no duration; a number and one of ms s m h d w, {allowed}")
        if not least <= seconds <= most:
            raise SettingsError(f"{shown(value)} is out of range; {allowed}")
        return seconds

    return read


def linger(value: object) -> float:
    """Seconds; infinity for "always"."""
    if value == "always":
        return float("inf")
    return duration(0, 52 * WEEK, 'from "0s" to "52w", or "always"')(value)


def size(least: int, most: int, allowed: str) -> Callable[[object], int]:
    """Octets, from `least` to `most`; `allowed` says that range to the person."""

    def read(value: object) -> int:
        octets = _quantity(value, SIZES)
        if octets is None:
            raise SettingsError(f"{shown(value)} is no size; a number and one of kB MB GB KiB MiB GiB, {allowed}")
        if not least <= octets <= most:
            raise SettingsError(f"{shown(value)} is out of range; {allowed}")
        return round(octets)

    return read


def path(value: object, environ: Mapping[str, str]) -> Path:
    """A whole path, once `~` and `$NAME` or `${NAME}` in it stand for what `environ` says."""

    def variable(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        value = environ.get(name, "")
        # The specification has a relative XDG directory ignored.
        if name in XDG and not value.startswith("/"):
            return XDG[name]
        if not value:
            raise SettingsError(f"${name} is not set; write the path itself")
        return value

    expanded = re.sub(_VARIABLE, variable, text(value))
    if expanded == "~" or expanded.startswith("~/"):
        home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 (pathlib's raises where there is none)
        expanded = home.rstrip("/") + expanded[1:]
    if not expanded.startswith("/"):
        raise SettingsError(f"{shown(expanded)} is no whole path; it begins with / or ~/ or a $NAME that does")
    return Path(text(expanded))


def address(value: object, environ: Mapping[str, str]) -> str:
    """Where to listen: an address that only this machine can reach and a port, 0 for any, or unix: and a path."""
    found = re.fullmatch(_LOOPBACK, text(value))
    if found and int(found[2]) <= 65535 and all(int(part) <= 255 for part in re.findall("[0-9]+", found[1])):
        return text(value)
    if text(value).startswith("unix:"):
        socket = path(text(value).removeprefix("unix:"), environ)
        if len(os.fsencode(socket)) > SOCKET_PATH_MAX:
            raise SettingsError(f"{shown(value)} is too long for a socket; at most {SOCKET_PATH_MAX} octets of path")
        return f"unix:{socket}"
    # Any other address would relay for whoever can reach it.
    raise SettingsError(
        f'{shown(value)} is no place to listen; "localhost:7777", "127.0.0.1:7777", "[::1]:7777" or "unix:/path"'
    )


def host_port(value: object) -> tuple[str, int]:
    """Host, without the brackets of an IPv6 address, and port."""
    found = re.fullmatch(_HOST_PORT, text(value))
    if not found or not 1 <= int(found[3]) <= 65535:
        raise SettingsError(f'{shown(value)} is no host and port; such as "localhost:25" or "[::1]:25"')
    return found[1] or found[2], int(found[3])


def target(value: object) -> str:
    """Where a forward leads, as seen from its relayhost: a host and a port, or unix: and a whole path there."""
    written = text(value)
    if not written.startswith("unix:/"):
        try:
            host_port(written)
        except SettingsError:
            allowed = 'such as "localhost:80", "[::1]:143" or "unix:/path", as seen from the relayhost'
            raise SettingsError(f"{shown(value)} leads nowhere; {allowed}") from None
    return written


def destination(value: object) -> str:
    """A destination as given to ssh(1). What looks like an option is refused."""
    if not re.fullmatch(r"[^\s-]\S*", text(value)):
        raise SettingsError(f'{shown(value)} is no SSH destination; "[user@]host", and options go into ~/.ssh/config')
    return text(value)


def account(value: object) -> str:
    """A name or number of a local account, or one of the words for several."""
    name = shown(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)
    if not re.fullmatch(r"(?!\d{11})[^\s:-][^\s:]*", name):
        raise SettingsError(f'{shown(value)} is no account; a name, a uid, "self" or "any"')
    return name


def auth(value: object) -> str:
    """What becomes of a client's login."""
    if value not in ("refuse", "ignore"):
        raise SettingsError(f'{shown(value)} where "refuse" or "ignore" belongs')
    return text(value)


def sender(value: object) -> str:
    """A pattern as `mail.routing` knows them."""
    if not routing.is_pattern(text(value)):
        raise SettingsError(f'{shown(value)} matches no sender; "user@domain", "*@domain", "*@*.domain" or "*"')
    return text(value)


def argv(value: object, environ: Mapping[str, str]) -> list[str]:
    """A command's words, [] for none; the first one is a path where it has a slash."""
    words = each(text)(value)
    if words and not words[0]:
        raise SettingsError("the first word is empty; it names the program")
    return [str(path(words[0], environ)), *words[1:]] if words and "/" in words[0] else words


def url(value: object) -> str:
    """A notification URL; only its shape is known here."""
    if not re.fullmatch(_URL, text(value)):
        # Not shown: such URLs carry passwords.
        raise SettingsError('one entry is no URL; "scheme://…"')
    return text(value)


def _quantity(value: object, units: Mapping[str, float]) -> float | None:
    found = re.fullmatch(_QUANTITY, value) if isinstance(value, str) else None
    return float(found[1]) * units[found[2]] if found and found[2] in units else None
