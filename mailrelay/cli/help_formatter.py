"""Formats the text of --help, wrapped as all other text is: click's own formatter needs 50 columns and breaks words."""

import sys
from collections.abc import Iterable

import click

from mailrelay.cli.terminal import line_width
from mailrelay.cli.wrapping import MIN_TEXT, NARROW_HANG, cells, wrap

MAX_WIDTH = 80
"""Columns of a help text, at most: longer lines are hard to read."""


class HelpFormatter(click.HelpFormatter):
    """Help in the width of the terminal (COLUMNS, if it is set), `MAX_WIDTH` at most."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        found = width or min(line_width(sys.stdout) or MAX_WIDTH, max_width or MAX_WIDTH)
        super().__init__(indent_increment, found, max_width)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        start = f"{'Usage: ' if prefix is None else prefix}{prog} "
        self._write_wrapped(f"{start}{args}".rstrip(), len(start))

    def write_text(self, text: str) -> None:
        for at, paragraph in enumerate(text.split("\n\n")):
            if at:
                self.write_paragraph()
            self._write_wrapped(" ".join(paragraph.split()), 0)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        rows = list(rows)
        column = min(max(cells(first) for first, _ in rows), col_max) + col_spacing
        for first, second in rows:
            if not second:
                self._write_wrapped(first, NARROW_HANG)
            elif cells(first) + col_spacing <= column and self.width - self.current_indent - column >= MIN_TEXT:
                self._write_wrapped(f"{first}{' ' * (column - cells(first))}{second}", column)
            else:
                self._write_wrapped(first, NARROW_HANG)
                self._write_wrapped(f"{' ' * NARROW_HANG}{second}", NARROW_HANG)

    def _write_wrapped(self, text: str, hang: int) -> None:
        """hang: as in `wrap`, counted from the present indent."""
        lines = wrap(" " * self.current_indent + text, self.width, self.current_indent + hang)
        self.write("\n".join((*lines, "")))
