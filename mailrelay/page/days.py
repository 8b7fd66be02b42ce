"""The picture of the last days, as SVG: sent, late and failed mail, and when relayhosts could be reached. Pure.

It is readable without colour: late mail is hatched, and the number of failed mail has a cross; each bar has its numbers.
Horizontal positions are percentages of the width, so that text keeps its size on a phone.
"""

import html
from collections.abc import Sequence
from datetime import datetime

from mailrelay.control.last_days import Day, LastDays, Period
from mailrelay.mail.quantity import length

BARS = 120
"""Pixels of the highest bar."""
_TOP = 26
"""Pixels above the highest bar, for its numbers."""
_BELOW = 34
"""Pixels below the bars, for the names of the days."""
_STRIP = 44
"""Pixels of the strip of a relayhost, with the gap below."""


def day_name(day: Day) -> str:
    """Weekday and day of the month: "Sat 28"."""
    return datetime.fromtimestamp(day.start).astimezone().strftime("%a %d")


def picture(last: LastDays) -> str:
    """The picture as SVG."""
    days = last.days
    highest = max(1, *(day.sent + day.failed for day in days))
    width = 100 / len(days)
    columns = "".join(_column(day, at * width, width, highest) for at, day in enumerate(days))
    base = _TOP + BARS
    names = list(dict.fromkeys(period.relayhost for period in last.periods))
    strips = "".join(
        _strip(name, [one for one in last.periods if one.relayhost == name], days, base + _BELOW + at * _STRIP)
        for at, name in enumerate(names)
    )
    height = base + _BELOW + len(names) * _STRIP
    summary = "; ".join(
        f"{day_name(day)}: {day.sent} sent, {day.late} of them late, {day.failed} failed" for day in days
    )
    label = html.escape(f"The last days: {summary}")
    return (
        f'<svg class="days" role="img" aria-label="{label}" width="100%" height="{height}">'
        f'{_PATTERNS}<line class="axis" x1="0" x2="100%" y1="{base}" y2="{base}"/>{columns}{strips}</svg>'
    )


_PATTERNS = (
    '<defs><pattern id="late" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" class="sent"/><rect width="2.6" height="6" class="paper"/></pattern>'
    '<pattern id="away" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">'
    '<rect width="6" height="6" class="paper"/><rect width="2.6" height="6" class="failed"/></pattern></defs>'
)


def _column(day: Day, left: float, width: float, highest: int) -> str:
    """The bar of a day with its numbers. left, width: per cent. highest: recipients of the day with the most."""
    base = _TOP + BARS
    in_time = day.sent - day.late
    out, y = [], float(base)
    for kind, count in (("sent", in_time), ("late", day.late), ("failed", day.failed)):
        if count:
            height = max(4.0, BARS * count / highest)
            y -= height
            place = f'x="{left + width * 0.2:.2f}%" width="{width * 0.6:.2f}%" y="{y:.1f}" height="{height:.1f}"'
            out.append(f'<rect class="{kind}" {place}/>')
    middle = left + width / 2
    failed = f"{day.failed} ✗" if day.failed else ""
    numbers = " · ".join(filter(None, (str(day.sent) if day.sent else "", failed)))
    out.append(f'<text x="{middle:.2f}%" y="{y - 7:.1f}" text-anchor="middle">{numbers}</text>')
    out.append(f'<text class="faint" x="{middle:.2f}%" y="{base + 18}" text-anchor="middle">{day_name(day)}</text>')
    return "".join(out)


def _strip(name: str, periods: Sequence[Period], days: Sequence[Day], y: int) -> str:
    """When a relayhost was connected and when it could not be reached, below the bars. y: pixels from the top."""
    start, end = days[0].start, days[-1].end
    out = [
        f'<text x="0" y="{y + 10}">{html.escape(name)}<tspan class="faint" dx="8">{_summary(periods)}</tspan></text>',
        f'<line class="axis" x1="0" x2="100%" y1="{y + 26}" y2="{y + 26}"/>',
    ]
    for period in periods:
        left = 100 * (max(start, period.start) - start) / (end - start)
        width = max(0.4, 100 * (period.end - period.start) / (end - start))
        kind, top, height = ("open", y + 21, 10) if period.is_connected else ("away", y + 19, 14)
        out.append(f'<rect class="{kind}" x="{left:.2f}%" width="{width:.2f}%" y="{top}" height="{height}"/>')
    return "".join(out)


def _summary(periods: Sequence[Period]) -> str:
    """How often a relayhost was connected, and for how long it could not be reached."""
    away = sum(period.end - period.start for period in periods if not period.is_connected)
    count = sum(period.is_connected for period in periods)
    times = "once" if count == 1 else f"{count} times"
    return f"connected {times}" + (f"; not reached for {length(away)}" if away >= 1 else "")
