"""Plans the change of the settings file that makes a relayhost as setup needs it. Pure.

    plan(text, desired, where, environ) -> SettingsPlan     the new text, and the changed lines for the person to read

Promises: if the relayhost is as desired already, the text stays the same, octet for octet. Otherwise values change in place,
and comments, order and all other settings stay. The new text has been parsed and checked against the intended settings.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from mailrelay import config
from mailrelay.config import Listen, Relayhost, Settings
from mailrelay.grammar import SettingsError, shown
from mailrelay.mail.routing import choose


@dataclass(frozen=True, slots=True)
class Desired:
    """A relayhost as setup has found it to work. ssh_config: as it is written in the file, "" for the person's own.

    senders: the pattern of the reverse paths for this relayhost, used if there are other relayhosts. sender: the whole
    address for mail of programs that give none, "" if there is none; a sender in the settings stays. size: octets of the
    largest message that the mail server accepts, 0 if unknown; a new settings file allows clients no more.
    """

    ssh: str
    command: str = ""
    ssh_config: str = ""
    senders: str = "*"
    sender: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class SettingsPlan:
    """name: of the relayhost. text: the new text of the whole file. changes: one line of text for each change."""

    name: str
    text: str
    changes: tuple[str, ...]


def plan(text: str | None, desired: Desired, where: str, environ: Mapping[str, str]) -> SettingsPlan:
    """The plan. text: the present text of the file, None if there is none. where, environ: as in `config.parse`.

    Raises SettingsError for an invalid file, or if other settings would change too.
    """
    if text is None:
        new = _table("default", desired, _non_defaults(desired))
        if desired.sender:
            sender = tomlkit.item(desired.sender).as_string()
            new += f"\n[submission]\nfrom = {sender}   # the sender of programs that give none\n"
        if 0 < desired.size < Listen().max_message_size:
            new += f'\n[listen]\nmax_message_size = "{desired.size}B"   # the limit of the mail server\n'
        return SettingsPlan("default", new, tuple(new.splitlines()))
    settings = config.parse(text, where, environ)
    existing = of_host(settings, desired.ssh)
    found = _changed(text, existing, desired, environ) if existing else _added(text, settings, desired)
    sender = _new_sender(found, desired, environ)
    if sender:
        found = _with_sender(found, sender)
    if not _is_safe(found, settings, sender, environ):
        raise SettingsError(f"{where}: cannot be changed safely; write this yourself: {'; '.join(found.changes)}")
    return found


def of_host(settings: Settings, ssh: str) -> Relayhost | None:
    """The relayhost with this `ssh`, None if there is none."""
    return next((relayhost for relayhost in settings.relayhosts if relayhost.ssh == ssh), None)


def _new_sender(found: SettingsPlan, desired: Desired, environ: Mapping[str, str]) -> str:
    """The sender to add to a plan with changes; "" if there is one already, or if mail of programs that give none goes
    through another relayhost."""
    try:
        settings = config.parse(found.text, "", environ)
    except SettingsError:
        return ""
    takes = {choose(sender, settings.relayhosts) for sender in (b"bare", desired.sender.encode())}
    is_used = bool(found.changes) and not settings.submission.sender and takes == {found.name}
    return desired.sender if is_used else ""


def _with_sender(found: SettingsPlan, sender: str) -> SettingsPlan:
    document: Any = tomlkit.parse(found.text)
    if "submission" not in document:
        document["submission"] = tomlkit.table()
    document["submission"]["from"] = sender
    change = f"submission.from: {shown(sender)}, the sender of programs that give none"
    return SettingsPlan(found.name, tomlkit.dumps(document), (*found.changes, change))


def _is_safe(found: SettingsPlan, before: Settings, sender: str, environ: Mapping[str, str]) -> bool:
    """Whether the planned text is valid, and all settings but those of the relayhost are as before.

    sender: the one that the plan adds, or "".
    """
    submission = before.submission._replace(sender=sender or before.submission.sender)
    before = before._replace(submission=submission)
    try:
        after = config.parse(found.text, "", environ)
    except SettingsError:
        return False
    return _others(after, found.name) == _others(before, found.name)


def _changed(text: str, existing: Relayhost, desired: Desired, environ: Mapping[str, str]) -> SettingsPlan:
    """The file with its relayhost as desired. A setting without a desired value goes back to its default."""
    document: Any = tomlkit.parse(text)
    table = document["relayhost"][existing.name]
    changes = []
    for key, value in (("command", desired.command), ("ssh_config", desired.ssh_config)):
        before = table.get(key, "")
        if before == value or _same_file(existing, key, value, environ):
            continue
        if value:
            table[key] = value
            changes.append(f"relayhost.{existing.name}.{key}: {shown(str(before))} becomes {shown(value)}")
        else:
            del table[key]
            changes.append(f"relayhost.{existing.name}.{key}: {shown(str(before))} is removed")
    return SettingsPlan(existing.name, tomlkit.dumps(document) if changes else text, tuple(changes))


def _same_file(existing: Relayhost, key: str, value: str, environ: Mapping[str, str]) -> bool:
    home = environ.get("HOME", "~")
    return key == "ssh_config" and existing.ssh_config == Path((value or "~/.ssh/config").replace("~", home, 1))


def _added(text: str, settings: Settings, desired: Desired) -> SettingsPlan:
    name = _name(desired.ssh, {relayhost.name for relayhost in settings.relayhosts})
    table = _table(name, desired, (*_non_defaults(desired), ("senders", [desired.senders])))
    return SettingsPlan(name, f"{text.rstrip()}\n\n{table}", tuple(table.splitlines()))


def _non_defaults(desired: Desired) -> tuple[tuple[str, object], ...]:
    """The settings of a new relayhost that differ from their defaults."""
    given = (("ssh", desired.ssh), ("ssh_config", desired.ssh_config), ("command", desired.command))
    return tuple((key, value) for key, value in given if value)


def _table(name: str, desired: Desired, values: tuple[tuple[str, object], ...]) -> str:
    lines = (f"{key} = {tomlkit.item(value).as_string()}" for key, value in values)
    return "\n".join((f"# Written by `mailrelay setup {desired.ssh}`.", f"[relayhost.{name}]", *lines, ""))


def _name(ssh: str, taken: set[str]) -> str:
    """A name for the relayhost that is not in `taken`, made from its host."""
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", ssh.rpartition("@")[2]).strip("-")[:50] or "host"
    return next(name for name in _names(host) if name not in taken)


def _names(host: str) -> Iterator[str]:
    yield host
    number = 2
    while True:
        yield f"{host}-{number}"
        number += 1


def _others(settings: Settings, name: str) -> object:
    """The settings without one relayhost."""
    kept = tuple(relayhost for relayhost in settings.relayhosts if relayhost.name != name)
    return settings._replace(relayhosts=kept)
