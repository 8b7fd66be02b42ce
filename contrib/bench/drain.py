#!/usr/bin/env python3
"""How long a queue takes to empty: mailrelay compared with Postfix whose relayhost is behind `ssh -L`.

    python3 contrib/bench/drain.py [--rounds 3] [--messages 500] [--size 4096] [--remote sink|postfix]

Both have the messages on disk before the time starts. It starts when delivery is requested (with `postqueue -f`, or with
the change that `mailrelay queue retry --all` makes, without the start of its Python) and stops with the last `status=sent`
in the log. Postfix's tunnel is up at the start. mailrelay has no connection, so its time includes the login. The remotes
are smtp-sink, which has no CHUNKING, and a Postfix that discards its mail, which has. Each remote has a table of its own.
Needs root, as Postfix does; without root only mailrelay is measured, and only with smtp-sink.
"""

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

from parts import PATIENCE, Scene, arguments, logged, scene, spread

# isort: split
# parts puts what follows on the path.
from harness.postfix import Postfix, send_with_source

from mailrelay.spool.actions import retry_all
from mailrelay.spool.database import connect, transaction
from mailrelay.spool.trigger import fire


def feed(at: Scene, port: int, options: argparse.Namespace) -> None:
    send_with_source(at.package, port, messages=options.messages, sessions=10, size=options.size, patience=PATIENCE)


def postfix(at: Scene, far_port: int, options: argparse.Namespace) -> float:
    with at.postfix_here(at.tunnel(far_port)) as peer:
        feed(at, peer.port, options)
        command(at, peer, "postsuper", "-H", "ALL")
        began = time.perf_counter()
        command(at, peer, "postqueue", "-f")
        return logged(peer.directory / "log", "status=sent", options.messages) - began


def command(at: Scene, peer: Postfix, *words: str) -> None:
    argv: list[str | Path] = [at.package.program(words[0]), "-c", peer.directory / "etc", *words[1:]]
    subprocess.run(argv, env=at.package.environment, check=True, capture_output=True, timeout=PATIENCE)


def mailrelay(at: Scene, far_port: int, options: argparse.Namespace) -> float:
    at.refuse_connections()
    with at.relay(far_port, answer_within="0s") as relay:
        feed(at, relay.port, options)
        at.allow_connections()
        spool = relay.directory / "spool"
        db = connect(spool)
        began = time.perf_counter()
        with transaction(db):
            retry_all(db, time.time())
        fire(spool)
        db.close()
        return logged(relay.directory / "spool/mailrelay.log", "status=sent", options.messages) - began


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--messages", type=int, default=500)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--remote", choices=["sink", "postfix"], action="append")
    options = parser.parse_args()
    root = os.getuid() == 0
    with scene(options) as at:
        for remote in options.remote or (["sink", "postfix"] if root else ["sink"]):
            far_port = at.sink().port if remote == "sink" else at.postfix_there().port
            theirs, ours = [], []
            for _ in range(options.rounds):
                if root:
                    theirs.append(postfix(at, far_port, options))
                ours.append(mailrelay(at, far_port, options))
            print(f"to {'smtp-sink' if remote == 'sink' else 'Postfix (CHUNKING)'}")
            print(f"  mailrelay        {spread(ours)}")
            if theirs:
                ratios = [peer / mine for peer, mine in zip(theirs, ours, strict=True)]
                print(f"  Postfix, ssh -L  {spread(theirs)}")
                print(f"  times faster {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
