"""The question by which a command asks the daemon to cancel a message, on a real socket; what the line says."""

import threading
from _socket import AF_UNIX, SOCK_STREAM, socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailrelay.mail.sending import Stop
from mailrelay.spool import stopping


@contextmanager
def answering(directory: Path, *parts: bytes) -> Iterator[list[bytes]]:
    """A daemon that answers one question, in these parts. What it was asked."""
    listening = socket(AF_UNIX, SOCK_STREAM)
    listening.bind(str(directory / stopping.FILE))
    listening.listen(1)
    asked: list[bytes] = []

    def answer() -> None:
        handle, _ = listening._accept()  # type: ignore[attr-defined]
        connection = socket(fileno=handle)
        asked.append(connection.recv(100))
        for part in parts:
            connection.sendall(part)
        connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    yield asked
    thread.join()
    listening.close()


@pytest.mark.parametrize("stop", Stop)
def test_each_answer_of_the_daemon_is_understood(tmp_path: Path, stop: Stop) -> None:
    line = stopping.answer(stop)
    assert line.endswith(b"\n")
    assert len(line) <= stopping.MAX_LINE
    with answering(tmp_path, line) as asked:
        assert stopping.ask(tmp_path, 42, 30.0) is stop
    assert [stopping.key_of(question) for question in asked] == [42]


def test_an_answer_in_parts_and_one_without_a_line_end_are_understood(tmp_path: Path) -> None:
    for number, end in enumerate((b"\n", b"")):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        line = next(iter(Stop)).value.encode() + end
        with answering(directory, line[:1], line[1:]):
            assert stopping.ask(directory, 1, 30.0) is next(iter(Stop))


@pytest.mark.parametrize("answer", [(), (b"nonsense\n",), (b"x" * stopping.MAX_LINE,), (b"\xff\n",)])
def test_no_answer_and_nonsense_say_nothing(tmp_path: Path, answer: tuple[bytes, ...]) -> None:
    with answering(tmp_path, *answer):
        assert stopping.ask(tmp_path, 1, 30.0) is None


def test_without_a_daemon_there_is_no_answer(tmp_path: Path) -> None:
    assert stopping.ask(tmp_path, 1, 30.0) is None


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b"0\n", 0),
        (b"42\n", 42),
        (b"9223372036854775807\n", 2**63 - 1),
        (b"9223372036854775808\n", None),
        (b"42", None),
        (b"42\n\n", None),
        (b"-1\n", None),
        (b"4 2\n", None),
        (b"\n", None),
        (b"", None),
    ],
)
def test_a_line_is_a_key_of_the_spool_or_none(line: bytes, key: int | None) -> None:
    assert stopping.key_of(line) == key
