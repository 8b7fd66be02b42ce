"""Changes of this computer's network and clock, as values; and how clock readings become such a change. Pure."""

from dataclasses import dataclass

MIN_SUSPEND = 1.0
"""The shortest suspend that counts, in seconds."""
MIN_CLOCK_STEP = 60.0
"""The smallest step of the clock that counts, in seconds: time servers make small corrections now and then."""


@dataclass(frozen=True, slots=True)
class Change:
    """may_connect: a connection that was not possible before may be possible now. removed_addresses: addresses that this
    computer has no longer, as inet_ntop(3) writes them.

    suspended: seconds for which the computer was suspended. clock_step: seconds by which the clock was set forward, negative
    for back.
    """

    may_connect: bool = False
    removed_addresses: frozenset[str] = frozenset()
    suspended: float = 0.0
    clock_step: float = 0.0

    def __bool__(self) -> bool:
        return self != Change()

    def __or__(self, later: "Change") -> "Change":
        return Change(
            self.may_connect or later.may_connect,
            self.removed_addresses | later.removed_addresses,
            self.suspended + later.suspended,
            self.clock_step + later.clock_step,
        )


@dataclass(frozen=True, slots=True)
class Clocks:
    """Readings of three clocks at one moment, in seconds: CLOCK_REALTIME, CLOCK_BOOTTIME, and CLOCK_MONOTONIC, which stops
    while the computer is suspended."""

    realtime: float
    boottime: float
    monotonic: float


def change_between(before: Clocks, after: Clocks) -> Change:
    """The suspend and the clock step between two readings."""
    suspended = (after.boottime - after.monotonic) - (before.boottime - before.monotonic)
    clock_step = (after.realtime - after.boottime) - (before.realtime - before.boottime)
    return Change(
        suspended=suspended if suspended >= MIN_SUSPEND else 0.0,
        clock_step=clock_step if abs(clock_step) >= MIN_CLOCK_STEP else 0.0,
    )
