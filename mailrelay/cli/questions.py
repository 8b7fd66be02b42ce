"""Questions to the person, on a terminal.

Promises: a wrong answer gets a line that says what is wanted, and the question again. Where the input ends, the command ends
with a sentence. A question is escaped by its caller.
"""

import getpass
from collections.abc import Callable
from typing import TypeVar

from mailrelay.cli.base import Failed
from mailrelay.grammar import SettingsError
from mailrelay.mail.printable import printable

T = TypeVar("T")


def confirm(question: str, *, default: bool) -> bool:
    """Whether the person says yes. default: the meaning of an empty answer. Raises Failed at the end of the input."""

    def read(word: str) -> bool:
        answers = {"": default, "y": True, "yes": True, "n": False, "no": False}
        if word.lower() not in answers:
            raise Failed("answer y for yes or n for no")
        return answers[word.lower()]

    return _asked(f"{question} [{'Y/n' if default else 'y/N'}]: ", read)


def answer(question: str, default: str, read: Callable[[str], T]) -> T:
    """What `read` makes of the answer. read: raises Failed or SettingsError, with what is wanted, for a wrong one.

    An empty answer is `default`. Raises Failed at the end of the input.
    """
    return _asked(f"{question} [{printable(default)}]: ", lambda word: read(word or default))


def secret(question: str) -> str:
    """What the person types, which is not shown. Raises Failed at the end of the input."""
    return _typed(getpass.getpass, f"{question}: ")


def _asked(prompt: str, read: Callable[[str], T]) -> T:
    while True:
        word = _typed(input, prompt).strip()
        try:
            return read(word)
        except (Failed, SettingsError) as error:
            why = printable(str(error))
            print(f"    {why[:1].upper()}{why[1:].rstrip('.')}.", flush=True)


def _typed(ask: Callable[[str], str], prompt: str) -> str:
    try:
        return ask(prompt)
    except EOFError:
        # The cursor is still behind the prompt.
        print(flush=True)
        raise Failed(
            f"the input ended before an answer to: {prompt.partition('[')[0].strip(' :')}; run it again"
        ) from None
