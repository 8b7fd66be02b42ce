#!/usr/bin/env python3
"""A web page of fifty requests without an SSH connection yet: a [[forward]] compared with one `ssh -W` per connection.

    python3 contrib/bench/forward.py [--rounds 3] [--delay 50] [--at-once 6]

Each request has a connection of its own, and `--at-once` of them are open at a time (browsers open six). The peer is a
listener that starts a new `ssh -W` for each connection. mailrelay runs and has no SSH connection when a round begins.
"""

import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from socket import create_server

from parts import HERE, Scene, arguments, logged, scene, spread

# isort: split
# parts puts what follows on the path.
from harness.daemon_process import Relay
from harness.processes import Child, free_port
from harness.webserver import PAGE, get

REQUESTS = 50


def ssh_for_each(at: Scene, target: str) -> int:
    """Starts a new `ssh -W target` for each connection to a local port; returns the port."""
    listener = create_server(("127.0.0.1", 0), backlog=128)
    argv = at.ssh()
    argv[1:1] = ["-W", target]

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                subprocess.Popen(argv, stdin=connection.fileno(), stdout=connection.fileno(), stderr=subprocess.DEVNULL)

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def page(port: int, at_once: int) -> float:
    """Seconds for all requests."""
    began = time.perf_counter()
    with ThreadPoolExecutor(at_once) as browser:
        if set(browser.map(get, [f"127.0.0.1:{port}"] * REQUESTS)) != {PAGE}:
            raise SystemExit("a request got the wrong page")
    return time.perf_counter() - began


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--at-once", type=int, default=6)
    options = parser.parse_args()
    theirs, ours = [], []
    with scene(options) as at:
        far, near = free_port(), free_port()
        server = Child([*at.there, sys.executable, HERE.parents[1] / "tests/harness/webserver.py", str(far)])
        relay = Relay(at.directory / "relay", at.ssh_config, 25, linger="1s", dsn=False)
        with relay.config.open("a") as settings:
            settings.write(f'[[forward]]\nlisten = "127.0.0.1:{near}"\nto = "localhost:{far}"\n')
        try:
            relay.start()
            peer = ssh_for_each(at, f"localhost:{far}")
            for number in range(options.rounds):
                theirs.append(page(peer, options.at_once))
                ours.append(page(near, options.at_once))
                logged(relay.directory / "spool/mailrelay.log", " closed", number + 1)
        finally:
            relay.stop()
            server.stop()
    ratios = [mine / peers for mine, peers in zip(ours, theirs, strict=True)]
    print(f"ssh -W for each connection   {REQUESTS} requests, {options.at_once} at once   {spread(theirs)}")
    print(f"[[forward]] of mailrelay     {REQUESTS} requests, {options.at_once} at once   {spread(ours)}")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
