"""Runs `mailrelay` commands as forks of one process that has imported everything: a daemon is there in milliseconds.

`ForkServer` is the end of the test. This file run as a program is the server. It reads orders on stdin, one JSON object a
line (`Order`). It reports on stdout `{"job", "pid"}` when a command runs, and `{"job", "status"}` when it has ended, with
its exit status, negative for a signal.

Promises: each command is a process of its own, with the environment, directory and output that the order names; the server
itself opens no spool and has no thread. Linux only.
"""

import asyncio
import ctypes
import gc
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mailrelay.spool import writer

CHECKPOINT = 120
"""Pages of the spool's log after which it is copied into the file: a short story has checkpoints, and its log begins
again and again."""


@dataclass(frozen=True, slots=True)
class Order:
    """One command. words: behind `mailrelay`. output: a file for stdout and stderr. arm: the arguments of
    `failing_disk_arm`, none to leave the disk alone. sabotage: a name in `harness.sabotage`, "" for the real program."""

    job: int
    words: Sequence[str]
    directory: str
    output: str
    environment: Mapping[str, str]
    arm: Sequence[str | int] = ()
    sabotage: str = ""


class Forked:
    """A command as a process. `status` is done with its exit status, negative for a signal; ended_at: epoch seconds."""

    def __init__(self, output: Path) -> None:
        loop = asyncio.get_running_loop()
        self.output = output
        self.pid: asyncio.Future[int] = loop.create_future()
        self.status: asyncio.Future[int] = loop.create_future()
        self.ended_at = 0.0

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    async def ended(self, patience: float) -> int | None:
        """Its exit status; None if it still runs after `patience` seconds."""
        await asyncio.wait([self.status], timeout=patience)
        return self.status.result() if self.status.done() else None

    async def stop(self, number: signal.Signals, patience: float) -> int | None:
        """Sends a signal; returns as `ended`."""
        if not self.status.done():
            # It may have ended, without its status being here yet.
            with suppress(ProcessLookupError):
                os.kill(await self.pid, number)
        return await self.ended(patience)


class ForkServer:
    """The server as a child of the test. preload: a library for LD_PRELOAD. before: the program under which it runs."""

    def __init__(self, preload: Path, before: Sequence[str] = ()) -> None:
        self._preload = preload
        self._before = before
        self._jobs: list[Forked] = []

    async def __aenter__(self) -> "ForkServer":
        import mailrelay

        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "LD_PRELOAD": str(self._preload),
            "PYTHONPATH": f"{Path(mailrelay.__file__).parent.parent}:{Path(__file__).parent.parent}",
        }
        self._process = await asyncio.create_subprocess_exec(
            *self._before,
            sys.executable,
            "-P",
            __file__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in self._jobs:
            await job.stop(signal.SIGKILL, 10)
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            job = self._jobs[said["job"]]
            if "pid" in said:
                job.pid.set_result(said["pid"])
            else:
                job.ended_at = time.time()
                job.status.set_result(said["status"])

    def start(
        self,
        words: Sequence[str],
        directory: Path,
        output: Path,
        environment: Mapping[str, str],
        arm: Sequence[str | int] = (),
        sabotage: str = "",
    ) -> Forked:
        """Starts a command; waits for nothing. For the arguments see `Order`."""
        job = Forked(output)
        order = Order(len(self._jobs), words, str(directory), str(output), environment, arm, sabotage)
        self._jobs.append(job)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        return job


def _load() -> Callable[[], None]:
    """Imports what a daemon and the commands of a story need, also what they load late; returns the main function."""
    from mailrelay import lazy
    from mailrelay.cli import queue, serve, status  # noqa: F401
    from mailrelay.cli.command_line import main

    for late in (lazy.ssh_dial, lazy.mailbox, lazy.command, lazy.report):
        late()
    return main


def _serve() -> Order | None:
    """Forks until stdin ends. Returns None then; in each fork, its order."""
    running: dict[int, int] = {}
    waiting = selectors.DefaultSelector()
    waiting.register(0, selectors.EVENT_READ)
    buffered = b""
    while True:
        for key, _ in waiting.select():
            if key.fd != 0:
                waiting.unregister(key.fd)
                os.close(key.fd)
                pid = key.data
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                _say({"job": running.pop(pid), "status": status})
                continue
            octets = os.read(0, 65536)
            if not octets:
                return None
            *lines, buffered = (buffered + octets).split(b"\n")
            for line in lines:
                order = Order(**json.loads(line))
                pid = os.fork()
                if pid == 0:
                    for other in list(waiting.get_map().values()):
                        if other.fd != 0:
                            os.close(other.fd)
                    waiting.close()
                    return order
                running[pid] = order.job
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                _say({"job": order.job, "pid": pid})


def _say(what: Mapping[str, int]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _become(order: Order) -> None:
    """Makes this fork the process that the order asks for."""
    os.setsid()
    output = os.open(order.output, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for handle, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(handle, target)
    os.close(null)
    os.close(output)
    os.chdir(order.directory)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.argv = ["mailrelay", *order.words]
    writer.CHECKPOINT = CHECKPOINT
    if order.sabotage:
        from harness import sabotage

        getattr(sabotage, order.sabotage)()
    if order.arm:
        directory, report, traces, name, number, kind = order.arm
        arm = ctypes.CDLL(None).failing_disk_arm
        arm.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_long, ctypes.c_char_p)
        arm(str(directory).encode(), str(report).encode(), traces, str(name).encode(), number, str(kind).encode())


if __name__ == "__main__":
    main = _load()
    gc.freeze()
    mine = _serve()
    if mine is not None:
        _become(mine)
        main()
