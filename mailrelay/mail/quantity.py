"""Sizes as text for people. Numbers are rounded down."""

_SIZES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_LENGTHS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def size(octets: int) -> str:
    """`octets` in the largest unit that fits: "1.2 MB"."""
    unit, name = unit_of(octets)
    return f"{octets // (unit // 10) / 10:g} {name}" if unit > 1 else f"{octets} B"


def unit_of(octets: int) -> tuple[int, str]:
    """The largest unit that fits: its octets, and its name."""
    return next(((unit, name) for unit, name in _SIZES if octets >= unit), (1, "B"))


def number_of_messages(count: int) -> str:
    """A number with its noun: "1 message", "5 messages"."""
    return "1 message" if count == 1 else f"{count} messages"


def length(seconds: float) -> str:
    """A length of time in its largest unit: "4 min"."""
    for unit, name in _LENGTHS:
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return "0 s"
