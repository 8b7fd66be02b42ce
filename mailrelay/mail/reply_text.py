"""A reply of the mail server as one line for a person.

Pure. Promises: the text is escaped (`mail.printable`). Only repeated codes are left out: servers begin each line of a reply
with its enhanced code, and a server that passes on the reply of another one repeats both codes.
"""

from mailrelay.mail.printable import printable


def reply_text(description: bytes | str, limit: int | None = None) -> str:
    """A reply, the lines joined by spaces, without repeated codes; or our own text as it is. Escaped.

    limit: as for `printable`.
    """
    code, *words = printable(description).split(" ")
    if not _is_number(code, 3) or code[0] not in "2345":
        return printable(description, limit)
    while words[:1] == [code]:
        del words[0]
    if words and _is_enhanced(words[0]):
        words = _without_repeated(code, words)
    return printable(" ".join((code, *words)), limit)


def names_status(reply: str, status: str) -> bool:
    """Whether `reply`, from `reply_text`, holds this enhanced status code: then it need not be shown beside the reply."""
    return status in reply.split(" ")


def _is_enhanced(word: str) -> bool:
    """Whether `word` is an enhanced status code (RFC 3463). Without a regular expression: compiling one would slow down
    `mailrelay status` in shell prompts and status bars."""
    parts = word.split(".")
    return len(parts) == 3 and parts[0] in ("2", "4", "5") and all(_is_number(part, len(part)) for part in parts)


def _is_number(word: str, digits: int) -> bool:
    return len(word) == digits and word.isascii() and word.isdigit()


def _without_repeated(code: str, words: list[str]) -> list[str]:
    """`words`, which begin with an enhanced code, without its further occurrences. `code` right before one is left out,
    too."""
    enhanced = words[0]
    kept = [enhanced]
    for word in words[1:]:
        if word not in (enhanced, f"{code}-{enhanced}"):
            kept.append(word)
        elif kept[-1] == code:
            kept.pop()
    return kept
