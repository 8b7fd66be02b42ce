"""Fixtures: OpenSSH's sshd, sendmail, Postfix, Exim, smtp-sink and `mailrelay serve`, as processes.

Mail servers live for the session. sshd, smtp-sinks and daemons are made for each test.
"""

import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.daemon_process import Relay
from harness.exim import Exim, find_exim
from harness.postfix import Package, Postfix, Sink, find_package
from harness.sendmail import Sendmail
from harness.sshd import Sshd


@pytest.fixture
def token() -> str:
    """A word that is in no other test's mail: the remotes of a session are shared."""
    return f"token-{secrets.token_hex(8)}"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "sshd")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sendmail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sendmail]:
    remote = Sendmail(tmp_path_factory.mktemp("remote") / "sendmail")
    yield remote
    remote.stop()


@pytest.fixture(scope="session")
def postfix_package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return find_package(tmp_path_factory.mktemp("package") / "postfix")


@pytest.fixture(scope="session")
def postfix(postfix_package: Package) -> Iterator[Postfix]:
    # Postfix gives up root, and pytest's own directories let nobody else through.
    with tempfile.TemporaryDirectory(prefix="postfix-") as directory:
        Path(directory).chmod(0o755)
        remote = Postfix(postfix_package, Path(directory) / "remote")
        yield remote
        remote.stop()


@pytest.fixture(scope="session")
def exim() -> Iterator[Exim]:
    # Exim gives up root and starts itself again, and pytest's own directories let nobody else through.
    with tempfile.TemporaryDirectory(prefix="exim-") as directory:
        Path(directory).chmod(0o755)
        remote = Exim(find_exim(Path(directory) / "package"), Path(directory) / "remote")
        yield remote
        remote.stop()


@pytest.fixture
def sinks(postfix_package: Package, tmp_path: Path) -> Iterator[Callable[..., Sink]]:
    """Starts smtp-sinks: sinks("-r", "RCPT", port=N). All of one test dump into the same directory."""
    started: list[Sink] = []

    def start(*options: str, port: int | None = None) -> Sink:
        started.append(Sink(postfix_package, tmp_path / "sink", *options, port=port))
        return started[-1]

    yield start
    for sink in started:
        sink.stop()


@pytest.fixture
def relays(sshd: Sshd, tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    """Makes relays behind this test's sshd: relays(smtp_port=N, answer_within="0s"). They are not started."""
    made: list[Relay] = []

    def make(smtp_port: int, **settings: object) -> Relay:
        made.append(Relay(tmp_path / f"relay{len(made)}", sshd.ssh_config, smtp_port, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for relay in made:
        relay.stop()
        # Shown by pytest where the test has failed.
        print(relay.account())
