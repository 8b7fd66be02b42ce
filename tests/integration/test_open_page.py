"""The page that the daemon starts: with which words, and what the log says of one that fails."""

import sys
from pathlib import Path

import pytest
from harness.waiting import until

from mailrelay.notify.open_page import open_page


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for Python, and is not there yet."""
    program = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    return program


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)


@pytest.mark.parametrize(("queue_id", "words"), [("3KQ7Z", "-m mailrelay web 3KQ7Z\n"), ("", "-m mailrelay web\n")])
async def test_the_page_is_started_at_a_message_or_at_the_queue(python: Path, queue_id: str, words: str) -> None:
    said = python.with_name("said")
    write(python, f'echo "$@" > {said}.new; mv {said}.new {said}')
    open_page(queue_id)
    await until(said.exists)
    assert said.read_text() == words


async def test_a_page_that_ends_with_an_error_is_in_the_log(python: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(python, "exit 3")
    open_page("3KQ7Z")
    await until(lambda: "the page ended with status 3; run `mailrelay web`" in caplog.text)


async def test_a_page_that_cannot_be_started_is_in_the_log(python: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_page("3KQ7Z")
    await until(lambda: f"the page cannot be opened: {python}: No such file or directory" in caplog.text)
