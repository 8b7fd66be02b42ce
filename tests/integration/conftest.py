"""What tests of the spool share."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from mailrelay.spool.database import connect


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    """A real spool, new and empty, on a connection of its own."""
    db = connect(tmp_path / "spool")
    yield db
    db.close()
