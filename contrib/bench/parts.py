"""The parts of a measurement: the local servers, the network link, the remote servers. `scene` stops all that it started.

The remote is an sshd on loopback behind `distance.py`; or, with `--ssh-config`, the Host `remote` of that file, where
`--there` is the prefix of a command that runs on the remote (`ip netns exec srv`).
Local and remote queue share one disk and slow each other down, unless `--disk-there` names a folder on another (/dev/shm,
if there is no second disk).
Needs Postfix (installed, or unpacked into the folder that MAILRELAY_POSTFIX names) and OpenSSH. The peer of some benches
needs root; their docstrings say so.
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
"""Seconds after which an unfinished measurement is given up."""
SETTLE = 0.3


def arguments(description: str | None, *, rounds: int, rate: int = 0) -> argparse.ArgumentParser:
    """The options of every bench."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--delay", type=float, default=50.0, help="milliseconds in each direction (default: 50)")
    parser.add_argument("--rate", type=int, default=rate, help="kbit/s, 0 for no limit")
    parser.add_argument("--ssh-config", type=Path, help="measure with the Host `remote` of this file instead")
    parser.add_argument("--there", type=shlex.split, default=[], help="the prefix of a command that runs on the remote")
    parser.add_argument("--disk-there", type=Path, help="a folder on another disk, for the queue of the remote")
    return parser


class Scene:
    """The processes and files of one run."""

    def __init__(self, options: argparse.Namespace, scratch: Path, ends: ExitStack) -> None:
        self.directory = scratch
        self.there: list[str] = options.there
        self._disk_there: Path | None = options.disk_there
        self._ends = ends
        self._count = 0
        self.package: Package = find_package(scratch / "package")
        self._ssh_config_text = (
            self._loopback(options) if options.ssh_config is None else options.ssh_config.read_text()
        )
        self.ssh_config = self._fresh("ssh_config")
        self.allow_connections()

    def _loopback(self, options: argparse.Namespace) -> str:
        sshd = Sshd(self._fresh("sshd"))
        sshd.start()
        self._ends.callback(sshd.stop)
        port = free_port()
        link = ["--delay", str(options.delay), "--rate", str(options.rate)]
        self._child([sys.executable, HERE / "distance.py", str(port), str(sshd.port), *link]).wait_port(port)
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

    def refuse_connections(self) -> None:
        """Points ssh_config to a port without a listener, so that connections to the remote are refused."""
        self.ssh_config.write_text(f"Host remote\n  Port 1\n\n{self._ssh_config_text}")

    def allow_connections(self) -> None:
        self.ssh_config.write_text(self._ssh_config_text)

    def ssh(self, *words: str) -> list[str]:
        """The command line of ssh(1) to the remote."""
        return [program("ssh", "openssh-client"), "-F", str(self.ssh_config), "remote", *words]

    def sink(self, *options: str) -> Sink:
        """smtp-sink on the remote."""
        sink = Sink(self.package, self._fresh("sink"), *options, before=self.there)
        self._ends.callback(sink.stop)
        return sink

    def postfix_there(self) -> Postfix:
        """A Postfix on the remote that accepts all mail and discards it; it offers CHUNKING. Needs root."""
        directory = self._fresh("postfix")
        if self._disk_there is not None:
            disk = self._ends.enter_context(
                tempfile.TemporaryDirectory(prefix="mailrelay-bench-", dir=self._disk_there)
            )
            Path(disk).chmod(0o755)
            directory = Path(disk) / "postfix"
        # Without in_flow_delay = 0, Postfix delays mail by a second when it arrives faster than it is delivered.
        settings = "virtual_transport = discard:\nin_flow_delay = 0\n"
        return self._postfix(directory, settings, self.there)

    @contextmanager
    def postfix_here(self, port: int) -> Iterator[Postfix]:
        """A local Postfix with the relayhost 127.0.0.1:`port`; new mail is on hold. Needs root."""
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
        """Starts `ssh -L`; returns the local port once it is open."""
        port = free_port()
        tunnel = self.ssh()
        tunnel[1:1] = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{far_port}"]
        self._child(tunnel).wait_port(port)
        return port

    @contextmanager
    def relay(self, smtp_port: int, *, answer_within: str = "8s", linger: str = "30s") -> Iterator[Relay]:
        """A running mailrelay with a new spool."""
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
    # timeout(1) and service managers send SIGTERM: the servers are stopped then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    # Not below a private directory: Postfix drops root and must still reach it.
    with (
        tempfile.TemporaryDirectory(prefix="mailrelay-bench-", ignore_cleanup_errors=True) as scratch,
        ExitStack() as ends,
    ):
        Path(scratch).chmod(0o755)
        yield Scene(options, Path(scratch), ends)


def submit(port: int, subject: str, size: int) -> str:
    """Sends a message of about `size` octets, as a mail client does, and returns the text of the reply to its content."""
    line = "x" * 74 + "\r\n"
    text = f"From: <me@{DOMAIN}>\r\nTo: <alice@{DOMAIN}>\r\nSubject: {subject}\r\n\r\n" + line * (size // len(line))
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=PATIENCE) as client:
        client.ehlo()
        client.mail(f"me@{DOMAIN}")
        client.rcpt(f"alice@{DOMAIN}")
        code, reply = client.data(text)
    if code != 250:
        raise SystemExit(f"{subject} was not accepted: {code} {reply!r}")
    return reply.decode()


def arrived(sink: Sink, subject: str) -> float:
    """Waits for the message with this subject at the sink; returns its arrival in epoch seconds."""

    def found() -> float:
        for path in sink.directory.iterdir():
            with suppress(FileNotFoundError), path.open("rb") as file:
                if f"Subject: {subject}".encode() in file.read(4096):
                    return path.stat().st_mtime
        return 0.0

    return until(found, f"{subject} reaches the sink", PATIENCE)


def logged(log: Path, word: str, count: int) -> float:
    """Waits until the log has `count` lines with `word`; returns the time of time.perf_counter. Reads every 5 ms."""
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
    """The median, and the lowest and highest value."""
    return f"{statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f})"
