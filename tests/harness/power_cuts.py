"""Power cuts in a recorded story: chooses the moments, makes the states in which the disk may be then, and opens each one
with the spool of mailrelay.

After a cut everything that was promised before it must hold: each message that had its 250 is there once, in a state that it
had or could have had, whole and octet for octet; an outcome that was logged and an act of a command that ended stand; what
was not promised is there as a whole or not at all. The spool takes new mail. Nothing raises.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol
from unittest import mock

import apsw

import mailrelay.spool
from harness.messages import letter
from harness.power_cut_story import BALLAST_SIZE, LETTERS, MAILDIR, MARKS, REPLACED, ROOT, SPOOL
from harness.recorded_disk import Said, Step, SyncEnds, Write, steps
from harness.simulated_disk import Choice, Disk
from mailrelay.mail.overview import Listed
from mailrelay.mail.states import FAILED, OPEN, PENDING, State
from mailrelay.spool import ballast, spool
from mailrelay.spool.command_spool import CommandSpool
from mailrelay.spool.database import FILE, IS_LIVE, IS_PENDING, VERSION, connect, rows

IGNORED = ("lock", "trigger", "mailrelay.log", f"{FILE}-shm")
"""Files that no start relies on. A -shm file is made with any content (`_JUNK`)."""
LIMIT = 1_000_000_000
SCHEMA = Path(mailrelay.spool.__file__).with_name("schema.sql")
NEW = "after the cut"
_ACCEPTED = re.compile(rb"^250[ -]2\.0\.0 ([0-9a-z]{8}) ")
_OUTCOME = re.compile(rb" ([0-9a-z]{8}) to=<([^>]*)> .* status=(\w+) ")


@dataclass(slots=True)
class Letter:
    """What is known about a message. place: of its 250 in the steps, or None if there is none.

    states: for each recipient, the places in the steps at which a state was promised, and the state.
    """

    content: bytes
    recipients: Sequence[str]
    place: int | None = None
    states: dict[str, list[tuple[int, State]]] = field(default_factory=dict)

    def allowed(self, recipient: str, at: int) -> set[State]:
        """The states that a recipient may have after a cut at this place."""
        promised = self.states.get(recipient, [])
        # A later state may be on disk before it is promised.
        allowed = {state for place, state in promised if place >= at}
        last = [state for place, state in promised if place < at][-1:]
        allowed.update(last)
        if not last or last[0] in PENDING:
            allowed |= PENDING
        return allowed


class Story:
    """A recorded story: the steps, the letters by their subjects, and the other promises with their places in the steps.

    replaced: the content of the file that was replaced. purges: where old history begins to be deleted.
    """

    def __init__(self, directory: Path, trace: Path) -> None:
        self.root = directory / ROOT
        heard = (directory / MARKS, self.root / SPOOL / "mailrelay.log")
        self.steps = steps(trace, self.root, heard)
        told = json.loads((directory / LETTERS).read_text())
        self.letters = {
            token: Letter(one["content"].encode(), one["recipients"]) for token, one in told["letters"].items()
        }
        self.replaced: list[tuple[int, str]] = []
        self.purges = len(self.steps)
        self.promises: list[int] = []
        for place, step in enumerate(self.steps):
            if isinstance(step, Said) and self._hear(place, step, told["ids"]):
                self.promises.append(place)

    def final(self) -> dict[str, bytes]:
        """The files at the end of the story, without a power cut."""
        disk = Disk(IGNORED)
        for step in self.steps:
            disk.apply(step)
        return disk.files()

    def _hear(self, place: int, said: Said, ids: Mapping[str, str]) -> bool:
        """Whether something was promised."""
        if said.to.startswith("socket:"):
            found = _ACCEPTED.match(said.data)
            if found is None:
                return False
            self.letters[ids[found[1].decode()]].place = place
            return True
        if said.to.endswith(MARKS):
            match json.loads(said.data):
                case {"accepted": token}:
                    self.letters[token].place = place
                case {"token": token, "addresses": addresses, "state": state}:
                    for address in addresses:
                        self.letters[token].states.setdefault(address, []).append((place, State(state)))
                case {"replaced": text}:
                    self.replaced.append((place, text))
                case {"purges": _}:
                    self.purges = place
            return True
        found = _OUTCOME.search(said.data)
        if found is None or found[1].decode() not in ids:
            return False
        one = self.letters[ids[found[1].decode()]]
        one.states.setdefault(found[2].decode(), []).append((place, State(found[3].decode())))
        return True


@dataclass(slots=True)
class Figures:
    """What a run of the suite has done. problems: a sentence for each state that breaks a promise."""

    cuts: int = 0
    states: int = 0
    messages: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.states} states after {self.cuts} cuts, {self.messages} checks of a message;"
            f" {len(self.problems)} states break a promise"
        )


class Examine(Protocol):
    """Opens the state in `root` after a cut at this place in the steps. Returns what is wrong, and how many messages were
    checked."""

    def __call__(self, root: Path, at: int, /) -> tuple[list[str], int]: ...


def cuts(all_steps: Sequence[Step], promises: Sequence[int], chance: random.Random) -> list[int]:
    """The places at which the power is cut: before the end of each sync, after each promise, at the end, and some others.

    Between two of these, more is pending and more is promised the later the cut is.
    """
    found = {len(all_steps)}
    found.update(place for place, step in enumerate(all_steps) if isinstance(step, SyncEnds))
    found.update(place + 1 for place in promises)
    writes = [place for place, step in enumerate(all_steps) if isinstance(step, Write)]
    found.update(chance.sample(writes, len(writes) // 20))
    return sorted(found)


def check(
    disk: Disk,
    all_steps: Sequence[Step],
    places: Sequence[int],
    examine: Examine,
    directory: Path,
    *,
    budget: int,
    chance: random.Random,
    until: int = 20,
) -> Figures:
    """Cuts the power at these places and opens `budget` states in all, or fewer if there are not so many.

    disk: as it is before the steps. directory: where the states are made; the first three that break a promise are left
    there, as they were after the cut. until: how many such states end the check.
    """
    figures = Figures()
    done = 0
    for number, place in enumerate(places):
        for step in all_steps[done:place]:
            disk.apply(step)
        done = place
        figures.cuts += 1
        share = -(-(budget - figures.states) // (len(places) - number))
        for choice in itertools.islice(disk.choices(chance), max(1, share)):
            figures.states += 1
            where, junk = directory / "state", chance.choice(_JUNK)
            _make(disk, choice, where, junk)
            problems, messages = examine(where, place)
            figures.messages += messages
            shutil.rmtree(where)
            if problems:
                left = directory / f"broken-{len(figures.problems)}"
                if len(figures.problems) < 3:
                    _make(disk, choice, left, junk)
                said = f"{left.name}, cut before step {place} of {len(all_steps)}, {choice}: {'; '.join(problems)}"
                figures.problems.append(said)
                if len(figures.problems) >= until:
                    return figures
    return figures


_JUNK = [random.Random(seed).randbytes(32_768) for seed in range(4)]
"""What may be on unwritten parts of a disk, and in a -shm file, which is written through a memory mapping."""


def _make(disk: Disk, choice: Choice, where: Path, junk: bytes) -> None:
    disk.write(choice, where, junk)
    if (where / SPOOL / FILE).exists() and choice.has_old:
        (where / SPOOL / f"{FILE}-shm").write_bytes(junk)


def check_story(
    story: Story, directory: Path, *, budget: int, seed: int = 0, without: Collection[int] = (), until: int = 20
) -> Figures:
    """Opens `budget` states of a story. without: places of steps that are left out, as if they had not been done and nobody
    had noticed; then only the cuts after the first of them count."""
    chance = random.Random(seed)
    # A place stays the same: promises are known by theirs.
    kept = [Said("", b"") if place in without else step for place, step in enumerate(story.steps)]
    places = [place for place in cuts(kept, story.promises, chance) if place > min(without, default=-1)]
    with contextlib.closing(asyncio.Runner()) as runner:
        examine = Examiner(story, runner)
        return check(Disk(IGNORED), kept, places, examine, directory, budget=budget, chance=chance, until=until)


class Examiner:
    """Opens states of a story's disk with mailrelay, as its next start does, and compares them with what was promised."""

    def __init__(self, story: Story, runner: asyncio.Runner) -> None:
        self._story = story
        self._runner = runner
        self._reports = {path: content for path, content in story.final().items() if path.startswith(f"{MAILDIR}/new/")}

    def __call__(self, root: Path, at: int, /) -> tuple[list[str], int]:
        problems = [*self._replaced(root, at)]
        # Any error is a problem: nothing may raise.
        try:
            self._runner.run(start(root / SPOOL))
            messages, found = self._messages(root / SPOOL, at)
            problems += found
            problems += broken_rules(root / SPOOL)
            problems += self._notices(root)
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
            messages = 0
        return problems, messages

    def _replaced(self, root: Path, at: int) -> Iterator[str]:
        file = root / REPLACED
        found = file.read_text("latin-1") if file.exists() else None
        promised: list[str | None] = [None, *(text for place, text in self._story.replaced if place < at)]
        later = [text for place, text in self._story.replaced if place >= at]
        if found not in [promised[-1], *later]:
            yield f"{REPLACED} is {'missing' if found is None else 'not what was written'}"

    def _messages(self, directory: Path, at: int) -> tuple[int, list[str]]:
        problems: list[str] = []
        with CommandSpool(directory).reading() as view:
            listed = list(view.everything())
            contents = {one.queue_id: b"".join(view.content(view.find(one.queue_id)[0])) for one in listed}
        count = Counter(one.subject for one in listed)
        if count[NEW] != 1:
            problems.append("a new message is not accepted")
        for one in listed:
            if one.subject == NEW:
                continue
            if (known := self._story.letters.get(one.subject)) is None:
                problems.append(f"{one.queue_id} was never sent")
            else:
                problems += _message(one, known, contents[one.queue_id], at)
        for token, known in self._story.letters.items():
            if count[token] > 1:
                problems.append(f"{token} is there {count[token]} times")
            if not count[token] and known.place is not None and known.place < at and not self._may_be_gone(known, at):
                problems.append(f"{token} had its 250 and is gone")
        return len(listed) - 1, problems

    def _may_be_gone(self, known: Letter, at: int) -> bool:
        over = all(not known.allowed(address, at) <= OPEN | FAILED for address in known.recipients)
        return at > self._story.purges and over

    def _notices(self, root: Path) -> Iterator[str]:
        """Notices that the spool calls delivered must be in the mailbox."""
        new = root / MAILDIR / "new"
        whole = {f"{MAILDIR}/new/{path.name}": path.read_bytes() for path in new.iterdir()} if new.exists() else {}
        for path, content in whole.items():
            if content != self._reports.get(path, b""):
                yield f"{path} is not whole"
        with contextlib.closing(connect(root / SPOOL, create=False)) as db:
            sql = "SELECT count(*) FROM notice_backend WHERE backend = 'mailbox' AND delivered IS NOT NULL"
            ((delivered,),) = rows(db, sql)
        if delivered > len(whole):
            yield f"{delivered} notices are called delivered, {len(whole)} are in the mailbox"


async def start(directory: Path) -> None:
    """What a daemon does with a spool before it listens, and one message by a client."""
    with mock.patch.object(ballast, "SIZE", BALLAST_SIZE):
        opened = spool.Spool(directory, LIMIT, lambda _relayhost: None)
    try:
        await opened.recover()
        await opened.unstage_all()
        await opened.accept(dataclasses.replace(letter(), subject=NEW))
    finally:
        opened.close()


def _message(one: Listed, known: Letter, content: bytes, at: int) -> Iterator[str]:
    """What is wrong with a message that is there."""
    addresses = [to.address.decode() for to in one.recipients]
    if addresses != list(known.recipients):
        yield f"{one.subject} has the recipients {addresses}"
    states = set()
    for to in one.recipients:
        state = State(to.state)
        states.add(state)
        allowed = known.allowed(to.address.decode(), at)
        if state not in allowed:
            yield f"{one.subject} to {to.address.decode()} is {state} and not {'/'.join(sorted(allowed))}"
    if states & (OPEN | FAILED):
        # mailrelay puts lines of its own before it.
        before, sent, after = content.partition(known.content)
        if not sent or after or len(content) != one.size or not re.fullmatch(rb"Received:[\t\r\n -~]*\r\n", before):
            yield f"the content of {one.subject} is not whole ({len(content)} octets of {one.size})"


_STRAY = "SELECT count(*) FROM content WHERE message NOT IN (SELECT id FROM message)"
_NEVER_TRIED = (
    "SELECT count(*) FROM message m WHERE next_attempt IS NULL AND EXISTS"
    f" (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.state IN {IS_PENDING})"
)
_RETIRED = (
    "SELECT count(*) FROM message m WHERE (retired IS NULL) <> EXISTS"
    f" (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.state IN {IS_LIVE})"
)
_NOT_TOLD = (
    "SELECT count(*) FROM recipient r WHERE state = 'bounced' AND NOT EXISTS"
    " (SELECT 1 FROM notice_recipient n WHERE n.recipient = r.id)"
)
_RULES = {
    "PRAGMA integrity_check": ("ok", "SQLite finds the file damaged"),
    "PRAGMA user_version": (VERSION, "the format is another one"),
    "PRAGMA auto_vacuum": (2, "free pages are not given back"),
    "SELECT count(*) FROM pragma_foreign_key_check": (0, "rows refer to rows that are gone"),
    _STRAY: (0, "there is content of no message"),
    "SELECT count(*) FROM incoming": (0, "an incomplete message was left"),
    "SELECT count(*) FROM attempt WHERE closed IS NULL": (0, "an attempt was left open"),
    _NEVER_TRIED: (0, "a message would never be tried again"),
    _RETIRED: (0, "a message is retired, or not, against the states of its recipients"),
    _NOT_TOLD: (0, "a message bounced without a notice"),
}
"""Queries, the result that each must have, and what is wrong otherwise."""


@cache
def schema_names() -> frozenset[tuple[object, ...]]:
    """The tables, indexes and triggers of a new spool."""
    db = apsw.Connection(":memory:")
    db.execute(SCHEMA.read_text("utf-8"))
    return frozenset(db.execute("SELECT type, name FROM sqlite_schema"))


def broken_rules(directory: Path) -> Iterator[str]:
    """What is wrong with the spool as a whole."""
    with contextlib.closing(connect(directory, create=False)) as db:
        for sql, (right, wrong) in _RULES.items():
            if (found := db.execute(sql).get) != right:
                yield f"{wrong} ({found})"
        if set(db.execute("SELECT type, name FROM sqlite_schema")) != schema_names():
            yield "the schema is not whole"
    size = (directory / ballast.FILE).stat().st_size
    if size != BALLAST_SIZE:
        yield f"the ballast has {size} octets"
