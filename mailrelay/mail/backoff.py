"""When to try again: the person's schedule, spread a little so that mail does not come in herds.

Pure: randomness comes in as a number.
"""

from collections.abc import Sequence

SPREAD = 0.1
"""A wait is stretched by at most this part of itself; never shortened, so that a schedule is a promise to the remote."""


def wait(schedule: Sequence[float], failures: int, chance: float) -> float:
    """Seconds until the next attempt.

    schedule: seconds, at least one entry; the last one repeats.
    failures: how many attempts have failed by now, at least 1.
    chance: a random number in [0, 1).
    """
    step = schedule[min(failures, len(schedule)) - 1]
    return step * (1 + SPREAD * chance)
