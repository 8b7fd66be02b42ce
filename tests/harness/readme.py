"""The documentation for tests: its pages, their sections and tables, and the rows of its table of failures."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *DOCS,
    *sorted((ROOT / "contrib").rglob("*.md")),
)
"""Every page that is written for people."""

FAILURES = "Every way to fail, and how you hear of it"


def page(name: str) -> str:
    """The text of a page in docs, by its name without ".md"."""
    return (ROOT / "docs" / f"{name}.md").read_text("utf-8")


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next heading that is not below it; "" if there is no such heading."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^(?!\1#)#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[2] if found else ""


def code(text: str, language: str) -> str:
    """The only block of code in a language of a text."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a text: rows of cells, the row of headings first."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    rows = ([[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()] for block in blocks)
    return [[headings, *cells] for headings, _rule, *cells in rows]


def table(text: str, heading: str = "") -> list[list[str]]:
    """The rows of the first table of a text, or of the first one whose first heading is `heading`."""
    return next(rows for headings, *rows in tables(text) if not heading or headings[0] == heading)


def slug(title: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def headings(text: str) -> list[str]:
    """The headings of a page, without those that only look like one, in code."""
    return re.findall(r"^#+ (.*)$", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """What docs/failures.md says of a failure.

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
    for what, hears, you, _soon, status in table(section(page("failures"), FAILURES)):
        code = re.match(r"`(\d{3})`", hears)
        found[what] = Row(
            int(code[1]) if code else None, tuple(re.findall(r"\*\*(\w+)\*\*", you)), "DSN" in you, int(status)
        )
    return found


STAGE_BY_STAGE = "Stage by stage"


@dataclass(frozen=True)
class Result:
    """What docs/failures.md says of a result of an attempt.

    scope, disposition: of the outcome. state: of the recipient. attempts: how many are counted. code: the first digit of
    the reply to the client. is_tried_again: by the retry schedule. notices: their kinds, in order. status: the exit status
    of `mailrelay status`.
    """

    scope: str
    disposition: str
    state: str
    attempts: int
    code: str
    is_tried_again: bool
    notices: tuple[str, ...]
    status: int


def results() -> dict[str, Result]:
    """The results of the section "Stage by stage", by name."""
    rows = table(section(page("failures"), STAGE_BY_STAGE), "result")
    return {
        name.partition(":")[0]: Result(
            scope,
            disposition,
            state.partition(";")[0],
            int(attempts),
            reply.strip("`")[0],
            next_try != "–",
            tuple(re.findall(r"\*\*(\w+)\*\*", notice)),
            int(status),
        )
        for name, scope, disposition, state, attempts, reply, next_try, notice, status in rows
    }


def stage_by_stage() -> dict[tuple[str, str], str]:
    """The name of the result by the stage and by what the mail server does there."""
    (_, *ways), *rows = next(
        found for found in tables(section(page("failures"), STAGE_BY_STAGE)) if found[0][0] == "stage"
    )
    return {(stage, way): cell for stage, *cells in rows for way, cell in zip(ways, cells, strict=True)}
