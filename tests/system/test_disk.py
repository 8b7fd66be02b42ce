"""The disk of the spool fails under `mailrelay serve`: no 250 that is not true, the end at once, and few messages twice."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.disk import Disk
from harness.feeder import Feeder, marks
from harness.postfix import Sink
from harness.processes import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

ENDS_WITHIN = 2.0


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


def ended(relay: Relay) -> tuple[int, float]:
    """The exit status of the daemon, and after how many seconds it has ended."""
    assert relay.child is not None
    began = time.monotonic()
    return relay.child.ended(), time.monotonic() - began


def test_a_disk_that_becomes_read_only_ends_the_daemon_and_little_is_sent_twice(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], disks: Callable[[Relay], Disk]
) -> None:
    sink = sinks()
    relay = relays(sink.port, answer_within="0s", retry=("1s",), dsn=False)
    disk = disks(relay)
    child = relay.start(*disk.within)
    feeder = Feeder(relay.port, clients=4, limit=3000)
    try:
        feeder.wait_accepted(300)
        disk.become_read_only()
        status, seconds = ended(relay)
    finally:
        feeder.stop()
    print("STAT", status, seconds, len(child.output))
    disk.mend()
    relay.start(*disk.within)
    until(lambda: disk.run(*relay.command("queue", "--json")).stdout == "", "nothing waits any more")
    arrived = marks(sink.messages())
    print("ARR", len(arrived), sum(count > 1 for count in arrived.values()), len(feeder.accepted))
    assert feeder.accepted - set(arrived) == set()
    assert 0
