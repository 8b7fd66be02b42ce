"""`mailrelay help [COMMAND [SUB]]`: the same text as `mailrelay COMMAND SUB --help`."""

from collections.abc import Sequence

import click

from mailrelay.cli.base import NoSuchCommand


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND [SUB]]")
@click.pass_context
def command(context: click.Context, words: Sequence[str]) -> None:
    """Show what a command does, and its options."""
    context = context.find_root()
    for word in words:
        group = context.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"`{context.command_path}` has no commands of its own", context)
        _, named, _ = group.resolve_command(context, [word])
        if named is None:
            raise NoSuchCommand(word, context)
        context = click.Context(named, context, word, **named.context_settings)
    click.echo(context.get_help())
