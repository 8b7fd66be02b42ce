"""Computes the next attempt: the retry schedule, with a random extension so that messages do not retry all at once.

Pure: the random number is an argument.
"""

from collections.abc import Sequence

SPREAD = 0.1
"""The largest extension of a wait, as a fraction of it. A wait is never shortened: the schedule is a lower bound."""


def wait(schedule: Sequence[float], failures: int, chance: float) -> float:
    """Seconds until the next attempt.

    schedule: seconds, at least one entry; the last one repeats.
    failures: how many attempts have failed by now, at least 1.
    chance: a random number in [0, 1).
    """
    step = schedule[min(failures, len(schedule)) - 1]
    return step * (1 + SPREAD * chance)
