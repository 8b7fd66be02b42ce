"""The settings file as setup wants it: what would change in the one that is there, and what it would be then.

    plan(text, wish, where) -> Plan     what is to be written, and what is different in it, for the person to read

Promises: a relayhost that is as wished is left alone, octet for octet; what has to change changes where it stands, and
comments, order and everything else stay; the result has been read as the settings that it is meant to be. Pure.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomlkit

from mailrelay import config
from mailrelay.config import Listen, Relayhost, Settings
from mailrelay.grammar import SettingsError, shown


@dataclass(frozen=True, slots=True)
class Wish:
    """A relayhost as setup has found it to work. ssh_config: as it is to be written, "" for the person's own.

    senders: which reverse paths go this way, where there are other relayhosts already. size: octets of a message that the
    mail server there takes, 0 if it does not say; a new file lets clients send no more.
    """

    ssh: str
    command: str = ""
    ssh_config: str = ""
    senders: str = "*"
    size: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """name: of the relayhost. text: the whole file, as it is to be. changes: what is different, line by line."""

    name: str
    text: str
    changes: tuple[str, ...]


def plan(text: str | None, wish: Wish, where: str, environ: Mapping[str, str]) -> Plan:
    """What to write. text: the file as it is, None if there is none. where, environ: as in `config.parse`.

    Raises SettingsError for a file that is wrong already, or that cannot be changed without changing something else.
    """
    if text is None:
        new = _table("default", wish, _wanted(wish))
        if 0 < wish.size < Listen().max_message_size:
            new += f'\n[listen]\nmax_message_size = "{wish.size}B"   # what the mail server there takes\n'
        return Plan("default", new, tuple(new.splitlines()))
    settings = config.parse(text, where, environ)
    there = of_host(settings, wish.ssh)
    found = _changed(text, there, wish, environ) if there else _added(text, settings, wish)
    if not _is_safe(found, settings, environ):
        raise SettingsError(f"{where}: cannot be changed without harm; write this yourself: {'; '.join(found.changes)}")
    return found


def of_host(settings: Settings, ssh: str) -> Relayhost | None:
    """The relayhost that goes to this host, if there is one."""
    return next((relayhost for relayhost in settings.relayhosts if relayhost.ssh == ssh), None)


def _is_safe(found: Plan, before: Settings, environ: Mapping[str, str]) -> bool:
    """Whether the text can be read, and says of everything else what was said before."""
    try:
        after = config.parse(found.text, "", environ)
    except SettingsError:
        return False
    return _others(after, found.name) == _others(before, found.name)


def _changed(text: str, there: Relayhost, wish: Wish, environ: Mapping[str, str]) -> Plan:
    """The file with its relayhost made as wished. A setting that is not wished for goes back to its default."""
    document: Any = tomlkit.parse(text)
    table = document["relayhost"][there.name]
    changes = []
    for key, value in (("command", wish.command), ("ssh_config", wish.ssh_config)):
        before = table.get(key, "")
        if before == value or _same_file(there, key, value, environ):
            continue
        if value:
            table[key] = value
            changes.append(f"relayhost.{there.name}.{key}: {shown(str(before))} becomes {shown(value)}")
        else:
            del table[key]
            changes.append(f"relayhost.{there.name}.{key}: {shown(str(before))} goes")
    return Plan(there.name, tomlkit.dumps(document) if changes else text, tuple(changes))


def _same_file(there: Relayhost, key: str, value: str, environ: Mapping[str, str]) -> bool:
    home = environ.get("HOME", "~")
    return key == "ssh_config" and there.ssh_config == Path((value or "~/.ssh/config").replace("~", home, 1))


def _added(text: str, settings: Settings, wish: Wish) -> Plan:
    name = _name(wish.ssh, {relayhost.name for relayhost in settings.relayhosts})
    table = _table(name, wish, (*_wanted(wish), ("senders", [wish.senders])))
    return Plan(name, f"{text.rstrip()}\n\n{table}", tuple(table.splitlines()))


def _wanted(wish: Wish) -> tuple[tuple[str, object], ...]:
    """The settings of a new relayhost, but for those that are at their defaults."""
    given = (("ssh", wish.ssh), ("ssh_config", wish.ssh_config), ("command", wish.command))
    return tuple((key, value) for key, value in given if value)


def _table(name: str, wish: Wish, values: tuple[tuple[str, object], ...]) -> str:
    lines = (f"{key} = {tomlkit.item(value).as_string()}" for key, value in values)
    return "\n".join((f"# By `mailrelay setup {wish.ssh}`.", f"[relayhost.{name}]", *lines, ""))


def _name(ssh: str, taken: set[str]) -> str:
    """A name that no other relayhost has, from the host's own."""
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", ssh.rpartition("@")[2]).strip("-")[:50] or "host"
    return next(name for name in _names(host) if name not in taken)


def _names(host: str) -> Iterator[str]:
    yield host
    number = 2
    while True:
        yield f"{host}-{number}"
        number += 1


def _others(settings: Settings, name: str) -> object:
    """Everything but one relayhost."""
    kept = tuple(relayhost for relayhost in settings.relayhosts if relayhost.name != name)
    return msgspec.structs.replace(settings, relayhosts=kept)
