"""SSH servers to dial, alone or behind jump hosts, and what a dial to one of them brings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mailrelay.config import Relayhost
from mailrelay.demo.remote import HOST, Remote
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.triage import is_setup_fault
from mailrelay.ssh.dial import dial
from mailrelay.ssh.interface import Fault


@pytest.fixture(autouse=True)
def no_agent_and_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


async def fault_of(relayhost: Relayhost) -> Outcome:
    with pytest.raises(Fault) as caught:
        link = await dial(relayhost)
        await link.close()
    outcome = caught.value.outcome
    assert outcome.text.isprintable() and outcome.fix.isprintable()
    assert bool(outcome.fix) == is_setup_fault(outcome)
    return outcome


def amend(remote: Remote, *lines: str) -> None:
    """Puts lines before those of the ssh_config: the first value of a setting counts."""
    text = remote.ssh_config.read_text()
    remote.ssh_config.write_text(
        text.replace(f"Host {HOST}\n", f"Host {HOST}\n" + "".join(f"    {each}\n" for each in lines))
    )


async def greeting(relayhost: Relayhost) -> bytes:
    link = await dial(relayhost)
    try:
        wire = await link.open_channel()
        return await wire.read()
    finally:
        await link.close()
        assert not link.is_up


def jump_config(first: Remote, *others: Remote) -> None:
    """Names the other remotes hop1, hop2, … in the ssh_config of the first."""
    with first.ssh_config.open("a") as file:
        for number, other in enumerate(others, start=1):
            file.write(other.ssh_config.read_text().replace(f"Host {HOST}", f"Host hop{number}"))


@asynccontextmanager
async def two_jump_hosts(path: Path) -> AsyncIterator[tuple[Remote, Remote, Remote]]:
    """A remote, and the two others that its ssh_config calls hop1 and hop2.

    Tests with them run on both event loops, which differ in how soon the bytes of an inner connection come.
    """
    directories = [path / name for name in ("target", "hop1", "hop2")]
    for directory in directories:
        directory.mkdir()
    async with Remote(directories[0]) as target, Remote(directories[1]) as one, Remote(directories[2]) as two:
        jump_config(target, one, two)
        yield target, one, two
