"""Questions on a terminal, wrapped at its width like other text.

Promises: what the person types stands behind the last line of the question.
"""

import sys

import click

from mailrelay.cli.terminal import wrapped

ROOM = 2
"""Columns behind a question, for a space and the first character of the answer."""


def confirm(question: str, *, default: bool, err: bool = False) -> bool:
    """Whether the person says yes. err: the question is printed on stderr."""
    shown = _shown(f"{question} [{'Y/n' if default else 'y/N'}]:", err=err)
    return click.confirm(shown, default=default, show_default=False, prompt_suffix=" ", err=err)


def answer(question: str, default: str) -> str:
    """The person's answer; `default` for an empty one, which is not shown if it is empty."""
    shown = _shown(f"{question} [{default}]:" if default else f"{question}:")
    return str(click.prompt(shown, default=default, show_default=False, prompt_suffix=" "))


def secret(question: str) -> str:
    """The person's answer, which the terminal does not show; it may be empty."""
    shown = _shown(f"{question}:")
    return str(click.prompt(shown, hide_input=True, default="", show_default=False, prompt_suffix=" "))


def _shown(question: str, *, err: bool = False) -> str:
    return "\n".join(wrapped(question, sys.stderr if err else sys.stdout, spare=ROOM))
