"""Rows as a table on a terminal. Loaded only when there is one: rich takes longer to load than the listing to make.

Never: markup in what comes from outside. Cells are text, whatever they look like.
"""

from collections.abc import Iterable

from rich import box
from rich.console import Console
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


def show(rows: Iterable[Row]) -> None:
    """Prints the rows, in the width and the colours that the terminal has (NO_COLOR is heeded)."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=heading in _WHOLE, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, _STYLES.get(cell, "") if at == 1 else "") for at, cell in enumerate(row)))
    Console().print(table)
