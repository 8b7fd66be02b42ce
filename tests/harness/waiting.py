"""Waits for what announces itself to nobody, and makes events of the calls that a test can see."""

import asyncio
from collections.abc import Callable

import pytest

PATIENCE = 20.0
"""Seconds."""


async def until(holds: Callable[[], object]) -> None:
    """Waits until `holds` returns something true. For what no event shows, such as a file or another thread."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


def called(monkeypatch: pytest.MonkeyPatch, owner: object, *names: str) -> asyncio.Event:
    """An event that is set by the first call of one of these functions or methods."""
    event = asyncio.Event()

    def watch(name: str) -> None:
        real = getattr(owner, name)

        def wrapper(*arguments: object, **keywords: object) -> object:
            event.set()
            return real(*arguments, **keywords)

        monkeypatch.setattr(owner, name, wrapper)

    for name in names:
        watch(name)
    return event
