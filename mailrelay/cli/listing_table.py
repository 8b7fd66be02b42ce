"""Prints rows as a table on a terminal. Loaded late: rich takes longer to load than the listing takes.

Promises: nothing is cut off. On a narrow terminal each row has lines of its own.
Never: markup in text from outside. Cells are plain text.
"""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mailrelay.cli.rows import HEADINGS, Row

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
_WHOLE = ("ID", "STATE", "ARRIVED", "NEXT", "SIZE")
TABLE_WIDTH = 100
"""Characters of a terminal's width below which there is no table: its columns would be too narrow to read."""


def print_table(rows: Iterable[Row]) -> None:
    """Prints the rows in the terminal's width and colours (no colours with NO_COLOR)."""
    console = Console()
    styled = ([Text(cell, _STYLES.get(cell, "") if at == 1 else "") for at, cell in enumerate(row)] for row in rows)
    if console.width < TABLE_WIDTH:
        for cells in styled:
            console.print(_stacked(cells))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=heading in _WHOLE, overflow="fold")
    for cells in styled:
        table.add_row(*cells)
    console.print(table)


def _stacked(cells: Sequence[Text]) -> Group:
    short = len(_WHOLE)
    sender, to, why = cells[short:]
    below = [Text.assemble("from ", sender), Text.assemble("to ", to), *([why] if why else [])]
    return Group(
        Text("  ").join(cell for cell in cells[:short] if cell.plain != "-"),
        *(Padding(line, (0, 0, 0, 2)) for line in below),
    )
