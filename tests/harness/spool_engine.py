"""An open spool behind its ports (`mailrelay.ports`), for tests of what every engine promises."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mailrelay.mail.envelope import Message
from mailrelay.mail.notice import PendingNotice
from mailrelay.mail.overview import Listed, SpoolStatus
from mailrelay.ports import AcceptPort, CommandPort, FollowPort, HousekeepingPort, NoticePort, RelayhostPort, RelayPort
from mailrelay.spool import command_spool, lock
from mailrelay.spool.database import prepare_directory
from mailrelay.spool.spool import Spool

R = TypeVar("R")

LIMIT = 1_000_000_000


class Ports(AcceptPort, RelayPort, FollowPort, RelayhostPort, NoticePort, HousekeepingPort, Protocol):
    """All that the daemon uses of an engine."""

    def close(self) -> None: ...


class Kind(Protocol):
    """One kind of engine: what to open. The clock gives epoch seconds; max_size is in octets."""

    def serving(self, directory: Path) -> AbstractContextManager[None]:
        """As if a daemon ran: commands must not clear up after it."""
        ...

    async def spool(self, directory: Path, max_size: int, now: Callable[[], float]) -> Ports: ...
    def commands(self, directory: Path, max_size: int, now: Callable[[], float]) -> CommandPort: ...


class SQLite:
    """The engine of `mailrelay.spool`."""

    @contextmanager
    def serving(self, directory: Path) -> Iterator[None]:
        prepare_directory(directory)
        with lock.lock(directory):
            yield

    async def spool(self, directory: Path, max_size: int, now: Callable[[], float]) -> Ports:
        return Spool(directory, max_size, lambda _relayhost: None, now)

    def commands(self, directory: Path, max_size: int, now: Callable[[], float]) -> CommandPort:
        return command_spool.CommandSpool(directory, max_size, now)


class Engine:
    """An engine that a daemon has open, on a clock that stands still until the test sets `now`.

    spool: the ports of the daemon. commands: that of commands. taken: the messages that were taken, by their keys.
    """

    spool: Ports
    commands: CommandPort

    def __init__(self, kind: Kind, directory: Path, now: float) -> None:
        self.now = now
        self.directory = directory
        self.taken: dict[int, Message] = {}
        self._kind = kind
        self._runner = asyncio.Runner()
        self._served: AbstractContextManager[None] | None = None
        self.start()

    def start(self, max_size: int = LIMIT) -> None:
        """Starts a daemon: another node, as each time."""
        self._served = self._kind.serving(self.directory)
        self._served.__enter__()
        self.spool = self.another(max_size)
        self.commands = self._kind.commands(self.directory, max_size, lambda: self.now)

    def another(self, max_size: int = LIMIT) -> Ports:
        """The spool as another node has it open. The test closes it."""
        return self.do(self._kind.spool(self.directory, max_size, lambda: self.now))

    def stop(self) -> None:
        """Ends the daemon, and leaves open what is open, as a crash does."""
        if self._served is not None:
            self.spool.close()
            self._served.__exit__(None, None, None)
            self._served = None

    def restart(self, max_size: int = LIMIT) -> None:
        self.stop()
        self.start(max_size)

    def close(self) -> None:
        self.stop()
        self._runner.close()

    def do(self, work: Coroutine[Any, Any, R]) -> R:
        """Runs one call of a port to its end."""
        return self._runner.run(work)

    # What many tests do.

    def take(self, *first: int, limit: int = 100, more: int = 0, relayhost: str = "default") -> list[int]:
        """Opens attempts; the keys of their messages."""
        found = self.do(self.spool.take(relayhost, first, limit, more))
        self.taken |= {message.id: message for message in found}
        return [message.id for message in found]

    def pending(self) -> list[PendingNotice]:
        return self.do(self.spool.pending_notices())

    def live(self) -> list[Listed]:
        with self.commands.reading() as view:
            return list(view.live())

    def everything(self) -> list[Listed]:
        with self.commands.reading() as view:
            return list(view.everything())

    def one(self, key: int) -> Listed:
        with self.commands.reading() as view:
            return view.one(key)

    def states(self, key: int) -> list[str]:
        return [to.state for to in self.one(key).recipients]

    def content(self, key: int) -> bytes:
        with self.commands.reading() as view:
            return b"".join(view.content(key))

    def status(self) -> SpoolStatus:
        with self.commands.reading() as view:
            return view.status()
