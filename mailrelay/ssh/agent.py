"""The person's SSH agent, as one login uses it.

    agent = Agent(path)
    pairs = await agent.keys()        # [] if it has none or does not answer; `agent.state` says which
    agent.close()

Promises: an agent that does not answer costs AGENT_TIMEOUT seconds once, to connect, to list its keys or to sign. A
signature may need the person (a confirmation, a touch): where no other key is left to try, CONFIRM_TIMEOUT seconds.
No signature is asked for twice.
"""

import asyncio
import contextlib
import enum
from collections.abc import Collection

import asyncssh

AGENT_TIMEOUT = 2.0
"""Seconds for an agent to answer."""
CONFIRM_TIMEOUT = 30.0
"""Seconds for the person to confirm the use of the last key that is left."""


class AgentState(enum.Enum):
    """What is known of the agent."""

    NOT_ASKED = "not asked"
    """No agent is configured, or no key of it was needed."""
    ABSENT = "does not answer"
    """Nothing listens on its socket, or the program there is not an agent."""
    SILENT = "accepts connections and does not answer"
    ANSWERED = "answered"


class Agent(asyncssh.SSHAgentClient):
    """The agent at a socket. long_wait: the public data of keys for which a signature may take CONFIRM_TIMEOUT seconds.

    refused: keys with which it refused to sign. pending: keys with which it has not signed yet.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.state = AgentState.NOT_ASKED
        self.long_wait: Collection[bytes] = ()
        self.refused: set[bytes] = set()
        self._pending: dict[tuple[bytes, bytes], asyncio.Task[bytes]] = {}
        self._given_up: set[bytes] = set()

    @property
    def pending(self) -> set[bytes]:
        return {key_blob for key_blob, _ in self._pending}

    async def keys(self) -> list[asyncssh.SSHKeyPair]:
        """Its keys. Never raises; sets `state`."""
        try:
            async with asyncio.timeout(AGENT_TIMEOUT):
                found = list(await self.get_keys())
        except TimeoutError:
            self.state = AgentState.SILENT
        except (OSError, ValueError):
            self.state = AgentState.ABSENT
        else:
            self.state = AgentState.ANSWERED
            return found
        return []

    async def sign(self, key_blob: bytes, data: bytes, flags: int = 0) -> bytes:
        """Signs `data` with a key. Raises ValueError if the agent refuses, or does not answer in time."""
        request = (key_blob, data)
        # A refused request is not repeated; while a request is open, no other one is sent.
        if key_blob in self.refused | self._given_up or (self._pending and request not in self._pending):
            raise ValueError("the agent has not signed")
        is_long_wait = key_blob in self.long_wait
        task = self._pending.get(request)
        if task is None:
            task = self._pending[request] = asyncio.create_task(super().sign(key_blob, data, flags))
        await asyncio.wait([task], timeout=CONFIRM_TIMEOUT if is_long_wait else AGENT_TIMEOUT)
        if not task.done():
            self.state = AgentState.SILENT
            if is_long_wait:
                self._given_up.add(key_blob)
            raise ValueError("the agent has not signed yet")
        self.state = AgentState.ANSWERED
        del self._pending[request]
        try:
            return task.result()
        except ValueError:
            self.refused.add(key_blob)
            raise

    def close(self) -> None:
        """Closes the connection to the agent, and gives up what it has not signed."""
        for task in self._pending.values():
            task.cancel()
            task.add_done_callback(_forget)
        super().close()


def _forget(task: asyncio.Task[bytes]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
