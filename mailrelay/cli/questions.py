"""Questions to the person, on a terminal, wrapped at its width like other text.

Promises: what the person types stands behind the last line of the question. After a wrong answer a line says what is wanted,
and the question is asked again. At the end of the input, Failed ends the command. The caller escapes the question.
"""

import getpass
import sys
from collections.abc import Callable
from functools import partial
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
    """Asks, and returns `read(answer)`. read: for a wrong answer, raises Failed or SettingsError with what is wanted.

    default: the meaning of an empty answer; it is shown, unless it is "". Raises Failed at the end of the input.
    """
    return _asked(question, printable(default), lambda word: read(word or default))


def secret(question: str) -> str:
    """Asks for a password, which is not shown. Returns it; it may be empty. Raises Failed at the end of the input."""
    return _typed(getpass.getpass, question, "", sys.stdout)


def _asked(question: str, choice: str, read: Callable[[str], T], *, err: bool = False) -> T:
    stream = sys.stderr if err else sys.stdout
    while True:
        word = _typed(partial(_line, stream), question, choice, stream).strip()
        try:
            return read(word)
        except (Failed, SettingsError) as error:
            why = printable(str(error))
            put(f"    {why[:1].upper()}{why[1:].rstrip('.')}.", stream=stream)


def _line(stream: TextIO, prompt: str) -> str:
    # On a terminal, `input` itself would write the prompt to stderr, which may be somewhere else.
    print(prompt, end="", file=stream, flush=True)
    return input()


def _typed(ask: Callable[[str], str], question: str, choice: str, stream: TextIO) -> str:
    """Prints the question and returns what the person types. choice: shown in brackets behind the question, "" for nothing.

    Raises Failed at the end of the input.
    """
    shown = f"{question} [{choice}]:" if choice else f"{question}:"
    try:
        return ask("\n".join(wrapped(shown, stream, spare=ROOM)) + " ")
    except EOFError:
        # The cursor is still behind the question.
        put("", stream=stream)
        raise Failed(f"the input ended before an answer to: {question.strip()}; run it again") from None
