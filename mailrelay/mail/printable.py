"""Makes text from outside fit to be shown: in a terminal, a log line, JSON, a notification.

Promises: the result holds no control character (C0, C1, DEL, and so no ESC and no line end), no format control (bidi
overrides, zero-width spaces, tags), no line or paragraph separator, no lone surrogate; it encodes as UTF-8. What was
there is seen as an escape, `\\x1b` or `\\u202e`. Text that is fit to be shown comes back as it was, so that a second
pass changes nothing: the result is to be read by people, not to be decoded.

Never: to say anything of markup. A backend that has one (`<`, `>`, `&`) escapes that by itself.
"""

_JOINERS = "\u200c\u200d"
"""Format controls without which Persian, Hindi and many emoji fall apart; they move nothing on a screen."""


def printable(text: bytes | str, limit: int | None = None) -> str:
    """`text` with everything escaped that could act on whatever shows it; bytes are read as UTF-8, other octets are
    escaped. limit: characters of the result at most, at least 1; what is cut off leaves an ellipsis."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    shown = text if text.isprintable() else _escaped(text)
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1] + "…"


def _escaped(text: str) -> str:
    # Late: every command loads this file, and hardly one meets a text that needs the tables of Unicode.
    import unicodedata  # noqa: PLC0415

    return "".join(_visible(char, unicodedata.category(char)) for char in text)


def _visible(char: str, category: str) -> str:
    if (category[0] == "C" and char not in _JOINERS) or category in ("Zl", "Zp"):
        code = ord(char)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char
