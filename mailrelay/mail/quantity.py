"""Quantities as people read them. Numbers are rounded down: nothing seems larger than it is."""

_SIZES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def size(octets: int) -> str:
    """Octets in their largest unit: "1.2 MB"."""
    for unit, name in _SIZES:
        if octets >= unit:
            return f"{octets // (unit // 10) / 10:g} {name}"
    return f"{octets} B"
