"""The `mailrelay` script: the table of commands, and the exit status of every error.

A command ends with the status that it returns; None is 0. Under another name (`OTHER_NAMES`),
the script is one of its commands.

The functions below import one command each when it runs: `mailrelay queue` must not load SSH and SMTP. The imports are
statements: the linter and mypy check them.

Promises: every error is one line on stderr, `mailrelay: what; what to do`, never a traceback. Here alone an error becomes
an exit status: 1 it did not work, 2 usage, 78 the settings are wrong, 130 interrupted. Text of an error is escaped. A
reader that closes our stdout (`| head`) is no error.
"""

import errno
import gc
import io
import os
import sys
from pathlib import Path

import click

from mailrelay.cli.base import CONFIG_OPTION, VERSION_OPTION, Failed, LazyCommand, LazyGroup, NoSuchCommand, say
from mailrelay.config import SettingsError

EX_CONFIG = 78
"""As in sysexits."""
EX_WRONG_USAGE = 2
OTHER_NAMES = {
    "sendmail": ("sendmail",),
    "send-mail": ("sendmail",),
    "newaliases": ("sendmail", "-bi"),
    "mailq": ("sendmail", "-bp"),
}
"""The command that the script runs when it is called by another name."""


def main() -> None:
    """Runs the command line and ends the process."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run([*OTHER_NAMES.get(Path(sys.argv[0]).name, ()), *sys.argv[1:]])
    except click.UsageError as error:
        status = _end(_usage(error), error.exit_code)
    except click.ClickException as error:
        status = _end(error.format_message(), error.exit_code)
    except SettingsError as error:
        status = _end(str(error), EX_CONFIG)
    except Failed as error:
        status = _end(str(error), error.status)
    except OSError as error:
        status = _os_error(error)
    except (click.Abort, KeyboardInterrupt):
        status = 130
    # Last, as it loads modules that only errors need.
    except _control_errors() as error:
        status = _end(str(error), 1)
    # The process ends: no last garbage collection is needed.
    gc.freeze()
    sys.exit(status)


def _run(args: list[str]) -> int | None:
    status: int | None = COMMAND_LINE.main(args or ["--help"], prog_name="mailrelay", standalone_mode=False)
    if not args:
        # As git: the help, and a status that tells a script that nothing was done.
        status = EX_WRONG_USAGE
    # By print, which does nothing where stdout is closed and sys.stdout is None.
    print(end="", flush=True)
    return status


def _usage(error: click.UsageError) -> str:
    what = error.format_message().rstrip(".")
    command = error.ctx.command_path if error.ctx else "mailrelay"
    if isinstance(error, NoSuchCommand):
        what += _did_you_mean(error.name, is_top=command == "mailrelay")
    # It ends with a question where a similar name is known.
    return f"{what} See `{command} --help`" if what.endswith("?") else f"{what}; see `{command} --help`"


def _did_you_mean(name: str, *, is_top: bool) -> str:
    """A question, "" if no command has a similar name. is_top: whether a command of `mailrelay` is expected there."""
    from mailrelay.cli.suggestion import suggestion

    top, below = list(COMMAND_LINE.commands), ["list", *(str(command.name) for command in QUEUE_COMMANDS)]
    meant = (
        suggestion(name, [*top, *(f"queue {one}" for one in below)])
        if is_top
        else suggestion(name, [*below, *(f"mailrelay {one}" for one in top)])
    )
    return f". Did you mean '{meant}'?" if meant else ""


def _os_error(error: OSError) -> int:
    if error.errno != errno.EPIPE:
        return _end(f"{error.filename or 'this computer'}: {error.strerror or error}", 1)
    # The interpreter flushes stdout at its end, which would raise the same error again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _end(line: str, status: int) -> int:
    say(line)
    return status


def _control_errors() -> tuple[type[Exception], ...]:
    from mailrelay.control.errors import CONTROL_ERRORS

    return CONTROL_ERRORS


def _help() -> click.Command:
    from mailrelay.cli.help import command

    return command


def _serve() -> click.Command:
    from mailrelay.cli.serve import command

    return command


def _reload() -> click.Command:
    from mailrelay.cli.reload import command

    return command


def _control() -> click.Command:
    from mailrelay.cli.control import command

    return command


def _setup() -> click.Command:
    from mailrelay.cli.setup import command

    return command


def _demo() -> click.Command:
    from mailrelay.cli.demo import command

    return command


def _status() -> click.Command:
    from mailrelay.cli.status import command

    return command


def _queue() -> click.Command:
    from mailrelay.cli.queue import command

    for below in QUEUE_COMMANDS:
        command.add_command(below)
    return command


def _log() -> click.Command:
    from mailrelay.cli.log import command

    return command


def _sendmail() -> click.Command:
    from mailrelay.cli.sendmail import command

    return command


def _check() -> click.Command:
    from mailrelay.cli.check import command

    return command


def _trust() -> click.Command:
    from mailrelay.cli.trust import command

    return command


def _test() -> click.Command:
    from mailrelay.cli.test import command

    return command


def _web() -> click.Command:
    from mailrelay.cli.web import command

    return command


def _show() -> click.Command:
    from mailrelay.cli.show import command

    return command


def _retry() -> click.Command:
    from mailrelay.cli.acts import retry

    return retry


def _hold() -> click.Command:
    from mailrelay.cli.acts import hold

    return hold


def _release() -> click.Command:
    from mailrelay.cli.acts import release

    return release


def _cancel() -> click.Command:
    from mailrelay.cli.acts import cancel

    return cancel


def _drop() -> click.Command:
    from mailrelay.cli.acts import drop

    return drop


def _resend() -> click.Command:
    from mailrelay.cli.resend import command

    return command


def _edit() -> click.Command:
    from mailrelay.cli.edit import command

    return command


QUEUE_COMMANDS = (
    LazyCommand("show", "Show one message: envelope, timeline, replies of the mail server.", _show),
    LazyCommand("retry", "Try to send messages now, whatever the retry schedule says.", _retry),
    LazyCommand("hold", "Hold messages: they are not sent until they are released.", _hold),
    LazyCommand("release", "Release messages that are held.", _release),
    LazyCommand("cancel", "Cancel messages that have not been sent yet. They are not sent any more.", _cancel),
    LazyCommand("drop", "Drop failed messages that you have dealt with. They are not kept any longer.", _drop),
    LazyCommand("resend", "Send a failed, refused or held message again, if need be to another address.", _resend),
    LazyCommand("edit", "Edit a message that has not been sent, and send it.", _edit),
)

COMMANDS = (
    LazyCommand("serve", "Run the daemon in the foreground.", _serve),
    LazyCommand("reload", "Make the daemon read its settings again.", _reload),
    LazyCommand(
        "control", "Answer another account of this computer about its messages; for a service manager.", _control
    ),
    LazyCommand("setup", "Set everything up, step by step, until a test message has arrived.", _setup),
    LazyCommand("demo", "Show mailrelay at work on loopback, with an embedded mail server.", _demo),
    LazyCommand("status", "Show on one screen whether all is fine.", _status),
    LazyCommand("queue", "Show messages that wait or failed, and act on them.", _queue),
    LazyCommand("web", "Mend refused mail, and see the queue, in the browser.", _web),
    LazyCommand("log", "Show what has happened.", _log),
    LazyCommand("sendmail", "Put the message on stdin in the spool, as sendmail(1) does.", _sendmail),
    LazyCommand("check", "Check everything that the delivery of mail needs.", _check),
    LazyCommand("trust", "Show the host keys that servers offer beside the known ones, and accept new ones.", _trust),
    LazyCommand("test", "Send a test message and follow it to its end.", _test),
    LazyCommand("help", "Show what a command does, and its options.", _help),
)


COMMAND_LINE = LazyGroup(
    "mailrelay",
    commands=COMMANDS,
    help="A local SMTP submission proxy: mail goes to your own server through SSH, and nothing fails in silence.",
    params=[CONFIG_OPTION, VERSION_OPTION],
    no_args_is_help=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
