"""The rows of a listing in the width of a terminal: as a table, or each row on lines of its own.

Promises: nothing is cut off, and no word is broken: an address can be copied from the listing. There is a table only where
the terminal is wide enough for it.
"""

import sys
from collections.abc import Iterator, Sequence

from mailrelay.cli.rows import HEADINGS, Row
from mailrelay.cli.terminal import colour, line_width, wrapped
from mailrelay.cli.wrapping import cells, wrap

_STYLES = {
    "active": "cyan",
    "deferred": "yellow",
    "held": "magenta",
    "sent": "green",
    "bounced": "bold red",
    "refused": "red",
    "expired": "bold red",
    "cancelled": "dim",
}
_STATE, _FROM = HEADINGS.index("STATE"), HEADINGS.index("FROM")
TABLE_WIDTH = 100
"""Columns of a terminal's width below which there is no table."""
MIN_WHY = 20
"""Columns for the last column of a table, at least."""


def row_lines(rows: Sequence[Row]) -> list[str]:
    """The rows in the width of stdout, on a terminal in colours (none with NO_COLOR)."""
    widths = _column_widths(rows, line_width(sys.stdout))
    if widths is None:
        return [part for row in rows for line in _stacked(row) for part in wrapped(line, sys.stdout, 4)]
    heading = "  ".join(map(_padded, HEADINGS, widths))
    lines = [
        colour(heading.rstrip(), "bold", sys.stdout),
        *(line for row in rows for line in _table_lines(row, widths)),
    ]
    return [part for line in lines for part in wrapped(line, sys.stdout)]


def _column_widths(rows: Sequence[Row], width: int) -> list[int] | None:
    """The widths of the columns of a table that is `width` columns wide; None if the rows do not fit into one."""
    *widths, last = (max(map(cells, column)) for column in zip(HEADINGS, *rows, strict=True))
    left = width - sum(widths) - 2 * len(widths)
    longest = max(cells(word) for row in rows for word in row[-1].split(" "))
    return [*widths, min(left, last)] if width >= TABLE_WIDTH and left >= max(MIN_WHY, longest) else None


def _table_lines(row: Row, widths: Sequence[int]) -> Iterator[str]:
    first, *further = wrap(row[-1], widths[-1], 0)
    shown = list(map(_padded, row, widths))
    shown[_STATE] = _coloured_state(row, shown[_STATE])
    yield "  ".join((*shown[:-1], first)).rstrip()
    below = " " * (sum(widths[:-1]) + 2 * len(widths[:-1]))
    yield from (f"{below}{line}" for line in further)


def _stacked(row: Row) -> Iterator[str]:
    sender, to, why = row[_FROM:]
    shown = list(row[:_FROM])
    shown[_STATE] = _coloured_state(row, shown[_STATE])
    yield "  ".join(cell for cell in shown if cell != "-")
    yield f"  from {sender}"
    yield f"  to {to}"
    if why:
        yield f"  {why}"


def _coloured_state(row: Row, shown: str) -> str:
    style = _STYLES.get(row[_STATE])
    return colour(shown, style, sys.stdout) if style else shown


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cells(cell))
