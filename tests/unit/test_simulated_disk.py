"""The model of a disk with which power cuts are tested: what it may lose, and what it may not."""

import random
from pathlib import Path

from harness.recorded_disk import Make, Move, Remove, Resize, Step, SyncBegins, SyncEnds, Write
from harness.simulated_disk import SECTOR, Disk


def sync(path: str, number: int = 1) -> list[Step]:
    return [SyncBegins(path, number), SyncEnds(path, number)]


def after(tmp_path: Path, *steps: Step, count: int = 300) -> list[dict[str, bytes]]:
    """All states of a disk after a cut, or many of them: the files by their paths."""
    tmp_path.mkdir(exist_ok=True)
    disk = Disk(("ignored",))
    for step in steps:
        disk.apply(step)
    found = []
    for number, choice in zip(range(count), disk.choices(random.Random(1)), strict=False):
        where = tmp_path / str(number)
        disk.write(choice, where)
        found.append({str(path.relative_to(where)): path.read_bytes() for path in where.rglob("*") if path.is_file()})
    return found


FILE: list[Step] = [Make("a", is_directory=False), *sync("", 90)]


def test_what_is_not_synced_may_be_there_or_not_and_so_may_its_length(tmp_path: Path) -> None:
    found = after(tmp_path, *FILE, Write("a", 0, b"text"))
    assert {one["a"] for one in found} == {b"", b"text", bytes(4)}


def test_what_is_synced_is_there_but_its_name_only_with_the_directory(tmp_path: Path) -> None:
    steps = [Make("a", is_directory=False), Write("a", None, b"text"), *sync("a")]
    assert {one.get("a") for one in after(tmp_path / "1", *steps)} == {None, b"text"}
    assert after(tmp_path / "2", *steps, *sync("", 2)) == [{"a": b"text"}]


def test_a_file_in_a_directory_that_is_not_synced_may_be_gone_with_it(tmp_path: Path) -> None:
    steps = [Make("d", is_directory=True), Make("d/a", is_directory=False), *sync("d/a"), *sync("d", 2)]
    assert {} in after(tmp_path, *steps)


def test_a_sync_covers_what_was_written_before_it_began(tmp_path: Path) -> None:
    steps = [Write("a", 0, b"old"), SyncBegins("a", 1), Write("a", 0, b"new"), SyncEnds("a", 1)]
    assert {one["a"] for one in after(tmp_path, *FILE, *steps)} == {b"old", b"new"}


def test_writes_may_be_there_in_any_order_and_in_part(tmp_path: Path) -> None:
    one, two = b"1" * SECTOR, b"2" * SECTOR
    steps = [Write("a", 0, bytes(4 * SECTOR)), *sync("a"), Write("a", 0, one * 2), Write("a", 2 * SECTOR, two * 2)]
    found = {each["a"] for each in after(tmp_path, *FILE, *steps)}
    nothing = bytes(SECTOR)
    assert {nothing * 2 + two * 2, nothing + one + nothing * 2, one * 2 + nothing + two} <= found
    assert all(len(set(each[at : at + SECTOR])) == 1 for each in found for at in range(0, 4 * SECTOR, SECTOR))


def test_a_sector_is_there_as_it_was_at_some_moment(tmp_path: Path) -> None:
    steps = [Write("a", 0, b"...."), *sync("a"), Write("a", 0, b"1"), Write("a", 2, b"2")]
    assert {one["a"] for one in after(tmp_path, *FILE, *steps)} == {b"....", b"1...", b"1.2."}


def test_a_rename_is_there_as_a_whole_or_not(tmp_path: Path) -> None:
    steps = [Make("b", is_directory=False), Write("b", 0, b"new"), *sync("b"), *sync("", 2), Move("b", "a")]
    assert {tuple(sorted(one.items())) for one in after(tmp_path, *FILE, *steps)} == {
        (("a", b""), ("b", b"new")),
        (("a", b"new"),),
    }


def test_a_removed_file_may_come_back_and_a_shorter_one_may_be_long_again(tmp_path: Path) -> None:
    text: list[Step] = [*FILE, Write("a", 0, b"text"), *sync("a")]
    assert {one.get("a") for one in after(tmp_path / "1", *text, Remove("a"))} == {None, b"text"}
    assert {one["a"] for one in after(tmp_path / "2", *text, Resize("a", 1))} == {b"text", b"t"}


def test_a_copy_of_a_directory_is_on_disk_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "from" / "d").mkdir(parents=True)
    (tmp_path / "from" / "d" / "a").write_bytes(b"text")
    disk = Disk()
    disk.load(tmp_path / "from")
    (choice,) = disk.choices(random.Random(1))
    disk.write(choice, tmp_path / "to")
    assert (tmp_path / "to" / "d" / "a").read_bytes() == b"text"


def test_ignored_files_are_not_there(tmp_path: Path) -> None:
    assert after(tmp_path, Make("ignored", is_directory=False), Write("ignored", None, b"text")) == [{}]
