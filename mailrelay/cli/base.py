"""What every command uses.

    load_settings()   the settings: those of `--config FILE`, before or after the command, else the default file
    say(line)         one line on stderr, wrapped on a terminal, for a command that goes on after it
    Failed            ends a command with one line on stderr and an exit status
    LazyCommand       name and help of a command whose module is loaded when the command runs
    LazyGroup         a click group of such commands; listing them loads none

Every command loads this file, so it imports only click and the settings.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from mailrelay import __version__, config
from mailrelay.cli.help_formatter import HelpFormatter
from mailrelay.cli.terminal import put
from mailrelay.mail.printable import printable

NO_DAEMON = "the daemon is not running: start `mailrelay serve`"
_CONFIG = "mailrelay.config"

click.Context.formatter_class = HelpFormatter


class Failed(Exception):
    """The command cannot do what was asked. The text is one sentence for the person: what is wrong; what to do."""

    def __init__(self, line: str, status: int = 1) -> None:
        super().__init__(line)
        self.status = status


def load_settings() -> config.Settings:
    """The settings in the file that `settings_path` names. Raises SettingsError, also if there is no such file."""
    return config.load(click.get_current_context().meta.get(_CONFIG))


def settings_path() -> Path:
    """The settings file: that of --config, else the default one. It need not exist."""
    named: Path | None = click.get_current_context().meta.get(_CONFIG)
    return named or config.default_path()


def say(line: str) -> None:
    """Prints one line on stderr. What cannot be printed is escaped."""
    if sys.stderr is not None:
        put(f"mailrelay: {printable(line)}", stream=sys.stderr)


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
        context.meta[_CONFIG] = path


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
