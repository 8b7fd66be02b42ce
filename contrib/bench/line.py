#!/usr/bin/env python3
"""A large message on a slow link, and a small one sent meanwhile: mailrelay compared with plain ssh(1).

    python3 contrib/bench/line.py [--rounds 1] [--rate 8000] [--size 25000000]

The peer writes `--size` octets into `ssh remote 'cat >/dev/null'` and, `--later` seconds after its start, sends 4 KB through
a second ssh with nc, as inetd would. mailrelay gets a message of `--size` octets and, `--later` seconds after that, one of
4 KB; each time is from mailrelay's 250 to the remote's. The use of the link is the octets of content per second from the
login to the remote's 250, divided by the rate. The overhead of TCP/IP and SSH (about 4 %) counts as unused. With
`--interface` a second figure includes the overhead: the octets that the kernel counts on the interface to the remote.
"""

import argparse
import subprocess
import threading
import time
from pathlib import Path

from cold import inetd
from parts import PATIENCE, Scene, arguments, logged, scene, spread, submit

SMALL = 4096


def sent(interface: str | None) -> int:
    """Octets sent through the interface so far; 0 without an interface."""
    return int(Path(f"/sys/class/net/{interface}/statistics/tx_bytes").read_text()) if interface else 0


def peer(at: Scene, port: int, number: int, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds for the large transfer, and for the small message."""
    small: list[float] = []

    def later() -> None:
        time.sleep(options.later)
        began = time.perf_counter()
        submit(port, f"peer {number}.", SMALL)
        small.append(time.perf_counter() - began)

    meanwhile = threading.Thread(target=later)
    meanwhile.start()
    began = time.perf_counter()
    subprocess.run(at.ssh("cat >/dev/null"), input=bytes(options.size), check=True, timeout=PATIENCE)
    large = time.perf_counter() - began
    meanwhile.join()
    return large, small[0]


def main() -> None:
    parser = arguments(__doc__, rounds=1, rate=8000)
    parser.add_argument("--size", type=int, default=25_000_000)
    parser.add_argument("--later", type=float, default=2.0, help="seconds until the small message is sent")
    parser.add_argument("--interface", help="the local interface whose octets are counted")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    theirs, ours, wire, content = [], [], [], []
    with scene(options) as at:
        sink = at.sink()
        port = inetd(at, sink.port)
        # Each round has a login of its own.
        with at.relay(sink.port, answer_within="0s", linger="0s") as relay:
            log = relay.directory / "spool/mailrelay.log"
            for number in range(options.rounds):
                if not options.no_peer:
                    theirs.append(peer(at, port, number, options))
                large = submit(relay.port, f"large {number}.", options.size).split()[1]
                began = time.perf_counter()
                in_use = logged(log, "connected in", number + 1)
                octets = sent(options.interface)
                time.sleep(options.later)
                small = submit(relay.port, f"small {number}.", SMALL).split()[1]
                later = time.perf_counter()
                for_small = logged(log, f"{small} to=", 1) - later
                for_large = logged(log, f"{large} to=", 1) - began
                used = for_large - (in_use - began)
                wire.append((sent(options.interface) - octets) * 8 / options.rate / 1000 / used)
                content.append(options.size * 8 / options.rate / 1000 / used)
                ours.append((for_large, for_small))
    for name, runs in (("ssh", theirs), ("mailrelay", ours)):
        if runs:
            print(
                f"{name:10} {options.size / 1e6:.0f} MB in {spread([large for large, _ in runs])}, including the dial"
            )
            print(f"           the small message in {spread([small for _, small in runs])}")
    print(f"use of the link after the login: at least {100 * min(content):.1f} % content")
    if options.interface:
        print(f"with the overhead of TCP/IP and SSH: {100 * min(wire):.1f} %")
    if theirs:
        print(f"ratio {min(mine / peer for (mine, _), (peer, _) in zip(ours, theirs, strict=True)):.2f}")


if __name__ == "__main__":
    main()
