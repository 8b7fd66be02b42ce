#!/usr/bin/env python3
"""The cost of a long queue: mailrelay with 100,000 queued messages compared with mailrelay with 1,000.

    python3 contrib/bench/scale.py [--rounds 3] [--waiting 1000 100000] [--messages 1000] [--delay 0]

For each length of the queue: the seconds until `serve` is ready, the messages per second that it accepts (smtp-source, 20
sessions) and that it sends through sshd to smtp-sink, and the seconds for `queue --json` and `status`. The queue is written
into the spool directly. The peer is mailrelay itself with the shorter queue.
"""

import os
import shutil
import statistics
import subprocess
import time
from collections import defaultdict
from pathlib import Path

from parts import PATIENCE, Scene, arguments, logged, scene, spread

# isort: split
# parts puts what follows on the path.
from harness.daemon_process import Relay
from harness.mailboxes import DOMAIN
from harness.postfix import send_with_source

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.record import arrive
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import connect, transaction
from mailrelay.spool.queue_ids import QueueIds

BATCH = 5000
CONTENT = b"Subject: one of many\r\n\r\n" + (b"x" * 74 + b"\r\n") * 52
"""4 KB."""


def fill(directory: Path, waiting: int) -> None:
    directory.mkdir(0o700)
    db = connect(directory)
    envelope = Envelope(f"me@{DOMAIN}".encode(), (Recipient(f"alice@{DOMAIN}".encode()),))
    then = time.time() - 60
    ids = QueueIds("")
    for first in range(0, waiting, BATCH):
        with transaction(db):
            for _ in range(first, min(waiting, first + BATCH)):
                arrival = arrive(envelope, CONTENT, queue_id=ids.new(then), token="", relayhost="default", now=then)
                accept(db, arrival, 10**12)
    db.pragma("wal_checkpoint", "TRUNCATE")
    db.close()


def seconds(relay: Relay, *words: str) -> float:
    began = time.perf_counter()
    # Without a timeout: with one, Python checks only every 50 ms whether the command has ended.
    subprocess.run(relay.command(*words), env=relay.environment, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began


def feed(at: Scene, port: int, messages: int) -> float:
    """Messages per second."""
    began = time.perf_counter()
    send_with_source(at.package, port, messages=messages, sessions=20, size=4096, patience=PATIENCE)
    return float(messages / (time.perf_counter() - began))


def drained(relay: Relay, messages: int) -> float:
    """Messages per second, counted from the first that is sent."""
    log = relay.directory / "spool/mailrelay.log"
    log.unlink()
    relay.do("queue", "retry", "--all")
    relay.start()
    began = logged(log, "status=sent", 1)
    return (messages - 1) / (logged(log, "status=sent", messages) - began)


def measure(at: Scene, far_port: int, filled: Path, messages: int) -> dict[str, float]:
    at.refuse_connections()
    with at.relay(far_port, answer_within="0s") as relay:
        relay.stop()
        spool = relay.directory / "spool"
        shutil.rmtree(spool)
        shutil.copytree(filled, spool)
        # Otherwise the daemon's first fsync would wait for the whole copy.
        os.sync()
        found = {"queue --json, s": seconds(relay, "queue", "--json"), "status, s": seconds(relay, "status")}
        began = time.perf_counter()
        relay.start()
        found["ready after, s"] = time.perf_counter() - began
        found["accepts, 1/s"] = feed(at, relay.port, messages)
        relay.stop()
        at.allow_connections()
        found["sends, 1/s"] = drained(relay, messages)
        return found


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.set_defaults(delay=0.0)
    parser.add_argument("--waiting", type=int, nargs=2, default=[1_000, 100_000])
    parser.add_argument("--messages", type=int, default=1000)
    options = parser.parse_args()
    figures: dict[int, dict[str, list[float]]] = {waiting: defaultdict(list) for waiting in options.waiting}
    with scene(options) as at:
        far_port = at.sink().port
        filled = {waiting: at.directory / f"filled{waiting}" for waiting in options.waiting}
        for waiting, directory in filled.items():
            fill(directory, waiting)
        for _ in range(options.rounds):
            for waiting, directory in filled.items():
                for name, figure in measure(at, far_port, directory, options.messages).items():
                    figures[waiting][name].append(figure)
    few, many = figures.values()
    print(f"{'':16} {options.waiting[0]} waiting, {options.waiting[1]} waiting, ratio")
    for name in few:
        ratios = [theirs / ours for ours, theirs in zip(few[name], many[name], strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:16} {spread(few[name], '')}, {spread(many[name], '')}, {ratio}")


if __name__ == "__main__":
    main()
