"""A file replaced in one step."""

import os
from pathlib import Path

import pytest

from mailrelay.atomic_file import make_directory, replace_file


def test_a_new_file_is_its_owners_alone_and_so_is_its_directory(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        replace_file(tmp_path / "a/b/file", b"new")
    finally:
        os.umask(umask)
    assert (tmp_path / "a/b/file").read_bytes() == b"new"
    assert (tmp_path / "a/b/file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700


def test_directories_are_on_disk_with_all_those_above_them_that_were_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    make_directory(tmp_path / "a/b")
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    make_directory(tmp_path / "a/b")
    assert len(synced) == 2


def test_what_is_replaced_keeps_its_permissions_and_a_link_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)
    before = file.open("rb")
    replace_file(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o640
    # Whoever had it open reads the old one to its end.
    with before:
        assert before.read() == b"old"


def test_where_it_cannot_be_done_the_old_one_is_there_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")

    def fails(_handle: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="no space"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
