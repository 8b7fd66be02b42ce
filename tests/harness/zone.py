"""The DNS as a dictionary, for tests of code that asks through a `LookUp`."""

from collections.abc import Iterable, Mapping, Sequence

from mailrelay.dns.lookup import LookUp, LookUpFailed, Records


def look_up_in(
    zone: Mapping[tuple[str, str], Sequence[str]],
    *,
    broken: Iterable[str] = (),
    secure: bool = False,
    asked: list[tuple[str, str]] | None = None,
) -> LookUp:
    """Answers from `zone`, by name and kind. broken: names that get no answer. asked: where the questions are recorded."""
    failing = set(broken)

    async def look_up(name: str, kind: str) -> Records:
        if asked is not None:
            asked.append((name, kind))
        if name.lower() in failing:
            raise LookUpFailed(f"nobody answers for {name}")
        return Records(tuple(zone.get((name.lower(), kind), ())), secure)

    return look_up
