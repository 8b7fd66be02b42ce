"""A key that only delivers mail: its line in authorized_keys on the remote, and its ssh_config here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mailrelay.config import Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.setup.restriction import authorized_keys_line, ssh_config

PUBLIC = "ssh-ed25519 AAAAC3Nz mailrelay"


def relayhost(ssh: str = "me@mail.example.org", **changes: object) -> Relayhost:
    return Relayhost(**{"name": "default", "ssh": ssh, "ssh_config": Path("/home/you/.ssh/config")} | changes)  # type: ignore[arg-type]


def test_the_key_permits_forwarding_to_one_port_and_no_command_and_no_listening() -> None:
    assert authorized_keys_line(PUBLIC, relayhost()) == (
        f'restrict,port-forwarding,permitopen="localhost:25",permitlisten="localhost:1",command="false" {PUBLIC}'
    )
    assert 'permitopen="[::1]:2525"' in authorized_keys_line(PUBLIC, relayhost(smtp=Tcp("::1", 2525)))


def test_the_key_permits_one_command_and_no_forwarding() -> None:
    line = authorized_keys_line(PUBLIC, relayhost(command='sh -c "nc localhost 25"'))
    assert line == f'restrict,command="sh -c \\"nc localhost 25\\"" {PUBLIC}'


@pytest.mark.parametrize(
    ("ssh", "host"),
    [("mail", "mail"), ("me@mail:2222", "mail"), ("ssh://me@mail:22/", "mail"), ("me@[::1]:22", "::1"), ("::1", "::1")],
)
def test_ssh_uses_the_key_for_that_host_and_the_other_settings_stay(tmp_path: Path, ssh: str, host: str) -> None:
    program = shutil.which("ssh")
    if program is None:
        pytest.skip("ssh is missing")
    own = tmp_path / "own config"
    own.write_text(f"Host {host}\n  Port 7\nHost other\n  Port 8\n  IdentityFile ~/.ssh/other\n")
    file = tmp_path / "config"
    file.write_text(ssh_config(relayhost(ssh, ssh_config=own), tmp_path / "key"))

    def options(name: str) -> list[str]:
        done = subprocess.run([program, "-F", file, "-G", name], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    here, there = options(host), options("other")
    assert next(line for line in here if line.startswith("identityfile")) == f"identityfile {tmp_path}/key"
    assert {"port 7", "identitiesonly yes", "identityagent none"} <= set(here)
    assert {"port 8", "identitiesonly no"} <= set(there)
    assert [line for line in there if line.startswith("identityfile")] == ["identityfile ~/.ssh/other"]
