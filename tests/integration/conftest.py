"""What tests of the spool share."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from harness.messages import NOW
from harness.spool_engine import Engine, Kind, SQLite

from mailrelay.spool.database import connect


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    """A real spool, new and empty, on a connection of its own: for tests of the SQLite in it."""
    db = connect(tmp_path / "spool")
    yield db
    db.close()


@pytest.fixture(params=[SQLite()], ids=["sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A new and empty spool behind its ports, once for each kind of engine; its clock stands at NOW."""
    kind: Kind = request.param
    engine = Engine(kind, tmp_path / "spool", NOW)
    yield engine
    engine.close()
