"""Reads the settings: TOML text to immutable values. `grammar` defines the notation of single values.

    load(path)           reads the file and checks that no other user can write it
    parse(text, where)   reads a text
    default_path()       $MAILRELAY_CONFIG, else $XDG_CONFIG_HOME/mailrelay/config.toml

Promises: every error is one line that names the file, the key, what is wrong and what is allowed; unknown keys are errors; a
settings file that other users can write is refused.
Never: a default that weakens a promise of mailrelay; a value that changes after it was read.
"""

import codecs
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from mailrelay import grammar
from mailrelay.endpoint import Endpoint, Tcp
from mailrelay.grammar import MINUTE, SECOND, WEEK
from mailrelay.grammar import SettingsError as SettingsError

Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Readers = Mapping[str, Callable[[Any], object]]
"""By the name of a setting, the function that checks and converts its value. Raises SettingsError."""
StructType = TypeVar("StructType", bound=msgspec.Struct)

EXAMPLE = 'relayhost.default.ssh = "me@mail.example.org"'
"""The shortest valid settings file."""
MAX_FILE = 1 << 20
"""The largest settings file, in octets."""

_INVALID = r"Expected `(\w+)`(?: ([<>]=) (-?\d+))?.*? - at `\$\.([^`]*)`"
_MISSING = r"Object missing required field `(\w+)`"
"""Error messages of msgspec."""
_KINDS = {"int": "a whole number", "bool": "true or false"}


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """The listener: where clients connect and what they may do. Durations are seconds, sizes octets.

    address: a port of 0 means any free port. answer_within: how long a client waits for the mail server's reply to its
    message. allow_users: names or ids of accounts, "self" or "any". auth: "ignore" offers AUTH and accepts any password,
    "refuse" refuses AUTH.
    """

    address: Endpoint = Tcp("localhost", 7777)
    answer_within: float = 8.0
    allow_users: tuple[str, ...] = ("self",)
    max_message_size: int = 50_000_000
    max_connections: Count = 100
    auth: Literal["refuse", "ignore"] = "refuse"


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What bare addresses are completed with (`mail.completion`): `from`, `domain` and `local`; "" for the default."""

    sender: str = msgspec.field(default="", name="from")
    domain: str = ""
    local: str = ""


class Relayhost(msgspec.Struct, frozen=True, kw_only=True):
    """The person's own server, reached by SSH. ssh: the destination for ssh(1). smtp: the mail server, as seen from there.

    command: the mail path if it is not empty, instead of `smtp`. senders: patterns of the reverse paths whose mail goes
    through this relayhost. linger: seconds for which an idle connection is kept, `float("inf")` for "always". channels:
    conversations with the mail server at once; backlog_channels: the same for a long queue and a mail server without
    CHUNKING. helo: our name in EHLO, a domain name or an address literal.
    """

    name: str
    ssh: str
    ssh_config: Path
    smtp: Tcp = Tcp("localhost", 25)
    command: str = ""
    senders: tuple[str, ...] = ("*",)
    linger: float = 30.0
    channels: Count = 8
    backlog_channels: Count = 64
    helo: str = "[127.0.0.1]"


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The spool and the retry schedule. Durations are seconds, sizes octets.

    retry: the waits between attempts; the last one repeats. expire_after: how long a message is tried. keep_sent: how long
    history is kept.
    """

    directory: Path
    retry: tuple[float, ...] = (60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
    delay_notice_after: float = 900.0
    expire_after: float = 432_000.0
    keep_sent: float = 604_800.0
    max_size: int = 2_000_000_000


class Notify(msgspec.Struct, frozen=True, kw_only=True):
    """The notice backends. mailbox: a Maildir, None to use none. command: with its arguments, empty for none."""

    desktop: bool = True
    dsn: bool = True
    mailbox: Path | None = None
    command: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """A forward: connections to `listen` lead through the SSH connection of a relayhost to `to`.

    relayhost: its name. to: as seen from the relayhost.
    """

    listen: Endpoint
    relayhost: str
    to: Endpoint


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. There is at least one relayhost; their names are unique."""

    listen: Listen
    relayhosts: tuple[Relayhost, ...]
    queue: Queue
    notify: Notify
    submission: Submission = Submission()
    forwards: tuple[Forward, ...] = ()


def default_path() -> Path:
    """The path of the settings file if none is given on the command line."""
    if named := os.environ.get("MAILRELAY_CONFIG"):
        return Path(named)
    return grammar.path("$XDG_CONFIG_HOME/mailrelay/config.toml", os.environ)


def load(path: Path | None) -> Settings:
    """The settings in the file at `path`, or at `default_path()`.

    The file and its directory must belong to us or to root, and no other user may be able to write them.
    Raises SettingsError and no other error.
    """
    path = path or default_path()
    try:
        return parse(_read_protected(path), str(path))
    except FileNotFoundError:
        raise _error(
            f"{path} does not exist; run `mailrelay setup [USER@]HOST`, or write it, one line is enough: {EXAMPLE}"
        ) from None
    except OSError as error:
        raise _error(
            f"{path} cannot be read: {error.strerror}; allow your account to read it, or name another file"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _error(f"{path}: line {line} is not UTF-8 text; save the file as UTF-8") from None


def parse(text: str, where: str, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in `text`.

    where: the name of the text in errors. environ: the variables for `~` and `$NAME` in paths. Raises SettingsError.
    """
    try:
        return _settings(_toml(text), environ)
    except SettingsError as error:
        raise _error(f"{where}: {error}") from None


def _error(line: str) -> SettingsError:
    """An error whose text is printable and one line, even if the file's name or content is not."""
    return SettingsError("".join(char if char.isprintable() else ascii(char)[1:-1] for char in line))


def _read_protected(path: Path) -> str:
    """The text of a settings file that no other user can write. Raises SettingsError, OSError, UnicodeDecodeError."""
    with open(path, "rb", opener=_open_nonblocking) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _error(f"{path} is not a file; name a file with --config or MAILRELAY_CONFIG")
        _check_protection(path, status)
        # The directory of a symbolic link and that of its target: a user who can write one of them can replace the file.
        for directory in {path.absolute().parent, path.resolve().parent}:
            _check_protection(directory, directory.stat())
        octets = file.read(MAX_FILE + 1)
    if len(octets) > MAX_FILE:
        raise _error(f"{path} is larger than 1 MiB and cannot be a settings file; name another file")
    return octets.removeprefix(codecs.BOM_UTF8).decode("utf-8")


def _open_nonblocking(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO would block.
    return os.open(path, flags | os.O_NONBLOCK)


def _check_protection(path: Path, status: os.stat_result) -> None:
    """Raises SettingsError if another user owns `path`, or can change or replace the settings file through it."""
    if status.st_uid not in (0, os.geteuid()):
        raise _error(f"{path} belongs to user {status.st_uid}; it must be yours: chown {os.geteuid()} '{path}'")
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # In a sticky directory such as /tmp other users can add files, but cannot change ours.
    if others and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        raise _error(f"{path} can be written by other users; remove their access: chmod go-w '{path}'")


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SettingsError("nested too deeply; no setting is more than a list in a table") from None
    # Not only TOMLDecodeError: tomllib raises ValueError for a number of thousands of digits, or a date that does not exist.
    except ValueError as error:
        raise SettingsError(f"{error}; settings are TOML, such as: {EXAMPLE}") from None


def _settings(root: dict[str, Any], environ: Mapping[str, str]) -> Settings:
    _check_names(root, ("listen", "submission", "relayhost", "queue", "notify", "forward"), "")
    path = partial(grammar.path, environ=environ)
    listen = _read_struct(
        Listen,
        root.get("listen", {}),
        "listen",
        {
            "address": partial(grammar.listen_endpoint, environ=environ),
            "answer_within": grammar.duration(0, 5 * MINUTE, 'from "0s" to "5m"'),
            "allow_users": grammar.some(grammar.account),
            "max_message_size": grammar.size(1, 500_000_000, 'from "1B" to "500MB"'),
            "auth": grammar.auth,
        },
    )
    submission = _read_struct(
        Submission,
        root.get("submission", {}),
        "submission",
        {"from": grammar.whole_address, "domain": grammar.domain, "local": grammar.whole_address},
    )
    queue = _read_struct(
        Queue,
        {"directory": "$XDG_STATE_HOME/mailrelay"} | _table(root.get("queue", {}), "queue"),
        "queue",
        {
            "directory": path,
            "retry": grammar.some(grammar.duration(SECOND, WEEK, 'from "1s" to "1w"')),
            "delay_notice_after": grammar.duration(SECOND, 52 * WEEK, 'from "1s" to "52w"'),
            "expire_after": grammar.duration(MINUTE, 52 * WEEK, 'from "1m" to "52w"'),
            "keep_sent": grammar.duration(0, 520 * WEEK, 'from "0s" to "520w"'),
            "max_size": grammar.size(1, 10**15, 'from "1B" to "1000TB"'),
        },
    )
    if queue.max_size < listen.max_message_size:
        raise SettingsError("queue.max_size: smaller than listen.max_message_size; it must hold at least one message")
    notify = _read_struct(
        Notify,
        root.get("notify", {}),
        "notify",
        {
            "mailbox": lambda value: None if value == "" else path(value),
            "command": partial(grammar.argv, environ=environ),
            "urls": grammar.each(grammar.url),
        },
    )
    relayhosts = _table(root.get("relayhost", {}), "relayhost")
    if not relayhosts:
        raise SettingsError(f"relayhost: at least one is needed; write: {EXAMPLE}")
    return Settings(
        listen=listen,
        relayhosts=tuple(_relayhost(name, table, environ) for name, table in relayhosts.items()),
        queue=queue,
        notify=notify,
        submission=submission,
        forwards=_forwards(root.get("forward", []), list(relayhosts), environ),
    )


def _relayhost(name: str, table: object, environ: Mapping[str, str]) -> Relayhost:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise SettingsError(f"relayhost: {grammar.shown(name)} is not a name; write up to 64 of A-Z a-z 0-9 _ -")
    key = f"relayhost.{name}"
    if not isinstance(table, dict):
        raise SettingsError(f"{key}: a relayhost has a name; write [relayhost.default] and {name} below it")
    readers: Readers = {
        "ssh": grammar.destination,
        "ssh_config": partial(grammar.path, environ=environ),
        "smtp": grammar.tcp_endpoint,
        "command": grammar.text,
        "senders": grammar.some(grammar.sender),
        "linger": grammar.linger,
        "helo": grammar.helo,
    }
    _check_names(table, (*readers, "channels", "backlog_channels"), key)
    values = _read({"ssh_config": "~/.ssh/config"} | table, key, readers)
    found = _converted(Relayhost, values | {"name": name}, key)
    if "channels" in table and "backlog_channels" not in table:
        # If only `channels` is set, it is the limit during a backlog too.
        return msgspec.structs.replace(found, backlog_channels=found.channels)
    return found


def _forwards(tables: object, relayhosts: list[str], environ: Mapping[str, str]) -> tuple[Forward, ...]:
    if not isinstance(tables, list):
        raise SettingsError(
            "forward: must be a list of tables; write [[forward]] with two brackets, and its settings below it"
        )
    return tuple(_forward(f"forward[{number}]", table, relayhosts, environ) for number, table in enumerate(tables, 1))


def _forward(key: str, table: object, relayhosts: list[str], environ: Mapping[str, str]) -> Forward:
    """relayhosts: the names of all relayhosts."""
    if not isinstance(table, dict):
        raise SettingsError(
            f"{key}: expected a table, found {grammar.shown(table)}; write [[forward]], and its settings below it"
        )
    readers: Readers = {
        "listen": partial(grammar.listen_endpoint, environ=environ),
        "relayhost": grammar.text,
        "to": grammar.remote_endpoint,
    }
    _check_names(table, readers, key)
    values = _read(table, key, readers)
    for name, example in (("listen", "localhost:8888"), ("to", "localhost:80")):
        if name not in values:
            raise SettingsError(f'{key}.{name}: missing; for example: {name} = "{example}"')
    # The default: the only relayhost, or the one with the name "default".
    relayhost = values.setdefault("relayhost", relayhosts[0] if len(relayhosts) == 1 else "default")
    if relayhost not in relayhosts:
        raise SettingsError(
            f"{key}.relayhost: no relayhost {grammar.shown(relayhost)}; there are {', '.join(relayhosts)}"
        )
    return Forward(**values)


def _read_struct(struct: type[StructType], table: object, key: str, readers: Readers) -> StructType:
    """The table at `key` as a `struct`, whose fields are the settings that the table may have."""
    found = _table(table, key)
    _check_names(found, struct.__struct_encode_fields__, key)
    return _converted(struct, _read(found, key, readers), key)


def _table(value: object, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(
            f"{key}: expected a table, found {grammar.shown(value)}; write [{key}], and its settings below it"
        )
    return value


def _check_names(table: Iterable[str], allowed: Iterable[str], key: str) -> None:
    """Raises SettingsError if `table`, the table at `key`, has a name that is not allowed."""
    names = list(allowed)
    for name in table:
        if name not in names:
            # Imported here, because every command loads this file and hardly any needs difflib.
            import difflib  # noqa: PLC0415

            near = difflib.get_close_matches(name, names, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(names)}"
            raise SettingsError(f"{f'{key}.{name}' if key else name}: no such setting; {hint}")


def _read(table: Mapping[str, object], key: str, readers: Readers) -> dict[str, Any]:
    """The values of `table`, each read by its reader, or unchanged if it has none."""
    values: dict[str, Any] = {}
    for name, value in table.items():
        try:
            values[name] = readers[name](value) if name in readers else value
        except SettingsError as error:
            raise SettingsError(f"{key}.{name}: {error}") from None
    return values


def _converted(struct: type[StructType], values: dict[str, Any], key: str) -> StructType:
    try:
        # The readers return Paths. msgspec does not know that type and calls this hook.
        return msgspec.convert(values, struct, dec_hook=lambda _type, value: value)
    except msgspec.ValidationError as error:
        raise SettingsError(_reworded(str(error), values, key)) from None


def _reworded(message: str, values: dict[str, Any], key: str) -> str:
    """An error message of msgspec, reworded like the other messages of this file."""
    if missing := re.match(_MISSING, message):
        return f"{key}.{missing[1]}: missing; for example: {EXAMPLE}"
    invalid = re.fullmatch(_INVALID, message)
    if not invalid:
        return f"{key}: {message}"
    kind, bound, limit, name = invalid.groups()
    value = grammar.shown(values.get(name))
    if bound:
        return f"{key}.{name}: {value} is out of range; {'at least' if bound == '>=' else 'at most'} {limit}"
    return f"{key}.{name}: expected {_KINDS[kind]}, found {value}"
