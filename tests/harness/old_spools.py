"""Spools of older formats, from their dumps in tests/spools."""

from pathlib import Path

import apsw

from mailrelay.spool.database import FILE

SPOOLS = Path(__file__).parents[1] / "spools"


def old(directory: Path, version: int) -> None:
    """Makes a spool of this version in `directory`."""
    directory.mkdir(0o700)
    db = apsw.Connection(str(directory / FILE))
    db.pragma("auto_vacuum", "INCREMENTAL")
    db.pragma("journal_mode", "wal")
    db.execute((SPOOLS / f"version{version}.sql").read_text())
    assert db.pragma("user_version") == version
    db.close()
