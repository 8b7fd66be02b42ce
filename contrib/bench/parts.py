"""The parts of a measurement: the near side, the line, the far side. Whatever is started here ends with `Scene`.

The far side is an sshd of our own on loopback behind `distance.py`; or, with `--ssh-config`, the Host `remote` of that
file, where `--there` is the command that runs a program on its side (`ip netns exec srv`).
The two share a disk and its waiting for each other, unless `--disk-there` says otherwise (/dev/shm, where there is no
second one).
Needs Postfix (installed, or unpacked into the folder that MAILRELAY_POSTFIX names) and OpenSSH. What stands for the
peer in a row may need root; a row says so.
"""

import argparse
import re
import shlex
import signal
import smtplib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tests")]

from harness.daemon_process import Relay
from harness.mailboxes import DOMAIN
from harness.postfix import Package, Postfix, Sink, find_package
from harness.processes import Child, free_port, program, until
from harness.sshd import Sshd

PATIENCE = 300.0
"""Seconds after which a measurement that has not come to its end is given up."""
SETTLE = 0.3


def arguments(description: str | None, *, rounds: int, rate: int = 0) -> argparse.ArgumentParser:
    """The options that every row has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--delay", type=float, default=50.0, help="milliseconds one way (default: 50)")
    parser.add_argument("--rate", type=int, default=rate, help="kbit/s, 0 for no limit")
    parser.add_argument("--ssh-config", type=Path, help="measure over the way of this file's Host `remote` instead")
    parser.add_argument("--there", type=shlex.split, default=[], help="the command that runs a program there")
    parser.add_argument("--disk-there", type=Path, help="a folder of another disk, for the far side's queue")
    return parser


class Scene:
    """Everything that one run has started."""

    def __init__(self, options: argparse.Namespace, scratch: Path, ends: ExitStack) -> None:
        self.directory = scratch
        self.there: list[str] = options.there
        self._disk_there: Path | None = options.disk_there
        self._ends = ends
        self._count = 0
        self.package: Package = find_package(scratch / "package")
        self.way = self._loopback(options) if options.ssh_config is None else options.ssh_config.read_text()
        self.ssh_config = self._fresh("ssh_config")
        self.open_way()

    def _loopback(self, options: argparse.Namespace) -> str:
        sshd = Sshd(self._fresh("sshd"))
        sshd.start()
        self._ends.callback(sshd.stop)
        port = free_port()
        line = ["--delay", str(options.delay), "--rate", str(options.rate)]
        self._child([sys.executable, HERE / "distance.py", str(port), str(sshd.port), *line]).wait_port(port)
        known = self._fresh("known_hosts")
        known.write_text(f"[127.0.0.1]:{port} {sshd.host_key}\n")
        text = re.sub(r"(?m)^( +Port) .*", rf"\1 {port}", sshd.ssh_config.read_text())
        return re.sub(r"(?m)^( +UserKnownHostsFile) .*", rf"\1 {known}", text)

    def _fresh(self, name: str) -> Path:
        self._count += 1
        return self.directory / f"{name}{self._count}"

    def _child(self, argv: Sequence[str | Path]) -> Child:
        child = Child(argv)
        self._ends.callback(child.stop)
        return child

    def shut_way(self) -> None:
        """From now on nothing listens where ssh_config points to: connections are refused."""
        self.ssh_config.write_text(f"Host remote\n  Port 1\n\n{self.way}")

    def open_way(self) -> None:
        self.ssh_config.write_text(self.way)

    def ssh(self, *words: str) -> list[str]:
        """The command line of ssh(1) to the remote."""
        return [program("ssh", "openssh-client"), "-F", str(self.ssh_config), "remote", *words]

    def sink(self, *options: str) -> Sink:
        """smtp-sink there."""
        sink = Sink(self.package, self._fresh("sink"), *options, before=self.there)
        self._ends.callback(sink.stop)
        return sink

    def postfix_there(self) -> Postfix:
        """A Postfix there that takes all mail and drops it; it offers CHUNKING. Needs root."""
        directory = self._fresh("postfix")
        if self._disk_there is not None:
            disk = self._ends.enter_context(
                tempfile.TemporaryDirectory(prefix="mailrelay-bench-", dir=self._disk_there)
            )
            Path(disk).chmod(0o755)
            directory = Path(disk) / "postfix"
        # Else it lets mail that comes faster than it goes wait for a second.
        settings = "virtual_transport = discard:\nin_flow_delay = 0\n"
        return self._postfix(directory, settings, self.there)

    @contextmanager
    def postfix_here(self, port: int) -> Iterator[Postfix]:
        """A Postfix whose mail goes to 127.0.0.1:`port` here, and is on hold first. Needs root."""
        settings = (
            f"virtual_mailbox_domains =\nrelayhost = [127.0.0.1]:{port}\n"
            "smtpd_recipient_restrictions = check_recipient_access static:HOLD, permit_mynetworks, reject\n"
        )
        postfix = self._postfix(self._fresh("postfix"), settings, [])
        try:
            yield postfix
        finally:
            postfix.stop()

    def _postfix(self, directory: Path, settings: str, before: Sequence[str]) -> Postfix:
        postfix = Postfix(self.package, directory, settings, before=before)
        self._ends.callback(postfix.stop)
        return postfix

    def tunnel(self, far_port: int) -> int:
        """`ssh -L`, up; the port here."""
        port = free_port()
        tunnel = self.ssh()
        tunnel[1:1] = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{far_port}"]
        self._child(tunnel).wait_port(port)
        return port

    @contextmanager
    def relay(self, smtp_port: int, *, answer_within: str = "8s", linger: str = "30s") -> Iterator[Relay]:
        """A mailrelay, running; its spool is new."""
        relay = Relay(
            self._fresh("relay"), self.ssh_config, smtp_port, answer_within=answer_within, linger=linger, dsn=False
        )
        relay.start()
        try:
            yield relay
        finally:
            relay.stop()


@contextmanager
def scene(options: argparse.Namespace) -> Iterator[Scene]:
    # Whoever ends us with it (timeout(1), a service manager) wants no servers left behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    # Not below a directory of the person's: Postfix gives up root, and must get through.
    with (
        tempfile.TemporaryDirectory(prefix="mailrelay-bench-", ignore_cleanup_errors=True) as scratch,
        ExitStack() as ends,
    ):
        Path(scratch).chmod(0o755)
        yield Scene(options, Path(scratch), ends)


def submit(port: int, subject: str, size: int) -> str:
    """Sends a message of about `size` octets as a mail client does, and returns the reply to its content."""
    line = "x" * 74 + "\r\n"
    text = f"From: <me@{DOMAIN}>\r\nTo: <alice@{DOMAIN}>\r\nSubject: {subject}\r\n\r\n" + line * (size // len(line))
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=PATIENCE) as client:
        client.ehlo()
        client.mail(f"me@{DOMAIN}")
        client.rcpt(f"alice@{DOMAIN}")
        code, words = client.data(text)
    if code != 250:
        raise SystemExit(f"{subject} was not taken: {code} {words!r}")
    return words.decode()


def arrived(sink: Sink, subject: str) -> float:
    """When the message with this subject was at the sink, in epoch seconds; waits for it."""

    def found() -> float:
        for path in sink.directory.iterdir():
            with suppress(FileNotFoundError), path.open("rb") as file:
                if f"Subject: {subject}".encode() in file.read(4096):
                    return path.stat().st_mtime
        return 0.0

    return until(found, f"{subject} reaches the sink", PATIENCE)


def logged(log: Path, word: str, count: int) -> float:
    """When the log had so many lines with `word`, in the time of time.perf_counter; looked at every 5 ms."""
    end = time.perf_counter() + PATIENCE
    seen, partial, position = 0, b"", 0
    while seen < count:
        time.sleep(0.005)
        if time.perf_counter() > end:
            raise SystemExit(f"{log} has {seen} of {count} lines with {word!r}")
        if not log.exists():
            continue
        with log.open("rb") as file:
            file.seek(position)
            data = file.read()
            position += len(data)
        *lines, partial = (partial + data).split(b"\n")
        seen += sum(word.encode() in line for line in lines)
    return time.perf_counter()


def spread(values: Sequence[float], unit: str = "s") -> str:
    """The median, and from where to where they went."""
    return f"{statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f})"
