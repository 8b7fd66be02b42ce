"""Whatever call that only looks at the spool fails, or is the daemon's last: no mail is lost, and the person knows."""

import asyncio
from pathlib import Path

import pytest
from harness import fault_suite

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("name", ["read", "open", "map", "stat", "lock", "log"])
def test_any_call_that_only_looks_at_the_spool_may_fail(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = asyncio.run(fault_suite.run(tmp_path, name))
    with capsys.disabled():
        print(f"\n{name}: {result}")
    assert result.wrong == []
