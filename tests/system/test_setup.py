"""Setup with real SSH servers: authorizing and removing keys, a restricted key, and the test that it is restricted."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.dropbear import Dropbear
from harness.postfix import Sink
from harness.processes import free_port, program
from harness.sshd import ALIAS, Sshd, make_key

from mailrelay.cli import setup_remote
from mailrelay.config import Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.setup import restriction
from mailrelay.ssh import authorized_keys, mail_path, restriction_probe
from mailrelay.ssh.interface import Fault

pytestmark = pytest.mark.system

ODD = "a command in words of mailrelay's"
EVERYTHING = {
    "a shell",
    "a command",
    ODD,
    "file transfer (sftp)",
    "-L to another port",
    "-L to another host",
    "-L to a UNIX socket",
    "-R, a port opened there",
    "agent forwarding",
}


@pytest.fixture
def home(sshd: Sshd) -> Path:
    """A home directory for the account on the server, with the client's key authorized."""
    sshd.stop()
    home = sshd.home
    (home / ".ssh").mkdir(mode=0o700)
    (sshd.directory / "authorized_keys").rename(home / ".ssh/authorized_keys")
    sshd.start(AuthorizedKeysFile=home / ".ssh/authorized_keys")
    return home


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A UNIX socket on the server that the account can open."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        monkeypatch.setattr(restriction_probe, "SOCKETS", (str(path),))
        yield


def the_way(sshd: Sshd, **changes: object) -> Relayhost:
    return Relayhost(name="default", ssh=ALIAS, ssh_config=sshd.ssh_config, **changes)  # type: ignore[arg-type]


async def not_refused(relayhost: Relayhost, key: Path) -> set[str]:
    """The uses of the key other than mail that succeed."""
    tried = await restriction_probe.trials(relayhost, key)
    assert {re.sub(r" \(.*", "", one.what) if "-L" in one.what else one.what for one in tried} == EVERYTHING
    return {re.sub(r" \(.*", "", one.what) if "-L" in one.what else one.what for one in tried if not one.is_refused}


@pytest.mark.parametrize("before", ["", "# mine\n", "# mine", "# mine\nssh-rsa AAAAB3 x\n"])
async def test_a_key_is_authorized_once_and_removed_again_and_other_lines_stay(
    sshd: Sshd, home: Path, before: str
) -> None:
    file = home / ".ssh/authorized_keys"
    client = file.read_text()
    file.write_text(client + before)
    key = make_key(sshd.directory / "other")
    line = f'restrict {key} o\'ther "$(touch x)"'
    for _ in range(2):
        assert await authorized_keys.authorize(the_way(sshd), line) is None
        assert file.read_text() == client + before + ("" if not before or before.endswith("\n") else "\n") + line + "\n"
    assert await authorized_keys.authorize(the_way(sshd), key) is None
    assert file.read_text().count(authorized_keys.key_in_base64(key)) == 1
    assert await authorized_keys.withdraw(the_way(sshd), line) is None
    assert file.read_text().rstrip() == (client + before).rstrip()
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (home / ".ssh").iterdir()] == ["authorized_keys"]


async def test_a_missing_file_is_created_with_access_for_the_account_only(sshd: Sshd, home: Path) -> None:
    file = home / ".ssh/authorized_keys"
    elsewhere = home / "keys"
    file.rename(elsewhere)
    file.parent.rmdir()
    sshd.stop()
    sshd.start(AuthorizedKeysFile=elsewhere)
    assert await authorized_keys.authorize(the_way(sshd), make_key(sshd.directory / "other")) is None
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    ("options", "able"),
    [
        ("", EVERYTHING),
        ("restrict", {"a shell", "a command", ODD, "file transfer (sftp)"}),
        (
            'restrict,port-forwarding,permitopen="localhost:{port}"',
            {"a shell", "a command", ODD, "file transfer (sftp)", "-R, a port opened there"},
        ),
        (
            'restrict,port-forwarding,permitlisten="localhost:1",command="false"',
            {"-L to another port", "-L to another host", "-L to a UNIX socket"},
        ),
        ('restrict,agent-forwarding,command="false"', {"agent forwarding"}),
    ],
)
async def test_the_probe_finds_every_use_that_a_missing_option_permits(
    sshd: Sshd, sockets: None, options: str, able: set[str]
) -> None:
    port = free_port()
    key = sshd.directory / "client"
    public = authorized_keys.read_key(key)
    (sshd.directory / "authorized_keys").write_text(f"{options.format(port=port)} {public}\n".lstrip())
    assert await not_refused(the_way(sshd, smtp=Tcp("localhost", port)), key) == able


@pytest.mark.parametrize("command", ["", "printf '220 hi\\r\\n'; cat"])
async def test_a_restricted_key_permits_only_mail(sshd: Sshd, sockets: None, command: str) -> None:
    key = sshd.directory / "client"
    relayhost = the_way(sshd, command=command, smtp=Tcp("localhost", free_port()))
    line = restriction.authorized_keys_line(authorized_keys.read_key(key), relayhost)
    (sshd.directory / "authorized_keys").write_text(f"{line}\n")
    assert await not_refused(relayhost, key) == set()


@pytest.mark.parametrize("command", ["", "printf '220 hi\\r\\n'; cat"])
async def test_a_restricted_key_for_tracking_permits_only_mail_and_tracking(
    sshd: Sshd, home: Path, sockets: None, sinks: Callable[..., Sink], command: str
) -> None:
    key = sshd.directory / "client"
    relayhost = the_way(sshd, command=command.replace("'", '"'), smtp=Tcp("localhost", sinks().port))
    line = restriction.authorized_keys_line(authorized_keys.read_key(key), relayhost, track=True)
    (home / ".ssh/authorized_keys").write_text(f"{line}\n")
    (sshd.directory / "authorized_keys").write_text(f"{line}\n")
    sshd.stop()
    # No mail server of this machine is asked: sendmail may query name servers for a minute.
    programs = home / "bin"
    programs.mkdir()
    (programs / "postqueue").write_text("#!/bin/sh\n")
    (programs / "postqueue").chmod(0o755)
    sshd.start(SetEnv=f"HOME={home} PATH={programs}:/usr/bin:/bin")
    assert await not_refused(relayhost, key) == set()
    uses = await restriction_probe.tracking_uses(relayhost, key)
    assert {use.why_not for use in uses} == {""}
    assert len(uses) == (1 if command else 2)


async def test_a_key_for_mail_alone_can_follow_nothing(sshd: Sshd) -> None:
    key = sshd.directory / "client"
    line = restriction.authorized_keys_line(authorized_keys.read_key(key), the_way(sshd))
    (sshd.directory / "authorized_keys").write_text(f"{line}\n")
    uses = await restriction_probe.tracking_uses(the_way(sshd), key)
    assert all(use.why_not for use in uses) and len(uses) == 2


async def test_the_probe_uses_only_the_given_key(sshd: Sshd) -> None:
    with pytest.raises(Fault, match="refused the login"):
        await restriction_probe.trials(the_way(sshd), sshd.directory / "another")


@pytest.fixture
def dropbear(sshd: Sshd, tmp_path: Path) -> Iterator[Dropbear]:
    """Dropbear in place of sshd; it accepts the same client."""
    sshd.stop()
    server = Dropbear(tmp_path / "dropbear", f"{authorized_keys.read_key(sshd.directory / 'client')}\n")
    server.port = sshd.port
    server.start()
    sshd.know(server.host_key)
    yield server
    server.stop()


async def test_dropbear_permits_a_restricted_key_one_command_only(
    sshd: Sshd, dropbear: Dropbear, sockets: None
) -> None:
    relayhost = the_way(sshd, command="printf '220 hi\\r\\n'; cat")
    key = sshd.directory / "client"
    assert await not_refused(relayhost, key) >= {"a shell", "a command", "-L to another port"}
    line = restriction.authorized_keys_line(authorized_keys.read_key(key), relayhost)
    (dropbear.directory / "home/.ssh/authorized_keys").write_text(f"{line}\n")
    assert await not_refused(relayhost, key) == set()


async def test_where_forwarding_cannot_be_restricted_the_key_uses_a_command(
    sshd: Sshd,
    dropbear: Dropbear,
    sockets: None,
    sinks: Callable[..., Sink],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # Not this machine's mail server, which may query name servers for a minute before its greeting.
    monkeypatch.setattr(mail_path, "SENDMAIL", ())
    monkeypatch.setattr(restriction_probe, "TRIAL_TIMEOUT", 2.0)
    relayhost = the_way(sshd, smtp=Tcp("localhost", sinks().port))
    # It runs an event loop of its own.
    found = await asyncio.to_thread(setup_remote.restrict, relayhost, tmp_path / "config.toml", yes=True)
    assert found.command
    assert found.ssh_config == tmp_path / "ssh_config.remote"
    assert await not_refused(found, tmp_path / ".ssh/id_mailrelay") == set()
    (line,) = (dropbear.directory / "home/.ssh/authorized_keys").read_text().splitlines()[1:]
    assert line.startswith(f'restrict,command="{found.command}" ssh-ed25519 ')


async def test_a_key_is_authorized_and_removed_with_dropbear(sshd: Sshd, dropbear: Dropbear) -> None:
    file = dropbear.directory / "home/.ssh/authorized_keys"
    before = file.read_text()
    key = make_key(sshd.directory / "other")
    assert await authorized_keys.authorize(the_way(sshd), key) is None
    assert file.read_text() == f"{before}{key}\n"
    assert await authorized_keys.withdraw(the_way(sshd), key) is None
    assert file.read_text() == before


def test_setup_from_a_known_host_to_a_restricted_key_and_again(
    sshd: Sshd, home: Path, sinks: Callable[..., Sink], relays: Callable[..., Relay]
) -> None:
    """Runs the whole command, with settings that name the host and the port of its mail server."""
    sink = sinks()
    relay = relays(sink.port)
    (relay.directory / ".ssh").mkdir(mode=0o700)
    relay.config.write_text(relay.config.read_text().replace(str(relay.port), "0", 1))
    first = relay.run("setup", ALIAS, "--yes", "--restricted", "--to", "me@example.org")
    assert first.returncode == 0, first.stdout + first.stderr
    sink.wait(1)
    line = (home / ".ssh/authorized_keys").read_text().splitlines()[-1]
    assert line.startswith(f'restrict,port-forwarding,permitopen="localhost:{sink.port}",permitlisten=')
    own = relay.config.with_name(f"ssh_config.{ALIAS}")
    assert 'ssh_config = "~/ssh_config.remote"' in relay.config.read_text()
    assert str(relay.directory / ".ssh/id_mailrelay") in own.read_text()
    # The mail was sent with that key, and the next one is too.
    accepted = [line for line in sshd.log if "Accepted publickey" in line]
    fingerprint = subprocess.run(
        [program("ssh-keygen", "openssh-client"), "-lf", relay.directory / ".ssh/id_mailrelay.pub"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[1]
    assert fingerprint in accepted[-1]
    before = (home / ".ssh/authorized_keys").read_bytes(), relay.config.read_bytes(), own.read_bytes()
    again = relay.run("setup", ALIAS, "--yes", "--restricted", "--to", "me@example.org")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "refused: a shell" in again.stdout
    assert before == ((home / ".ssh/authorized_keys").read_bytes(), relay.config.read_bytes(), own.read_bytes())
    sink.wait(2)


def test_setup_with_a_restricted_key_for_tracking(
    sshd: Sshd, home: Path, sinks: Callable[..., Sink], relays: Callable[..., Relay]
) -> None:
    sink = sinks()
    relay = relays(sink.port)
    (relay.directory / ".ssh").mkdir(mode=0o700)
    relay.config.write_text(relay.config.read_text().replace(str(relay.port), "0", 1))
    programs = home / "bin"
    programs.mkdir()
    (programs / "postqueue").write_text("#!/bin/sh\n")
    (programs / "postqueue").chmod(0o755)
    sshd.stop()
    keys = home / ".ssh/authorized_keys"
    sshd.start(AuthorizedKeysFile=keys, SetEnv=f"HOME={home} PATH={programs}:/usr/bin:/bin")
    words = ("setup", ALIAS, "--yes", "--restricted", "--track", "--to", "me@example.org")
    first = relay.run(*words)
    assert first.returncode == 0, first.stdout + first.stderr
    sink.wait(1)
    for said in (
        "refused: a shell",
        f"refused: {ODD}",
        "allowed: a record of a conversation",
        "allowed: a question about mail",
    ):
        assert said in first.stdout
    # The key that is there already is tested again.
    before = keys.read_bytes()
    again = relay.run(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "allowed: a question about mail" in again.stdout
    # One that may not follow mail is named, with the line to put there.
    relayhost = the_way(sshd, smtp=Tcp("localhost", sink.port))
    line = restriction.authorized_keys_line(authorized_keys.read_key(relay.directory / ".ssh/id_mailrelay"), relayhost)
    keys.write_text(f"{line}\n")
    lacking = relay.run(*words)
    assert lacking.returncode == 1
    assert "not allowed: a question about mail" in lacking.stdout
    assert "cannot follow mail there" in lacking.stdout + lacking.stderr
    # The line that it proposes is the right one.
    assert before.decode().splitlines()[-1] in (lacking.stdout + lacking.stderr).replace("\n", "")
