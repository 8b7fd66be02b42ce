"""dropbear, the SSH server of routers and small machines, on a port of 127.0.0.1.

It changes nothing on this machine: it sees its own /etc/passwd, in which the home of its user is a directory of the test.
The attributes are those of `Sshd`.
"""

import os
import pwd
import subprocess
from pathlib import Path

from harness.processes import Child, descendants, free_port, missing, program, until


class Dropbear:
    def __init__(self, directory: Path, authorized: str) -> None:
        """authorized: the lines of authorized_keys."""
        self.binary = program("dropbear", "dropbear-bin")
        self._alone = ["unshare", "--mount", "sh", "-c"]
        if os.getuid() != 0 or subprocess.run([*self._alone, "true"], capture_output=True, check=False).returncode:
            missing("the right to show dropbear an /etc/passwd of its own (it needs root)")
        account = pwd.getpwuid(os.getuid())
        self.user = account.pw_name
        self.directory = directory
        self.port = free_port()
        keys = directory / "home/.ssh"
        for each in (directory, keys.parent, keys):
            each.mkdir(mode=0o700)
        (keys / "authorized_keys").write_text(authorized)
        entry = (account.pw_name, "x", account.pw_uid, account.pw_gid, "", keys.parent, "/bin/sh")
        others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith(f"{self.user}:")]
        (directory / "passwd").write_text("\n".join([":".join(map(str, entry)), *others, ""]))
        keygen = program("dropbearkey", "dropbear-bin")
        made = [keygen, "-t", "ed25519", "-f", directory / "host"]
        said = subprocess.run(made, capture_output=True, text=True, check=True).stdout
        public = next(line for line in said.splitlines() if line.startswith("ssh-ed25519 "))
        self.host_key = " ".join(public.split()[:2])
        self.child: Child | None = None
        self._past: list[str] = []

    @property
    def log(self) -> list[str]:
        return self._past + (self.child.lines if self.child else [])

    def start(self, *, forwarding: bool = True) -> None:
        server = [self.binary, "-F", "-E", "-s", "-m", *([] if forwarding else ["-j"])]
        server += [
            "-p",
            f"127.0.0.1:{self.port}",
            "-r",
            str(self.directory / "host"),
            "-P",
            str(self.directory / "pid"),
        ]
        script = 'mount --bind "$0" /etc/passwd && exec "$@"'
        self.child = Child([*self._alone, script, self.directory / "passwd", *server])
        self.child.wait_port(self.port)
        # The question whether it listens was a session; a test that counts its processes next must see none.
        self.child.wait_line("Exit before auth")
        until(lambda: not self.sessions(), "dropbear is done with the connection that asked")

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
            self._past += self.child.lines
            self.child = None

    def sessions(self) -> int:
        return len(descendants(self.child.pid)) if self.child else 0

    def logins(self) -> int:
        return sum("Pubkey auth succeeded" in line for line in self.log)
