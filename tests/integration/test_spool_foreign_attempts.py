"""An attempt that another daemon has closed meanwhile: its outcome is not recorded, and the log says so."""

import logging
from pathlib import Path

import pytest
from harness.messages import LIMIT, TAKEN, letter

from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.relay.results import Results
from mailrelay.spool.spool import Spool

NEVER_BEGUN = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="no network")


@pytest.mark.parametrize(
    ("outcome", "line"),
    [(TAKEN, "the outcome is not recorded"), (NEVER_BEGUN, "not put back")],
    ids=["sent", "untried"],
)
async def test_the_end_of_an_attempt_that_is_not_ours_any_more_is_logged_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, outcome: Outcome, line: str
) -> None:
    caplog.set_level(logging.ERROR, "mailrelay")
    spool = Spool(tmp_path / "spool", LIMIT, lambda _: None)
    other = Spool(tmp_path / "spool", LIMIT, lambda _: None)
    try:
        await spool.accept(letter())
        (message,) = await spool.take("default", (), 1)
        assert await other.recover() == 1
        (again,) = await other.take("default", (), 1)
        assert again.id == message.id
        results = Results(
            spool,
            RetryPolicy((60.0,), 432_000.0, lambda *_: ()),
            lambda: None,
            lambda: None,
            lambda: None,
            lambda: None,
            lambda _: None,
            lambda: 0.0,
        )
        results.finished(message, [outcome], relays_dsn=False, dial_seconds=0.0, seconds=0.0)
        await results.close()
        assert not results.is_stuck
        assert await other.put_back([message.id]) == [], "its attempt is open still"
    finally:
        spool.close()
        other.close()
    (record,) = (one for one in caplog.records if line in one.message)
    assert record.levelno == logging.ERROR


async def test_the_end_of_an_attempt_of_ours_is_not_worth_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "mailrelay")
    spool = Spool(tmp_path / "spool", LIMIT, lambda _: None)
    try:
        await spool.accept(letter())
        (message,) = await spool.take("default", (), 1)
        results = Results(
            spool,
            RetryPolicy((60.0,), 432_000.0, lambda *_: ()),
            lambda: None,
            lambda: None,
            lambda: None,
            lambda: None,
            lambda _: None,
            lambda: 0.0,
        )
        results.finished(message, [TAKEN], relays_dsn=False, dial_seconds=0.0, seconds=0.0)
        await results.close()
    finally:
        spool.close()
    assert caplog.records == []
