"""What has happened to the network and the clock of this computer, as values; and what its clocks say of it."""

from dataclasses import dataclass

LEAST_SLEEP = 1.0
"""Seconds of sleep that are worth a word."""
LEAP = 60.0
"""Seconds by which the clock must have been set to have leapt: a time server fixes less than that now and then."""


@dataclass(frozen=True, slots=True)
class Change:
    """What has happened. opens: there may be a way now where there was none. gone: addresses that are no longer ours, as
    inet_ntop(3) writes them.

    slept: seconds for which the computer was suspended. leapt: seconds by which its clock was set ahead, negative for back.
    """

    opens: bool = False
    gone: frozenset[str] = frozenset()
    slept: float = 0.0
    leapt: float = 0.0

    def __bool__(self) -> bool:
        return self != Change()

    def __or__(self, later: "Change") -> "Change":
        return Change(
            self.opens or later.opens, self.gone | later.gone, self.slept + later.slept, self.leapt + later.leapt
        )


@dataclass(frozen=True, slots=True)
class Clocks:
    """Three clocks at one moment, seconds: the time of day, the time since boot, and that without sleep."""

    day: float
    boot: float
    awake: float


def between(before: Clocks, after: Clocks) -> Change:
    """What two readings of the clocks say has happened between them."""
    slept = (after.boot - after.awake) - (before.boot - before.awake)
    leapt = (after.day - after.boot) - (before.day - before.boot)
    return Change(slept=slept if slept >= LEAST_SLEEP else 0.0, leapt=leapt if abs(leapt) >= LEAP else 0.0)
