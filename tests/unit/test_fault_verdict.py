"""The verdict on a story with a failing disk: what is right is not complained of, and each wrong is."""

from collections import Counter
from dataclasses import replace

import pytest
from harness.failing_disk import Counted, Fault
from harness.fault_story import REFUSAL, Facts
from harness.fault_verdict import complaints

FAILED = Counted(1000.0, "EIO", "write", 7, "pwrite64", "spool/spool.db-wal")
TOLD = (1001.0, {"kind": "spool"})
ENDED = Facts(
    "r1", Fault("write", 7, "EIO"), calls=[FAILED], ready=True, ended=1, ended_at=1001.0, told=[TOLD], status=(2, "")
)
"""A daemon that ended because of the fault."""
GOES_ON = Facts(
    "r1",
    Fault("write", 7, "ENOSPC"),
    calls=[FAILED],
    replies={"probe": 250},
    refusals=["452 4.3.1 full"],
    ready=True,
    stopped=0,
    settled=True,
    arrived=Counter({("probe", "alice"): 1}),
    arrived_before=Counter({("probe", "alice"): 1}),
    told=[TOLD],
    status=(0, '{"serving": true}'),
    states={("probe", "alice"): "sent"},
)
"""A daemon that refused one message because of the fault."""
BOUNCED = replace(
    GOES_ON, replies={"deferred": 250}, states={("deferred", "never"): "bounced", ("deferred", "later"): "held"}
)
KNOWN = [TOLD, (1001.0, {"kind": "failed", "recipients": ["never-r1@example.net"]})]


@pytest.mark.parametrize(
    "facts",
    [
        ENDED,
        GOES_ON,
        replace(BOUNCED, told=KNOWN, reports=["never-r1@example.net"]),
        replace(ENDED, replies={"first": 0}),
        replace(ENDED, replies={"refused": 550}, refusals=[REFUSAL]),
        replace(ENDED, arrived=Counter({("first", "alice"): 2})),
        replace(GOES_ON, told=[], refusals=[]),
        replace(ENDED, calls=[replace(FAILED, fault="KILL")], ended=-9, told=[], status=(2, "")),
    ],
)
def test_a_daemon_that_did_right_is_not_complained_of(facts: Facts) -> None:
    assert complaints(facts) == []


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        (replace(ENDED, replies={"first": 250}), "first to alice had its 250, did not arrive, and is gone"),
        (replace(ENDED, replies={"first": 250}, states={("first", "alice"): "deferred"}), "and is deferred"),
        (replace(BOUNCED, told=KNOWN), "the person was not told"),
        (replace(ENDED, altered=["first"]), "first arrived altered"),
        (replace(ENDED, refusals=["554 5.3.0 no"]), "a client got 554"),
        (replace(ENDED, replies={"first": -1}), "waited in vain"),
        (replace(GOES_ON, arrived=Counter({("probe", "alice"): 2})), "arrived twice"),
        (replace(ENDED, ended=-11), "ended with status -11"),
        (replace(ENDED, said="Traceback"), "a traceback"),
        (replace(ENDED, logged="Traceback"), "a traceback"),
        (replace(ENDED, status=(0, "fine")), "`status` was 0"),
        (replace(ENDED, ended_at=1009.0), "ended after 9.0 s"),
        (replace(ENDED, told=[]), "was not told"),
        (replace(ENDED, told=[(1009.0, {"kind": "spool"})]), "told after 9.0 s"),
        (replace(ENDED, told=[TOLD, TOLD]), "told 2 times"),
        (replace(ENDED, second="did not start: "), "the second daemon did not start"),
        (replace(GOES_ON, told=[]), "was not told"),
        (replace(GOES_ON, stopped=None), "did not end when it was stopped"),
        (replace(GOES_ON, settled=False), "mail or notices do not"),
        (replace(GOES_ON, replies={"probe": 451}), "answers 451"),
        (replace(GOES_ON, arrived_before=Counter()), "does not send the next message"),
        (replace(GOES_ON, status=(2, '{"serving": false}')), "`status` is 2"),
        (replace(GOES_ON, ready=False), "neither listens nor ends"),
        (replace(GOES_ON, calls=[], fault=None, stopped=1), "no call failed, and the daemon ended"),
    ],
)
def test_each_wrong_is_complained_of(facts: Facts, complaint: str) -> None:
    assert any(complaint in found for found in complaints(facts)), complaints(facts)
