"""A disk that loses its power: which states a recorded disk may be in after a cut, and one of them as real files.

The model, which is what POSIX promises and no more:
- After fsync or fdatasync of a file, what was written to it before is on disk, with its length, but not its name.
- After fsync of a directory, the names in it are on disk: of files and directories that were made, moved and removed.
- Everything else is pending. Each pending piece may be on disk or not, in any order, also in part. A part is a number of
  whole sectors. A sector is on disk as it was at some moment: what is older in a sector is there too.
- A pending length may be on disk without its data; then zeros or old data of the disk are in their place. Or it is not on
  disk, though the data is. Each pending name may be on disk or not. A rename inside of a directory is there as a whole.
- A write to one part of a sector does not damage the rest (SQLite's "powersafe overwrite"), and a sector is never torn.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.recorded_disk import Make, Move, Remove, Resize, Said, Step, SyncBegins, SyncEnds, Write

SECTOR = 512
SMALL = 5
"""Pending pieces of which all combinations are enumerated, at most."""
DROPPED, KEPT = 0, -1
"""A piece is not on disk, or as a whole. Other numbers: a bit for each of its sectors that is."""
LENGTHS = ("written", "full", "old")
"""The length of a file: up to the last piece that is on disk; as all pending pieces make it; as it was before them."""


@dataclass(slots=True)
class Piece:
    """A change that is pending. number: its place in the order of all changes.

    names: what a change of a directory makes of its entries. resize: whether it only sets the length, to `at`."""

    number: int
    at: int = 0
    data: bytes = b""
    resize: bool = False
    names: dict[str, "Node | None"] = field(default_factory=dict)

    @property
    def sectors(self) -> range:
        return range(self.at // SECTOR, -(-(self.at + len(self.data)) // SECTOR))

    def apply(self, to: bytearray) -> None:
        if len(to) < self.at:
            to.extend(bytes(self.at - len(to)))
        if self.resize:
            del to[self.at :]
        else:
            to[self.at : self.at + len(self.data)] = self.data


@dataclass(slots=True, eq=False)
class File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Piece] = field(default_factory=list)
    length: int = 0

    def add(self, piece: Piece) -> None:
        self.length = piece.at if piece.resize else max(self.length, piece.at + len(piece.data))
        self.pending.append(piece)

    def settle(self, before: int) -> None:
        """What came before the change of that number is on disk."""
        while self.pending and self.pending[0].number < before:
            self.pending.pop(0).apply(self.durable)

    def content(self) -> bytes:
        """What programs read."""
        return self.after_a_cut([KEPT] * len(self.pending), "written", b"")

    def after_a_cut(self, kept: Sequence[int], length: str, old: bytes) -> bytes:
        """What is on disk. kept: for each pending piece what of it is there. old: what is on unwritten parts of the disk."""
        image, cached = bytearray(self.durable), bytearray(self.durable)
        for piece, what in zip(self.pending, kept, strict=True):
            piece.apply(cached)
            if what != DROPPED and piece.resize:
                piece.apply(image)
            elif what != DROPPED:
                _write_back(piece, what, cached, image, old)
        if length == "full" and len(image) < len(cached):
            image.extend(_unwritten(old, len(image), len(cached)))
        elif length == "old":
            del image[len(self.durable) :]
        return bytes(image)


def _write_back(piece: Piece, what: int, cached: bytearray, image: bytearray, old: bytes) -> None:
    """Puts the sectors of a piece on disk (`image`), as the file has them now (`cached`)."""
    for place, sector in enumerate(piece.sectors):
        if what == KEPT or what >> place & 1:
            begin, end = sector * SECTOR, min(len(cached), (sector + 1) * SECTOR)
            if len(image) < begin:
                image.extend(_unwritten(old, len(image), begin))
            image[begin:end] = cached[begin:end]


def _unwritten(old: bytes, begin: int, end: int) -> bytes:
    """Octets of a file that were never written there."""
    return (old * ((end - begin) // len(old) + 1))[: end - begin] if old else bytes(end - begin)


@dataclass(slots=True, eq=False)
class Directory:
    durable: dict[str, "Node"] = field(default_factory=dict)
    live: dict[str, "Node"] = field(default_factory=dict)
    pending: list[Piece] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        self.pending.append(piece)
        _rename(self.live, piece)

    def settle(self, before: int) -> None:
        while self.pending and self.pending[0].number < before:
            _rename(self.durable, self.pending.pop(0))

    def after_a_cut(self, kept: Sequence[int]) -> dict[str, "Node"]:
        names = dict(self.durable)
        for piece, what in zip(self.pending, kept, strict=True):
            if what:
                _rename(names, piece)
        return names


Node = File | Directory


def _rename(names: dict[str, Node], piece: Piece) -> None:
    for name, node in piece.names.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


@dataclass(frozen=True, slots=True)
class Choice:
    """What of the pending pieces is on disk, piece by piece in the order of `Disk.pending`, and the lengths of the files.

    has_old: whether unwritten parts of a file have old data of the disk, instead of zeros.
    """

    kept: tuple[int, ...]
    lengths: tuple[str, ...]
    has_old: bool = False

    def __str__(self) -> str:
        marks = "".join({DROPPED: "-", KEPT: "+"}.get(what, "~") for what in self.kept)
        return f"pieces {marks or 'none pending'}; lengths {' '.join(self.lengths)}; old data {self.has_old}"


class Disk:
    """The directory whose changes were recorded; it is on disk itself. ignored: names of files that are left out."""

    def __init__(self, ignored: Sequence[str] = ()) -> None:
        self.root = Directory()
        self._ignored = frozenset(ignored)
        self._count = 0
        self._syncs: dict[int, tuple[Node | None, int]] = {}

    def load(self, directory: Path) -> None:
        """Puts a copy of a directory on the disk, as it is now."""
        for path in sorted(directory.rglob("*")):
            name = str(path.relative_to(directory))
            if path.is_dir():
                self.apply(Make(name, is_directory=True))
            elif path.is_file():
                self.apply(Make(name, is_directory=False))
                self.apply(Write(name, 0, path.read_bytes()))
        for node in self._nodes():
            node.settle(self._count + 1)

    def apply(self, step: Step) -> None:
        self._count += 1
        match step:
            case Write() | Resize():
                self._change(step)
            case Make() | Move() | Remove():
                self._change_names(step)
            case SyncBegins(path, number):
                self._syncs[number] = (self._node(path), self._count)
            case SyncEnds(_, number):
                node, before = self._syncs.pop(number)
                if node is not None:
                    node.settle(before)
            case Said():
                pass

    def _change(self, step: Write | Resize) -> None:
        file = self._node(step.path)
        if not isinstance(file, File):
            assert PurePosixPath(step.path).name in self._ignored, f"{step.path} was never made"
        elif isinstance(step, Resize):
            file.add(Piece(self._count, step.length, resize=True))
        else:
            file.add(Piece(self._count, file.length if step.at is None else step.at, step.data))

    def _change_names(self, step: Make | Move | Remove) -> None:
        match step:
            case Make(path, is_directory):
                directory, name = self._place(path)
                if name not in directory.live and name not in self._ignored:
                    directory.add(Piece(self._count, names={name: Directory() if is_directory else File()}))
            case Move(old, new):
                self._move(old, new)
            case Remove(path):
                directory, name = self._place(path)
                if name in directory.live:
                    directory.add(Piece(self._count, names={name: None}))

    def _move(self, old: str, new: str) -> None:
        (from_, old_name), (to, new_name) = self._place(old), self._place(new)
        node = from_.live[old_name]
        if from_ is to:
            from_.add(Piece(self._count, names={old_name: None, new_name: node}))
        else:
            from_.add(Piece(self._count, names={old_name: None}))
            to.add(Piece(self._count, names={new_name: node}))

    def _place(self, path: str) -> tuple[Directory, str]:
        whole = PurePosixPath(path)
        node = self._node(str(whole.parent))
        assert isinstance(node, Directory), f"{path} lies in no directory"
        return node, whole.name

    def _node(self, path: str) -> Node | None:
        node: Node | None = self.root
        for part in PurePosixPath(path).parts:
            node = node.live.get(part) if isinstance(node, Directory) else None
        return node

    def files(self) -> dict[str, bytes]:
        """The files that programs see, by their paths."""
        return {path: node.content() for path, node in self._walk(self.root, "") if isinstance(node, File)}

    def _walk(self, directory: Directory, before: str) -> Iterator[tuple[str, Node]]:
        for name, node in directory.live.items():
            yield f"{before}{name}", node
            if isinstance(node, Directory):
                yield from self._walk(node, f"{before}{name}/")

    def _nodes(self) -> list[Node]:
        """All that may be reached after a cut, in a fixed order."""
        found: list[Node] = [self.root]
        for node in found:
            if isinstance(node, Directory):
                below = [
                    *node.durable.values(),
                    *(one for piece in node.pending for one in piece.names.values() if one),
                ]
                found.extend(one for one in dict.fromkeys(below) if one not in found)
        return found

    def choices(self, chance: random.Random) -> Iterator[Choice]:
        """The states in which a cut now may leave the disk, each once: all, if few pieces are pending; else ever more."""
        nodes = self._nodes()
        is_name = [isinstance(node, Directory) for node in nodes for _ in node.pending]
        owner = [place for place, node in enumerate(nodes) for _ in node.pending]
        order = [piece.number for node in nodes for piece in node.pending]
        sizes = [len(piece.sectors) for node in nodes for piece in node.pending]
        files = sum(isinstance(node, File) and bool(node.pending) for node in nodes)
        seen: set[tuple[tuple[int, ...], tuple[str, ...]]] = set()

        def fresh(kept: Sequence[int], lengths: Sequence[str]) -> Iterator[Choice]:
            if (key := (tuple(kept), tuple(lengths))) not in seen:
                seen.add(key)
                yield Choice(*key, has_old=chance.random() < 0.5)

        total = len(order)
        yield from fresh([DROPPED] * total, ["old"] * files)
        yield from fresh([KEPT] * total, ["written"] * files)
        if total <= SMALL:
            every = [
                ([KEPT if bits >> place & 1 else DROPPED for place in range(total)], [length] * files)
                for bits in range(1 << total)
                for length in LENGTHS
            ]
            chance.shuffle(every)
            for kept, lengths in every:
                yield from fresh(kept, lengths)
        # Names alone, and data alone.
        yield from fresh([KEPT if name else DROPPED for name in is_name], ["full"] * files)
        yield from fresh([DROPPED if name else KEPT for name in is_name], ["written"] * files)
        in_vain = 0
        while total and in_vain < 20:
            kept = _random(chance, order, owner, sizes, is_name)
            before = len(seen)
            yield from fresh(kept, [chance.choice(LENGTHS) for _ in range(files)])
            in_vain = in_vain + 1 if len(seen) == before else 0

    def write(self, choice: Choice, directory: Path, old: bytes = b"") -> None:
        """Makes the files of one state in `directory`. old: as in `File.after_a_cut`, if the choice has it."""
        kept, lengths = iter(choice.kept), iter(choice.lengths)
        content: dict[Node, bytes | dict[str, Node]] = {}
        for node in self._nodes():
            what = [next(kept) for _ in node.pending]
            if isinstance(node, Directory):
                content[node] = node.after_a_cut(what)
            else:
                length = next(lengths) if node.pending else "written"
                content[node] = node.after_a_cut(what, length, old if choice.has_old else b"")
        self._write(self.root, content, directory)

    def _write(self, node: Directory, content: dict[Node, bytes | dict[str, Node]], path: Path) -> None:
        path.mkdir(mode=0o700)
        names = content[node]
        assert isinstance(names, dict)
        for name, below in names.items():
            if isinstance(below, Directory):
                self._write(below, content, path / name)
            else:
                data = content[below]
                assert isinstance(data, bytes)
                (path / name).write_bytes(data)
                (path / name).chmod(0o600)


def _random(
    chance: random.Random, order: Sequence[int], owner: Sequence[int], sizes: Sequence[int], is_name: Sequence[bool]
) -> list[int]:
    """What of each piece is on disk, by chance.

    order: when each piece came. owner: the file or directory that it belongs to. sizes: its sectors. is_name: whether it
    changes names.
    """

    def torn(place: int) -> int:
        return KEPT if is_name[place] or sizes[place] < 2 else chance.randrange(1 << sizes[place])

    pieces = range(len(order))
    match chance.randrange(5):
        case 0:
            # In the order in which they came, up to one that is torn.
            end = chance.choice(order)
            kept = [KEPT if order[place] < end else DROPPED for place in pieces]
            kept[order.index(end)] = torn(order.index(end))
        case 1:
            share = chance.choice((0.1, 0.5, 0.9))
            kept = [KEPT if chance.random() < share else DROPPED for _ in pieces]
        case 2:
            # All but one, or one alone.
            kept = [chance.choice((KEPT, DROPPED))] * len(order)
            one = chance.choice(pieces)
            kept[one] = torn(one) if kept[one] == KEPT else KEPT
        case 3:
            kept = [torn(place) for place in pieces]
        case _:
            # Each file and directory in order, up to a moment of its own.
            ends = {each: chance.choice([*order, max(order) + 1]) for each in set(owner)}
            kept = [KEPT if order[place] < ends[owner[place]] else DROPPED for place in pieces]
    match chance.randrange(4):
        case 0:
            kept = [KEPT if is_name[place] else kept[place] for place in pieces]
        case 1:
            kept = [chance.choice((KEPT, DROPPED)) if is_name[place] else kept[place] for place in pieces]
        case _:
            pass
    return kept
