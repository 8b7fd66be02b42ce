"""Escapes text from outside, so that it can be shown in a terminal, a log line, JSON or a notification.

Promises: the result holds no control character (C0, C1, DEL, and so no ESC and no line end), no format control (bidi
overrides, zero-width spaces, tags), no line or paragraph separator, no lone surrogate. It can be encoded as UTF-8. Escapes
look like `\\x1b` or `\\u202e`. Printable text is returned unchanged, so a second call changes nothing. The result is for
people; it cannot be decoded.

Never: to escape markup. A backend with markup (`<`, `>`, `&`) escapes it itself.
"""

_JOINERS = "\u200c\u200d"
"""Format controls that Persian, Hindi and many emoji need. They do not move other text on a screen."""


def printable(text: bytes | str, limit: int | None = None) -> str:
    """`text` with all characters escaped that could affect its display.

    Bytes are decoded as UTF-8; octets that are not are escaped. limit: characters of the result at most, at least 1. A
    truncated result ends with an ellipsis.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    shown = text if text.isprintable() else _escaped(text)
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1] + "…"


def _escaped(text: str) -> str:
    # Imported here: every command loads this file, and few need the tables of Unicode.
    import unicodedata  # noqa: PLC0415

    return "".join(_visible(char, unicodedata.category(char)) for char in text)


def _visible(char: str, category: str) -> str:
    if (category[0] == "C" and char not in _JOINERS) or category in ("Zl", "Zp"):
        code = ord(char)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char
