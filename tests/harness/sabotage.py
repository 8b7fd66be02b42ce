"""Defects for a daemon of `harness.fork_server`: each breaks one promise, and the tests that judge daemons must notice.

Each function changes the program inside the process that calls it, before that runs. Call it nowhere else.
"""

import asyncio

from mailrelay import daemon
from mailrelay.intake import Intake
from mailrelay.mail.client_reply import ClientReply
from mailrelay.mail.outcome import Reply
from mailrelay.mail.record import Arrival
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.notify import command

QUEUED = ClientReply(Reply(250, (b"2.0.0 queued",)))


def answers_before_the_commit() -> None:
    """Clients get their 250 while the message is still being written."""
    take_over = Intake.take_over
    writing = set()

    async def write(self: Intake, arrival: Arrival) -> None:
        await asyncio.sleep(0.02)
        await take_over(self, arrival)

    async def answer(self: Intake, arrival: Arrival) -> ClientReply:
        writing.add(asyncio.ensure_future(write(self, arrival)))
        return QUEUED

    Intake.take_over = answer  # type: ignore[method-assign]


def answers_250_to_errors() -> None:
    """Clients get a 250 although the message could not be written."""
    take_over = Intake.take_over

    async def answer(self: Intake, arrival: Arrival) -> ClientReply:
        reply = await take_over(self, arrival)
        return QUEUED if reply.reply.code // 100 == 4 else reply

    Intake.take_over = answer  # type: ignore[method-assign]


def goes_on_with_a_broken_spool() -> None:
    """The daemon only ends when it is told to: it refuses mail, sends none, and serves."""
    until_stopped = daemon._until_stopped

    async def wait(spool: object, stopped: asyncio.Event) -> None:
        class Whole:
            broken: asyncio.Future[SpoolError] = asyncio.get_running_loop().create_future()

        await until_stopped(Whole, stopped)  # type: ignore[arg-type]

    daemon._until_stopped = wait  # type: ignore[assignment]


def tells_nobody() -> None:
    """The command of the settings is not run for notices about the spool, and nobody notices."""
    run = command._run

    async def tell(argv: object, stdin: bytes) -> None:
        if b'"kind": "spool"' not in stdin:
            await run(argv, stdin)  # type: ignore[arg-type]

    command._run = tell  # type: ignore[assignment]
