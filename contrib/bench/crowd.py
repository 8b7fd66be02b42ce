#!/usr/bin/env python3
"""What an honest client meets while others crowd the listener, and what the daemon holds meanwhile.

    python3 contrib/bench/crowd.py [large20] [large100] [still] [rset] [idle] [--rounds 3] [--max-size 8GB]
        [--directory /var/tmp]

The rows that are named are measured, or all of them. The crowd is one process, the honest client another; both are up
before the crowd begins, and the honest client begins 0.2 s behind it. Nobody declares the size of a message. Every round
has a fresh daemon with an empty spool below --directory, which has to be on a real disk; its relayhost refuses
connections, and no answer waits for that. There is no peer.

large20   20 clients at once send one message of 30 MB each. The honest client sends letters of one line until the crowd
          is done, each over a new connection. A letter that is refused is sent again after 0.1 s.
large100  The same with 100 clients, as many as max_connections lets in: the honest client is one more.
still     8 clients write 25 MB of a content and stand still: four messages of the largest size in octets. The honest
          client sends 20 kB, 200 kB and 5 MB, each once.
rset      40 clients say EHLO, then write 2,000,000 octets of RSET each and read nothing. The honest client sends a
          letter of one line.
idle      100 clients have been greeted and say nothing. The honest client sends a letter of one line.

RSS and the size of the spool's -wal file, in MB of 2^20 octets, are the highest of what is read every 20 ms. `longest
letter` goes from the connect to the 250, in the first two rows with all refusals between; for a letter that has no 250
when the row ends, to its last reply. `in place` are the clients of a crowd that were not refused, and in `still` have
written all. Who hears `nothing` had its connection closed without a reply, or waited 300 s for one.
--max-size is queue.max_size: with less than 4GB there is no room for large100, and the daemon answers 452.
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
"""Seconds from the crowd to the honest client, from a refusal to the next try, from one look at the daemon to the next."""
PROCESSES = multiprocessing.get_context("spawn")

Found = tuple[dict[str, float], Counter[str]]
"""What a round found: its figures, and how often who heard what."""


class Letter(NamedTuple):
    """What became of a message. first: the greeting. reply: the last code. The times are seconds from the connect."""

    first: str
    greeted: float
    reply: str
    answered: float


def content_of(size: int) -> memoryview:
    """A content of about `size` octets, and its end."""
    return memoryview(b"Subject: one of many\r\n\r\n" + LINE * (size // len(LINE)) + b".\r\n")


def say(client: smtplib.SMTP, port: int, commands: Sequence[str]) -> tuple[str, float, int]:
    """Connects and says commands up to the first refusal: the greeting, its seconds, the code of the last reply."""
    began = time.perf_counter()
    code, words = client.connect("127.0.0.1", port)
    greeting, greeted = f"{code} {words.decode()}", time.perf_counter() - began
    for command in commands:
        if code < 400:
            code, _ = client.docmd(command)
    return greeting, greeted, code


def send(port: int, content: memoryview) -> Letter:
    """Sends one message over a connection of its own."""
    client = smtplib.SMTP(local_hostname="localhost", timeout=PATIENCE)
    first, greeted, reply = "nothing", 0.0, "nothing"
    began = time.perf_counter()
    with suppress(OSError, smtplib.SMTPException):
        first, greeted, code = say(client, port, TO_DATA)
        if code < 400 and client.sock is not None:
            # Who is sent away in the middle may still read why.
            with suppress(ConnectionError):
                client.sock.sendall(content)
            code, _ = client.getreply()
        reply = str(code)
    answered = time.perf_counter() - began
    client.close()
    return Letter(first, greeted, reply, answered)


# What runs in a process of its own. `bench` is the way to the bench.


def send_large(_bench: Connection, port: int, clients: int) -> tuple[float, Counter[str]]:
    """The seconds until the last client had its reply, and the replies."""
    content = content_of(LARGE)
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        replies = Counter(f"crowd {letter.reply}" for letter in pool.map(send, [port] * clients, [content] * clients))
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
    """Holds connections that say `commands`, then write `octets` of lines. Tells how many were not refused or, with
    `settle`, have written all within so many seconds."""
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
            if say(client, port, commands)[2] < 400:
                writers.append(threading.Thread(target=write, args=(client,), daemon=True))
    for writer in writers:
        writer.start()
    end = time.monotonic() + settle
    for writer in writers:
        writer.join(max(0.0, end - time.monotonic()))
    bench.send(len(written) if settle else len(writers))
    bench.poll(PATIENCE)


def send_each(_bench: Connection, port: int, sizes: Sequence[int]) -> list[Letter]:
    time.sleep(HEAD_START)
    return [send(port, content_of(size)) for size in sizes]


def send_on_and_on(bench: Connection, port: int) -> tuple[float, Counter[str]]:
    """Sends letters until it is told to end: the seconds that the longest took, and all replies."""
    time.sleep(HEAD_START)
    content = content_of(len(LINE))
    longest, replies = 0.0, Counter[str]()
    began = time.perf_counter()
    end = began + PATIENCE
    while time.perf_counter() < end:
        reply = send(port, content).reply
        longest = max(longest, time.perf_counter() - began)
        replies[f"honest {reply}"] += 1
        if bench.poll(0 if reply == "250" else PAUSE):
            break
        if reply == "250":
            began = time.perf_counter()
    return longest, replies


def obey(bench: Connection, work: Callable[..., Any], *arguments: object) -> None:
    """Runs the function when it is told to, and waits for its end."""
    # Ctrl-C reaches all of us, and the bench ends this process by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError):
        bench.send(None)
        bench.recv()
        bench.send(work(bench, *arguments))
        bench.recv()


# The rows.


def hear(way: Connection) -> Any:
    """What a process says next: None when it is ready, at last what its function returned."""
    with suppress(EOFError):
        if way.poll(2 * PATIENCE):
            return way.recv()
    raise SystemExit("a process of this bench did not come to its end")


@contextmanager
def beside(options: argparse.Namespace, *works: tuple[Any, ...]) -> Iterator[tuple[Relay, list[Connection]]]:
    """A daemon, and the ways to functions with their arguments, each in a process of its own and ready to begin."""
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
        ways = []
        for work, *arguments in works:
            way, there = PROCESSES.Pipe()
            ways.append(way)
            process = PROCESSES.Process(target=obey, args=(there, work, relay.port, *arguments), daemon=True)
            process.start()
            ends.callback(process.join)
            ends.callback(process.kill)
            there.close()
            hear(way)
        yield relay, ways


def large(options: argparse.Namespace, clients: int) -> Found:
    with beside(options, (send_large, clients), (send_on_and_on,)) as (relay, (crowd, honest)):
        assert relay.child is not None
        crowd.send(None)
        honest.send(None)
        rss, wal = 0.0, 0
        end = time.monotonic() + PATIENCE
        while not crowd.poll(LOOK) and time.monotonic() < end:
            rss = max(rss, held(relay.child.pid)[1])
            wal = max([wal, *(path.stat().st_size for path in (relay.directory / "spool").glob("*-wal"))])
        took, replies = hear(crowd)
        honest.send(None)
        longest, heard = hear(honest)
    figures = {"peak RSS, MB": rss, "largest -wal, MB": wal / MEGA, "longest letter, s": longest}
    figures |= {f"250 to the crowd, of {clients}": replies["crowd 250"], "crowd done after, s": took}
    return figures, replies + heard


def occupied(options: argparse.Namespace, crowd: tuple[Any, ...], sizes: Sequence[int] = (len(LINE),)) -> Found:
    with beside(options, (occupy, *crowd), (send_each, sizes)) as (_, (occupying, honest)):
        occupying.send(None)
        in_place = hear(occupying)
        honest.send(None)
        letters: list[Letter] = hear(honest)
    greeted, answered = max(letter.greeted for letter in letters), max(letter.answered for letter in letters)
    figures = {f"in place, of {crowd[0]}": in_place, "greeting after, s": greeted, "longest letter, s": answered}
    replies = [f"{size:,} octets {letter.reply}" for size, letter in zip(sizes, letters, strict=True)]
    return figures, Counter([*replies, *(f"first {letter.first}" for letter in letters)])


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
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where the spool lies")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    for row in ROWS if "all" in options.rows else options.rows:
        figures: dict[str, list[float]] = defaultdict(list)
        heard: Counter[str] = Counter()
        for turn in range(options.rounds):
            found, replies = ROWS[row](options)
            heard += replies
            for name, figure in found.items():
                figures[name].append(figure)
            print(f"{row} {turn + 1}:", ", ".join(f"{name} {figure:.2f}" for name, figure in found.items()), flush=True)
        for name, measured in figures.items():
            print(f"{row:8}  {name:28}  {spread(measured, '')}")
        print(f"{row:8}  heard:", "; ".join(f"{what} × {count}" for what, count in sorted(heard.items())), flush=True)


if __name__ == "__main__":
    main()
