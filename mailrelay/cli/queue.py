"""`mailrelay queue`: what is pending or failed, one message's story, and what the person does to mail.

    queue [list] [--all] [--json]            the listing; --all adds history. One line for each recipient, JSON Lines with
                                             one message a line (see `records`), a table on a terminal
    queue show ID [--content] [--json]       one message (see `show`)
    queue retry ID…|--all|--network          due now (see `acts`)
    queue hold|release|cancel|drop ID…       out of the way, back again; taken out; failed mail let go (see `acts`)
    queue resend ID, queue edit ID           another message in its place (see `resend` and `edit`)

An id may be shortened as long as one message alone has it.

A queue of nothing loads nothing of all this but the listing: prompts, bars and people ask often, and mostly in vain.
"""

import sys

import click

from mailrelay.cli import LazyCommand, Table, load, load_settings
from mailrelay.spool import listing
from mailrelay.spool.database import connect, reading

_MENDING = {
    "resend": "Send failed, refused or held mail again, to somebody else if need be.",
    "edit": "Change a message in your editor, and send it.",
}
_ACTS = {
    "retry": "Try now, whatever the schedule says.",
    "hold": "Keep from being sent until it is released.",
    "release": "Let go on what is held.",
    "cancel": "Take out what has not been sent yet. It is not sent any more.",
    "drop": "Let go of failed mail: it has been dealt with, and is not kept any longer.",
}

_all = click.option("--all", "history", is_flag=True, help="What is over too.")
_json = click.option("--json", "as_json", is_flag=True, help="JSON Lines, for programs.")


@click.group(cls=Table, modules=_MENDING, invoke_without_command=True)
@_all
@_json
@click.pass_context
def command(context: click.Context, history: bool, as_json: bool) -> None:
    """What is pending or failed, and what you may do to it. Without a command: list."""
    if context.invoked_subcommand is None:
        show_list(history=history, as_json=as_json)
    elif history or as_json:
        raise click.UsageError("Options stand behind the command that they belong to", context)


@command.command("list")
@_all
@_json
def _list(history: bool, as_json: bool) -> None:
    """What is pending or failed."""
    show_list(history=history, as_json=as_json)


command.add_command(LazyCommand("show", "One message: its envelope, its timeline, the remote's words.", "show"))
for _name, _does in _ACTS.items():
    command.add_command(LazyCommand(_name, _does, "acts"))


def show_list(*, history: bool = False, as_json: bool = False) -> None:
    """Prints the listing. Also what `mailq` and `sendmail -bp` do."""
    directory = load_settings().queue.directory
    messages: list[listing.Listed] = []
    records: list[bytes] = []
    try:
        db = connect(directory, create=False)
    except FileNotFoundError:
        pass
    else:
        # Read to the end before anything is shown: a pager would keep the view open, and the log growing.
        with reading(db):
            found = listing.everything(db) if history else listing.live(db)
            if as_json:
                records = list(map(load("records").line, found))
            else:
                messages = list(found)
        db.close()
    if as_json:
        if sys.stdout is not None:
            # JSON is UTF-8, whatever the terminal's encoding.
            sys.stdout.buffer.writelines(records)
    elif messages:
        load("listing_text").show(messages, directory)
    else:
        print("the queue is empty")
