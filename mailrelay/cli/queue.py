"""`mailrelay queue`: messages that wait, are held or failed.

    queue [list] [--all] [--json]            the listing; --all adds history. One line for each recipient, a table on a
                                             terminal, JSON Lines with one message a line (`control.records`)
    queue show ID [--content] [--json]       one message (`show`)
    queue retry ID…|--all|--network          makes messages due now (`acts`)
    queue hold|release|cancel|drop ID…       holds, releases, cancels messages; drops failed ones (`acts`)
    queue resend ID, queue edit ID           replaces a message by another one (`resend`, `edit`)

An id may be shortened as long as it is unique. `command_line` adds the commands of this group.

For an empty queue nothing but the listing is loaded: this command runs often, and the queue is mostly empty.
"""

import sys

import click

from mailrelay.cli import lazy
from mailrelay.cli.base import LazyGroup, load_settings
from mailrelay.cli.waiting import waiting_for
from mailrelay.control.listing import messages

_all = click.option("--all", "history", is_flag=True, help="Show sent, refused and cancelled messages too.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON Lines, for programs.")


@click.group("queue", cls=LazyGroup, invoke_without_command=True)
@_all
@_json
@click.pass_context
def command(context: click.Context, history: bool, as_json: bool) -> None:
    """Show messages that wait or failed, and act on them. Without a command: list."""
    if context.invoked_subcommand is None:
        show_list(history=history, as_json=as_json)
    elif history or as_json:
        raise click.UsageError("Put options after the command that they belong to", context)


@command.command("list")
@_all
@_json
def _list(history: bool, as_json: bool) -> None:
    """Show messages that wait or failed."""
    show_list(history=history, as_json=as_json)


def show_list(*, history: bool = False, as_json: bool = False) -> None:
    """Prints the listing. `mailq` and `sendmail -bp` do the same."""
    directory = load_settings().queue.directory
    found = messages(directory, history=history)
    if as_json:
        _print_records(lazy.record_lines(found))
        return
    with waiting_for("the spool"):
        listed = list(found)
    if listed:
        lazy.print_messages(listed, directory)
    else:
        print("the queue is empty")


def _print_records(lines: list[bytes]) -> None:
    if sys.stdout is not None:
        # JSON is UTF-8, whatever the terminal's encoding.
        sys.stdout.buffer.writelines(lines)
