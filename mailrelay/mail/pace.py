"""The rate at which a content is sent.

    pace = Pace(begun)                  when the first octet of the content is about to be sent
    pace.rate(octets, now)              the rate by now; each call is also a sample for later calls

Without calls there are no samples, so a content whose rate is not asked for costs nothing. All times are of one monotonic
clock, in seconds. Pure.
"""

from collections import deque
from dataclasses import dataclass, field

WINDOW = 5.0
"""Seconds over which the rate is averaged."""
SPACING = 0.2
"""Seconds between two kept samples, at least. It bounds their number if `rate` is called often."""


@dataclass(slots=True)
class Pace:
    """The rate of one content. begun: the time of its first octet."""

    begun: float
    # Times and octets, oldest first; at most one of them is older than WINDOW.
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._samples.append((self.begun, 0))

    def rate(self, octets: int, now: float) -> float:
        """The rate in octets a second, since the latest sample that is at least WINDOW seconds old, or since the beginning.

        octets: acknowledged by `now`, not fewer than in the call before.
        """
        samples = self._samples
        while len(samples) > 1 and samples[1][0] <= now - WINDOW:
            samples.popleft()
        start, octets_at_start = samples[0]
        if now - samples[-1][0] >= SPACING:
            samples.append((now, octets))
        return max(0, octets - octets_at_start) / (now - start) if now > start else 0.0
