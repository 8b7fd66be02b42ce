"""What the daemon loads only where and when it is needed: its one lazy place, as the table of commands is that of `cli`.

SSH alone is a third of the memory of a daemon that has loaded it, and most of the time a daemon only waits. So whoever needs
such a library has a module that imports it as every module imports, and that module is named here by its own room.

Promises: the loop goes on while `load` loads. What fails to load is tried again the next time.
Never: another room's module: who may import whom is checked on imports, and these are none.
"""

import asyncio
import importlib
from typing import Any


def load_now(name: str) -> Any:
    """The module with this full name, for a start-up that cannot go on without it. Raises what its imports raise."""
    return importlib.import_module(name)


async def load(name: str) -> Any:
    """The same, on a thread of its own: the first time takes as long as the imports do, up to half a second."""
    return await asyncio.to_thread(load_now, name)
