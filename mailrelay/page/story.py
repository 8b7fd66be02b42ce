"""The story of a message: a picture of its time from the arrival to its final state, or to now, as SVG. Pure.

Each span of time is a row: a vertical bar, whose pattern and colour show what happened then, and a label with the same
information. The length of the bar is logarithmic, so that seconds stay visible beside days.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mailrelay.mail.overview import Event, Listed
from mailrelay.mail.quantity import length
from mailrelay.mail.states import FAILED, PENDING, State
from mailrelay.mail.there import There

MAX_ROWS = 14
"""Rows of the picture, at most; if there are more, the earliest ones become one row."""
SHORTEST, LONGEST, PER_DECADE = 34, 130, 18
"""Pixels of a row: at least, at most, and for each factor of ten above a second."""
_DIAL = "dialled, in "
"""The beginning of the event of a dial, with its seconds (`Event.what`)."""


class Activity(StrEnum):
    """What happened in a span of time. The values are classes of the style sheet."""

    WAITING = "waiting"
    DIALLING = "dialling"
    SENDING = "sending"
    HELD = "held"
    THERE = "there"


_LABELS = {
    Activity.WAITING: "waiting",
    Activity.DIALLING: "dialling",
    Activity.SENDING: "sending",
    Activity.HELD: "held",
    Activity.THERE: "at the next server",
}


@dataclass(frozen=True, slots=True)
class Span:
    """A time with one activity. start, end: epoch seconds. is_open: whether it has not ended yet; then `end` is now."""

    activity: Activity
    start: float
    end: float
    is_open: bool = False


def spans(message: Listed, timeline: Sequence[Event], now: float) -> list[Span]:
    """The time of the message in order, without gaps: until now, or until the last event if the state is final."""
    happened = [event for event in timeline if not event.planned]
    if not happened:
        return []
    found: list[Span] = []
    at, activity = happened[0].at, Activity.WAITING
    for event in happened[1:]:
        if event.what.startswith(_DIAL):
            dialled = _seconds(event.what)
            found.append(Span(activity, at, max(at, event.at)))
            found.append(Span(Activity.DIALLING, max(at, event.at), max(at, event.at + dialled)))
            at, activity = max(at, event.at + dialled), Activity.WAITING
        else:
            following = _after(event, activity)
            if following is not activity:
                found.append(Span(activity, at, max(at, event.at)))
                at, activity = max(at, event.at), following
            elif not is_unfinished(message):
                found.append(Span(activity, at, max(at, event.at)))
                at = max(at, event.at)
    if is_unfinished(message):
        found.append(Span(activity, at, max(at, now), is_open=True))
    return _merged(found)


def _after(event: Event, before: Activity) -> Activity:
    """The activity after an event; `before` if the event changes nothing."""
    match event.what:
        case "attempt":
            return Activity.SENDING
        case State.SENT:
            return Activity.THERE
        case State.HELD:
            return Activity.HELD
        case State.DEFERRED | State.QUEUED | State.BOUNCED | State.REFUSED | State.EXPIRED | "interrupted":
            # Also if the message was sent to another recipient already.
            return Activity.WAITING
        case _:
            return before


def is_unfinished(message: Listed) -> bool:
    """Whether a recipient is not in a final state, here or on the relayhost."""
    return any(
        to.state in ("active", State.HELD, *PENDING)
        or (to.there is not None and to.there.state in (There.WAITING, There.DEFERRED))
        for to in message.recipients
    )


def _seconds(what: str) -> float:
    """The seconds of a dial; 0.0 if they cannot be read."""
    try:
        return max(0.0, float(what.removeprefix(_DIAL).removesuffix(" s")))
    except ValueError:
        return 0.0


def _merged(found: Iterable[Span]) -> list[Span]:
    """Leaves out spans of less than 5 ms, and joins neighbours with the same activity."""
    out: list[Span] = []
    for span in found:
        if span.end - span.start < 0.005 and not span.is_open:
            continue
        if out and out[-1].activity is span.activity:
            out[-1] = Span(span.activity, out[-1].start, span.end, span.is_open)
        else:
            out.append(span)
    return out


def end_of(message: Listed) -> tuple[str, str]:
    """The sign of the final state for the end of the picture, and the words for it; "" for both if there is none yet."""
    if is_unfinished(message):
        return "", ""
    states = {to.state for to in message.recipients}
    if states & {*FAILED, State.REFUSED} or any(to.has_bounced_there for to in message.recipients):
        return "✗", "refused or given up"
    if states == {State.CANCELLED}:
        return "–", "replaced" if any(to.successor for to in message.recipients) else "cancelled"
    return "✓", "sent"


def picture(message: Listed, timeline: Sequence[Event], now: float) -> str:
    """The picture as SVG; "" if the timeline is empty."""
    found = spans(message, timeline, now)
    if not timeline:
        return ""
    if len(found) > MAX_ROWS:
        early = found[: len(found) - MAX_ROWS + 1]
        found = [Span(Activity.WAITING, early[0].start, early[-1].end), *found[len(early) :]]
    rows: list[str] = []
    y = 22
    for span in found:
        height = _height(span)
        rows.append(_row(span, y, height, is_first=not rows))
        y += height
    mark, words = end_of(message)
    if mark:
        last = found[-1].end if found else message.arrival
        rows.append(
            f'<g class="end"><text class="mark" x="13" y="{y + 18}" text-anchor="middle">{mark}</text>'
            f'<text x="36" y="{y + 17}">{words}<tspan class="faint" dx="8">{_clock(last, last)}</tspan></text></g>'
        )
        y += 28
    summary = "; ".join(f"{_LABELS[span.activity]} {_length(span)}" for span in found)
    return (
        f'<svg class="story" role="img" aria-label="{html.escape(f"The timeline of the message: {summary}. {words}")}"'
        f' width="100%" height="{y + 6}">{_PATTERNS}'
        f'<circle cx="13" cy="12" r="5" class="dot"/><text x="36" y="16">accepted'
        f'<tspan class="faint" dx="8">{_clock(message.arrival, now)}</tspan></text>{"".join(rows)}</svg>'
    )


_PATTERNS = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" class="back"/><rect width="2.4" height="6" class="ink"/></pattern>'
    '<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect width="6" height="6" class="back"/><circle cx="3" cy="3" r="1.1" class="ink"/></pattern></defs>'
)


def _row(span: Span, y: int, height: int, *, is_first: bool) -> str:
    """A row of the picture. The first one has no time of day: it is that of the arrival."""
    goes_on = " …" if span.is_open else ""
    when = "" if is_first else f'<tspan class="faint" dx="8">{_clock(span.start, span.end)}</tspan>'
    return (
        f'<g class="{span.activity}"><rect x="5" y="{y + 2}" width="16" height="{height - 4}" rx="3"/>'
        f'<text x="36" y="{y + height // 2 + 5}">{_LABELS[span.activity]} {_length(span)}{goes_on}{when}</text></g>'
    )


def _height(span: Span) -> int:
    """Pixels."""
    decades = math.log10(max(1.0, span.end - span.start))
    return min(LONGEST, SHORTEST + round(PER_DECADE * decades))


def _length(span: Span) -> str:
    seconds = span.end - span.start
    if seconds < 0.1:
        return "less than 0.1 s"
    return f"{seconds:.1f} s" if seconds < 10 else length(seconds)


def _clock(at: float, now: float) -> str:
    """A local time of day, with the date if it is not that of `now`."""
    then = datetime.fromtimestamp(at).astimezone()
    is_today = then.date() == datetime.fromtimestamp(now).astimezone().date()
    return then.strftime("%H:%M:%S" if is_today else "%d %b %H:%M:%S")
