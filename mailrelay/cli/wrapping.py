"""Wraps a line of text by words at a width in columns. Pure.

    wrap(text, width)    the lines of a text
    cells(text)          the columns that a terminal needs for a text
    hanging(text)        the column at which the further lines of a text begin

Promises: lines are broken at spaces only, never at a hyphen or inside an address, a path or a fingerprint. A command that a
person may copy stays on one line if it fits on one: a text in quotes, and a command behind a colon, an arrow or a
parenthesis. A line is wider than the width only if it is one word. The words of the lines are the words of the text, in
order.
"""

import re

# Not compiled here: every command loads this file, and re compiles them when they are first used.
_COLOUR_CODE = r"\x1b\[[0-9;]*m"
_PROGRAMS = (
    "(?:[A-Z_]+=[^ ]+ )?"
    "(?:mailrelay|ssh|ssh-add|ssh-agent|ssh-copy-id|ssh-keygen|systemctl|launchctl|loginctl|kill|rm|mv|chmod|pip|sudo)"
)
_WORD = (
    rf"(?:(?:(?<=: )|(?<=→ )|(?<=> )|(?<=\())(?:{_PROGRAMS}) .*?(?=;|\)|\. |\.?$)"
    rf"|(?<=  )(?:{_PROGRAMS}) (?! )(?:[^ ]| (?! ))+"
    r"|(?<![^ (\[])'[^']*'(?![^ ,.;:)\]])"
    r'|(?<![^ (\[])"[^"]*"(?![^ ,.;:)\]])'
    r"|`[^`]*`"
    r"|[^ ])+"
)
"""A word, or several that belong together: a command, a text in quotes, and what stands directly before or after it."""
_PLAIN_WORD = r"[^ ]+"
_SIGN = r" *(?:(?:✓|✗|–|→|->|ok|NO|--) +)?"
_LABEL = r"\S+(?: \S+){0,2} {2,}"

DEFAULT_HANG = 2
"""The column of further lines where the text has no indent, sign or label."""
MAX_LABEL = 28
"""Columns up to which the beginning of a line can be a label."""
MIN_TEXT = 25
"""Columns that a hanging indent leaves for the text, at least; with fewer, the indent is `NARROW_HANG`."""
NARROW_HANG = 4


def wrap(text: str, width: int, hang: int | None = None) -> list[str]:
    """The lines of `text`, at least one. A text that fits is returned as it is.

    width: in columns; 0 or less: the text is not wrapped. hang: the column at which all lines but the first begin, without
    it `hanging(text)`; it is made smaller where the lines would be too narrow for the text, or for a word.
    """
    if width <= 0 or cells(text) <= width:
        return [text]
    hang = hanging(text) if hang is None else hang
    if width - hang < MIN_TEXT:
        indent = len(text) - len(text.lstrip(" "))
        hang = min(hang, max(NARROW_HANG, indent), width // 2)
    lines: list[str] = []
    line = ""
    for gap, word in _pieces(text, width):
        size = cells(word)
        if not line:
            line = " " * min(gap, max(0, width - size)) + word
        elif cells(line) + gap + size <= width:
            line += " " * gap + word
        else:
            lines.append(line)
            line = " " * max(0, min(hang, width - size)) + word
    return [*lines, line]


def cells(text: str) -> int:
    """The columns that a terminal needs for printable text; codes for colours need none."""
    if "\x1b" in text:
        text = re.sub(_COLOUR_CODE, "", text)
    return len(text) if text.isascii() else _wide_cells(text)


def hanging(text: str) -> int:
    """The column at which the further lines of a text begin: below the text that follows its indent, a sign of a result, and
    a label that ends in two spaces or more."""
    bare = re.sub(_COLOUR_CODE, "", text)
    sign = re.match(_SIGN, bare)
    at = sign.end() if sign else 0
    label = re.match(_LABEL, bare[at:])
    if label and cells(bare[: at + label.end()]) <= MAX_LABEL:
        at += label.end()
    return cells(bare[:at]) or DEFAULT_HANG


def _pieces(text: str, width: int) -> list[tuple[int, str]]:
    """The words of a text, with the number of spaces before each. Words that belong together are one piece if they fit."""
    found = []
    at = 0
    for match in re.finditer(_WORD, text):
        whole = match.group().rstrip(" ")
        parts = (
            [(0, whole)] if cells(whole) <= width else [(m.start(), m.group()) for m in re.finditer(_PLAIN_WORD, whole)]
        )
        for offset, part in parts:
            start = match.start() + offset
            found.append((start - at, part))
            at = start + len(part)
    return found


def _wide_cells(text: str) -> int:
    # Imported here: few texts need the tables of Unicode.
    from unicodedata import category, east_asian_width  # noqa: PLC0415

    def columns(char: str) -> int:
        if char == "\ufe0f":
            # It makes the emoji before it two columns wide.
            return 1
        # Vowels and final consonants of Hangul are drawn into the syllable before them.
        if category(char) in ("Mn", "Me", "Cf") or "\u1160" <= char <= "\u11ff":
            return 0
        return 2 if east_asian_width(char) in "WF" else 1

    return sum(map(columns, text))
