"""What is remembered outside of the spool of the notice that it cannot be used, and when that notice is due."""

import os
from pathlib import Path

import pytest

from mailrelay.notify.emergency import MAX_AN_HOUR, REMIND, is_due
from mailrelay.notify.memory import Memory, Told, memory_file

NOW = 1.7e9


@pytest.mark.parametrize(
    ("at", "is_over", "due"),
    [
        ([], False, True),
        ([NOW - 1], False, False),
        ([NOW - REMIND + 1], False, False),
        ([NOW - REMIND - 1], False, True),
        # It ended and came back.
        ([NOW - 1], True, True),
        ([NOW - 10.0 * number for number in range(1, MAX_AN_HOUR)], True, True),
        ([NOW - 10.0 * number for number in range(1, MAX_AN_HOUR + 1)], True, False),
        # From before the clock was set back.
        ([NOW + 86_400], False, True),
    ],
)
def test_a_failure_is_told_once_again_after_an_hour_and_when_it_has_come_back(
    at: list[float], is_over: bool, due: bool
) -> None:
    assert is_due(Told(at, is_over), NOW) is due


def test_what_was_told_is_known_to_the_next_process(tmp_path: Path) -> None:
    file = memory_file(tmp_path / "spool", {"XDG_RUNTIME_DIR": str(tmp_path)})
    memory = Memory(file)
    assert memory.told == {}
    memory.told["full"] = Told([NOW], is_over=True)
    assert memory.save()
    assert file.stat().st_mode & 0o777 == 0o600
    assert Memory(file).told == {"full": Told([NOW], is_over=True)}
    memory.told.clear()
    assert memory.save()
    assert Memory(file).told == {}


def test_each_spool_has_a_file_of_its_own_where_other_accounts_cannot_write_if_there_is_such_a_directory(
    tmp_path: Path,
) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": "/nonexistent"}
    assert memory_file(Path("/a"), runtime).parent == tmp_path
    assert memory_file(Path("/a"), runtime) != memory_file(Path("/b"), runtime)
    assert memory_file(Path("/a"), {"XDG_RUNTIME_DIR": "relative", "TMPDIR": "/var/tmp"}).parent == Path("/var/tmp")


def _symbolic_link(file: Path, other: Path) -> None:
    file.symlink_to(other)


def _hard_link(file: Path, other: Path) -> None:
    file.hardlink_to(other)


def _readable_by_all(file: Path, _other: Path) -> None:
    file.touch()
    file.chmod(0o644)


def _fifo(file: Path, _other: Path) -> None:
    os.mkfifo(file, 0o600)


def _directory(file: Path, _other: Path) -> None:
    file.mkdir()


def _of_another_account(file: Path, _other: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    file.touch(0o600)
    os.chown(file, 65534, 65534)


@pytest.mark.parametrize("make", [_symbolic_link, _hard_link, _readable_by_all, _fifo, _directory, _of_another_account])
def test_a_file_that_is_not_ours_alone_is_neither_read_nor_written(tmp_path: Path, make: object) -> None:
    assert callable(make)
    other, file = tmp_path / "other", tmp_path / "file"
    content = b'{"full":{"at":[1700000000.0],"is_over":false}}'
    other.write_bytes(content)
    other.chmod(0o600)
    make(file, other)
    memory = Memory(file)
    assert memory.told == {}
    memory.told["full"] = Told([NOW])
    assert not memory.save()
    assert other.read_bytes() == content


def test_what_was_told_is_read_again(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "file")
    memory.told |= {"full": Told([NOW, NOW + 1], True), "broken": Told()}
    assert memory.save()
    assert Memory(tmp_path / "file").told == memory.told
    # The form of earlier versions.
    (tmp_path / "file").write_bytes(b'{"full":{"at":[1700000000],"is_over":false}}')
    assert Memory(tmp_path / "file").told == {"full": Told([1_700_000_000.0])}


@pytest.mark.parametrize(
    "content", [b"\xff nonsense", b"[]", b'{"full":5}', b'{"full":{"at":["x"],"is_over":false}}', b"[" * 4096]
)
def test_nothing_is_remembered_where_the_file_cannot_be_made_or_makes_no_sense(tmp_path: Path, content: bytes) -> None:
    assert not Memory(tmp_path / "missing" / "file").save()
    file = tmp_path / "file"
    file.touch(0o600)
    file.write_bytes(content)
    memory = Memory(file)
    assert memory.told == {}
    assert memory.save()
