"""What all tests share.

Tests that are coroutines run on asyncio's own event loop, or on those that their mark names (tests/harness/loops.py).

Hypothesis without deadlines, because how fast a machine is today is no property of this program, and with the same
examples in each run, because a failure must come from a change. `pytest --hypothesis-profile search` makes new ones. And
names of tests that stay the same from run to run: keys that are made anew each time are not part of them.

SQLite returns the rows of a query without ORDER BY in the opposite order: no test passes by the order in which they lie.
"""

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import apsw
import pytest
import uvloop
from hypothesis import settings

# Before the first import of it: failed assertions of helpers are explained as those of tests are.
pytest.register_assert_rewrite("harness")

settings.register_profile("mailrelay", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, derandomize=False)
settings.load_profile("mailrelay")

apsw.connection_hooks.append(lambda db: db.pragma("reverse_unordered_selects", True))


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Commands set the umask of their process; here they run in that of the tests."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    return argname if isinstance(val, str) and "AAAA" in val else None


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops of a test: every one that there is where its mark chooses among them."""
    mark = item.get_closest_marker("asyncio")
    factories = {"asyncio": asyncio.new_event_loop}
    return factories | {"uvloop": uvloop.new_event_loop} if mark and mark.kwargs else factories


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = bounded(item.obj)


def bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Ends a coroutine test after a minute, where it waits. The alarm of pytest-timeout does not interrupt uvloop's loop."""

    @functools.wraps(test)
    async def run(*arguments: object, **fixtures: object) -> None:
        async with asyncio.timeout(60):
            await test(*arguments, **fixtures)

    return run
