"""What a login costs: questions to the server, and to the person."""

import asyncio
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_SERVICE_ACCEPT
from asyncssh.rsa import RSAKey
from harness.remotes import amend, fault_of
from harness.silent_agent import silent_agent
from harness.ssh_agent import agent

from mailrelay.demo.remote import Remote, RemoteSSHServer
from mailrelay.ssh.dial import dial


class Counting(Remote):
    """A remote that writes down what it is asked for, and answers (RFC 4252 section 5)."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.requests: list[str] = []
        self.refused = asyncio.Event()

    def ssh_server(self) -> asyncssh.SSHServer:
        return CountingSSHServer(self)


class CountingSSHServer(RemoteSSHServer):
    remote: Counting

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        super().connection_made(conn)
        fail = conn.send_userauth_failure

        def refuse(partial_success: bool) -> None:
            self.remote.requests.append("refused")
            self.remote.refused.set()
            fail(partial_success)

        conn.send_userauth_failure = refuse  # type: ignore[method-assign]

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        # Asked for a question and for a signature.
        self.remote.requests.append("key")
        return super().validate_public_key(username, key)


async def log_in(remote: Remote) -> None:
    link = await dial(remote.relayhost())
    await link.close()


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def put_key(path: Path, kind: str = "ssh-ed25519") -> asyncssh.SSHKey:
    key = asyncssh.generate_private_key(kind)
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key())
    return key


def askpass(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """The program by which an agent asks the person: it runs `script` and says yes."""
    program = directory / "askpass"
    program.write_text(f"#!{sys.executable}\n{script}\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("SSH_ASKPASS", str(program))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("DISPLAY", ":none")


async def test_the_key_of_a_file_lets_us_in_with_one_request(tmp_path: Path) -> None:
    async with Counting(tmp_path) as remote:
        await log_in(remote)
        assert remote.requests == ["key"]


class Withholding(Remote):
    """A remote that accepts the service request only when it has received the authentication request behind it."""

    accepted_late = False

    def ssh_server(self) -> asyncssh.SSHServer:
        return WithholdingSSHServer(self)


class WithholdingSSHServer(RemoteSSHServer):
    remote: Withholding

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        super().connection_made(conn)
        self._send = conn.send_packet
        self._withheld: tuple[bytes, ...] | None = None

        def send_packet(kind: int, *octets: bytes, **keywords: Any) -> None:
            if kind == MSG_SERVICE_ACCEPT:
                self._withheld = octets
            else:
                self._send(kind, *octets, **keywords)

        conn.send_packet = send_packet  # type: ignore[method-assign]

    def begin_auth(self, username: str) -> bool:
        if self._withheld is not None:
            octets, self._withheld = self._withheld, None
            self.remote.accepted_late = True
            self._send(MSG_SERVICE_ACCEPT, *octets)
        return super().begin_auth(username)


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa"])
async def test_the_authentication_does_not_wait_for_the_reply_to_the_service_request(tmp_path: Path, kind: str) -> None:
    async with Withholding(tmp_path) as remote:
        (tmp_path / "id_ed25519").unlink()
        remote.client_key = put_key(tmp_path / "id_ed25519", kind)
        await log_in(remote)
        assert remote.accepted_late


class Open(Remote):
    """A remote that asks for nothing (RFC 4252 section 5.2: "none")."""

    def ssh_server(self) -> asyncssh.SSHServer:
        return OpenSSHServer(self)


class OpenSSHServer(RemoteSSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


@pytest.mark.parametrize("has_key", [True, False])
async def test_a_server_that_asks_for_nothing_lets_us_in(tmp_path: Path, has_key: bool) -> None:
    async with Open(tmp_path) as remote:
        if not has_key:
            (tmp_path / "id_ed25519").unlink()
        await log_in(remote)
        assert remote.logins == 1


async def test_without_a_key_the_server_is_asked_whether_it_wants_one(tmp_path: Path) -> None:
    async with Counting(tmp_path) as remote:
        (tmp_path / "id_ed25519").unlink()
        outcome = await fault_of(remote.relayhost())
        assert remote.requests == ["refused"]
        assert "id_ed25519 (does not exist)" in outcome.text


async def test_an_rsa_key_is_used_with_sha_1_only_where_ssh_config_allows_it(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.client_key = put_key(tmp_path / "rsa", "ssh-rsa")
        server = await asyncssh.listen(
            "127.0.0.1",
            server_factory=remote.ssh_server,
            server_host_keys=[remote.host_key],
            signature_algs=["ssh-rsa"],
            config=None,
            gss_host=None,
        )
        remote.known_hosts.write_text(f"* {remote.host_key.export_public_key().decode()}")
        text = remote.ssh_config.read_text().replace("/id_ed25519", "/rsa")
        remote.ssh_config.write_text(text.replace(f"Port {remote.ssh_port}", f"Port {server.get_port()}"))
        outcome = await fault_of(remote.relayhost())
        assert "it supports no signature with" in outcome.text and "PubkeyAcceptedAlgorithms +ssh-rsa" in outcome.fix
        amend(remote, "PubkeyAcceptedAlgorithms ssh-rsa")
        await log_in(remote)
        server.close()
        await server.wait_closed()


async def test_a_login_with_a_key_of_a_file_does_not_need_the_agent(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, silent_agent(tmp_path / "agent") as silent:
        text = remote.ssh_config.read_text()
        remote.ssh_config.write_text(text.replace("IdentityAgent none", f'IdentityAgent "{tmp_path / "agent"}"'))
        await log_in(remote)
        assert silent.connections == 0


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs OpenSSH's ssh-agent")
async def test_a_person_who_confirms_late_is_asked_once_and_still_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key file behind the agent's key is tried meanwhile; then the answer counts."""
    monkeypatch.setattr("mailrelay.ssh.agent.AGENT_TIMEOUT", 1.0)
    async with Counting(tmp_path) as remote:
        asked, go_on = tmp_path / "asked", tmp_path / "go on"
        askpass(tmp_path, monkeypatch, f"open({str(asked)!r}, 'a').write('once '); open({str(go_on)!r}).read()")
        os.mkfifo(go_on)
        unknown = tmp_path / "unknown"
        put_key(unknown)
        public = tmp_path / "wanted.pub"
        remote.client_key.write_public_key(str(public))
        socket = tmp_path / "agent"
        text = remote.ssh_config.read_text().replace("IdentityAgent none", f'IdentityAgent "{socket}"')
        lines = f'IdentityFile "{public}"\n    IdentityFile "{unknown}"'
        remote.ssh_config.write_text(text.replace(f'IdentityFile "{tmp_path / "id_ed25519"}"', lines))
        async with agent(socket, tmp_path / "id_ed25519", confirm=True):
            login = asyncio.create_task(log_in(remote))
            # The wanted key is asked about, and the other one is refused while the person is still being asked.
            await remote.refused.wait()
            await asyncio.to_thread(go_on.write_text, "yes")
            await login
            assert asked.read_text() == "once "


@pytest.mark.parametrize("error", [ValueError, OverflowError])
async def test_a_key_that_cannot_sign_and_that_nobody_wants_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def sign_ssh(self: RSAKey, data: bytes, sig_algorithm: bytes) -> bytes:
        raise error("not on this computer")

    monkeypatch.setattr(RSAKey, "sign_ssh", sign_ssh)

    async with Counting(tmp_path) as remote:
        put_key(tmp_path / "rsa", "ssh-rsa")
        amend(remote, f'IdentityFile "{tmp_path / "rsa"}"')
        await log_in(remote)


async def test_each_key_that_is_refused_costs_one_request_more(tmp_path: Path) -> None:
    async with Counting(tmp_path) as remote:
        for name in ("one", "two"):
            put_key(tmp_path / name)
            amend(remote, f'IdentityFile "{tmp_path / name}"')
        await log_in(remote)
        assert remote.requests == ["key", "refused", "key", "refused", "key"]


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs OpenSSH's ssh-agent")
async def test_of_several_keys_in_an_agent_only_the_one_that_the_server_takes_is_to_be_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Counting(tmp_path) as remote:
        wanted = tmp_path / "id_ed25519"
        unwanted = tmp_path / "unwanted"
        put_key(unwanted)
        asked = tmp_path / "asked"
        askpass(tmp_path, monkeypatch, f"open({str(asked)!r}, 'a').write('once ')")
        socket = tmp_path / "agent"
        async with agent(socket, unwanted, wanted, confirm=True):
            wanted.unlink()
            text = remote.ssh_config.read_text()
            text = text.replace("IdentityAgent none", f'IdentityAgent "{socket}"').replace("IdentitiesOnly yes", "")
            remote.ssh_config.write_text(text)
            await log_in(remote)
            assert asked.read_text() == "once "
