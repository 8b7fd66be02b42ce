"""The command backend: the command gets the notice, and none of its processes keeps the backend waiting."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from mailrelay.mail.notice import Concerned, Kind, Notice
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.command import command

NOTICE = Notice(
    id=1,
    kind=Kind.FAILED,
    relayhost="default",
    created=1.7e9,
    message=1,
    queue_id="3KQ7Z",
    sender=b"me@example.org",
    subject="Grüße",
    concerned=(Concerned(b"b\xff@example.net", "bounced", "5.1.1", b"550 \x1b[2J no", "RCPT", True),),
)


async def test_the_command_reads_one_json_object_with_everything_escaped(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    await command(["sh", "-c", f"cat >'{heard}'"])([NOTICE])
    said = json.loads(heard.read_text("utf-8"))
    assert said["kind"] == "failed"
    assert said["subject"] == "Grüße"
    assert said["recipients"][0]["address"] == "b\\xff@example.net"
    assert said["recipients"][0]["reply"] == "550 \\x1b[2J no"


async def test_the_command_runs_once_for_each_notice(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    await command(["sh", "-c", f"cat >>'{heard}'"])([NOTICE, NOTICE])
    assert len(heard.read_text().splitlines()) == 2


async def test_the_command_gets_what_a_program_needs_of_the_environment_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {
        "PATH": os.environ["PATH"],
        "HOME": "/home/you",
        "LANG": "de_DE.UTF-8",
        "LC_ALL": "C.UTF-8",
        "DISPLAY": ":0",
        "WAYLAND_DISPLAY": "wayland-0",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1/bus",
        "XDG_RUNTIME_DIR": "/run/user/1",
    }
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in needed.items():
        monkeypatch.setenv(name, value)
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "SSH_AUTH_SOCK",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "LD_PRELOAD_X",
        "MAILRELAY_CONFIG",
    ):
        monkeypatch.setenv(name, "secret")
    program = f"import json, os; json.dump(dict(os.environ), open('{tmp_path}/heard', 'w'))"
    await command([sys.executable, "-I", "-c", program])([NOTICE])
    assert json.loads((tmp_path / "heard").read_text()) == needed


async def test_a_full_disk_does_not_keep_the_command_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    await command(["sh", "-c", 'echo said >&2; echo run >"$0"', str(tmp_path / "run")])([NOTICE])
    assert (tmp_path / "run").read_text() == "run\n"


async def test_the_error_quotes_the_end_of_the_commands_stderr() -> None:
    script = "import sys; sys.stderr.write('x' * 10000 + '\\x1b[31mno such channel\\n'); sys.exit(3)"
    with pytest.raises(BackendFailed, match=r"ended with status 3: x+\\x1b\[31mno such channel$") as raised:
        await command([sys.executable, "-c", script])([NOTICE])
    assert len(str(raised.value)) < 600


async def test_a_command_that_does_not_read_its_stdin_can_succeed(tmp_path: Path) -> None:
    await command(["touch", str(tmp_path / "run")])([NOTICE] * 20)
    assert (tmp_path / "run").exists()


async def test_a_missing_command_fails_the_backend() -> None:
    with pytest.raises(BackendFailed, match="cannot be started: No such file"):
        await command(["/nonexistent/say"])([NOTICE])


async def test_a_command_killed_by_a_signal_fails_the_backend() -> None:
    with pytest.raises(BackendFailed, match="was ended by signal 9"):
        await command(["sh", "-c", "kill -9 $$"])([NOTICE])


async def test_a_background_process_of_the_command_does_not_delay_the_backend() -> None:
    with pytest.raises(BackendFailed, match=r"status 1: \d+$") as raised:
        async with asyncio.timeout(20):
            await command(["sh", "-c", "sleep 60 & echo $! >&2; exit 1"])([NOTICE])
    os.kill(int(str(raised.value).rsplit(" ", 1)[1]), 9)


async def test_a_cancelled_command_is_killed_with_its_children(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    os.mkfifo(alive)

    delivering = asyncio.create_task(
        command(["sh", "-c", f"sh -c 'echo up; sleep 30; echo late' >'{alive}'; true"])([NOTICE])
    )
    reader = await asyncio.to_thread(open, alive, "rb")
    with reader:
        assert await asyncio.to_thread(reader.readline) == b"up\n"
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
        # EOF comes when the last process with the file open has ended.
        assert await asyncio.to_thread(reader.read) == b""
