#!/usr/bin/env python3
"""Simulates a slow network link in front of a TCP server: delay and rate, without root.

    python3 contrib/bench/distance.py LISTEN_PORT TARGET_PORT --delay MS [--rate KBIT]

Listens on 127.0.0.1 and forwards every connection to the target port there. Data comes out `--delay` milliseconds later, in
order. All connections share `--rate` kbit/s in each direction (0: no limit), like those of one household. Establishing a
connection takes one round trip, before any data.
Not simulated: the behaviour of TCP on a slow link (slow start, loss, a queue in a router), because both ends have a local
TCP connection to this program. Where that matters, measure between network namespaces (`--ssh-config`, `--there`).
"""

import argparse
import asyncio
import contextlib
import socket

CHUNK = 256 * 1024
PACKET = 1448
"""Octets read at once from a link with a rate, so that connections take turns."""
BACKLOG = 0.1
"""Seconds of traffic that the link queues before it stops reading from the sender."""
SHALLOW = 16 * 1024
"""Receive buffer of this program's sockets for a link with a rate, in octets. A larger one would be a queue of its own."""


class Direction:
    """One direction of the link, shared by all connections. delay: seconds. rate: octets per second, 0 for no limit."""

    def __init__(self, delay: float, rate: float) -> None:
        self.chunk = PACKET if rate else CHUNK
        self._delay = delay
        self._rate = rate
        self._busy = 0.0

    def send(self, octets: int, now: float) -> tuple[float, float]:
        """Two times on the clock of `now`: when data sent now arrives, and when the sender may send more."""
        if not self._rate:
            return now + self._delay, now
        self._busy = max(self._busy, now) + octets / self._rate
        return self._busy + self._delay, self._busy - BACKLOG


async def pump(source: socket.socket, target: socket.socket, link: Direction, begin: float) -> None:
    """Forwards one direction of a connection until its end. begin: the loop time before which no data flows."""
    loop = asyncio.get_running_loop()
    in_flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        data = b"?"
        while data:
            due, data = await in_flight.get()
            await asyncio.sleep(due - loop.time())
            if data:
                await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)

    delivering = asyncio.create_task(deliver())
    try:
        await asyncio.sleep(begin - loop.time())
        data = b"?"
        while data:
            data = await loop.sock_recv(source, link.chunk)
            due, more = link.send(len(data), loop.time())
            in_flight.put_nowait((due, data))
            await asyncio.sleep(more - loop.time())
        await delivering
    finally:
        delivering.cancel()


async def serve(port: int, target: int, delay: float, rate: float) -> None:
    loop = asyncio.get_running_loop()
    there, back = Direction(delay, rate), Direction(delay, rate)
    connections: set[asyncio.Task[None]] = set()

    async def connect(near: socket.socket) -> None:
        accepted = loop.time()
        far = socket.socket()
        with near, far:
            for end in (near, far):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if rate:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SHALLOW)
            with contextlib.suppress(OSError):
                # The client can send after one round trip. The server's first data follows half a round trip later.
                await asyncio.sleep(2 * delay)
                await loop.sock_connect(far, ("127.0.0.1", target))
                await asyncio.gather(
                    pump(near, far, there, accepted + 2 * delay), pump(far, near, back, accepted + 3 * delay)
                )

    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        if rate:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SHALLOW)
        listener.setblocking(False)
        while True:
            near, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(connect(near))
            connections.add(task)
            task.add_done_callback(connections.discard)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("target", type=int)
    parser.add_argument("--delay", type=float, required=True, help="milliseconds one way")
    parser.add_argument("--rate", type=float, default=0.0, help="kbit/s each way")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.port, options.target, options.delay / 1000, options.rate * 1000 / 8))


if __name__ == "__main__":
    main()
