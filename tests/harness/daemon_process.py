"""mailrelay as a person runs it: a settings file, `mailrelay serve` as a process, and the other commands.

It depends only on the documented interface: the settings, the `ready` line, the commands and their JSON.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mailrelay
from harness.processes import PATIENCE, Child, free_port, until
from harness.sshd import ALIAS

SETTINGS = """\
[listen]
address = "127.0.0.1:{port}"
answer_within = "{answer_within}"

[relayhost.default]
ssh = "{alias}"
ssh_config = "{ssh_config}"
smtp = "localhost:{smtp_port}"
linger = "{linger}"
command = {command}
helo = "{helo}"
record = "{record}"

[queue]
directory = "{directory}/spool"
retry = {retry}
delay_notice_after = "{delay_notice_after}"

[notify]
desktop = false
dsn = {dsn}
mailbox = "{directory}/Maildir"
command = ["{directory}/recorder"]
"""

RECORDER = """\
#!/bin/sh
new=$(mktemp "{directory}/notices/.XXXXXXXX") && cat >"$new" && mv "$new" "{directory}/notices/${{new##*.}}"
"""


class Relay:
    """One mailrelay: its directory, its settings, and at most one running daemon."""

    def __init__(
        self,
        directory: Path,
        ssh_config: Path,
        smtp_port: int,
        *,
        answer_within: str = "8s",
        retry: Sequence[str] = ("2s",),
        linger: str = "30s",
        command: str = "",
        helo: str = "[127.0.0.1]",
        record: str = "auto",
        delay_notice_after: str = "15m",
        dsn: bool = True,
    ) -> None:
        directory.mkdir(mode=0o700)
        (directory / "notices").mkdir()
        self.directory = directory
        self.port = free_port()
        self.config = directory / "config.toml"
        text = SETTINGS.format(
            port=self.port,
            answer_within=answer_within,
            alias=ALIAS,
            ssh_config=ssh_config,
            smtp_port=smtp_port,
            linger=linger,
            command=json.dumps(command),
            helo=helo,
            record=record,
            directory=directory,
            retry=json.dumps(list(retry)),
            delay_notice_after=delay_notice_after,
            dsn=json.dumps(dsn),
        )
        self.config.write_text(text)
        self.config.chmod(0o600)
        recorder = directory / "recorder"
        recorder.write_text(RECORDER.format(directory=directory))
        recorder.chmod(0o700)
        self.child: Child | None = None
        self._lives: list[Child] = []

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "mailrelay", "--config", str(self.config), *words]

    @property
    def environment(self) -> dict[str, str]:
        """Without the home and the SSH agent of the person who runs the tests; with the mailrelay that the tests import."""
        return {
            "PATH": f"/usr/sbin:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(mailrelay.__file__).parent.parent),
        }

    def start(self, *before: str | Path) -> Child:
        """Starts the daemon, under the program `before` if there is one, and waits until it is ready."""
        child = self.launch(*before)
        child.wait_line(r"\bready\b")
        return child

    def launch(self, *before: str | Path) -> Child:
        """Starts the daemon and waits for nothing."""
        self.child = Child([*before, *self.command("serve")], env=self.environment, cwd=self.directory)
        self._lives.append(self.child)
        return self.child

    def logged(self, pattern: str) -> str:
        """Waits for a line of `mailrelay log` that matches the pattern; returns it."""
        sought = re.compile(pattern)
        return until(
            lambda: next((line for line in self.do("log").splitlines() if sought.search(line)), ""),
            f"the log says {pattern}",
        )

    def account(self) -> str:
        """The output of every daemon of this relay and the end of its log, for the reader of a failed test."""
        said = "\n---\n".join(life.output for life in self._lives)
        return "\n".join([said, *self.run("log").stdout.splitlines()[-100:]])

    def stop(self) -> int | None:
        """Ends the daemon with SIGTERM; returns its exit status, None if none ran."""
        if self.child is None:
            return None
        child, self.child = self.child, None
        child.stop()
        return child.process.returncode

    def kill(self) -> None:
        """Ends the daemon with SIGKILL, at whatever point it is."""
        if self.child is not None:
            child, self.child = self.child, None
            child.stop(signal.SIGKILL)

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Runs one command to its end."""
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            env=self.environment,
            cwd=self.directory,
            timeout=PATIENCE,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def do(self, *words: str) -> str:
        """Runs a command that must succeed; returns its output."""
        done = self.run(*words)
        assert done.returncode == 0, (
            f"mailrelay {' '.join(words)}: status {done.returncode}: {done.stderr}{done.stdout}"
        )
        return done.stdout

    def queue(self, *options: str) -> list[dict[str, Any]]:
        """`mailrelay queue --json`: one mapping for each message."""
        return [json.loads(line) for line in self.do("queue", "--json", *options).splitlines()]

    def states(self, *options: str) -> dict[str, str]:
        """The state of every recipient in the listing, by address; for tests in which no address occurs twice."""
        return {one["address"]: one["state"] for message in self.queue(*options) for one in message["recipients"]}

    def letters(self, token: str = "") -> list[str]:
        """The reports in the person's Maildir that contain the token."""
        files = sorted((self.directory / "Maildir/new").glob("*"))
        return [text for path in files if token in (text := path.read_text(errors="replace"))]

    def notices(self, token: str = "") -> list[dict[str, Any]]:
        """The notices that the command of the settings was given and that contain the token."""
        files = sorted((self.directory / "notices").glob("[!.]*"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(text) for path in files if token in (text := path.read_text())]
