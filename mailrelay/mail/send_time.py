"""The send time of a message: the time before which it is not sent.

It comes from the person (`sendmail --in`, `--at`), from a client (HOLDFOR and HOLDUNTIL of RFC 4865), or from the setting
`queue.undo`. Until then the message waits for its time: it is not late, and its age counts from its send time. `queue retry`
sends it now.
"""

from dataclasses import dataclass
from datetime import datetime

MAX_WAIT = 365 * 86_400
"""Seconds from the arrival of a message to its send time, at most."""


@dataclass(frozen=True, slots=True)
class SendTime:
    """at: epoch seconds. by_clock: True if a time of the clock was given, False if a length of time was. If the clock is
    set, the first stays as it is, and the second is moved, so that the message waits for the same length."""

    at: float
    by_clock: bool

    @property
    def text(self) -> str:
        """Local date and time with the zone: "2026-11-28 14:03:00 +0900"."""
        return f"{datetime.fromtimestamp(self.at).astimezone():%Y-%m-%d %H:%M:%S %z}"


def effective_send_time(given: SendTime | None, wait: float, now: float) -> SendTime | None:
    """The later of `given` and the end of `wait`, for a message that arrives now; None to send it at once. wait: seconds
    (`queue.undo`). now: epoch seconds."""
    if wait > 0 and (given is None or given.at < now + wait):
        return SendTime(now + wait, by_clock=False)
    return given if given is not None and given.at > now else None
