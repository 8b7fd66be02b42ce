"""What a shell is offered in the place of a command's name. Loaded only where a shell asks."""

from collections.abc import Mapping

from click.shell_completion import CompletionItem


def completion_items(commands: Mapping[str, str], incomplete: str) -> list[CompletionItem]:
    """The commands whose names begin with `incomplete`. commands: what each of them does, by its name."""
    return [CompletionItem(name, help=text) for name, text in commands.items() if name.startswith(incomplete)]
