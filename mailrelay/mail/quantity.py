"""Sizes as text for people. Numbers are rounded down."""

_SIZES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def size(octets: int) -> str:
    """`octets` in the largest unit that fits: "1.2 MB"."""
    for unit, name in _SIZES:
        if octets >= unit:
            return f"{octets // (unit // 10) / 10:g} {name}"
    return f"{octets} B"
