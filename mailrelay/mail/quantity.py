"""Sizes as text for people. Numbers are rounded down."""

_SIZES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_LENGTHS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def size(octets: int) -> str:
    """`octets` in the largest unit that fits: "1.2 MB"."""
    for unit, name in _SIZES:
        if octets >= unit:
            return f"{octets // (unit // 10) / 10:g} {name}"
    return f"{octets} B"


def length(seconds: float) -> str:
    """A length of time in its largest unit: "4 min"."""
    for unit, name in _LENGTHS:
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return "0 s"
