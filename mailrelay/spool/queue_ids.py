"""Queue ids: short, and in the order of time, so that new messages are neighbours in the index.

An id is a number of ticks since 2024, written with `LENGTH` letters and digits. The daemon uses even ticks and commands use
odd ones, so they never choose the same id. The daemon continues above the highest id in the spool (`QueueIds`); a command
chooses one that is free within its own transaction (`new_for_command`).

Promises: no two messages of a spool have the same id, whatever the clock does. Older spools contain random ids of ten
letters; these stay valid.
"""

import os

import apsw

from mailrelay.spool.database import row, rows

LENGTH = 8
TICKS = 500
"""Ticks a second. Above 250 messages a second, ids run ahead of the clock, which is harmless."""
EPOCH = 1_704_067_200
"""2024-01-01 in epoch seconds. There are enough ids for forty years from then."""

_ALPHABET = "0123456789bcdfghjkmnpqrstvwxyz"
"""No vowels, so that no id is a word."""
_BASE = len(_ALPHABET)


class QueueIds:
    """The ids of the daemon. highest: the highest id in the spool, "" where there is none."""

    def __init__(self, highest: str) -> None:
        self._last = _number(highest) if highest else 0

    def new(self, now: float) -> str:
        """An id higher than all before it. now: epoch seconds."""
        last = self._last - self._last % 2
        self._last = max(_tick(now), last + 2)
        return _text(self._last)


def highest(db: apsw.Connection) -> str:
    """The highest id in the spool; "" where there is none."""
    return str(row(db, "SELECT ifnull(max(queue_id), '') FROM message WHERE length(queue_id) = ?", (LENGTH,))[0])


def new_for_command(db: apsw.Connection, now: float) -> str:
    """A free id for a message of the open transaction. now: epoch seconds."""
    tick = _tick(now) + 1
    while rows(db, "SELECT 1 FROM message WHERE queue_id = ?", (_text(tick),)):
        tick += 2
    return _text(tick)


def message_id_token() -> str:
    """Ten random hexadecimal digits for a Message-ID: two machines may have the same queue id."""
    return os.urandom(5).hex()


def _tick(now: float) -> int:
    """The even tick at `now`; 0 if the clock cannot be right."""
    tick = int((now - EPOCH) * TICKS) // 2 * 2
    return tick if 0 <= tick < _BASE**LENGTH else 0


def _text(tick: int) -> str:
    letters = []
    for _ in range(LENGTH):
        tick, digit = divmod(tick, _BASE)
        letters.append(_ALPHABET[digit])
    return "".join(reversed(letters))


def _number(queue_id: str) -> int:
    number = 0
    for letter in queue_id:
        number = number * _BASE + _ALPHABET.index(letter)
    return number
