"""The relayhost of a test: an account with a home, mailboxes and logs of its own, behind a real sshd.

The sshd has a mount namespace, in which /var/log and /var/mail are directories of the test. Needs root.
"""

import os
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from harness.mailboxes import LOGIN
from harness.processes import missing, program
from harness.sshd import ALIAS, Sshd
from mailrelay.config import Relayhost
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.dial import dial


class AccountThere:
    """home, logs (/var/log), mail (/var/mail), programs (first in PATH): directories. `stop` ends its sshd."""

    def __init__(self, directory: Path) -> None:
        if os.getuid() != 0:
            missing("the right to give an sshd directories of its own (it needs root)")
        self.home, self.logs, self.mail, self.programs = (directory / name for name in ("home", "log", "mail", "bin"))
        for path in (self.home, self.logs, self.mail, self.programs):
            path.mkdir()
        binds = " && ".join(
            f"mount --bind {shlex.quote(str(path))} {there}"
            for path, there in ((self.logs, "/var/log"), (self.mail, "/var/mail"))
        )
        within = [program("unshare", "util-linux"), "--mount", "sh", "-c", f'{binds} && exec "$@"', "sh"]
        self.sshd = Sshd(directory / "sshd", within=within)
        self.start()

    def start(self, environment: str = "", **options: object) -> None:
        """Starts the sshd again. environment: variables there, before those of the test. options: of sshd_config."""
        self.sshd.stop()
        path = f"{self.programs}:/usr/local/bin:/usr/bin:/bin"
        self.sshd.start(SetEnv=f"{environment} HOME={self.home} PATH={path} MAIL={self.box}".strip(), **options)

    def stop(self) -> None:
        self.sshd.stop()

    @property
    def box(self) -> Path:
        """The mbox of the account."""
        return self.mail / LOGIN

    def install(self, name: str, script: str) -> None:
        """Puts a program into PATH there. script: for sh."""
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[RelayhostConnection]:
        connection = await dial(Relayhost(name="x", ssh=ALIAS, ssh_config=self.sshd.ssh_config))
        try:
            yield connection
        finally:
            await connection.close()
