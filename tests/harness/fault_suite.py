"""Tells the story of `harness.fault_story` once for each fault of a class of calls, several stories at once.

The first story has no fault: it counts the calls. Classes with few calls get every fault at every number. Of the others a
seeded part is taken, so that all takes a minute on two processors; MAILRELAY_EVERY_FAULT=1 takes every number.
MAILRELAY_FAULT="EIO write 17" takes that one alone.
"""

import asyncio
import os
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.failing_disk import FAULTS, Fault, build, numbers
from harness.fault_story import PATIENCE, Facts, Mailboxes, Story
from harness.fault_verdict import complaints, doubles
from harness.fork_server import ForkServer

SEED = 7777
AT_ONCE = 8
"""Stories at a time: they mostly wait."""
PART = 10
"""Numbers of a class for each kind of fault, about, where not all are taken."""
BEYOND = 1.05
"""The number of calls differs a little from story to story: every number up to this times the count is tried."""


@dataclass(slots=True)
class Result:
    """What came of many stories. wrong: complaints, with the fault and the call before them."""

    counted: int
    stories: int = 0
    reached: int = 0
    ended: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.counted} calls in a story; {self.stories} stories, {self.reached} with a failed call, after which"
            f" {self.ended} daemons ended; {self.doubled} messages arrived twice; {len(self.wrong)} complaints;"
            f" {self.seconds:.0f} s"
        )


def chosen(name: str, count: int) -> list[Fault]:
    """The faults of one class that are tried, of which a story without a fault has `count` calls."""
    if only := os.environ.get("MAILRELAY_FAULT"):
        kind, in_class, number = only.split()
        return [Fault(name, int(number), kind)] if in_class == name else []
    is_all = os.environ.get("MAILRELAY_EVERY_FAULT") == "1"
    chance = random.Random(f"{SEED} {name}")
    step = 1 if is_all else max(1, count // PART)
    found = []
    for kind in FAULTS[name]:
        # One number out of each `step`: neighbours are mostly pages of the same commit.
        found += [Fault(name, at + chance.randrange(step), kind) for at in range(1, int(count * BEYOND) + 1, step)]
    return found


async def run(directory: Path, name: str, faults: Sequence[Fault] | None = None, sabotage: str = "") -> Result:
    """Tells the story for each of the faults, by default for those that are `chosen`."""
    library = build(directory)
    (directory / "remote").mkdir()
    began = time.monotonic()
    async with Mailboxes(directory / "remote") as mailboxes, ForkServer(library) as server:
        first = await Story(server, mailboxes, directory / "first").tell(None, traces=True)
        assert complaints(first) == []
        result = Result(numbers(first.calls)[name])
        at_once = asyncio.Semaphore(AT_ONCE)

        async def tell(number: int, fault: Fault) -> None:
            async with at_once:
                story = directory / f"r{number}"
                # A sabotaged daemon does not do what is waited for.
                patience = 5.0 if sabotage else PATIENCE
                facts = await Story(server, mailboxes, story, sabotage, patience).tell(fault)
                _add(result, facts)
                shutil.rmtree(story)

        async with asyncio.TaskGroup() as group:
            for number, fault in enumerate(faults if faults is not None else chosen(name, result.counted)):
                group.create_task(tell(number, fault))
    result.seconds = time.monotonic() - began
    return result


def _add(result: Result, facts: Facts) -> None:
    call = facts.failed_call
    result.stories += 1
    result.reached += call is not None
    result.ended += call is not None and facts.ended is not None
    result.doubled += doubles(facts)
    where = f"{facts.fault} ({call.call} {call.file})" if call else f"{facts.fault} (not reached)"
    result.wrong += [f"{where}: {complaint}" for complaint in complaints(facts)]
