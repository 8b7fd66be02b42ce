"""Plans the notice backend for a computer without a desktop: a change of [notify] in the settings.

    must_be_chosen(notify, environ)      whether setup asks
    with_backend(planned, backend, …)    the plan of `setup.settings` with the person's choice in it

Promises: comments, order and all other settings stay. The new text has been parsed and checked against the intended
settings.
"""

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from mailrelay import config, grammar
from mailrelay.config import Notify, Settings
from mailrelay.grammar import SettingsError
from mailrelay.notify.desktop_presence import can_have_desktop
from mailrelay.setup.settings import SettingsPlan

DEFAULT_MAILBOX = "~/Maildir"
"""The Maildir that setup proposes."""


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The person's choice: a Maildir, as it is written in the settings, or a command. If both are empty, notices are only
    reports by mail (dsn)."""

    mailbox: str = ""
    command: tuple[str, ...] = ()


def must_be_chosen(notify: Notify, environ: Mapping[str, str]) -> bool:
    """Whether the settings leave notices to a desktop that this computer does not have. Reports by mail do not count: they
    go through the server that may be what has failed."""
    if not notify.desktop or notify.mailbox or notify.command or notify.urls:
        return False
    return not can_have_desktop(environ)


def mailbox(word: str, environ: Mapping[str, str]) -> BackendChoice:
    """The Maildir that the person named. Raises SettingsError, with what is wanted."""
    directory = grammar.path(word, environ)
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir():
        raise SettingsError(f"{existing} is not a directory; name a directory, or one that can be made")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SettingsError(f"you cannot write to {existing}; name a directory of yours")
    return BackendChoice(mailbox=word)


def command(line: str) -> BackendChoice:
    """The command that the person typed, as a shell reads it. Raises SettingsError, with what is wanted."""
    try:
        words = shlex.split(line)
    except ValueError:
        raise SettingsError("a quote has no end; type a program and its arguments") from None
    if not words:
        raise SettingsError("type a program and its arguments")
    # Stored with its directory: the daemon may run with another PATH than setup.
    program = shutil.which(Path(words[0]).expanduser())
    if program is None:
        raise SettingsError(f"'{words[0]}' is no program that can be run; type a program and its arguments")
    return BackendChoice(command=(str(Path(program).absolute()), *words[1:]))


def with_backend(planned: SettingsPlan, backend: BackendChoice, where: str, environ: Mapping[str, str]) -> SettingsPlan:
    """The plan with the choice in it. where, environ: as in `config.parse`.

    Raises SettingsError if other settings would change too.
    """
    before = config.parse(planned.text, where, environ)
    values: dict[str, Any] = {"desktop": False}
    if backend.mailbox:
        values["mailbox"] = backend.mailbox
    if backend.command:
        values["command"] = list(backend.command)
    if not (backend.mailbox or backend.command or before.notify.dsn):
        values["dsn"] = True
    document: Any = tomlkit.parse(planned.text)
    lines = [f"{key} = {tomlkit.item(value).as_string()}" for key, value in values.items()]
    if "notify" in document:
        document["notify"].update(values)
        text = tomlkit.dumps(document)
        changes = tuple(f"notify.{line}" for line in lines)
    else:
        table = ("", "# This computer has no desktop.", "[notify]", *lines)
        text = "\n".join((planned.text.rstrip(), *table, ""))
        changes = table
    found = SettingsPlan(planned.name, text, (*planned.changes, *changes))
    if not _is_safe(before, text, values, environ):
        raise SettingsError(f"{where}: cannot be changed safely; write this yourself: {'; '.join(found.changes)}")
    return found


def _is_safe(before: Settings, text: str, values: Mapping[str, object], environ: Mapping[str, str]) -> bool:
    """Whether the text is valid, has these values in [notify], and all other settings are as before."""
    try:
        after = config.parse(text, "", environ)
        wanted = config.parse(tomlkit.dumps({**_EXAMPLE, "notify": values}), "", environ)
    except SettingsError:
        return False
    chosen = {name: getattr(wanted.notify, name) for name in values}
    return after == before._replace(notify=before.notify._replace(**chosen))


_EXAMPLE = {"relayhost": {"default": {"ssh": "mail.example.org"}}}
"""The least that settings must contain."""
