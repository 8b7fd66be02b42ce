"""How `mailrelay setup` speaks: a heading for each step, what was found or done, how to undo it, and questions.

Promises: what is from outside is escaped, and the person's home is `~`. A question is asked on a terminal only; where nobody
can answer, the command ends with a line that says so.
"""

import sys
from pathlib import Path

import click

from mailrelay.cli import Failed
from mailrelay.cli.terminal import colour, is_terminal
from mailrelay.mail.printable import printable


def tilde(text: str | Path) -> str:
    """Paths as people write them."""
    return str(text).replace(f"{Path.home()}/", "~/")


def _shown(text: str) -> str:
    return printable(tilde(text))


def heading(text: str) -> None:
    """A step begins."""
    print(f"\n{colour(text, 'bold', sys.stdout)}", flush=True)


def fine(text: str) -> None:
    """Something is as it should be, or has been made so."""
    print(f"  {colour('✓', 'green', sys.stdout)} {_shown(text)}", flush=True)


def note(*lines: str) -> None:
    """What the person is to read."""
    for line in lines:
        print(f"    {_shown(line)}", flush=True)


def undo(text: str) -> None:
    """How to take back what was done last."""
    note(f"undo: {text}")


def ask(question: str, *, yes: bool) -> bool:
    """Whether the person wants it; yes: it has been said beforehand. Raises Failed where there is nobody to ask."""
    if yes:
        return True
    if not is_terminal(sys.stdin):
        raise Failed(f"{question} Nobody is there to answer; run it in a terminal, or with --yes")
    return click.confirm(f"  {_shown(question)}", default=True)


def stop(text: str, *fix: str) -> Failed:
    """The end of setup: why, and the steps that fix it. Setup is run again after them."""
    steps = "; ".join(step.rstrip(".") for step in (*fix, "then run `mailrelay setup` again") if step)
    return Failed(tilde(f"{text.rstrip('.')}. {steps[0].upper()}{steps[1:]}"))
