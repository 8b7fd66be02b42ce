"""A server that does not answer is asked again, beside the question that waits."""

import asyncio
import errno
import socket
import sys

import pytest
from harness.waiting import until

from mailrelay.ssh import tcp


async def test_who_gets_no_answer_asks_again_and_only_the_first_answer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "CONNECT_RETRY", 0.01)

    answers: list[asyncio.Future[socket.socket]] = []
    asked_thrice = asyncio.Event()

    async def connect() -> socket.socket:
        answers.append(asyncio.get_running_loop().create_future())
        if len(answers) == 3:
            asked_thrice.set()
        return await answers[len(answers) - 1]

    attempt = asyncio.create_task(tcp.first_to_connect(connect))
    await asked_thrice.wait()
    first, late = socket.socket(), socket.socket()
    with first, late:
        answers[1].set_result(first)
        answers[2].set_result(late)
        kept = await attempt
        assert kept in (first, late)
        other = late if kept is first else first
        await until(lambda: other.fileno() == -1)
        assert kept.fileno() >= 0
    assert answers[0].cancelled()


async def test_a_refusal_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "CONNECT_RETRY", 3600.0)

    async def connect() -> socket.socket:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    with pytest.raises(ConnectionRefusedError):
        await tcp.first_to_connect(connect)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog is refused")
async def test_a_server_that_begins_to_answer_is_reached_and_left_by_none_but_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp, "CONNECT_RETRY", 0.05)

    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.create_connection(server.getsockname()),
    ):
        # The backlog is full: what comes now hears nothing.
        asked = 0
        asked_thrice = asyncio.Event()

        async def connect() -> socket.socket:
            nonlocal asked
            asked += 1
            if asked == 3:
                asked_thrice.set()
            sock = socket.socket()
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, server.getsockname())
            return sock

        attempt = asyncio.create_task(tcp.first_to_connect(connect))
        await asked_thrice.wait()
        assert not attempt.done()
        server.accept()[0].close()
        with await attempt as sock:
            assert sock.getpeername() == server.getsockname()
