"""sd_notify(3) and sd_watchdog_enabled(3), with a socket in place of systemd."""

import os
import socket
from pathlib import Path

import pytest

from mailrelay import service_manager


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_service_manager_gets_the_state(tmp_path: Path, is_abstract: bool) -> None:
    name = f"mailrelay-test-{os.getpid()}"
    address, given = (f"\0{name}", f"@{name}") if is_abstract else (str(tmp_path / "socket"),) * 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(10)
        service_manager.notify("READY=1", {"NOTIFY_SOCKET": given})
        assert manager.recv(100) == b"READY=1"


def test_without_a_service_manager_nothing_is_sent_and_one_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    service_manager.notify("READY=1", {})
    service_manager.notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "socket"))
        for _ in range(2000):
            service_manager.notify("WATCHDOG=1", {"NOTIFY_SOCKET": str(tmp_path / "socket")})
        assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        ("30000000", "ours", 15.0),
        ("30000000", "", 15.0),
        ("30000000", "1", None),
        ("30000000", "?", None),
        ("0", "", None),
        ("", "", None),
        ("soon", "", None),
    ],
)
def test_the_watchdog_is_answered_at_half_its_interval_by_the_process_that_it_watches(
    usec: str, pid: str, interval: float | None
) -> None:
    environ = {"WATCHDOG_USEC": usec, "WATCHDOG_PID": str(os.getpid()) if pid == "ours" else pid}
    assert service_manager.watchdog_interval(environ) == interval
    assert service_manager.watchdog_interval({}) is None
