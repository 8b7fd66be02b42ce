"""The person speaks: one module per command, and only the module of the command that runs is loaded.

    main()            the `mailrelay` script; also as `sendmail` and `mailq`, where it is installed under these names
    load_settings()   what a command calls for the settings: `--config FILE`, before or after the command, is heeded
    load(name)        a module of this package, loaded when it is needed
    Table             a click group some of whose commands are modules of this package, loaded when they run
    LazyCommand       a placeholder for a command in a module that holds several
    say(line)         a trouble, one line on stderr, for commands that go on after it
    Failed            what a command raises to end with one line and a status of its own

`load` is the command line's one lazy place (the daemon's is `mailrelay.lazy`): `mailrelay queue` must not load SSH and SMTP,
and with an empty queue nothing that shows or changes mail.
Each module named in them holds a click command called `command`; one that holds several has them in `commands`, by name.
A command ends with the status that it returns (None is 0).

Promises: every error is one line on stderr, `mailrelay: what; what to do`, never a traceback, and is turned into an exit
status here alone: 1 it did not work, 2 usage, 78 the settings are wrong, 130 interrupted. What a terminal gets to see of
an error is escaped. A reader of ours that goes away (`| head`) is no error to speak of.
"""

import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mailrelay import __version__, config
from mailrelay.mail.printable import printable

COMMANDS = {
    "serve": "Run the relay in the foreground.",
    "setup": "From nothing to a test letter that has arrived, step by step.",
    "demo": "The whole thing on loopback, with an embedded remote.",
    "status": "How things stand, on one screen.",
    "queue": "What is pending or failed, and what you may do to it.",
    "log": "What has happened.",
    "sendmail": "Put a message in the spool, as sendmail(1) does.",
    "check": "Look at everything that mail needs on its way.",
    "trust": "Show the host keys on offer beside the known ones, and accept a new one.",
    "test": "Send a test letter and follow it to the end.",
}
OTHER_NAMES = {"sendmail": ("sendmail",), "mailq": ("queue",)}
"""What the script does when it is called by another name."""

NOBODY_SERVES = "nobody is serving: start `mailrelay serve`"
EX_CONFIG = 78
_CONFIG = "mailrelay.config"


class Failed(Exception):
    """The command cannot do what was asked. The text is one sentence for the person: what is wrong; what to do."""

    def __init__(self, line: str, status: int = 1) -> None:
        super().__init__(line)
        self.status = status


def load(name: str) -> Any:
    """The module `name` of this package."""
    return importlib.import_module(f"{__name__}.{name}")


def load_settings() -> config.Settings:
    """The settings that the running command was asked to use. Raises SettingsError."""
    return config.load(click.get_current_context().meta.get(_CONFIG))


def settings_path() -> Path:
    """Where the settings are that the running command was asked to use."""
    named: Path | None = click.get_current_context().meta.get(_CONFIG)
    return named or config.default_path()


def say(line: str) -> None:
    """Tells the person of a trouble: one line on stderr, whatever is in it."""
    print(f"mailrelay: {printable(line)}", file=sys.stderr)


def main() -> None:
    """Runs the command line and ends the process."""
    for stream in (sys.stdout, sys.stderr):
        # What the terminal's encoding lacks is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = [*OTHER_NAMES.get(Path(sys.argv[0]).name, ()), *sys.argv[1:]]
    try:
        status = _COMMAND_LINE.main(args, prog_name="mailrelay", standalone_mode=False)
        # Where somebody called us with stdout closed there is no sys.stdout; print knows.
        print(end="", flush=True)
    except click.UsageError as error:
        seen = error.ctx.command_path if error.ctx else "mailrelay"
        status = _end(f"{error.format_message().rstrip('.')}; see `{seen} --help`", error.exit_code)
    except click.ClickException as error:
        status = _end(error.format_message(), error.exit_code)
    except Failed as error:
        status = _end(str(error), error.status)
    except config.SettingsError as error:
        status = _end(str(error), EX_CONFIG)
    except OSError as error:
        if error.errno == errno.EPIPE:
            # So that the interpreter, when it flushes at its end, does not meet the same error again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 1
        else:
            status = _end(f"{error.filename or 'this machine'}: {error.strerror or error}", 1)
    except (click.Abort, KeyboardInterrupt):
        status = 130
    # Last, so that these modules are loaded only after an error.
    except load("spool_errors").SPOOL_ERRORS as error:
        status = _end(str(error), 1)
    # The process ends: no last garbage collection is needed.
    gc.freeze()
    sys.exit(status)


def _end(line: str, status: int) -> int:
    say(line)
    return status


class LazyCommand(click.Command):
    """Name and help of a command whose module (which has it in `commands`) is not loaded yet."""

    def __init__(self, name: str, help: str, module: str) -> None:  # noqa: A002 - click's own word
        super().__init__(name, help=help)
        self.module = module


class Table(click.Group):
    """A group whose commands are modules of this package, or in such modules (`LazyCommand`). Listing them loads none.

    modules: what each of them does, by its name.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *self._modules]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = super().get_command(ctx, cmd_name)
        if cmd_name in self._modules:
            command = load(cmd_name).command
        elif isinstance(known, LazyCommand):
            command = load(known.module).commands[cmd_name]
        else:
            return known
        _take_config(command)
        return command  # type: ignore[no-any-return]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        # Not the group's own: that one loads every command for its help.
        found = load("completion").completion_items(self._described(), incomplete)
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._described().items()))

    def _described(self) -> dict[str, str]:
        """What each command does, by its name."""
        return {name: command.get_short_help_str(80) for name, command in self.commands.items()} | dict(self._modules)


def _remember(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.meta[_CONFIG] = path


_CONFIG_OPTION = click.Option(
    ["--config"],
    type=click.Path(path_type=Path),
    metavar="FILE",
    expose_value=False,
    callback=_remember,
    help="The settings, in place of $MAILRELAY_CONFIG or ~/.config/mailrelay/config.toml.",
)


def _take_config(command: click.Command) -> None:
    """Gives a command, and all that are below it, the option --config."""
    if _CONFIG_OPTION not in command.params:
        command.params.append(_CONFIG_OPTION)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _take_config(below)


_COMMAND_LINE = Table(
    "mailrelay",
    modules=COMMANDS,
    help="A local SMTP submission proxy: mail goes to your own server through SSH, and nothing fails in silence.",
    params=[
        _CONFIG_OPTION,
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=lambda context, _option, asked: _version(context, asked=asked),
            help="Say which version this is.",
        ),
    ],
    no_args_is_help=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(context: click.Context, *, asked: bool) -> None:
    if asked:
        click.echo(f"mailrelay {__version__}")
        context.exit()
