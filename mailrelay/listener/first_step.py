"""Runs a coroutine without a task for as long as it does not wait.

A task costs more than most SMTP commands, and most commands never wait.
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import suppress
from types import coroutine
from typing import Any

Steps = Coroutine[Any, Any, None]


def run_first_step(steps: Steps) -> Steps | None:
    """Run `steps` until it waits. Returns the rest, to be run as a task; None if it has ended. Raises what it raises."""
    try:
        waits_for = steps.send(None)
    except StopIteration:
        return None
    return _rest(steps, waits_for)


async def _rest(steps: Steps, waits_for: Any) -> None:
    await _resumed(steps, waits_for)


@coroutine
def _resumed(steps: Steps, waits_for: Any) -> Generator[Any, Any, None]:
    # `steps` reads the result of `waits_for` itself.
    with suppress(Exception, asyncio.CancelledError):
        yield waits_for
    yield from steps
