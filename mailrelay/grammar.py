"""Reads single values of the settings file: durations, sizes, paths, endpoints and the like.

A reader is a function that takes a value as `tomllib` returns it and returns the value of the setting. It raises
SettingsError with what is wrong and what is allowed; `config` adds the file and the key.

    durations   a number and one of ms s m h d w: "8s", "1.5h"          -> seconds
    sizes       a number and one of B kB KB MB GB TB KiB MiB GiB TiB    -> octets
    paths       `~` and `$NAME` are expanded, here and nowhere else     -> an absolute path
    endpoints   "host:port", "[::1]:port", "unix:/path"                 -> Tcp or Unix

Promises: a reader may be called with a value of any type; it returns a result or raises SettingsError.
Never: a guess at the meaning of a wrong value.
Patterns are compiled at their first use, because every command imports this file.
"""

import ipaddress
import os
import pwd
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.mail import routing

SECOND, MINUTE, DAY, WEEK = 1.0, 60.0, 86_400.0, 604_800.0
DURATIONS = {"ms": 0.001, "s": SECOND, "m": MINUTE, "h": 3600.0, "d": DAY, "w": WEEK}
SIZES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
XDG = {
    "XDG_CACHE_HOME": "~/.cache",
    "XDG_CONFIG_HOME": "~/.config",
    "XDG_DATA_HOME": "~/.local/share",
    "XDG_STATE_HOME": "~/.local/state",
}
"""Defaults of the XDG Base Directory Specification for variables that are unset or relative."""
MAX_SOCKET_PATH = 107
"""Octets of sun_path on Linux, without the final NUL."""

_QUANTITY = r"([0-9]{1,12}(?:\.[0-9]{1,12})?)([A-Za-z]+)"
_VARIABLE = r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))"
_LOOPBACK = r"(localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]):([0-9]{1,5})"
_HOST_PORT = r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_LITERAL = r"\[(?:IPv6:([0-9A-Fa-f:.]+)|([0-9.]+))\]"
_URL = r"[A-Za-z][A-Za-z0-9+.-]*://\S+"


class SettingsError(Exception):
    """An error in the settings. The text is one line for the person: file, key, what is wrong, what is allowed."""


def shown(value: object) -> str:
    """A value in about the notation of the file, bounded in length, on one line."""
    match value:
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 10**20:
            # Python refuses to convert very long integers to text.
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
    """Text that is safe on a terminal and in a protocol: no control characters, no line ends."""
    if not isinstance(value, str):
        raise SettingsError(f"expected text in quotes, found {shown(value)}")
    if not value.isprintable():
        raise SettingsError(f"{shown(value)} has characters that cannot be printed; remove them")
    return value


def truth(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise SettingsError(f"expected true or false, found {shown(value)}")
    return value


def count(least: int, most: int) -> Callable[[object], int]:
    """A whole number from `least` to `most`."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise SettingsError(f"expected a whole number, found {shown(value)}")
        if value < least:
            raise SettingsError(f"{shown(value)} is out of range; at least {least}")
        if value > most:
            raise SettingsError(f"{shown(value)} is out of range; at most {most}")
        return value

    return read


def each(reader: Callable[[Any], Any]) -> Callable[[object], tuple[Any, ...]]:
    """A list whose entries are read by `reader`."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise SettingsError(f"expected a list in brackets, found {shown(value)}")
        return tuple(reader(item) for item in value)

    return read


def some(reader: Callable[[Any], Any]) -> Callable[[object], tuple[Any, ...]]:
    """A list with at least one entry."""

    def read(value: object) -> tuple[Any, ...]:
        if value == []:
            raise SettingsError("the list is empty; at least one entry is needed")
        return each(reader)(value)

    return read


def duration(least: float, most: float, allowed: str) -> Callable[[object], float]:
    """Seconds, from `least` to `most`; `allowed` is the text for that range."""

    def read(value: object) -> float:
        seconds = _quantity(value, DURATIONS)
        if seconds is None:
            raise SettingsError(f"{shown(value)} is not a duration; write a number and one of ms s m h d w, {allowed}")
        if not least <= seconds <= most:
            raise SettingsError(f"{shown(value)} is out of range; {allowed}")
        return seconds

    return read


def linger(value: object) -> float:
    """Seconds; infinity for "always"."""
    if value == "always":
        return float("inf")
    return duration(0, 52 * WEEK, 'from "0s" to "52w", or "always"')(value)


def helo(value: object) -> str:
    """The argument of EHLO: a domain name or an address literal (RFC 5321 sections 2.3.5 and 4.1.3)."""
    name = text(value)
    if literal := re.fullmatch(_LITERAL, name):
        try:
            ipaddress.IPv6Address(literal[1]) if literal[1] else ipaddress.IPv4Address(literal[2])
        except ValueError:
            pass
        else:
            return name
    if len(name) <= 255 and re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", name) and not re.fullmatch(r"[0-9.]+", name):
        return name
    raise SettingsError(
        f"{shown(value)} is neither a domain name nor an address literal;"
        ' write for example "[127.0.0.1]" or "laptop.example.org"'
    )


def size(least: int, most: int, allowed: str) -> Callable[[object], int]:
    """Octets, from `least` to `most`; `allowed` is the text for that range."""

    def read(value: object) -> int:
        octets = _quantity(value, SIZES)
        if octets is None:
            raise SettingsError(
                f"{shown(value)} is not a size; write a number and one of kB MB GB KiB MiB GiB, {allowed}"
            )
        if not least <= octets <= most:
            raise SettingsError(f"{shown(value)} is out of range; {allowed}")
        return round(octets)

    return read


def _home(environ: Mapping[str, str]) -> str:
    """The home directory: HOME, as a shell takes it, or that of the account if it is not set or empty, as in cron jobs."""
    home = environ.get("HOME", "")
    if not home:
        with suppress(KeyError):
            home = pwd.getpwuid(os.getuid()).pw_dir
    if not home.startswith("/"):
        raise SettingsError("the home directory is not known; set HOME to its absolute path")
    return home


def path(value: object, environ: Mapping[str, str]) -> Path:
    """An absolute path. `~`, `$NAME` and `${NAME}` are replaced with the values of `environ`."""

    def variable(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        value = environ.get(name, "")
        # The specification says to ignore a relative XDG directory.
        if name in XDG and not value.startswith("/"):
            return XDG[name]
        if not value:
            raise SettingsError(f"${name} is not set; write the path itself")
        return value

    expanded = re.sub(_VARIABLE, variable, text(value))
    if expanded == "~" or expanded.startswith("~/"):
        expanded = _home(environ).rstrip("/") + expanded[1:]
    if not expanded.startswith("/"):
        raise SettingsError(f"{shown(expanded)} is not an absolute path; begin it with / or ~/ or a $NAME that does")
    return Path(text(expanded))


def maildir(value: object, environ: Mapping[str, str]) -> Path | None:
    """The absolute path of a Maildir; None for ""."""
    return None if value == "" else path(value, environ)


def listen_endpoint(value: object, environ: Mapping[str, str]) -> Endpoint:
    """An endpoint that only this machine can reach: a loopback address and a port (0: any free port), or a UNIX socket."""
    written = text(value)
    if written.startswith("unix:"):
        socket = path(written.removeprefix("unix:"), environ)
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
            raise SettingsError(
                f"{shown(value)} is too long for a socket; the path has at most {MAX_SOCKET_PATH} octets"
            )
        return Unix(str(socket))
    found = re.fullmatch(_LOOPBACK, written)
    if found and int(found[2]) <= 65535 and all(int(part) <= 255 for part in re.findall("[0-9]+", found[1])):
        return Tcp(found[1].strip("[]"), int(found[2]))
    # At any other address, hosts of the network could send mail through us.
    raise SettingsError(
        f"{shown(value)} is not an address to listen on; "
        'write "localhost:7777", "127.0.0.1:7777", "[::1]:7777" or "unix:/path"'
    )


def unix_endpoint(value: object, environ: Mapping[str, str]) -> Unix | None:
    """A UNIX socket, or "" for none."""
    if value == "":
        return None
    found = listen_endpoint(value, environ) if text(value).startswith("unix:") else None
    if not isinstance(found, Unix):
        raise SettingsError(f'{shown(value)} is not a UNIX socket; write for example "unix:/run/mailrelay/smtp"')
    return found


def tcp_endpoint(value: object) -> Tcp:
    """A host and a port from 1 to 65535."""
    found = re.fullmatch(_HOST_PORT, text(value))
    if not found or not 1 <= int(found[3]) <= 65535:
        raise SettingsError(f'{shown(value)} is not a host and port; write for example "localhost:25" or "[::1]:25"')
    return Tcp(found[1] or found[2], int(found[3]))


def remote_endpoint(value: object) -> Endpoint:
    """The target of a forward, as seen from its relayhost: a host and port, or the absolute path of a UNIX socket there."""
    written = text(value)
    if written.startswith("unix:/"):
        return Unix(written.removeprefix("unix:"))
    try:
        return tcp_endpoint(written)
    except SettingsError:
        allowed = 'write for example "localhost:80", "[::1]:143" or "unix:/path", as seen from the relayhost'
        raise SettingsError(f"{shown(value)} is not a target; {allowed}") from None


def destination(value: object) -> str:
    """A destination as given to ssh(1). A text that ssh(1) would read as an option is refused."""
    if not re.fullmatch(r"[^\s-]\S*", text(value)):
        raise SettingsError(
            f'{shown(value)} is not an SSH destination; write "[user@]host", and put options into ~/.ssh/config'
        )
    return text(value)


def account(value: object) -> str:
    """The name or number of a local account, or "self" or "any". A number has at most 10 digits."""
    name = shown(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)
    if not re.fullmatch(r"(?!\d{11})[^\s:-][^\s:]*", name):
        raise SettingsError(f'{shown(value)} is not an account; write a name, a uid, "self" or "any"')
    return name


def record(value: object) -> str:
    """Whether conversations are recorded on the relayhost: "auto" or "off"."""
    if value not in ("auto", "off"):
        raise SettingsError(f'expected "auto" or "off", found {shown(value)}')
    return text(value)


def track(value: object) -> str:
    """Whether mail is followed on the relayhost: "auto" or "off", or a command for the shell there, of one line."""
    command = text(value)
    if not command.strip() or not command.isprintable():
        raise SettingsError(f'expected "auto", "off" or a command that lists the queue, found {shown(value)}')
    return command


def auth(value: object) -> str:
    """How a client's AUTH is treated: "refuse" or "ignore"."""
    if value not in ("refuse", "ignore"):
        raise SettingsError(f'expected "refuse" or "ignore", found {shown(value)}')
    return text(value)


def sender(value: object) -> str:
    """A sender pattern of `mail.routing`."""
    if not routing.is_pattern(text(value)):
        raise SettingsError(
            f'{shown(value)} is not a sender pattern; write "user@domain", "*@domain", "*@*.domain" or "*"'
        )
    return text(value)


def whole_address(value: object) -> str:
    """An address with a domain, or ""."""
    if not _is_address(text(value)):
        raise SettingsError(f'{shown(value)} is not a whole address; write for example "me@example.org", or ""')
    return text(value)


def domain(value: object) -> str:
    """A domain, or ""."""
    if value and not _is_address(f"x@{text(value)}"):
        raise SettingsError(f'{shown(value)} is not a domain; write for example "example.org", or ""')
    return text(value)


def argv(value: object, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The words of a command, () for none. The first word is a path if it contains a slash."""
    words = each(text)(value)
    if words and not words[0]:
        raise SettingsError("the first word is empty; write the name of the program")
    return (str(path(words[0], environ)), *words[1:]) if words and "/" in words[0] else words


def url(value: object) -> str:
    """A notification URL; only its syntax is checked here."""
    if not re.fullmatch(_URL, text(value)):
        # The value is not shown, because such URLs contain passwords.
        raise SettingsError('one entry is not a URL; write "scheme://…"')
    return text(value)


def _is_address(written: str) -> bool:
    """Whether a text is "", or a local part and a domain."""
    if not written:
        return True
    # Imported here, because every command loads this file and few settings files have addresses.
    from mailrelay.mail import address, completion  # noqa: PLC0415

    return address.is_address(written.encode()) and not completion.is_bare(written.encode())


def _quantity(value: object, units: Mapping[str, float]) -> float | None:
    """A number times its unit; None if `value` is not a number and one of `units`."""
    found = re.fullmatch(_QUANTITY, value) if isinstance(value, str) else None
    return float(found[1]) * units[found[2]] if found and found[2] in units else None
