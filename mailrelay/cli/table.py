"""Rows as a table on a terminal. Loaded only when there is one: rich takes longer to load than the listing to make.

Promises: nothing is cut off. Where the columns have no room, each row stands on lines of its own.
Never: markup in what comes from outside. Cells are text, whatever they look like.
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
ROOMY = 100
"""Characters of width from which on addresses and reasons have columns in which they can be read."""


def show(rows: Iterable[Row]) -> None:
    """Prints the rows, in the width and the colours that the terminal has (NO_COLOR is heeded)."""
    console = Console()
    styled = ([Text(cell, _STYLES.get(cell, "") if at == 1 else "") for at, cell in enumerate(row)] for row in rows)
    if console.width < ROOMY:
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
