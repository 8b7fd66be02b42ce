"""Whatever call that changes the spool fails, or is the daemon's last: no mail is lost, and the person knows."""

import asyncio
from pathlib import Path

import pytest
from harness import fault_suite
from harness.failing_disk import Fault

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("name", ["write", "sync", "make", "remove"])
def test_any_call_that_changes_the_spool_may_fail(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = asyncio.run(fault_suite.run(tmp_path, name))
    with capsys.disabled():
        print(f"\n{name}: {result}")
    assert result.wrong == []


@pytest.mark.parametrize(
    ("sabotage", "name", "kind", "noticed"),
    [
        ("answers_before_the_commit", "write", "KILL", "had its 250, did not arrive"),
        ("answers_250_to_errors", "write", "EIO", "had its 250, did not arrive"),
        ("goes_on_with_a_broken_spool", "sync", "EIO", "goes on"),
        ("tells_nobody", "sync", "EIO", "was not told"),
    ],
)
def test_a_daemon_that_breaks_a_promise_is_noticed(
    sabotage: str, name: str, kind: str, noticed: str, tmp_path: Path
) -> None:
    numbers = range(15, 18) if name == "sync" else range(250, 650, 30)
    faults = [Fault(name, number, kind) for number in numbers]
    result = asyncio.run(fault_suite.run(tmp_path, name, faults, sabotage))
    assert any(noticed in complaint for complaint in result.wrong), result
