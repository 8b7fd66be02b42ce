"""mailrelay follows ssh_config like ssh(1): it reaches the hosts that `ssh HOST` reaches, and no others.

Each configuration is tested with the real ssh(1) and with mailrelay, against OpenSSH's sshd and dropbear.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.dropbear import Dropbear
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.postfix import Sink
from harness.processes import Child, program
from harness.sendmail import Sendmail
from harness.sshd import ALIAS, Sshd, make_key

from mailrelay.config import Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.ssh.dial import dial
from mailrelay.ssh.interface import Fault
from mailrelay.ssh.mail_path import try_path

pytestmark = pytest.mark.system

Server = Sshd | Dropbear


@dataclass
class Scene:
    """The files of a client, and servers. key: the private key that every server accepts."""

    directory: Path
    sink: Sink
    servers: dict[str, Server]

    @property
    def key(self) -> Path:
        return self.directory / "sshd/client"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def config(self) -> Path:
        return self.directory / "config"

    def server(self, kind: str) -> Server:
        """A running server of that kind ("sshd", "dropbear", or another of the same: "dropbear2"), known to the client."""
        if kind not in self.servers:
            directory = self.directory / kind
            authorized = self.key.with_suffix(".pub").read_text()
            server = Dropbear(directory, authorized) if kind.startswith("dropbear") else Sshd(directory)
            if isinstance(server, Sshd) and kind != "sshd":
                (directory / "authorized_keys").write_text(authorized)
            self.servers[kind] = server
        server = self.servers[kind]
        if server.child is None:
            server.start()
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        return server

    def host(self, alias: str, server: Server, *lines: str) -> str:
        """A Host block of ssh_config for a server; `lines` come first and take precedence."""
        usual = ("HostName 127.0.0.1", f"Port {server.port}", f"User {server.user}")
        files = (f"IdentityFile {self.key}", "IdentitiesOnly yes", "IdentityAgent none")
        known = (f"UserKnownHostsFile {self.known_hosts}", "GlobalKnownHostsFile none")
        return "".join(f"{line}\n" for line in (f"Host {alias}", *lines, *usual, *files, *known))

    async def reaches(self, *config: str) -> None:
        """Asserts that ssh(1) logs in, and that mailrelay does so too, up to the greeting of the mail server."""
        self.config.write_text("".join(config))
        asked = self.ssh()
        assert asked.returncode == 0, asked.stderr
        assert (await self.greeting()).startswith("220 ")

    async def refused(self, *config: str) -> Outcome:
        """Asserts that neither ssh(1) nor mailrelay logs in. Returns mailrelay's fault."""
        self.config.write_text("".join(config))
        assert self.ssh().returncode == 255
        with pytest.raises(Fault) as caught:
            await self.greeting()
        return caught.value.outcome

    def ssh(self) -> subprocess.CompletedProcess[str]:
        argv = [program("ssh", "openssh-client"), "-o", "BatchMode=yes", "-F", str(self.config), ALIAS, "true"]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)

    async def greeting(self) -> str:
        relayhost = Relayhost(name="x", ssh=ALIAS, ssh_config=self.config, smtp=Tcp("localhost", self.sink.port))
        link = await dial(relayhost)
        try:
            return (await try_path(link, "")).greeting
        finally:
            await link.close()


@pytest.fixture
def at(tmp_path: Path, sshd: Sshd, sinks: Callable[..., Sink]) -> Iterator[Scene]:
    scene = Scene(tmp_path, sinks(), {"sshd": sshd})
    yield scene
    for server in scene.servers.values():
        server.stop()


@pytest.fixture(params=["sshd", "dropbear"])
def server(request: pytest.FixtureRequest, at: Scene) -> Server:
    return at.server(request.param)


async def test_host_match_and_include_lead_to_the_same_host_as_with_ssh(at: Scene, server: Server) -> None:
    parts = at.directory / "parts"
    parts.mkdir()
    # Files are read in the order of their names, not of the directory; the first value counts.
    (parts / "20-late").write_text(f"Host {ALIAS}\n  Port 1\n")
    (parts / "10-early").write_text(f"Host *.example {ALIAS} # a comment\n  Port {server.port} # another\n")
    rest = at.host("given", server).replace(f"Port {server.port}\n", "").replace("Host given\n", "")
    await at.reaches(
        f"Include {parts}/*\n"
        f'Match originalhost {ALIAS} exec "test %n = {ALIAS}"\n{rest}'
        "Match all\n  ConnectTimeout 1m\n"
    )
    assert server.logins() == 2


@pytest.mark.parametrize("target", ["sshd", "dropbear"])
@pytest.mark.parametrize("jumps", [["sshd2"], ["dropbear2"], ["dropbear2", "sshd2"]], ids="+".join)
async def test_a_machine_behind_jump_hosts_is_reached_and_mail_arrives_there(
    at: Scene, target: str, jumps: list[str], sendmail: Sendmail, token: str
) -> None:
    names = [f"me-{jump}" for jump in jumps]
    way = [at.server(jump) for jump in jumps]
    behind = at.server(target)
    config = [at.host(name, each) for name, each in zip(names, way, strict=True)]
    await at.reaches(at.host(ALIAS, behind, f"ProxyJump {','.join(names)}"), *config)
    assert [each.logins() for each in (*way, behind)] == [2] * (len(way) + 1)

    relay = Relay(at.directory / "relay", at.config, sendmail.port)
    relay.start()
    try:
        code, words = submit(relay.port, [f"alice@{DOMAIN}"], message(token))
        assert (code, words.split()[2]) == (250, "sent:"), words
    finally:
        relay.stop()
    assert len(sendmail.boxes.wait("alice", token)) == 1


async def test_the_jump_host_of_a_jump_host_is_used(at: Scene, server: Server) -> None:
    one, two = at.server("dropbear2"), at.server("sshd2")
    await at.reaches(at.host(ALIAS, server, "ProxyJump b"), at.host("b", two, "ProxyJump a"), at.host("a", one))
    assert (one.logins(), two.logins(), server.logins()) == (2, 2, 2)


async def test_a_proxy_command_is_run_by_a_shell_and_may_write_to_stderr(at: Scene, server: Server) -> None:
    hop = at.server("sshd2")
    script = f"echo going by %n >&2; exec ssh -v -o BatchMode=yes -F {at.config} -W %h:%p hop"
    await at.reaches(at.host(ALIAS, server, f"ProxyCommand sh -c '{script}'"), at.host("hop", hop))
    assert hop.logins() == 2


KNOWN = {
    "by name and port": "[127.0.0.1]:{port} {key}\n",
    "by pattern": "[127.0.0.*]:{port} {key}\n",
    "beside a broken line": "[127.0.0.1]:{port} ssh-ed25519 AAAA\n[127.0.0.1]:{port} {key}\n",
}


@pytest.mark.parametrize("known", KNOWN)
async def test_a_host_is_known_as_known_hosts_writes_it(at: Scene, server: Server, known: str) -> None:
    at.known_hosts.write_text(KNOWN[known].format(port=server.port, key=server.host_key))
    await at.reaches(at.host(ALIAS, server))


async def test_a_host_is_known_by_its_hashed_name(at: Scene, server: Server) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", at.known_hosts], capture_output=True, check=True)
    assert "127.0.0.1" not in at.known_hosts.read_text()
    await at.reaches(at.host(ALIAS, server))


async def test_a_host_is_known_by_its_alias_and_by_everybodys_file(at: Scene, server: Server) -> None:
    everybody = at.directory / "everybody"
    everybody.write_text(f"mail.example {server.host_key}\n")
    at.known_hosts.write_text("")
    files = ("UserKnownHostsFile none", f"GlobalKnownHostsFile /nonexistent {everybody}")
    assert (await at.refused(at.host(ALIAS, server, *files))).cause is Cause.HOST_KEY_UNKNOWN
    await at.reaches(at.host(ALIAS, server, *files, "HostKeyAlias mail.example"))
    named = at.directory / "mail.example"
    named.write_text(everybody.read_text())
    await at.reaches(at.host(ALIAS, server, f"UserKnownHostsFile {at.directory}/%k", "HostKeyAlias mail.example"))


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ("", Cause.HOST_KEY_UNKNOWN),
        ("[127.0.0.1]:{port} {other}\n", Cause.HOST_KEY_CHANGED),
        ("[127.0.0.1]:{port} {key}\n@revoked * {key}\n", Cause.HOST_KEY_REVOKED),
    ],
    ids=["unknown", "changed", "revoked"],
)
@pytest.mark.parametrize("as_jump", [False, True], ids=["itself", "jump"])
async def test_a_host_key_that_ssh_refuses_is_refused_before_any_login(
    at: Scene, server: Server, lines: str, cause: Cause, as_jump: bool
) -> None:
    behind = at.server("sshd2")
    other = make_key(at.directory / "other")
    at.known_hosts.write_text(
        lines.format(port=server.port, key=server.host_key, other=other)
        + f"[127.0.0.1]:{behind.port} {behind.host_key}\n"
    )
    config = at.host("hop" if as_jump else ALIAS, server)
    outcome = await at.refused(config, at.host(ALIAS, behind, "ProxyJump hop") if as_jump else "")
    assert (outcome.stage, outcome.cause) == (Stage.HOST_KEY, cause)
    assert (server.logins(), behind.logins()) == (0, 0)


def sign(authority: Path, public: Path, *options: str) -> None:
    """Writes PUBLIC-cert.pub in the directory of a public key."""
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "test", *options, public], check=True)


async def test_a_host_certificate_is_accepted_for_its_names_only(at: Scene, sshd: Sshd) -> None:
    authority = make_key(at.directory / "authority")
    sign(at.directory / "authority", sshd.directory / "host.pub", "-h", "-n", "mail.example")
    sshd.stop()
    sshd.start(HostCertificate=sshd.directory / "host-cert.pub")
    at.known_hosts.write_text(f"@cert-authority *.example,[127.0.0.1]:* {authority}\n")
    await at.reaches(at.host(ALIAS, sshd, "HostKeyAlias mail.example"))
    logins = sshd.logins()
    outcome = await at.refused(at.host(ALIAS, sshd, "HostKeyAlias other.example"))
    assert outcome.stage is Stage.HOST_KEY
    with at.known_hosts.open("a") as file:
        file.write(f"@revoked * {authority}\n")
    assert (await at.refused(at.host(ALIAS, sshd, "HostKeyAlias mail.example"))).cause is Cause.HOST_KEY_REVOKED
    assert sshd.logins() == logins


@contextmanager
def agent(socket: Path, *keys: Path) -> Iterator[None]:
    """An ssh-agent that holds keys."""
    child = Child([program("ssh-agent", "openssh-client"), "-D", "-a", socket])
    try:
        child.wait_line("SSH_AUTH_SOCK")
        for key in keys:
            environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
            subprocess.run(["ssh-add", "-q", key], env=environment, capture_output=True, check=True)
        yield
    finally:
        child.stop()
        socket.unlink(missing_ok=True)


async def test_the_agent_is_looked_up_again_at_every_dial(at: Scene, server: Server) -> None:
    socket, moved = at.directory / "agent", at.directory / "moved"
    at.key.rename(moved)
    config = at.host(ALIAS, server, f"IdentityAgent {socket}")
    for _ in range(2):
        outcome = await at.refused(config)
        assert outcome.stage is Stage.AUTH
        assert str(socket) in outcome.text
        with agent(socket, moved):
            await at.reaches(config)


async def test_an_encrypted_key_is_used_through_an_agent_without_a_passphrase_prompt(at: Scene, server: Server) -> None:
    plain, socket = at.directory / "plain", at.directory / "agent"
    plain.write_bytes(at.key.read_bytes())
    plain.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", at.key], capture_output=True, check=True)
    config = at.host(ALIAS, server, f"IdentityAgent {socket}")
    outcome = await at.refused(config)
    assert (outcome.stage, outcome.cause) == (Stage.AUTH, Cause.AUTH_REFUSED)
    assert f"ssh-add {at.key}" in outcome.fix
    with agent(socket, plain):
        await at.reaches(config)


async def test_a_key_that_others_can_read_is_refused_with_a_fix(at: Scene, server: Server) -> None:
    at.key.chmod(0o640)
    outcome = await at.refused(at.host(ALIAS, server))
    assert outcome.stage is Stage.AUTH
    assert f"chmod 600 {at.key}" in outcome.fix
    at.key.chmod(0o600)
    await at.reaches(at.host(ALIAS, server))


@pytest.mark.parametrize("through_agent", [False, True], ids=["file", "agent"])
async def test_a_user_certificate_is_accepted(at: Scene, sshd: Sshd, through_agent: bool) -> None:
    make_key(at.directory / "authority")
    new, socket = at.directory / "new", at.directory / "agent"
    make_key(new)
    sshd.stop()
    sshd.start(TrustedUserCAKeys=at.directory / "authority.pub")
    config = at.host(ALIAS, at.server("sshd"), f"CertificateFile {at.directory}/mine", f"IdentityAgent {socket}")
    config = config.replace(str(at.key), str(new))
    assert (await at.refused(config)).stage is Stage.AUTH
    sign(at.directory / "authority", new.with_suffix(".pub"), "-n", sshd.user)
    (at.directory / "new-cert.pub").rename(at.directory / "mine")
    if not through_agent:
        await at.reaches(config)
        return
    with agent(socket, new):
        # Then only the public key and the certificate are files.
        new.unlink()
        await at.reaches(config)


async def test_an_error_in_ssh_config_is_reported_with_the_message_of_ssh(at: Scene, server: Server) -> None:
    outcome = await at.refused(at.host(ALIAS, server), "Port many\n")
    assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.SSH_CONFIG)
    assert f"{at.config} line " in outcome.text and "many" in outcome.text
