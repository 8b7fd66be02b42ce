"""Reads the settings: TOML text to immutable values. `grammar` defines the notation of single values, `tables` reads tables.

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
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from mailrelay import grammar, tables
from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.grammar import DAY, MINUTE, SECOND, WEEK
from mailrelay.grammar import SettingsError as SettingsError
from mailrelay.tables import Expanded, Written

EXAMPLE = 'relayhost.default.ssh = "me@mail.example.org"'
"""The shortest valid settings file."""
MAX_FILE = 1 << 20
"""The largest settings file, in octets."""

Count = Annotated[int, grammar.count(1, 10_000)]


class Listen(NamedTuple):
    """The listener: where clients connect and what they may do. Durations are seconds, sizes octets.

    address: a port of 0 means any free port. answer_within: how long a client waits for the mail server's reply to its
    message. allow_users: names or ids of accounts, "self" or "any". idle_exit: how long a daemon that the service manager
    starts on demand stays without work, 0 for ever. everyone: a UNIX socket for all accounts of this computer; messages
    then belong to the accounts that submit them. auth: "ignore" offers AUTH and accepts any password, "refuse" refuses AUTH.
    """

    address: Annotated[Endpoint, Expanded(grammar.listen_endpoint)] = Tcp("localhost", 7777)
    answer_within: Annotated[float, grammar.duration(0, 5 * MINUTE, 'from "0s" to "5m"')] = 8.0
    allow_users: Annotated[tuple[str, ...], grammar.some(grammar.account)] = ("self",)
    max_message_size: Annotated[int, grammar.size(1, 500_000_000, 'from "1B" to "500MB"')] = 50_000_000
    max_connections: Count = 100
    auth: Annotated[Literal["refuse", "ignore"], grammar.auth] = "refuse"
    idle_exit: Annotated[float, grammar.duration(0, WEEK, 'from "0s" to "1w"')] = 0.0
    everyone: Annotated[Unix | None, Expanded(grammar.unix_endpoint)] = None


class Submission(NamedTuple):
    """What bare addresses are completed with (`mail.completion`): `from`, `domain` and `local`; "" for the default."""

    sender: Annotated[str, grammar.whole_address, Written(key="from")] = ""
    domain: Annotated[str, grammar.domain] = ""
    local: Annotated[str, grammar.whole_address] = ""


class Relayhost(NamedTuple):
    """The person's own server, reached by SSH. ssh: the destination for ssh(1). smtp: the mail server, as seen from there.

    command: the mail path if it is not empty, instead of `smtp`. senders: patterns of the reverse paths whose mail goes
    through this relayhost. linger: seconds for which an idle connection is kept, `float("inf")` for "always". channels:
    conversations with the mail server at once; backlog_channels: the same for a long queue and a mail server without
    CHUNKING. helo: our name in EHLO, a domain name or an address literal. record: "auto" to have the mail server's replies
    recorded on the relayhost where that is possible, "off" not to. track: "auto" to follow messages there after the mail
    server has accepted them, "off" not to; or a command for the shell there that lists the queue, instead of the mail
    server's own. fallback: the names of relayhosts that send its mail, in this order, while it cannot be reached.
    """

    name: str
    ssh: Annotated[str, grammar.destination, Written(example=EXAMPLE)]
    ssh_config: Annotated[Path, Expanded(grammar.path), Written(default="~/.ssh/config")]
    smtp: Annotated[Tcp, grammar.tcp_endpoint] = Tcp("localhost", 25)
    command: Annotated[str, grammar.text] = ""
    senders: Annotated[tuple[str, ...], grammar.some(grammar.sender)] = ("*",)
    linger: Annotated[float, grammar.linger] = 30.0
    channels: Count = 8
    backlog_channels: Count = 64
    helo: Annotated[str, grammar.helo] = "[127.0.0.1]"
    record: Annotated[Literal["auto", "off"], grammar.record] = "auto"
    track: Annotated[str, grammar.track] = "auto"
    fallback: Annotated[tuple[str, ...], grammar.each(grammar.text)] = ()


class Queue(NamedTuple):
    """The spool and the retry schedule. Durations are seconds, sizes octets.

    retry: the waits between attempts; the last one repeats. expire_after: how long a message is tried. keep_sent: how long
    history is kept. undo: how long new mail waits before its first attempt.
    """

    directory: Annotated[Path, Expanded(grammar.path), Written(default="$XDG_STATE_HOME/mailrelay")]
    retry: Annotated[tuple[float, ...], grammar.some(grammar.duration(SECOND, WEEK, 'from "1s" to "1w"'))] = (
        60.0,
        120.0,
        300.0,
        900.0,
        1800.0,
        3600.0,
    )
    delay_notice_after: Annotated[float, grammar.duration(SECOND, 52 * WEEK, 'from "1s" to "52w"')] = 900.0
    expire_after: Annotated[float, grammar.duration(MINUTE, 52 * WEEK, 'from "1m" to "52w"')] = 432_000.0
    keep_sent: Annotated[float, grammar.duration(0, 520 * WEEK, 'from "0s" to "520w"')] = 604_800.0
    max_size: Annotated[int, grammar.size(1, 10**15, 'from "1B" to "1000TB"')] = 2_000_000_000
    undo: Annotated[float, grammar.duration(0, DAY, 'from "0s" to "1d"')] = 0.0


class Notify(NamedTuple):
    """The notice backends. mailbox: a Maildir, None to use none. command: with its arguments, empty for none."""

    desktop: Annotated[bool, grammar.truth] = True
    dsn: Annotated[bool, grammar.truth] = True
    mailbox: Annotated[Path | None, Expanded(grammar.maildir)] = None
    command: Annotated[tuple[str, ...], Expanded(grammar.argv)] = ()
    urls: Annotated[tuple[str, ...], grammar.each(grammar.url)] = ()


class Forward(NamedTuple):
    """A forward: connections to `listen` lead through the SSH connection of a relayhost to `to`.

    relayhost: its name. to: as seen from the relayhost.
    """

    listen: Annotated[Endpoint, Expanded(grammar.listen_endpoint), Written(example='listen = "localhost:8888"')]
    relayhost: Annotated[str, grammar.text]
    to: Annotated[Endpoint, grammar.remote_endpoint, Written(example='to = "localhost:80"')]


class Settings(NamedTuple):
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
    tables.check_names(root, ("listen", "submission", "relayhost", "queue", "notify", "forward"), "")
    listen = tables.read(Listen, root.get("listen", {}), "listen", environ)
    submission = tables.read(Submission, root.get("submission", {}), "submission", environ)
    queue = tables.read(Queue, root.get("queue", {}), "queue", environ)
    if queue.max_size < listen.max_message_size:
        raise SettingsError("queue.max_size: smaller than listen.max_message_size; it must hold at least one message")
    notify = tables.read(Notify, root.get("notify", {}), "notify", environ)
    relayhosts = tables.as_table(root.get("relayhost", {}), "relayhost")
    if not relayhosts:
        raise SettingsError(f"relayhost: at least one is needed; write: {EXAMPLE}")
    return Settings(
        listen=listen,
        relayhosts=_relayhosts(relayhosts, environ),
        queue=queue,
        notify=notify,
        submission=submission,
        forwards=_forwards(root.get("forward", []), list(relayhosts), environ),
    )


def _relayhosts(written: dict[str, Any], environ: Mapping[str, str]) -> tuple[Relayhost, ...]:
    """All relayhosts, in the order of the file; but a fallback without `senders` stands behind the others, so that it takes
    only mail that none of them takes (`mail.routing`)."""
    found = [_relayhost(name, table, environ) for name, table in written.items()]
    for relayhost in found:
        for name in relayhost.fallback:
            key = f"relayhost.{relayhost.name}.fallback"
            if name == relayhost.name:
                raise SettingsError(f"{key}: {name} is this relayhost itself; name another one")
            if name not in written:
                raise SettingsError(f"{key}: no relayhost {grammar.shown(name)}; there are {', '.join(written)}")
            if relayhost.fallback.count(name) > 1:
                raise SettingsError(f"{key}: {name} stands in it twice; name it once")
    fallbacks = {name for relayhost in found for name in relayhost.fallback}
    return tuple(sorted(found, key=lambda one: one.name in fallbacks and "senders" not in written[one.name]))


def _relayhost(name: str, table: object, environ: Mapping[str, str]) -> Relayhost:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise SettingsError(f"relayhost: {grammar.shown(name)} is not a name; write up to 64 of A-Z a-z 0-9 _ -")
    key = f"relayhost.{name}"
    if not isinstance(table, dict):
        raise SettingsError(f"{key}: a relayhost has a name; write [relayhost.default] and {name} below it")
    found = tables.read(Relayhost, table, key, environ, name=name)
    if "channels" in table and "backlog_channels" not in table:
        # If only `channels` is set, it is the limit during a backlog too.
        return found._replace(backlog_channels=found.channels)
    return found


def _forwards(listed: object, relayhosts: list[str], environ: Mapping[str, str]) -> tuple[Forward, ...]:
    if not isinstance(listed, list):
        raise SettingsError(
            "forward: must be a list of tables; write [[forward]] with two brackets, and its settings below it"
        )
    return tuple(_forward(f"forward[{number}]", table, relayhosts, environ) for number, table in enumerate(listed, 1))


def _forward(key: str, table: object, relayhosts: list[str], environ: Mapping[str, str]) -> Forward:
    """relayhosts: the names of all relayhosts."""
    if not isinstance(table, dict):
        raise SettingsError(
            f"{key}: expected a table, found {grammar.shown(table)}; write [[forward]], and its settings below it"
        )
    # The default: the only relayhost, or the one with the name "default".
    usual = relayhosts[0] if len(relayhosts) == 1 else "default"
    found = tables.read(Forward, {"relayhost": usual} | table, key, environ)
    if found.relayhost not in relayhosts:
        raise SettingsError(
            f"{key}.relayhost: no relayhost {grammar.shown(found.relayhost)}; there are {', '.join(relayhosts)}"
        )
    return found
