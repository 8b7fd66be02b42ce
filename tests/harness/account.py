"""What `mailrelay setup` starts from: a host with a new account, and the computer of its owner.

The account has a password, a home with its own authorized_keys, a shell, and a mail server on its localhost:25. The computer
has a home with an ssh_config and nothing else.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncssh

import mailrelay
from mailrelay.demo.remote import Remote, RemoteSSHServer

HOST = "mail.example.org"
PASSWORD = "correct horse"


class Account(Remote):
    """The host. takes_keys, takes_password: whether its SSH server takes keys and passwords; by_question: whether it takes
    passwords by keyboard-interactive authentication (RFC 4256)."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.home = directory / "home"
        self.home.mkdir()
        self.takes_keys = True
        self.takes_password = True
        self.by_question = False
        self.passwords: list[str] = []

    @property
    def authorized_keys(self) -> Path:
        return self.home / ".ssh/authorized_keys"

    def ssh_server(self) -> asyncssh.SSHServer:
        return AccountSSHServer(self)


class AccountSSHServer(RemoteSSHServer):
    remote: Account

    def begin_auth(self, username: str) -> bool:
        if self.remote.authorized_keys.exists():
            self.connection.set_authorized_keys(str(self.remote.authorized_keys))
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return False

    def public_key_auth_supported(self) -> bool:
        return self.remote.takes_keys

    def password_auth_supported(self) -> bool:
        return self.remote.takes_password and not self.remote.by_question

    def validate_password(self, username: str, password: str) -> bool:
        self.remote.passwords.append(password)
        return password == PASSWORD

    def kbdint_auth_supported(self) -> bool:
        return self.remote.takes_password and self.remote.by_question

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
        return "", "", "", [("Password: ", False)]

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        return self.validate_password(username, responses[0])

    async def run_command(
        self, stdin: asyncssh.SSHReader[bytes], stdout: asyncssh.SSHWriter[bytes], stderr: asyncssh.SSHWriter[bytes]
    ) -> None:
        if stdin.channel.get_command() != "sh":
            # Neither this machine's sendmail nor another command that setup tries as a mail path.
            stderr.write(b"not found")
            stdout.channel.exit(127)  # type: ignore[attr-defined]
            return
        process = await asyncio.create_subprocess_exec(
            "sh",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(self.remote.home), "PATH": os.environ["PATH"]},
        )
        said, complaint = await process.communicate(await stdin.read())
        stdout.write(said)
        stderr.write(complaint)
        stdout.channel.exit(process.returncode or 0)  # type: ignore[attr-defined]


class Newcomer:
    """The computer of the account's owner: the ssh_config in `home` names the host; `bin` is first in PATH."""

    def __init__(self, directory: Path, remote: Remote, *, user: str = "me") -> None:
        self.home = directory / "newcomer"
        self.ssh = self.home / ".ssh"
        self.bin = directory / "bin"
        self.ssh.mkdir(mode=0o700, parents=True)
        self.home.chmod(0o700)
        self.bin.mkdir()
        self.has_desktop = True
        self.config = self.home / ".config/mailrelay/config.toml"
        (self.ssh / "config").write_text(
            f"Host {HOST}\n  HostName 127.0.0.1\n  Port {remote.ssh_port}\n  User {user}\n"
            f"  UserKnownHostsFile {self.ssh}/known_hosts\n  GlobalKnownHostsFile none\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        desktop = {"WAYLAND_DISPLAY": "wayland-0"} if self.has_desktop else {}
        return desktop | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "PYTHONPATH": str(Path(mailrelay.__file__).parent.parent),
        }

    def know(self, remote: Remote) -> None:
        """Puts the host key into known_hosts."""
        public = remote.host_key.export_public_key().decode().strip()
        (self.ssh / "known_hosts").write_text(f"[127.0.0.1]:{remote.ssh_port} {public}\n")

    @staticmethod
    def argv(*words: str) -> list[str]:
        return [sys.executable, "-m", "mailrelay", *words]
