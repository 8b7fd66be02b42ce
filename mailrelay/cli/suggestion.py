"""The command that may have been meant by the name of a command that does not exist. Loaded only after such a mistake."""

from collections.abc import Sequence
from difflib import SequenceMatcher

LEAST = 0.6
"""The least similarity of a suggestion, as difflib measures it: from 0 to 1, the same name."""
MOST_LETTERS = 40
"""A longer name is no mistyped command, and would take long to compare."""


def suggestion(name: str, commands: Sequence[str]) -> str:
    """The most similar one of `commands`, the first one if several are; "" if none is similar enough. Upper and lower
    case are the same.

    commands: names, at least one. A command in a group has the group's name before its own: "queue hold". Only the last word
    is compared.
    """
    if len(name) > MOST_LETTERS:
        return ""
    ranked = {command: SequenceMatcher(None, name.lower(), command.split()[-1]).ratio() for command in commands}
    best = max(ranked, key=ranked.__getitem__)
    return best if ranked[best] >= LEAST else ""
