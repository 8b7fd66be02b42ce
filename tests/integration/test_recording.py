"""Which conversations are recorded on a relayhost, and what it costs where none can be: one short wait, once."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from harness.dropbear import Dropbear
from harness.proof import KNOWN, PATIENCE, Bench, MailServer, bench, know
from harness.sshd import Sshd

from mailrelay.mail.recorded import Recording, RecordingState
from mailrelay.relay.recording import REST, SHORT_REST
from mailrelay.ssh import recorder

UNKNOWN, POSSIBLE, IMPOSSIBLE = RecordingState.UNKNOWN, RecordingState.POSSIBLE, RecordingState.IMPOSSIBLE
IMPOSSIBLE_NOW = Recording(IMPOSSIBLE, time.time() + REST)


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Sshd]:
    far = Sshd(tmp_path / "far")
    yield far
    far.stop()


@pytest.fixture
def relay(tmp_path: Path, far: Sshd) -> Callable[..., AbstractAsyncContextManager[Bench]]:
    """Makes a relay to `far`. known: what its spool says of the relayhost."""

    def make(known: Recording = KNOWN, **settings: Any) -> AbstractAsyncContextManager[Bench]:
        know(tmp_path / "spool", known)
        return bench(tmp_path, far, MailServer((b"PIPELINING",)), **settings)

    return make


async def send(at: Bench, count: int = 1) -> None:
    await at.accept(count)
    await at.until("state != 'sent'")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def commands(far: Sshd) -> int:
    """How many commands were started there."""
    return sum("Starting session:" in line for line in far.log)


def only(*names: str) -> Callable[[Path], dict[str, str]]:
    """An account with these programs only."""

    def options(directory: Path) -> dict[str, str]:
        directory.mkdir()
        for name in names:
            if found := shutil.which(name):
                (directory / name).symlink_to(found)
        return {"SetEnv": f"HOME={directory} PATH={directory}"}

    return options


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(lambda _: {"ForceCommand": "echo This account is for forwarding only."}, id="it is refused"),
        pytest.param(lambda _: {"ForceCommand": "printf '220 mail\\r\\n'; cat"}, id="another program answers"),
        pytest.param(lambda _: {"ForceCommand": "true"}, id="the command says nothing and ends"),
        pytest.param(only("sh", "bash", "cat", "tee"), id="neither perl nor sendmail"),
        pytest.param(lambda _: {"SetEnv": "HOME=/proc/nowhere"}, id="the home cannot be written"),
        pytest.param(lambda _: {"MaxSessions": 0}, id="no session is allowed"),
    ],
)
@pytest.mark.parametrize("before", [Recording(), KNOWN], ids=["unknown before", "possible before"])
async def test_an_account_that_cannot_record_gets_its_mail_and_is_remembered(
    far: Sshd,
    relay: Callable[..., AbstractAsyncContextManager[Bench]],
    tmp_path: Path,
    options: Callable[[Path], dict[str, Any]],
    before: Recording,
) -> None:
    far.start(**options(tmp_path / "bin"))
    async with relay(before) as at:
        await send(at)
        # With no session allowed, a trial follows in the next conversation.
        await until(lambda: at.known != before)
        known, asked = at.known, commands(far)
    assert known.state is not POSSIBLE
    if known.next_trial:
        async with relay(known) as at:
            await send(at)
        assert commands(far) == asked


@pytest.mark.parametrize("command", ["sleep 30", "cat >/dev/null"])
@pytest.mark.parametrize("before", [Recording(), KNOWN], ids=["unknown before", "possible before"])
async def test_a_command_that_says_nothing_is_not_tried_again_soon(
    far: Sshd,
    relay: Callable[..., AbstractAsyncContextManager[Bench]],
    monkeypatch: pytest.MonkeyPatch,
    before: Recording,
    command: str,
) -> None:
    monkeypatch.setattr(recorder, "START", 0.5)
    far.start(ForceCommand=command)
    start = time.time()
    async with relay(before, linger=0.0) as at:
        async with asyncio.timeout(PATIENCE):
            while not at.known.next_trial:
                await send(at)
        known, asked = at.known, commands(far)
        await send(at)
    assert known.state is UNKNOWN
    assert start + SHORT_REST <= known.next_trial <= time.time() + SHORT_REST
    assert commands(far) == asked


async def test_a_relayhost_that_can_record_does_so_from_the_first_conversation_on(
    far: Sshd, relay: Callable[..., AbstractAsyncContextManager[Bench]]
) -> None:
    far.start()
    async with relay(Recording()) as at:
        await send(at)
        assert len(at.recorders()) == 1
        await until(lambda: at.known == KNOWN)


async def test_a_relayhost_that_could_not_record_yesterday_is_tried_again(
    far: Sshd, relay: Callable[..., AbstractAsyncContextManager[Bench]]
) -> None:
    far.start()
    async with relay(Recording(IMPOSSIBLE, time.time() - 1)) as at:
        await send(at)
        await until(lambda: at.known == KNOWN)


@pytest.mark.parametrize(
    ("known", "settings"),
    [(KNOWN, {"record": "off"}), (Recording(), {"record": "off"}), (IMPOSSIBLE_NOW, {})],
    ids=["off, although possible", "off", "known to be impossible"],
)
async def test_without_records_no_command_runs_there(
    far: Sshd,
    relay: Callable[..., AbstractAsyncContextManager[Bench]],
    known: Recording,
    settings: dict[str, Any],
) -> None:
    far.start()
    async with relay(known, **settings) as at:
        await send(at, 20)
        assert at.records == []
        at.cut()
        await send(at, 20)
    assert commands(far) == 0


async def test_where_the_server_allows_two_sessions_the_other_conversations_go_by_forwarding(
    far: Sshd, relay: Callable[..., AbstractAsyncContextManager[Bench]]
) -> None:
    far.start(MaxSessions=2)
    async with relay(channels=5, backlog_channels=5) as at:
        await send(at)
        at.server.pause = 0.02
        contents = await at.accept(60)
        await until(lambda: at.server.open == 5)
        assert len(at.recorders()) <= 2
        await at.until("state != 'sent'")
        assert contents <= {content.rpartition(b"\r\n\r\n")[2] for content in at.server.taken}
        assert at.known == KNOWN


async def test_a_mail_server_that_still_works_when_its_record_is_read_is_waited_for(
    far: Sshd, relay: Callable[..., AbstractAsyncContextManager[Bench]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "ENDING", 0.3)
    recorder._script.cache_clear()
    far.start()
    async with relay() as at:
        await send(at)
        at.server.pause = 2.0
        await at.accept(1)
        await until(lambda: at.server.judging)
        at.cut()
        await at.until("state != 'sent'")
        assert set(at.server.taken.values()) == {1}
        assert at.db.execute("SELECT count(*) FROM recipient WHERE uncertain IS NOT NULL").get == 0
    recorder._script.cache_clear()


async def test_a_message_at_which_the_mail_server_ends_is_sent_again_at_once_and_is_not_in_doubt(
    far: Sshd, relay: Callable[..., AbstractAsyncContextManager[Bench]]
) -> None:
    far.start()
    async with relay() as at:
        await send(at)
        at.server.ends = 1
        await send(at)
        assert at.server.ends == 0
        assert set(at.server.taken.values()) == {1}
        assert at.db.execute("SELECT count(*) FROM recipient WHERE uncertain IS NOT NULL").get == 0
        assert at.db.execute("SELECT max(attempts) FROM message").get == 2


async def test_dropbear_keeps_records_too(tmp_path: Path, far: Sshd) -> None:
    dropbear = Dropbear(tmp_path / "dropbear", (far.directory / "client.pub").read_text())
    dropbear.start()
    config = far.ssh_config.read_text().replace(f"Port {far.port}", f"Port {dropbear.port}")
    far.ssh_config.write_text(config)
    (far.directory / "known_hosts").write_text(f"[127.0.0.1]:{dropbear.port} {dropbear.host_key}\n")
    know(tmp_path / "spool")
    try:
        async with bench(tmp_path, dropbear, MailServer((b"PIPELINING",)), far.ssh_config) as at:
            at.server.pause = 0.01
            await at.accept(30)
            await at.until("state != 'sent'", 15)
            at.cut()
            await at.until("state != 'sent'")
            assert set(at.server.taken.values()) == {1}
    finally:
        dropbear.stop()
