"""The output of `mailrelay setup`: headings of steps, results, how to undo them, and questions.

Promises: text from outside is escaped, and the person's home directory is shown as `~`. Questions are asked on a terminal
only; without one, the command ends with a line that says so.
"""

import sys
from pathlib import Path

from mailrelay.cli.base import Failed
from mailrelay.cli.questions import confirm
from mailrelay.cli.terminal import colour, is_terminal, put
from mailrelay.mail.printable import printable


def tilde(text: str | Path) -> str:
    """`text` with the home directory as `~`."""
    return str(text).replace(f"{Path.home()}/", "~/")


def _shown(text: str) -> str:
    return printable(tilde(text))


def heading(text: str) -> None:
    """Prints the heading of a step."""
    put("", colour(text, "bold", sys.stdout))


def fine(text: str) -> None:
    """Prints that something is in order, or has been put in order."""
    put(f"  {colour('✓', 'green', sys.stdout)} {_shown(text)}")


def note(*lines: str) -> None:
    """Prints lines for the person to read."""
    for line in lines:
        put(f"    {_shown(line)}")


def undo(text: str) -> None:
    """Prints how to undo the last result."""
    note(f"undo: {text}")


def ask(question: str, *, yes: bool) -> bool:
    """The person's answer; True without a question if `yes`. Raises Failed where there is no terminal."""
    if yes:
        return True
    if not is_terminal(sys.stdin):
        raise Failed(f"{question} There is no terminal to ask in; run it in a terminal, or with --yes")
    return confirm(f"  {_shown(question)}", default=True)


def stop(text: str, *fix: str) -> Failed:
    """The error that ends setup. fix: the steps before setup is run again."""
    steps = "; ".join(step.rstrip(".") for step in (*fix, "then run `mailrelay setup` again") if step)
    return Failed(tilde(f"{text.rstrip('.')}. {steps[0].upper()}{steps[1:]}"))
