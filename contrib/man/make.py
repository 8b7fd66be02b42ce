"""Makes the manual pages beside this file from docs/commands.md and docs/settings.md: `python contrib/man/make.py`.

The pages are committed, so that a build from the sdist needs no extra step; tests/unit/test_manual.py fails when a page
differs from what its source gives. Knows only the Markdown that these two documents use: headings, paragraphs, lists of
one level, tables and fenced code. Output is man(7) in ASCII, the same for the same source.
"""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs"
DATE = "2026-11-28"
"""The date in the foot of each page. Fixed, so that a page changes only with its source."""

Sections = dict[str, list[str]]


def sections(markdown: str) -> Sections:
    """The lines below each heading of the second level, by heading, in the order of the document."""
    found: Sections = {}
    lines: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("# ") and not fenced:
            lines = found.setdefault("", [])
        elif line.startswith("## ") and not fenced:
            lines = found.setdefault(line[3:], [])
        else:
            lines.append(line)
    return found


def escaped(text: str) -> str:
    """Text with escapes for roff, in ASCII: other characters are written as their code points."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("~", "\\(ti").replace("^", "\\(ha")
    return "".join(character if character.isascii() else f"\\[u{ord(character):04X}]" for character in text)


def inline(text: str) -> str:
    """One line of Markdown as one line of roff: code and bold are bold, a link is its text."""
    shown = []
    for part in re.split(r"(`[^`]+`)", text):
        if part.startswith("`") and part.endswith("`") and len(part) > 2:
            shown.append(f"\\fB{escaped(part[1:-1])}\\fR")
        else:
            # The text of a link may be code. Then "[" is in the part before the code, and "](target)" in the part after
            # it. So the two ends of a link are removed one by one.
            plain = re.sub(r"\]\([^)]*\)", "", part)
            plain = re.sub(r"(?:^|(?<=[\s(]))\[(?=[A-Za-z])", "", plain) if "](" in text else plain
            shown.append(
                "".join(
                    f"\\fB{escaped(piece)}\\fR" if number % 2 else escaped(piece)
                    for number, piece in enumerate(plain.split("**"))
                )
            )
    line = "".join(shown).strip()
    return f"\\&{line}" if line.startswith(".") else line


def cells(line: str) -> list[str]:
    """The cells of one row of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(rows: list[str]) -> list[str]:
    """A tagged paragraph for each row of a table: the first cell is the tag, the last one the text. Cells between the
    two are written before the text, each after the name of its column."""
    head = cells(rows[0])
    made = []
    for row in rows[2:]:
        first, *middle, last = cells(row)
        made += [".TP", inline(first) or "\\&"]
        facts = [f"{name}: {cell}" for name, cell in zip(head[1:-1], middle, strict=True) if cell]
        if facts:
            made += [inline("; ".join(facts)) + (".\n.br" if last else ".")]
        made.append(inline(last) or "\\&")
    return made


def blocks(lines: list[str]) -> list[str]:
    """The lines of a section as roff."""
    made: list[str] = []
    position = 0
    while position < len(lines):
        line, start = lines[position], position
        if line.startswith("```"):
            position = lines.index("```", position + 1) + 1
            code = [escaped(text) for text in lines[start + 1 : position - 1]]
            made += [".PP", ".nf", *("\\&" + text if text.startswith(".") else text or "\\&" for text in code), ".fi"]
        elif line.startswith("|"):
            while position < len(lines) and lines[position].startswith("|"):
                position += 1
            made += table(lines[start:position])
        elif line.startswith("- "):
            position += 1
            while position < len(lines) and lines[position].startswith("  "):
                position += 1
            made += [".IP \\(bu 2", inline(" ".join(text.strip() for text in lines[start:position])[2:])]
        elif line:
            while position < len(lines) and lines[position] and not lines[position].startswith(("|", "- ", "```")):
                position += 1
            made += [".PP", inline(" ".join(lines[start:position]))]
        else:
            position += 1
    return made


def page(name: str, number: int, purpose: str, synopsis: str, parts: Sections, others: str) -> str:
    """One manual page as roff. number: its section of the manual. purpose: the text of NAME. synopsis: Markdown. parts:
    its sections. others: the pages of SEE ALSO."""
    made = [
        f'.TH "{escaped(name.upper())}" "{number}" "{DATE}" "mailrelay" "mailrelay"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(purpose)}",
        ".SH SYNOPSIS",
        inline(synopsis),
    ]
    for heading, lines in parts.items():
        text = blocks(lines)
        # mandoc warns of a paragraph right after a heading.
        made += [f'.SH "{escaped((heading or "Description").upper())}"', *(text[1:] if text[:1] == [".PP"] else text)]
    return "\n".join([*made, ".SH SEE ALSO", escaped(others)]) + "\n"


def pages() -> dict[str, str]:
    """All manual pages, by file name."""
    commands = sections((DOCS / "commands.md").read_text(encoding="utf-8"))
    settings = sections((DOCS / "settings.md").read_text(encoding="utf-8"))
    queue = {name: lines for name, lines in commands.items() if name.startswith("mailrelay queue")}
    sendmail = {"mailrelay sendmail": commands["mailrelay sendmail"]}
    status = {"Exit status": commands["Exit status"]}
    main = {
        name: lines for name, lines in commands.items() if name not in {*queue, *sendmail, "Completion in your shell"}
    }
    return {
        "mailrelay.1": page(
            "mailrelay", 1, "a local SMTP submission proxy that sends mail through SSH", "`mailrelay` COMMAND [OPTION…]",
            main, "mailrelay-queue(1), mailrelay.toml(5), mailrelay-sendmail(8), ssh(1), ssh_config(5)",
        ),
        "mailrelay-queue.1": page(
            "mailrelay-queue", 1, "list and change the queue of mailrelay", "`mailrelay queue` [COMMAND] [OPTION…] [ID…]",
            {**queue, **status}, "mailrelay(1), mailrelay.toml(5), mailrelay-sendmail(8)",
        ),
        "mailrelay.toml.5": page(
            "mailrelay.toml", 5, "settings of mailrelay", "`~/.config/mailrelay/config.toml`",
            settings, "mailrelay(1), ssh_config(5)",
        ),
        "mailrelay-sendmail.8": page(
            "mailrelay-sendmail", 8, "hand mail to mailrelay as to sendmail", "`mailrelay sendmail` [OPTION…] [ADDRESS…]",
            {**sendmail, **status}, "mailrelay(1), mailrelay-queue(1), sendmail(8)",
        ),
    }  # fmt: skip


if __name__ == "__main__":
    for file, text in pages().items():
        (HERE / file).write_text(text, encoding="ascii")
