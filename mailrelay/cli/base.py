"""What every command uses.

    load_settings()   the settings: those of `--config FILE`, before or after the command, else the default file
    load_shared()     the settings, and where the messages are: also the system's mailrelay
    say(line)         one line on stderr, wrapped on a terminal, for a command that goes on after it
    Failed            ends a command with one line on stderr and an exit status
    NoSuchCommand     wrong usage
    LazyCommand       name and help of a command whose module is loaded when the command runs
    LazyGroup         a click group of such commands; listing them loads none

Every command loads this file, so it imports only click and the settings.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailrelay import __version__, config, journal
from mailrelay.cli import late
from mailrelay.cli.help_formatter import HelpFormatter
from mailrelay.cli.terminal import put
from mailrelay.control import client_file
from mailrelay.mail.printable import printable

if TYPE_CHECKING:
    from mailrelay.control.system import Queue

NO_DAEMON = "the daemon is not running: start `mailrelay serve`"
CONFIG = "mailrelay.config"

click.Context.formatter_class = HelpFormatter


class Failed(Exception):
    """The command cannot do what was asked. The text is one sentence for the person: what is wrong; what to do."""

    def __init__(self, line: str, status: int = 1) -> None:
        super().__init__(line)
        self.status = status


def load_settings(*, stays_root: bool = False) -> config.Settings:
    """The settings in the file that `settings_path` names. Raises SettingsError, also if there is no such file.

    Root without settings of its own has those of the system's mailrelay, and becomes its account. stays_root: only by
    `become_account`.
    """
    named = click.get_current_context().meta.get(CONFIG)
    client = None if named else system_client()
    if client is None:
        return config.load(named)
    if os.geteuid() != 0:
        raise config.SettingsError(
            f"{settings_path()} does not exist: this account has no mailrelay of its own. Of the system's it may use"
            " `mailrelay sendmail` and `mailrelay queue`; root may use all commands"
        )
    if not stays_root:
        late.become(client.account)
    click.get_current_context().meta[CONFIG] = client_file.SETTINGS
    return config.load(client_file.SETTINGS)


def become_account() -> None:
    """Root becomes the system account, after `load_settings(stays_root=True)`, before it uses the spool."""
    if os.geteuid() == 0 and click.get_current_context().meta.get(CONFIG) == client_file.SETTINGS:
        client = client_file.installed()
        if client is not None:
            late.become(client.account)


def load_shared() -> "tuple[config.Settings, Queue]":
    """The settings, and where the messages are: in the spool of this account or, if it has no settings of its own, those
    of the system's mailrelay. Raises SettingsError, SpoolError."""
    client = None if click.get_current_context().meta.get(CONFIG) else system_client()
    if client is not None:
        return late.shared(client)
    settings = config.load(click.get_current_context().meta.get(CONFIG))
    return settings, settings.queue.directory


def load_queue() -> "Queue":
    """As `load_shared`, only where the messages are."""
    client = None if click.get_current_context().meta.get(CONFIG) else system_client()
    return load_shared()[1] if client is None else late.system(client)


def system_client() -> client_file.Client | None:
    """How the system's mailrelay is reached; None if this account has settings of its own, or there is none."""
    if os.environ.get("MAILRELAY_CONFIG"):
        return None
    # An account without a home directory has no settings.
    with suppress(config.SettingsError):
        if os.path.lexists(config.default_path()):
            return None
    return client_file.installed()


def settings_path() -> Path:
    """The settings file: that of --config, else the default one. It need not exist."""
    named: Path | None = click.get_current_context().meta.get(CONFIG)
    return named or config.default_path()


def say(line: str) -> None:
    """Prints one line on stderr, to the journal as an error. What cannot be printed is escaped."""
    if journal.is_journal(sys.stderr):
        sys.stderr.write(journal.lines(printable(line), journal.ERROR))
    elif sys.stderr is not None:
        put(f"mailrelay: {printable(line)}", stream=sys.stderr)


class NoSuchCommand(click.UsageError):
    """There is no command of this name. `command_line` adds the name that may have been meant."""

    def __init__(self, name: str, ctx: click.Context) -> None:
        super().__init__(f"No such command {name!r}.", ctx)
        self.name = name


class LazyCommand(click.Command):
    """Name and help of a command. load: imports its module and returns the command."""

    def __init__(self, name: str, help: str, load: Callable[[], click.Command]) -> None:  # noqa: A002 - click's own word
        super().__init__(name, help=help)
        self.load = load


class LazyGroup(click.Group):
    """A group whose commands may be `LazyCommand`s. Every command of it has the option --config."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command to run. `get_command`, which serves help and completion too, loads nothing."""
        if args[0][:1].isalnum() and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise NoSuchCommand(args[0], ctx)
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, LazyCommand):
            command = command.load()
        if command is not None:
            _add_config_option(command)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As in click, but no help text is cut off."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in self.commands.items()])


def _remember(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.meta[CONFIG] = path


CONFIG_OPTION = click.Option(
    ["--config"],
    type=click.Path(path_type=Path),
    metavar="FILE",
    expose_value=False,
    callback=_remember,
    help="The settings file, in place of $MAILRELAY_CONFIG or ~/.config/mailrelay/config.toml.",
)


def _version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"mailrelay {__version__}")
        context.exit()


VERSION_OPTION = click.Option(
    ["--version"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version.",
)


def _add_config_option(command: click.Command) -> None:
    """Gives a command, and the commands below it, the option --config."""
    if CONFIG_OPTION not in command.params:
        command.params.append(CONFIG_OPTION)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _add_config_option(below)
