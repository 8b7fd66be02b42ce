"""An attempt that another daemon has closed meanwhile: its outcome is not recorded, and the log says so."""

import asyncio
import logging
from pathlib import Path

import pytest
from spooling import LIMIT, TAKEN, letter

from mailrelay.mail.conclusion import Terms
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.relay.results import Results
from mailrelay.spool.spool import Spool

NEVER_BEGUN = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")


@pytest.mark.parametrize(
    ("outcome", "line"),
    [(TAKEN, "the outcome is not recorded"), (NEVER_BEGUN, "not put back")],
    ids=["sent", "untried"],
)
def test_the_end_of_an_attempt_that_is_not_ours_any_more_is_logged_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, outcome: Outcome, line: str
) -> None:
    async def main() -> None:
        spool = Spool(tmp_path / "spool", LIMIT, lambda _: None)
        other = Spool(tmp_path / "spool", LIMIT, lambda _: None)
        try:
            await spool.accept(letter())
            (message,) = await spool.take("default", (), 1)
            assert await other.recover() == 1
            (again,) = await other.take("default", (), 1)
            assert again.id == message.id
            results = Results(spool, Terms((60.0,), 432_000.0, lambda *_: ()), lambda: None, lambda: None, lambda: 0.0)
            results.finished(message, [outcome], relays_dsn=False, dialled=0.0, transaction=0.0)
            await results.close()
            assert not results.stuck
            assert await other.put_back([message.id]) == [], "its attempt is open still"
        finally:
            spool.close()
            other.close()

    with caplog.at_level(logging.ERROR, "mailrelay"):
        asyncio.run(main())
    (record,) = (one for one in caplog.records if line in one.message)
    assert record.levelno == logging.ERROR


def test_the_end_of_an_attempt_of_ours_is_not_worth_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        spool = Spool(tmp_path / "spool", LIMIT, lambda _: None)
        try:
            await spool.accept(letter())
            (message,) = await spool.take("default", (), 1)
            results = Results(spool, Terms((60.0,), 432_000.0, lambda *_: ()), lambda: None, lambda: None, lambda: 0.0)
            results.finished(message, [TAKEN], relays_dsn=False, dialled=0.0, transaction=0.0)
            await results.close()
        finally:
            spool.close()

    with caplog.at_level(logging.ERROR, "mailrelay"):
        asyncio.run(main())
    assert caplog.records == []
