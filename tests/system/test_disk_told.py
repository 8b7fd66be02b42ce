"""A real disk becomes full or read-only: the person hears of it within seconds, and `mailrelay status` says so at once."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.daemon_process import Relay
from harness.disk import Disk
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.processes import free_port, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

TITLE = "Subject: mailrelay accepts no mail"
WITHIN = 5.0
"""Seconds for a notice."""


@pytest.fixture
def relay(relays: Callable[..., Relay]) -> Relay:
    return relays(free_port(), answer_within="0s", retry=("1h",), dsn=False)


@pytest.fixture
def disk(relay: Relay, tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "image", relay.directory / "spool")
    yield disk
    relay.stop()
    disk.close()


def told(relay: Relay) -> None:
    """Waits until both backends have delivered a notice."""
    until(lambda: len(notices(relay)) == 1, "the command is told", WITHIN)
    until(lambda: len(relay.letters(TITLE)) == 1, "the Maildir has it", WITHIN)


def notices(relay: Relay) -> list[dict[str, Any]]:
    return [one for one in relay.notices() if one["kind"] == "spool"]


def status(relay: Relay, disk: Disk) -> tuple[int, dict[str, Any]]:
    done = disk.run(
        "env", *(f"{name}={value}" for name, value in relay.environment.items()), *relay.command("status", "--json")
    )
    return done.returncode, json.loads(done.stdout)


def accepts(relay: Relay) -> int:
    return submit(relay.port, [f"alice@{DOMAIN}"], message("token"))[0]


def test_a_disk_that_becomes_read_only(relay: Relay, disk: Disk) -> None:
    child = relay.start(*disk.within)
    disk.become_read_only()
    code, record = status(relay, disk)
    assert (code, record["status"]) == (2, "failed")
    assert "read-only" in record["failure"]
    told(relay)
    assert child.ended(WITHIN) == 1
    assert "Traceback" not in child.output
    # The service manager starts it again, and again.
    for _ in range(2):
        assert relay.launch(*disk.within).ended() == 1
    assert len(notices(relay)) == len(relay.letters(TITLE)) == 1
    assert status(relay, disk)[0] == 2


def test_a_disk_that_is_full_and_then_is_not(relay: Relay, disk: Disk) -> None:
    relay.start(*disk.within)
    spool = relay.directory / "spool"
    assert accepts(relay) == 250
    _, record = status(relay, disk)
    assert record["full"] == ""
    # There is room for ordinary messages, not for the largest one.
    assert 1_000_000 < record["room"] < 50_000_000
    disk.run("sh", "-c", f"cat /dev/zero >'{spool}/filler'")
    until(lambda: accepts(relay) == 452, "the client is refused")
    told(relay)
    assert accepts(relay) == 452
    code, record = status(relay, disk)
    assert (code, record["answers"], "disk is full" in record["full"]) == (2, True, True)
    disk.run("rm", f"{spool}/filler")
    until(lambda: status(relay, disk)[1]["full"] == "", "there is room again")
    assert accepts(relay) == 250
    log = disk.run("cat", f"{spool}/mailrelay.log").stdout
    assert log.count("can be used again") == 1
    assert len(notices(relay)) == 1
