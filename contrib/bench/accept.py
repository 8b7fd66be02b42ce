#!/usr/bin/env python3
"""How fast mail is accepted: messages per second that Postfix and mailrelay store on disk and answer with a 250.

    python3 contrib/bench/accept.py [--rounds 5] [--messages 4000] [--sessions 20] [--size 4096] [--reuse]
        [--directory /var/tmp]

The client is Postfix's smtp-source for both. Each message has a connection of its own; with --reuse, each session sends all
of its messages over one connection. Neither server delivers the mail: Postfix's transport is deferred, and mailrelay's
relayhost refuses connections. The two take turns, each time with an empty queue and after some messages that do not count.
Both queues are in the same new directory below --directory, which must be on a real disk.

Needs root, as Postfix does, and Postfix: installed, or unpacked into the folder that MAILRELAY_POSTFIX names.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "tests")]

from harness.daemon_process import Relay
from harness.postfix import Package, Postfix, find_package, send_with_source
from harness.processes import free_port

WARM = 1.0
"""Seconds between the messages that do not count and those that do."""


def rate(package: Package, port: int, options: argparse.Namespace) -> float:
    """Messages per second, from the first connection to the last reply."""
    feed(package, port, options, 10 * options.sessions)
    # Both servers start processes and load modules with the first messages.
    time.sleep(WARM)
    began = time.perf_counter()
    feed(package, port, options, options.messages)
    return float(options.messages / (time.perf_counter() - began))


def feed(package: Package, port: int, options: argparse.Namespace, messages: int) -> None:
    send_with_source(
        package,
        port,
        messages=messages,
        sessions=options.sessions,
        size=options.size,
        reuse=options.reuse,
        patience=300,
    )


def postfix(package: Package, directory: Path, options: argparse.Namespace) -> float:
    server = Postfix(package, directory, "defer_transports = virtual\nin_flow_delay = 0\n")
    try:
        return rate(package, server.port, options)
    finally:
        server.stop()


def mailrelay(package: Package, directory: Path, options: argparse.Namespace) -> float:
    ssh_config = directory.with_suffix(".ssh_config")
    ssh_config.write_text(f"Host *\n  HostName 127.0.0.1\n  Port {free_port()}\n")
    relay = Relay(directory, ssh_config, 25, answer_within="0s", dsn=False)
    relay.start()
    try:
        return rate(package, relay.port, options)
    finally:
        relay.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="Postfix and mailrelay accept mail in turns.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--sessions", type=int, default=20, help="concurrent sessions")
    parser.add_argument("--size", type=int, default=4096, help="octets of a message")
    parser.add_argument("--reuse", action="store_true", help="send many messages over one connection")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="directory for both queues")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="accept-", dir=options.directory) as name:
        # Postfix drops root before it opens its queue.
        Path(name).chmod(0o755)
        file_system = subprocess.run(["df", "--output=source,fstype", name], capture_output=True, text=True, check=True)
        print("both queues on", " ".join(file_system.stdout.split()[2:]), flush=True)
        package = find_package(Path(name) / "package")
        servers = {"postfix": postfix, "mailrelay": mailrelay}
        rates: dict[str, list[float]] = {server: [] for server in servers}
        for turn in range(options.rounds):
            for server, measure in servers.items():
                rates[server].append(measure(package, Path(name) / f"{server}{turn}", options))
            print("  ".join(f"{server} {rates[server][-1]:.0f}/s" for server in servers), flush=True)
    for server, measured in rates.items():
        print(f"{server}: median {statistics.median(measured):.0f}/s ({min(measured):.0f} to {max(measured):.0f})")
    ratios = [ours / theirs for theirs, ours in zip(*rates.values(), strict=True)]
    print(f"ratio: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
