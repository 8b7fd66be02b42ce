"""The power is cut at many moments of a recorded story: whatever is on disk then, nothing that was promised is lost.

What the daemon and the commands write, sync and promise is recorded with strace (`harness.recorded_disk`). From it the
states are made in which a disk may be after a power cut (`harness.simulated_disk`), and each is opened with mailrelay
(`harness.power_cuts`). MAILRELAY_POWER_CUTS=N opens N states of the story instead of STATES, and
MAILRELAY_POWER_CUTS_SEED=N chooses others.

A suite that cannot fail proves nothing. So the same is done with a product that breaks its promise, and with syncs left out
of the record: each must be found out.
"""

import asyncio
import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.old_spools import SPOOLS, old
from harness.power_cut_story import MAILDIR, MAIN, REPLACED, SPOOL
from harness.power_cuts import IGNORED, Story, broken_rules, check, check_story, cuts, start
from harness.processes import Child
from harness.recorded_disk import Resize, SyncBegins, SyncEnds, Write, recording, steps
from harness.simulated_disk import Disk

import mailrelay
from mailrelay.spool.command_spool import CommandSpool
from mailrelay.spool.database import FILE

pytestmark = [pytest.mark.system, pytest.mark.timeout(0)]

STATES = 1000
"""States of the whole story that are opened: about 12 seconds."""
BUDGET = int(os.environ.get("MAILRELAY_POWER_CUTS", STATES))
SEED = int(os.environ.get("MAILRELAY_POWER_CUTS_SEED", "0"))
PATIENCE = 120.0
LOG = f"{SPOOL}/{FILE}-wal"
MEMORY = Path("/dev/shm")
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory if there is such a file system: each state is opened with syncs that need not be real."""
    path = tmp_path_factory.mktemp("disk")
    if os.access(MEMORY, os.W_OK):
        path = Path(tempfile.mkdtemp(prefix="mailrelay-power-cuts.", dir=MEMORY))
    yield path
    shutil.rmtree(path)


def record(directory: Path, tampering: str = "", length: str = "short") -> Story:
    directory.mkdir()
    argv = [sys.executable, "-m", "harness.power_cut_story", str(directory), tampering, length]
    modules = f"{TESTS}:{Path(mailrelay.__file__).parent.parent}"
    child = Child([*recording(directory / "trace"), *argv], env={**os.environ, "PYTHONPATH": modules})
    try:
        assert child.ended(PATIENCE) == 0, child.output
    finally:
        child.stop()
    return Story(directory, directory / "trace")


@pytest.fixture(scope="module")
def story(memory: Path) -> Story:
    return record(memory / "whole", length="whole")


@pytest.fixture(scope="module")
def short(memory: Path) -> Story:
    return record(memory / "short")


@pytest.fixture
def states(memory: Path, tmp_path: Path) -> Iterator[Path]:
    """Where the states of one test are made. Those that break a promise are copied to where pytest keeps files."""
    path = memory / "states"
    path.mkdir()
    yield path
    for broken in path.glob("broken-*"):
        shutil.copytree(broken, tmp_path / broken.name)
    shutil.rmtree(path)


def test_the_record_is_whole(story: Story) -> None:
    final = story.final()
    found = {
        str(path.relative_to(story.root)): path.read_bytes()
        for path in story.root.rglob("*")
        if path.is_file() and path.name not in IGNORED
    }
    assert final == found
    assert REPLACED in final
    assert any(path.startswith(f"{MAILDIR}/new/") for path in final)
    begun = sum(isinstance(step, Write) and (step.path, step.at) == (LOG, 0) for step in story.steps)
    assert begun > 8, "the log did not begin anew"
    lengths = [step.length for step in story.steps if isinstance(step, Resize) and step.path == f"{SPOOL}/{FILE}"]
    assert lengths[-1] < max(lengths), "the database did not become shorter"


def test_no_power_cut_loses_what_was_promised(story: Story, states: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promised = [token for token, letter in story.letters.items() if letter.place is not None]
    outcomes = sum(len(promised) for letter in story.letters.values() for promised in letter.states.values())
    figures = check_story(story, states, budget=BUDGET, seed=SEED)
    with capsys.disabled():
        print(f"\nPower cuts: {len(promised)} messages and {outcomes} outcomes promised; {figures}")
    assert figures.problems == []
    assert len(promised) >= 18 and outcomes >= 20
    assert figures.states >= min(BUDGET, STATES) * 0.9


@pytest.mark.parametrize(
    "version", sorted(int(path.stem.removeprefix("version")) for path in SPOOLS.glob("version*.sql"))
)
def test_a_power_cut_during_a_migration_leaves_all_mail(version: int, memory: Path, states: Path) -> None:
    directory = memory / f"migration-{version}"
    root = directory / "root"
    (root / SPOOL).parent.mkdir(parents=True)
    old(root / SPOOL, version)
    disk = Disk(IGNORED)
    disk.load(root)
    config = directory / "config.toml"
    config.write_text(f'relayhost.default.ssh = "nowhere.example"\nqueue.directory = "{root / SPOOL}"\n')
    config.chmod(0o600)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "MAILRELAY_CONFIG": str(config),
        "PYTHONPATH": str(Path(mailrelay.__file__).parent.parent),
    }
    child = Child([*recording(directory / "trace"), sys.executable, "-c", MAIN, "queue"], env=environment)
    assert child.ended(PATIENCE) == 0, child.output
    made = steps(directory / "trace", root, ())
    expected = mail(root / SPOOL)
    assert len(expected) == 3

    def examine(state: Path, _at: int, /) -> tuple[list[str], int]:
        found = mail(state / SPOOL)
        problems = [] if found == expected else [f"the mail is {found}"]
        runner.run(start(state / SPOOL))
        return [*problems, *broken_rules(state / SPOOL)], len(found)

    chance = random.Random(SEED)
    with contextlib.closing(asyncio.Runner()) as runner:
        places = cuts(made, [], chance)
        figures = check(disk, made, places, examine, states, budget=BUDGET // 20, chance=chance)
    assert figures.problems == []
    assert figures.states > 20


def mail(directory: Path) -> list[tuple[str, list[str], bytes]]:
    with CommandSpool(directory).reading() as view:
        return [
            (one.queue_id, [to.state for to in one.recipients], b"".join(view.content(view.find(one.queue_id)[0])))
            for one in view.everything()
        ]


@pytest.mark.parametrize("tampering", ["commits without a sync", "directories without a sync", "250 before the commit"])
def test_a_product_that_breaks_its_promise_is_found_out(tampering: str, memory: Path, states: Path) -> None:
    tampered = record(memory / tampering.replace(" ", "-"), tampering)
    figures = check_story(tampered, states, budget=300, until=300)
    assert any("had its 250 and is gone" in problem for problem in figures.problems), str(figures)


def test_the_same_story_without_tampering_passes(short: Story, states: Path) -> None:
    assert check_story(short, states, budget=300, until=1).problems == []


@pytest.mark.parametrize("number", range(5))
def test_a_sync_of_the_log_that_is_left_out_before_one_250_is_found_out(
    number: int, short: Story, states: Path
) -> None:
    token = f"short-{number}"
    accepted = short.letters[token].place
    written = next(
        place for place, step in enumerate(short.steps) if isinstance(step, Write) and token.encode() in step.data
    )
    assert accepted is not None
    without = syncs(short, lambda path: path == LOG, range(written, accepted))
    # The first state that breaks a promise may break that of another message, whose outcome was in the same sync.
    figures = check_story(short, states, budget=300, until=300, without=without)
    assert f"{token} had its 250 and is gone" in "".join(figures.problems), str(figures)


def syncs(story: Story, which: Callable[[str], bool], between: range) -> list[int]:
    """The places of both steps of the syncs that end in this range, of the files and directories that `which` names."""
    steps_of_syncs = [(at, step) for at, step in enumerate(story.steps) if isinstance(step, (SyncBegins, SyncEnds))]
    left_out = {
        step.number for at, step in steps_of_syncs if isinstance(step, SyncEnds) and at in between and which(step.path)
    }
    assert left_out, "there is no such sync"
    return [at for at, step in steps_of_syncs if step.number in left_out]


WHICH: dict[str, Callable[[str], bool]] = {
    "the log": lambda path: path == LOG,
    "the database": lambda path: path == f"{SPOOL}/{FILE}",
    "the spool's directory": lambda path: path == SPOOL,
    "the directory above the spool's": lambda path: path == str(Path(SPOOL).parent),
    "the directory above that": lambda path: path == "",
    "a replaced file": lambda path: path.startswith(f"{REPLACED}."),
    "the directory of a replaced file": lambda path: path == str(Path(REPLACED).parent),
    "a report": lambda path: path.startswith(f"{MAILDIR}/tmp/"),
    "the directory of reports": lambda path: path == f"{MAILDIR}/new",
}


@pytest.mark.parametrize("what", WHICH)
def test_syncs_that_are_left_out_are_found_out(what: str, story: Story, states: Path) -> None:
    without = syncs(story, WHICH[what], range(len(story.steps)))
    figures = check_story(story, states, budget=1000, until=1, without=without)
    assert figures.problems, str(figures)
