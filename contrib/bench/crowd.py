#!/usr/bin/env python3
"""The service for an honest client while many other clients load the listener, and the daemon's memory at that time.

    python3 contrib/bench/crowd.py [large20] [large100] [still] [rset] [idle] [--rounds 3] [--max-size 8GB]
        [--directory /var/tmp]

Measures the named rows, or all. The crowd is one process, the honest client another. Both are running before the crowd
starts to send, and the honest client starts 0.2 s after it. No client declares the size of a message. Each round has a new
daemon with an empty spool below --directory, which must be on a real disk. Its relayhost refuses connections, and replies do
not wait for that. There is no peer.

large20   20 clients send one message of 30 MB each at the same time. The honest client sends messages of one line until the
          crowd is done, each over a new connection. A refused message is sent again after 0.1 s.
large100  The same with 100 clients, which is max_connections: the honest client is one more.
still     8 clients write 25 MB of a content and then stop: together four messages of the largest size. The honest client
          sends 20 kB, 200 kB and 5 MB, each once.
rset      40 clients send EHLO, then 2,000,000 octets of RSET each, and read nothing. The honest client sends a message of
          one line.
idle      100 clients read the greeting and send nothing. The honest client sends a message of one line.

RSS and the size of the spool's -wal file are in MB of 2^20 octets; they are read every 20 ms, and the highest value counts.
`slowest message` is the time from the connect to the 250, in the first two rows including all refusals; for a message
without a 250 at the end of the row, to its last reply. `accepted` counts the clients of the crowd that were not refused, and
that in `still` have written everything. The reply `nothing` means: closed without a reply, or no reply within 300 s.
--max-size is queue.max_size: with less than 4GB, large100 does not fit, and the daemon replies 452.
"""

import argparse
import multiprocessing
import signal
import smtplib
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from parts import PATIENCE, spread

# isort: split
# parts puts what follows on the path.
from harness.daemon_process import Relay
from harness.mailboxes import DOMAIN
from harness.processes import free_port
from memory import MEGA, held

LARGE = 30_000_000
LINE = b"x" * 74 + b"\r\n"
TO_DATA = ("EHLO localhost", f"MAIL FROM:<me@{DOMAIN}>", f"RCPT TO:<alice@{DOMAIN}>", "DATA")
HEAD_START, PAUSE, LOOK = 0.2, 0.1, 0.02
"""Seconds from the crowd's start to the honest client's, from a refusal to the next try, and between two readings."""
PROCESSES = multiprocessing.get_context("spawn")

Found = tuple[dict[str, float], Counter[str]]
"""The result of a round: its figures, and how often each reply came."""


class Sent(NamedTuple):
    """The result of sending a message. reply: the code of the last reply. The times are in seconds from the connect."""

    greeting: str
    greeted_after: float
    reply: str
    answered_after: float


def content_of(size: int) -> memoryview:
    """A content of about `size` octets, with its final dot."""
    return memoryview(b"Subject: one of many\r\n\r\n" + LINE * (size // len(LINE)) + b".\r\n")


def converse(client: smtplib.SMTP, port: int, commands: Sequence[str]) -> tuple[str, float, int]:
    """Connects and sends commands up to the first refusal. Returns the greeting, its seconds, the code of the last reply."""
    began = time.perf_counter()
    code, text = client.connect("127.0.0.1", port)
    greeting, greeted = f"{code} {text.decode()}", time.perf_counter() - began
    for command in commands:
        if code < 400:
            code, _ = client.docmd(command)
    return greeting, greeted, code


def send(port: int, content: memoryview) -> Sent:
    """Sends one message over a connection of its own."""
    client = smtplib.SMTP(local_hostname="localhost", timeout=PATIENCE)
    greeting, greeted, reply = "nothing", 0.0, "nothing"
    began = time.perf_counter()
    with suppress(OSError, smtplib.SMTPException):
        greeting, greeted, code = converse(client, port, TO_DATA)
        if code < 400 and client.sock is not None:
            # A client that is cut off during the content can still read the reply.
            with suppress(ConnectionError):
                client.sock.sendall(content)
            code, _ = client.getreply()
        reply = str(code)
    answered = time.perf_counter() - began
    client.close()
    return Sent(greeting, greeted, reply, answered)


# The functions below run in a process of their own. `bench` is their pipe to the main process.


def send_large(_bench: Connection, port: int, clients: int) -> tuple[float, Counter[str]]:
    """Returns the seconds until the last client has its reply, and the replies."""
    content = content_of(LARGE)
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        replies = Counter(f"crowd {sent.reply}" for sent in pool.map(send, [port] * clients, [content] * clients))
    return time.perf_counter() - began, replies


def occupy(
    bench: Connection,
    port: int,
    clients: int,
    commands: Sequence[str] = (),
    octets: int = 0,
    line: bytes = LINE,
    settle: float = 0.0,
) -> None:
    """Keeps connections open that have sent `commands` and then `octets` of lines. Sends to `bench` how many were not
    refused; with `settle`, how many have also written everything within that many seconds."""
    content = memoryview(line * (octets // len(line)))
    written: list[smtplib.SMTP] = []
    writers = []

    def write(client: smtplib.SMTP) -> None:
        with suppress(OSError):
            assert client.sock is not None
            client.sock.sendall(content)
            written.append(client)

    for _ in range(clients):
        client = smtplib.SMTP(local_hostname="localhost", timeout=PATIENCE)
        with suppress(OSError, smtplib.SMTPException):
            if converse(client, port, commands)[2] < 400:
                writers.append(threading.Thread(target=write, args=(client,), daemon=True))
    for writer in writers:
        writer.start()
    end = time.monotonic() + settle
    for writer in writers:
        writer.join(max(0.0, end - time.monotonic()))
    bench.send(len(written) if settle else len(writers))
    bench.poll(PATIENCE)


def send_each(_bench: Connection, port: int, sizes: Sequence[int]) -> list[Sent]:
    time.sleep(HEAD_START)
    return [send(port, content_of(size)) for size in sizes]


def send_repeatedly(bench: Connection, port: int) -> tuple[float, Counter[str]]:
    """Sends small messages until `bench` has data. Returns the seconds of the slowest message, and all replies."""
    time.sleep(HEAD_START)
    content = content_of(len(LINE))
    slowest, replies = 0.0, Counter[str]()
    began = time.perf_counter()
    end = began + PATIENCE
    while time.perf_counter() < end:
        reply = send(port, content).reply
        slowest = max(slowest, time.perf_counter() - began)
        replies[f"honest {reply}"] += 1
        if bench.poll(0 if reply == "250" else PAUSE):
            break
        if reply == "250":
            began = time.perf_counter()
    return slowest, replies


def run_on_signal(bench: Connection, work: Callable[..., Any], *arguments: object) -> None:
    """Reports that it is ready, waits for the start signal, runs the function and sends its result."""
    # Ctrl-C reaches all processes, but the main process ends this one itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError):
        bench.send(None)
        bench.recv()
        bench.send(work(bench, *arguments))
        bench.recv()


# The rows.


def receive(pipe: Connection) -> Any:
    """The next object from a process: None when it is ready, then what its function sends and returns."""
    with suppress(EOFError):
        if pipe.poll(2 * PATIENCE):
            return pipe.recv()
    raise SystemExit("a process of this bench did not finish")


@contextmanager
def daemon_and_processes(
    options: argparse.Namespace, *works: tuple[Any, ...]
) -> Iterator[tuple[Relay, list[Connection]]]:
    """A daemon, and a pipe to each function of `works`, which is ready to start in a process of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="crowd-", dir=options.directory, ignore_cleanup_errors=True) as name,
        ExitStack() as ends,
    ):
        ssh_config = Path(name) / "ssh_config"
        ssh_config.write_text(f"Host *\n  HostName 127.0.0.1\n  Port {free_port()}\n")
        relay = Relay(Path(name) / "relay", ssh_config, 25, answer_within="0s", dsn=False)
        settings = relay.config.read_text()
        relay.config.write_text(settings.replace("[queue]\n", f'[queue]\nmax_size = "{options.max_size}"\n'))
        ends.callback(relay.stop)
        relay.start()
        pipes = []
        for work, *arguments in works:
            pipe, far_end = PROCESSES.Pipe()
            pipes.append(pipe)
            process = PROCESSES.Process(target=run_on_signal, args=(far_end, work, relay.port, *arguments), daemon=True)
            process.start()
            ends.callback(process.join)
            ends.callback(process.kill)
            far_end.close()
            receive(pipe)
        yield relay, pipes


def large(options: argparse.Namespace, clients: int) -> Found:
    with daemon_and_processes(options, (send_large, clients), (send_repeatedly,)) as (relay, (crowd, honest)):
        assert relay.child is not None
        crowd.send(None)
        honest.send(None)
        rss, wal = 0.0, 0
        end = time.monotonic() + PATIENCE
        while not crowd.poll(LOOK) and time.monotonic() < end:
            rss = max(rss, held(relay.child.pid)[1])
            wal = max([wal, *(path.stat().st_size for path in (relay.directory / "spool").glob("*-wal"))])
        took, replies = receive(crowd)
        honest.send(None)
        slowest, honest_replies = receive(honest)
    figures = {"peak RSS, MB": rss, "largest -wal, MB": wal / MEGA, "slowest message, s": slowest}
    figures |= {f"250 to the crowd, of {clients}": replies["crowd 250"], "crowd done after, s": took}
    return figures, replies + honest_replies


def occupied(options: argparse.Namespace, crowd: tuple[Any, ...], sizes: Sequence[int] = (len(LINE),)) -> Found:
    with daemon_and_processes(options, (occupy, *crowd), (send_each, sizes)) as (_, (occupying, honest)):
        occupying.send(None)
        accepted = receive(occupying)
        honest.send(None)
        messages: list[Sent] = receive(honest)
    greeted, answered = max(sent.greeted_after for sent in messages), max(sent.answered_after for sent in messages)
    figures = {f"accepted, of {crowd[0]}": accepted, "greeting after, s": greeted, "slowest message, s": answered}
    replies = [f"{size:,} octets {sent.reply}" for size, sent in zip(sizes, messages, strict=True)]
    return figures, Counter([*replies, *(f"greeting {sent.greeting}" for sent in messages)])


ROWS: dict[str, Callable[[argparse.Namespace], Found]] = {
    "large20": partial(large, clients=20),
    "large100": partial(large, clients=100),
    "still": partial(occupied, crowd=(8, TO_DATA, 25_000_000, LINE, 30.0), sizes=(20_000, 200_000, 5_000_000)),
    "rset": partial(occupied, crowd=(40, TO_DATA[:1], 2_000_000, b"RSET\r\n")),
    "idle": partial(occupied, crowd=(100,)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, "all"], default="all", metavar="row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-size", default="8GB", help="queue.max_size of the daemon")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="directory for the spool")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    for row in ROWS if "all" in options.rows else options.rows:
        figures: dict[str, list[float]] = defaultdict(list)
        all_replies: Counter[str] = Counter()
        for turn in range(options.rounds):
            found, replies = ROWS[row](options)
            all_replies += replies
            for name, figure in found.items():
                figures[name].append(figure)
            print(f"{row} {turn + 1}:", ", ".join(f"{name} {figure:.2f}" for name, figure in found.items()), flush=True)
        for name, measured in figures.items():
            print(f"{row:8}  {name:28}  {spread(measured, '')}")
        print(f"{row:8}  replies:", "; ".join(f"{reply} × {n}" for reply, n in sorted(all_replies.items())), flush=True)


if __name__ == "__main__":
    main()
