"""When to ask the relayhost next what has become of the messages that its mail server took.

Pure functions of times in epoch seconds. One question is about all messages that are followed: 2, 10 and 28 s after the 250,
2, 10 and 30 min, then every hour, until 5 days.
"""

from collections.abc import Iterable, Sequence

FIRST = (2.0, 10.0, 28.0, 120.0, 600.0, 1800.0)
"""Seconds after the 250."""
AWAITED = 3
"""How many of these are asked while the connection lingers. For the later ones, a connection is dialled."""
INTERVAL = 3600.0
"""Seconds between the later questions."""
LIFETIME = 5 * 86400.0
"""Seconds after the 250 for which a message is followed; mail servers give up after so long."""
MIN_GAP = 5.0
"""Seconds between two questions, however many messages come in; also between the two after which a message has left the mail
server."""


def next_question(
    accepted: Iterable[float], asked: float | None, now: float, *, is_worth_dialling: bool = False
) -> float | None:
    """When to ask next about the messages that were accepted at these times and are still followed; None if none is.

    asked: the last question, None if there was none. is_worth_dialling: count only the later questions, for
    which a connection is dialled. The result may be in the past: then a question is due.
    """
    # A time later than now: the clock was put back.
    last = None if asked is None else min(asked, now)
    first = FIRST[AWAITED:] if is_worth_dialling else FIRST
    points = [point for one in accepted if (point := _next_point(min(one, now), last, now, first)) is not None]
    if not points:
        return None
    return min(points) if last is None else max(min(points), last + MIN_GAP)


def is_followed(accepted: float, now: float) -> bool:
    """Whether a message that was accepted at this time is still asked about."""
    return now - accepted <= LIFETIME


def _next_point(accepted: float, asked: float | None, now: float, first: Sequence[float]) -> float | None:
    if not is_followed(accepted, now):
        return None
    for point in first:
        if asked is None or accepted + point > asked:
            return accepted + point
    assert asked is not None, "or a time of `first` is to come"  # noqa: S101
    hours = (asked - accepted - FIRST[-1]) // INTERVAL + 1
    point = FIRST[-1] + INTERVAL * hours
    return accepted + point if point <= LIFETIME else None
