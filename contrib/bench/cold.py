#!/usr/bin/env python3
"""One message without an SSH connection yet: mailrelay compared with inetd and `ssh remote nc localhost 25`.

    python3 contrib/bench/cold.py [--rounds 5] [--delay 50]

Each round sends one message of 4 KB through each of the two with the same mail client, which sends SMTP commands one by
one and waits for the reply to its content. The peer is a listener that starts a new ssh(1) for each connection. mailrelay
runs, has no connection open (`linger = "0s"`), and answers with the reply of the remote mail server. Needs nc on the remote.
"""

import statistics
import subprocess
import threading
import time
from socket import create_server

from parts import Scene, arguments, arrived, logged, scene, spread, submit

SIZE = 4096


def inetd(at: Scene, far_port: int) -> int:
    """Starts a new `ssh remote nc` for each connection to a local port; returns the port."""
    listener = create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                subprocess.Popen(
                    at.ssh("nc", "127.0.0.1", str(far_port)),
                    stdin=connection.fileno(),
                    stdout=connection.fileno(),
                    stderr=subprocess.DEVNULL,
                )

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def main() -> None:
    options = arguments(__doc__, rounds=5).parse_args()
    peer, answer, arrival = [], [], []
    with scene(options) as at:
        sink = at.sink()
        port = inetd(at, sink.port)
        with at.relay(sink.port, linger="0s") as relay:
            log = relay.directory / "spool/mailrelay.log"
            for number in range(options.rounds):
                began = time.perf_counter()
                submit(port, f"peer {number}.", SIZE)
                peer.append(time.perf_counter() - began)
                sent_at, began = time.time(), time.perf_counter()
                reply = submit(relay.port, f"mailrelay {number}.", SIZE)
                answer.append(time.perf_counter() - began)
                if " sent: " not in reply:
                    raise SystemExit(f"the reply to the client is not the remote mail server's: {reply}")
                arrival.append(arrived(sink, f"mailrelay {number}.") - sent_at)
                logged(log, " closed", number + 1)
    ratios = [mine / theirs for mine, theirs in zip(answer, peer, strict=True)]
    print(f"ssh remote nc   the client has its 250        {spread(peer)}")
    print(f"mailrelay       the client has its 250        {spread(answer)}; the first {answer[0]:.2f} s")
    print(f"                the message is at smtp-sink   {spread(arrival)}; the first {arrival[0]:.2f} s")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
