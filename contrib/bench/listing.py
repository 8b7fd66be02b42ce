#!/usr/bin/env python3
"""How long it takes to list the queue: `mailrelay queue --json` compared with `postqueue -j`, and mailrelay on an empty one.

    python3 contrib/bench/listing.py [--rounds 5] [--messages 20000]

The messages are on hold in Postfix, and postqueue reads them from disk itself. In mailrelay they are queued. Needs root, as
Postfix does; without root only mailrelay is measured.
"""

import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from parts import PATIENCE, Scene, arguments, scene, spread
from scale import feed, fill, seconds


def postqueue(at: Scene, messages: int, rounds: int) -> list[float]:
    """Seconds for each of the rounds."""
    with at.postfix_here(1) as peer:
        feed(at, peer.port, messages)
        argv: list[str | Path] = [at.package.program("postqueue"), "-c", peer.directory / "etc", "-j"]
        taken = []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            subprocess.run(argv, env=at.package.environment, check=True, capture_output=True, timeout=PATIENCE)
            taken.append(time.perf_counter() - began)
        return taken[1:]


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.set_defaults(delay=0.0)
    parser.add_argument("--messages", type=int, default=20_000)
    options = parser.parse_args()
    commands = (("queue",), ("status",), ("queue", "--json"))
    with scene(options) as at:
        at.refuse_connections()
        with at.relay(1) as relay:
            empty = [[seconds(relay, *words) for _ in range(options.rounds + 1)][1:] for words in commands]
            relay.stop()
            spool = relay.directory / "spool"
            shutil.rmtree(spool)
            fill(spool, options.messages)
            ours = [seconds(relay, "queue", "--json") for _ in range(options.rounds + 1)][1:]
        theirs = postqueue(at, options.messages, options.rounds) if os.getuid() == 0 else []
    for words, taken in zip(commands, empty, strict=True):
        print(f"mailrelay {' '.join(words):13} empty queue  {spread(taken)}")
    print(f"mailrelay queue --json  of {options.messages}  {spread(ours)}")
    if theirs:
        ratios = [mine / peer for mine, peer in zip(ours, theirs, strict=True)]
        print(f"postqueue -j            of {options.messages}  {spread(theirs)}")
        print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
