#!/usr/bin/env python3
"""A long line in front of a TCP server: delay and rate, without root.

    python3 contrib/bench/distance.py LISTEN_PORT TARGET_PORT --delay MS [--rate KBIT]

Listens on 127.0.0.1 and passes every connection on to the target port there. Whatever goes through comes out `--delay`
milliseconds later, in order; all connections share `--rate` kbit/s each way (0: no limit), as those of one household do.
A connection takes its round trip to be made before anything is said on it.
Not shown by it: what TCP itself does on a long line (slow start, loss, a queue in a router), since each end speaks TCP
with this program next door. Where that matters, measure between network namespaces instead (`--ssh-config`, `--there`).
"""

import argparse
import asyncio
import contextlib
import socket

CHUNK = 256 * 1024
PACKET = 1448
"""Octets taken at once on a line with a rate, so that connections take turns on it."""
BACKLOG = 0.1
"""Seconds of traffic that the line queues before it takes no more from who sends."""
SHALLOW = 16 * 1024
"""Octets that wait in the sockets of this program at a line with a rate; more would be a queue that no line has."""


class Direction:
    """One way of the line, shared by all connections. delay: seconds; rate: octets a second, 0 for no limit."""

    def __init__(self, delay: float, rate: float) -> None:
        self.chunk = PACKET if rate else CHUNK
        self._delay = delay
        self._rate = rate
        self._busy = 0.0

    def carry(self, octets: int, now: float) -> tuple[float, float]:
        """When what is sent now has come out at the other end, and when the line takes more from who sent it."""
        if not self._rate:
            return now + self._delay, now
        self._busy = max(self._busy, now) + octets / self._rate
        return self._busy + self._delay, self._busy - BACKLOG


async def pump(source: socket.socket, target: socket.socket, line: Direction, begin: float) -> None:
    """Carries one direction of a connection to its end. begin: the loop's time before which nothing can be said."""
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        data = b"?"
        while data:
            due, data = await on_the_way.get()
            await asyncio.sleep(due - loop.time())
            if data:
                await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)

    delivering = asyncio.create_task(deliver())
    try:
        await asyncio.sleep(begin - loop.time())
        data = b"?"
        while data:
            data = await loop.sock_recv(source, line.chunk)
            due, more = line.carry(len(data), loop.time())
            on_the_way.put_nowait((due, data))
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
                # The client's end is made after one round trip, the server's with the packet that follows.
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
