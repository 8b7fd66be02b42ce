"""Questions to the person, on a terminal, wrapped at its width like other text.

Promises: what the person types stands behind the last line of the question. A wrong answer gets a line that says what is
wanted, and the question again. Where the input ends, the command ends with a sentence. A question is escaped by its caller.
"""

import getpass
import sys
from collections.abc import Callable
from typing import TextIO, TypeVar

from mailrelay.cli.base import Failed
from mailrelay.cli.terminal import put, wrapped
from mailrelay.grammar import SettingsError
from mailrelay.mail.printable import printable

T = TypeVar("T")

ROOM = 2
"""Columns behind a question, for a space and the first character of the answer."""


def confirm(question: str, *, default: bool, err: bool = False) -> bool:
    """Whether the person says yes. default: the meaning of an empty answer. err: the question is printed on stderr.

    Raises Failed at the end of the input.
    """

    def read(word: str) -> bool:
        answers = {"": default, "y": True, "yes": True, "n": False, "no": False}
        if word.lower() not in answers:
            raise Failed("answer y for yes or n for no")
        return answers[word.lower()]

    return _asked(question, "Y/n" if default else "y/N", read, err=err)


def answer(question: str, default: str, read: Callable[[str], T]) -> T:
    """What `read` makes of the answer. read: raises Failed or SettingsError, with what is wanted, for a wrong one.

    An empty answer is `default`, which is not shown if it is empty. Raises Failed at the end of the input.
    """
    return _asked(question, printable(default), lambda word: read(word or default))


def secret(question: str) -> str:
    """What the person types, which is not shown; it may be empty. Raises Failed at the end of the input."""
    return _typed(getpass.getpass, question, "", sys.stdout)


def _asked(question: str, choice: str, read: Callable[[str], T], *, err: bool = False) -> T:
    stream = sys.stderr if err else sys.stdout
    while True:
        word = _typed(_line_after_stderr if err else input, question, choice, stream).strip()
        try:
            return read(word)
        except (Failed, SettingsError) as error:
            why = printable(str(error))
            put(f"    {why[:1].upper()}{why[1:].rstrip('.')}.", stream=stream)


def _line_after_stderr(prompt: str) -> str:
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()


def _typed(ask: Callable[[str], str], question: str, choice: str, stream: TextIO) -> str:
    """choice: what stands in brackets behind the question, "" for nothing."""
    shown = f"{question} [{choice}]:" if choice else f"{question}:"
    try:
        return ask("\n".join(wrapped(shown, stream, spare=ROOM)) + " ")
    except EOFError:
        # The cursor is still behind the question.
        put("", stream=stream)
        raise Failed(f"the input ended before an answer to: {question.strip()}; run it again") from None
