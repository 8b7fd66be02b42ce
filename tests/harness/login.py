"""Logins to OpenSSH's sshd, by ssh(1) and by mailrelay, with the same ssh_config."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.processes import program
from harness.sshd import ALIAS, Sshd
from mailrelay.check import connection_path
from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Outcome
from mailrelay.ssh.dial import dial
from mailrelay.ssh.interface import Fault


@dataclass
class Scene:
    """A client and a server."""

    sshd: Sshd
    directory: Path

    @property
    def key(self) -> Path:
        return self.sshd.directory / "client"

    @property
    def public(self) -> Path:
        return self.sshd.directory / "client.pub"

    @property
    def socket(self) -> Path:
        return self.directory / "agent"

    @property
    def relayhost(self) -> Relayhost:
        return Relayhost(name="x", ssh=ALIAS, ssh_config=self.sshd.ssh_config)

    def server(self, **options: object) -> None:
        self.sshd.stop()
        self.sshd.start(**options)

    def client(self, *lines: str, identities: Sequence[Path] | None = None) -> None:
        """Writes ssh_config. identities: the key files that it names, by default that of the server."""
        files = [f"IdentityFile {file}" for file in ([self.key] if identities is None else identities)]
        usual = [
            *(f"HostName {self.sshd.host}", f"Port {self.sshd.port}", f"User {self.sshd.user}"),
            *("IdentitiesOnly yes", "IdentityAgent none", "GlobalKnownHostsFile none"),
            f"UserKnownHostsFile {self.known_hosts}",
        ]
        text = "\n  ".join((f"Host {ALIAS}", *lines, *files, *usual))
        self.sshd.ssh_config.write_text(f"{text}\n")

    @property
    def known_hosts(self) -> Path:
        return self.sshd.directory / "known_hosts"

    async def ssh(self) -> subprocess.CompletedProcess[str]:
        argv = [program("ssh", "openssh-client"), "-o", "BatchMode=yes", "-F", self.sshd.ssh_config, ALIAS, "true"]
        done = await asyncio.to_thread(
            subprocess.run, argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        print(f"SSH: {done.returncode} {done.stderr.strip()}", file=sys.stderr)
        return done

    async def logs_in(self, *, with_ssh: bool = True) -> None:
        if with_ssh:
            asked = await self.ssh()
            assert asked.returncode == 0, asked.stderr
        connection = await dial(self.relayhost)
        await connection.close()

    async def refused(self, *, with_ssh: bool = True) -> Outcome:
        """The fault of a login, which `mailrelay check` names too."""
        if with_ssh:
            assert (await self.ssh()).returncode == 255
        with pytest.raises(Fault) as caught:
            await dial(self.relayhost)
        outcome = caught.value.outcome
        print(f"HERE: {outcome.stage} {outcome.cause}: {outcome.text}\nFIX: {outcome.fix}", file=sys.stderr)
        assert outcome.text.isprintable() and outcome.fix.isprintable()
        return outcome

    async def checked(self) -> list[tuple[str, bool | None, str, str]]:
        """The findings of `mailrelay check`: name, result, text and fix."""
        hops = await connection_path.read(self.relayhost)
        assert isinstance(hops, list)
        found = await connection_path.examine(self.relayhost, hops, 1, lambda account: account, online=True)
        return [(one.check, one.ok, one.text, one.fix) for one in found]


@pytest.fixture
def at(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    scene = Scene(sshd, tmp_path)
    scene.client()
    yield scene
