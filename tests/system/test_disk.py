"""The disk of the spool fails under `mailrelay serve`: no 250 that is not true, the end at once, and few messages twice."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.disk import Disk
from harness.feeder import Feeder, marks
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.postfix import Sink
from harness.processes import Child, free_port, until
from harness.strace import require_strace

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

SOON = 5.0
"""Seconds: the promise is two, and the machine of a test may be busy."""
IN_FLIGHT = 2 * 64
"""Messages that are in flight at one instant, at most: `backlog_channels` whose content was sent, and as many whose outcome
was about to be recorded."""


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[[Relay], Disk]]:
    """Gives the spool of a relay a disk of its own."""
    made: list[Disk] = []

    def make(relay: Relay) -> Disk:
        made.append(Disk(tmp_path / f"image{len(made)}", relay.directory / "spool"))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


def lines_about_the_spool(child: Child) -> list[str]:
    return [line for line in child.lines if line.startswith("mailrelay: ") and line.endswith("mailrelay ends")]


def test_a_disk_that_becomes_read_only_ends_the_daemon_and_only_what_is_in_flight_is_sent_twice(
    sinks: Callable[..., Sink],
    relays: Callable[..., Relay],
    disks: Callable[[Relay], Disk],
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    relay = relays(port, answer_within="0s", retry=("1s",), dsn=False)
    disk = disks(relay)
    child = relay.start(*disk.within)
    feeder = Feeder(relay.port, clients=6, limit=4000)
    try:
        # A backlog, so that all conversations are busy.
        feeder.wait_accepted(300)
        sink = sinks(port=port)
        until(lambda: len(sink.messages()) > 50, "the backlog is being sent")
        disk.become_read_only()
        assert child.ended(SOON) == 1
    finally:
        feeder.stop()
    assert len(lines_about_the_spool(child)) == 1
    disk.mend()
    relay.start(*disk.within)
    until(lambda: disk.run(*relay.command("queue", "--json")).stdout == "", "nothing waits any more")
    arrived = marks(sink.messages())
    twice = [mark for mark, count in arrived.items() if count > 1]
    with capsys.disabled():
        print(
            f"\nread-only disk: {len(feeder.accepted)} accepted, {len(arrived)} delivered, {len(twice)} of them twice"
        )
    assert feeder.accepted - set(arrived) == set(), "got a 250 and never arrived"
    assert len(twice) <= IN_FLIGHT
    assert set(arrived.values()) <= {1, 2}
    listed = [json.loads(line) for line in disk.run(*relay.command("queue", "--all", "--json")).stdout.splitlines()]
    uncertain = marks(one["subject"].encode() for one in listed if any(to["uncertain"] for to in one["recipients"]))
    assert set(twice) <= set(uncertain), "arrived twice and the person is not told that they may have"


def test_a_daemon_without_work_ends_on_a_disk_that_becomes_read_only(
    relays: Callable[..., Relay], disks: Callable[[Relay], Disk]
) -> None:
    relay = relays(free_port(), answer_within="0s", dsn=False)
    disk = disks(relay)
    child = relay.start(*disk.within)
    disk.become_read_only()
    assert child.ended(SOON) == 1
    assert len(lines_about_the_spool(child)) == 1


@pytest.mark.parametrize("when", [5, 80])
def test_a_disk_that_cannot_be_read_ends_the_daemon(relays: Callable[..., Relay], when: int) -> None:
    relay = relays(free_port(), answer_within="0s", retry=("1h",), dsn=False)
    relay.start()
    relay.stop()
    spool = relay.directory / "spool"
    files = [word for name in ("spool.db", "spool.db-wal", "spool.db-shm") for word in ("-P", str(spool / name))]
    failing = ["-e", f"inject=pread64:error=EIO:when={when}+"]
    child = relay.launch(require_strace(), "-f", "-qq", "-o", "/dev/null", *files, *failing)
    accepted = 0
    while child.process.poll() is None:
        try:
            code, _ = submit(relay.port, [f"alice@{DOMAIN}"], message(f"crash-{accepted:06d}", b"x\r\n"))
        except OSError:
            continue
        assert code in (250, 451)
        accepted += code == 250
    assert child.ended() == 1
    assert "Traceback" not in child.output
    relay.start()
    assert len(relay.queue()) >= accepted
