"""The README as tests read it: its sections, its tables, and what it says of every failure."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")

FAILURES = "Every way to fail, and how you hear of it"


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def table(title: str) -> list[list[str]]:
    rows = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


@dataclass(frozen=True)
class Row:
    """What the README says of a failure.

    code: of the answer to the client, None where there is none. notices: their kinds, in order. dsn: whether a report goes
    back by mail. status: the exit status of `mailrelay status`.
    """

    code: int | None
    notices: tuple[str, ...]
    dsn: bool
    status: int


def failures() -> dict[str, Row]:
    """The rows of the table of failures, by what fails."""
    found = {}
    for what, hears, you, _soon, status in table(FAILURES):
        code = re.match(r"`(\d{3})`", hears)
        found[what] = Row(
            int(code[1]) if code else None, tuple(re.findall(r"\*\*(\w+)\*\*", you)), "DSN" in you, int(status)
        )
    return found
