"""The progress of a message that is being sent: octets, rate, time left, and the text for them; and the results of a stop.

    progress_text(sending)              "1.2 of 5.0 MB, 130 kB/s, 30 s left"

Pure. Commands load this file each time, so it imports little.
"""

import enum
from typing import NamedTuple

from mailrelay.mail.quantity import length, unit_of


class Stop(enum.StrEnum):
    """The result of a request to cancel a message that is being sent. The values go over the socket `spool.stopping`."""

    CANCELLED = "cancelled"
    """It was stopped before the end of its content, and is cancelled on disk."""
    TOO_LATE = "too late"
    """The mail server may accept it, or it could not be stopped in time: nothing has changed."""
    NOT_SENDING = "not sending"
    """It is not being sent: its state is in the spool, or will be in a moment."""


class Sending(NamedTuple):
    """A message whose content is being sent. octets: how many of `size` have arrived, as an estimate. rate: octets a second,
    over the last seconds. left: the estimated seconds for the rest, None if they cannot be estimated."""

    queue_id: str
    relayhost: str
    octets: int
    size: int
    rate: float = 0.0
    left: float | None = None


def seconds_left(octets: int, size: int, rate: float) -> float | None:
    """Seconds for the rest of a content at this rate; None at less than one octet a second."""
    if octets >= size:
        return 0.0
    return (size - octets) / rate if rate >= 1 else None


def fraction(sending: Sending) -> float:
    """How much of the content has arrived: 0.0 to 1.0."""
    return min(1.0, max(0, sending.octets) / sending.size) if sending.size > 0 else 1.0


def progress_text(sending: Sending) -> str:
    """Octets, rate and time left: "1.2 of 5.0 MB, 130 kB/s, 30 s left"."""
    unit, name = unit_of(sending.size)
    digits = 1 if unit > 1 else 0
    # Rounded down, so that the two numbers are equal only when all octets have arrived.
    done, whole = (
        f"{octets * 10**digits // unit / 10**digits:.{digits}f}" for octets in (sending.octets, sending.size)
    )
    amount = f"{done} of {whole} {name}"
    if sending.octets >= sending.size:
        return f"{amount}, the mail server's reply is awaited"
    text = f"{amount}, {_rate_text(sending.rate)}"
    return text if sending.left is None else f"{text}, {length(sending.left)} left"


def _rate_text(rate: float) -> str:
    """A rate, rounded so that the text does not change too often: "130 kB/s", "1.2 MB/s"."""
    unit, name = unit_of(int(rate))
    value = int(rate) / unit
    return f"{value:.1f} {name}/s" if unit > 1 and value < 10 else f"{int(value)} {name}/s"
