"""`mailrelay queue`: messages that wait, are held or failed.

    queue [list] [--all] [--json]            the listing; --all adds history. One line for each recipient, a table on a
                                             terminal, JSON Lines with one message a line (`control.records`)
    queue [list] --watch                     the listing again whenever it changes (`watch`)
    queue show ID [--content] [--json]       one message (`show`)
    queue retry ID…|--all|--network          makes messages due now (`acts`)
    queue hold|release|cancel|drop ID…       holds, releases, cancels messages; drops failed ones (`acts`)
    queue resend ID…, queue edit ID          replaces messages by others (`resend`, `edit`)

An id may be shortened as long as it is unique. The listing, and the commands that take several ids, have filters
(`filters`). `command_line` adds the commands of this group.

For an empty queue nothing but the listing is loaded: this command runs often, and the queue is mostly empty.
"""

import sys

import click

from mailrelay.cli import lazy
from mailrelay.cli.base import LazyGroup, load_queue
from mailrelay.cli.filters import filters, nothing_text
from mailrelay.cli.waiting import waiting_for
from mailrelay.control.listing import messages
from mailrelay.mail.selection import EVERYTHING, Filter, matches

_all = click.option("--all", "history", is_flag=True, help="Show sent, refused and cancelled messages too.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON Lines, for programs.")
_watch = click.option("--watch", is_flag=True, help="Show changes and progress until Ctrl-C.")


@click.group("queue", cls=LazyGroup, invoke_without_command=True)
@_all
@_json
@_watch
@filters
@click.pass_context
def command(context: click.Context, history: bool, as_json: bool, watch: bool, wanted: Filter) -> None:
    """Show messages that wait or failed, and act on them. Without a command: list."""
    if context.invoked_subcommand is None:
        _show(history=history, as_json=as_json, watch=watch, wanted=wanted)
    elif history or as_json or watch or wanted != EVERYTHING:
        raise click.UsageError("Put options after the command that they belong to", context)


@command.command("list")
@_all
@_json
@_watch
@filters
def _list(history: bool, as_json: bool, watch: bool, wanted: Filter) -> None:
    """Show messages that wait or failed."""
    _show(history=history, as_json=as_json, watch=watch, wanted=wanted)


def _show(*, history: bool, as_json: bool, watch: bool, wanted: Filter) -> None:
    if not watch:
        show_list(history=history, as_json=as_json, wanted=wanted)
    elif as_json:
        raise click.UsageError("--watch and --json do not go together", click.get_current_context())
    else:
        lazy.watch(load_queue(), wanted, history=history)


def show_list(*, history: bool = False, as_json: bool = False, wanted: Filter = EVERYTHING) -> None:
    """Prints the listing. `mailq` and `sendmail -bp` do the same."""
    queue = load_queue()
    found = messages(queue, history=history or wanted.needs_history)
    if as_json:
        _print_records(lazy.record_lines(message for message in found if matches(wanted, message)))
        return
    with waiting_for("the spool"):
        queued = list(found)
    listed = [message for message in queued if matches(wanted, message)]
    if listed:
        lazy.print_messages(listed, queue)
    else:
        print(nothing_text(len(queued)))


def _print_records(lines: list[bytes]) -> None:
    if sys.stdout is not None:
        # JSON is UTF-8, whatever the terminal's encoding.
        sys.stdout.buffer.writelines(lines)
