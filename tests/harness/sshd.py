"""OpenSSH's sshd on a port of 127.0.0.1, with keys, configuration and client files made for one test.

It reads and changes nothing of this machine's SSH, except that sshd needs its privilege separation directory. One key may
log in, as the user who runs the test. Sessions have a home of the test: what they write there is not in that user's own.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.processes import Child, descendants, free_port, program

ALIAS = "remote"
"""The Host of the client's ssh_config."""


def make_key(path: Path) -> str:
    """Makes an unprotected ed25519 key pair; the public line, without its comment."""
    keygen = program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


class Sshd:
    """A server that can be stopped, changed and started again on the same port with the same key."""

    def __init__(self, directory: Path, host: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        """within: the program that starts it, where it is to live in a network of its own; host: its address there."""
        directory.mkdir(mode=0o700)
        self.home = directory / "home"
        self.home.mkdir(mode=0o700)
        self.host = host
        self._within = within
        self.directory = directory
        self.port = free_port()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.binary = program("sshd", "openssh-server")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.host_key = make_key(directory / "host")
        (directory / "authorized_keys").write_text(make_key(directory / "client") + "\n")
        self.ssh_config = directory / "ssh_config"
        self.ssh_config.write_text(
            f"Host {ALIAS}\n"
            f"  HostName {host}\n  Port {self.port}\n  User {self.user}\n"
            f"  IdentityFile {directory}/client\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {directory}/known_hosts\n"
        )
        self.know(self.host_key)
        self.child: Child | None = None
        self._past: list[str] = []

    @property
    def log(self) -> list[str]:
        """What the server has said, also before it was stopped and started again."""
        return self._past + (self.child.lines if self.child else [])

    def know(self, public: str) -> None:
        """Makes this the key that the client expects from the server."""
        (self.directory / "known_hosts").write_text(f"[{self.host}]:{self.port} {public}\n")

    def start(self, *, forwarding: bool = True, **more: object) -> None:
        """more: other lines of sshd_config."""
        config = self.directory / "sshd_config"
        options = {
            "ListenAddress": f"{self.host}:{self.port}",
            "HostKey": self.directory / "host",
            "AuthorizedKeysFile": self.directory / "authorized_keys",
            "PidFile": self.directory / "pid",
            "UsePAM": "no",
            "StrictModes": "no",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UseDNS": "no",
            "PrintMotd": "no",
            "MaxStartups": "100",
            "LogLevel": "VERBOSE",
            "Subsystem": "sftp internal-sftp",
            "AllowTcpForwarding": "yes" if forwarding else "no",
            "SetEnv": f"HOME={self.home}",
            **more,
        }
        text = "".join(f"{key} {value}\n" for key, value in options.items())
        # Since 9.8 a server shuts out an address that failed a few times; an older one does not know the word.
        config.write_text(f"{text}PerSourcePenalties no\n")
        if subprocess.run([self.binary, "-t", "-f", config], capture_output=True, check=False).returncode != 0:
            config.write_text(text)
        self.child = Child([*self._within, self.binary, "-D", "-e", "-f", config])
        self.child.wait_line(f"Server listening on {self.host} port {self.port}")

    def stop(self) -> None:
        """Ends the server and every connection to it."""
        if self.child is not None:
            self.child.stop()
            self._past += self.child.lines
            self.child = None

    def sessions(self) -> int:
        """How many connections are being served now."""
        return len(descendants(self.child.pid)) if self.child else 0

    def logins(self) -> int:
        """How often a client was let in since this object was made."""
        return sum("Accepted publickey" in line for line in self.log)
