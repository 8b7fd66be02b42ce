"""Looks for commits that SQLite could not read at the end of its write-ahead log.

SQLite ends the log at the first frame whose checksum is wrong, without an error. After a power cut, that is a commit that
was not complete on disk, and no client got a 250 for it. After damage of the disk, messages that were accepted are lost.
"""

import struct
from pathlib import Path

import apsw

_HEADER = struct.Struct(">IIII8sII")
"""Magic, version, page size, checkpoint number, salts, checksum (SQLite, "The Database File Format", section 4.1)."""
_FRAME = struct.Struct(">II8s")
"""The beginning of a frame's header: page, size of the database after a commit or 0, salts; 24 octets with its checksum."""
_FRAME_HEADER = 24


def unreadable_commits(db: apsw.Connection) -> int:
    """The number of commits at the end of the log that SQLite did not read.

    To be called on the first connection of the first process, before anything is written. 0 if the log does not exist or
    cannot be read. Raises apsw.Error.
    """
    log = Path(f"{db.filename}-wal")
    readable, _ = db.wal_checkpoint()
    try:
        with log.open("rb") as file:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return 0
            page_size, salts = db.pragma("page_size"), _HEADER.unpack(header)[4]
            lost, number = 0, 0
            while len(found := file.read(_FRAME.size)) == _FRAME.size:
                _, size_after_commit, frame_salts = _FRAME.unpack(found)
                if number >= readable and size_after_commit and _are_near(frame_salts, salts):
                    lost += 1
                number += 1
                file.seek(_FRAME_HEADER - _FRAME.size + page_size, 1)
    except OSError:
        return 0
    return lost


def _are_near(salts: bytes, others: bytes) -> bool:
    """Whether salts differ in at most 4 bits, by damage. Those of an earlier log are random, and differ in more bits."""
    return (int.from_bytes(salts, "big") ^ int.from_bytes(others, "big")).bit_count() <= 4
