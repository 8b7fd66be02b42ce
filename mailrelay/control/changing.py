"""Opens the spool for a change: one commit.

While no daemon runs, attempts that a crash has left open are closed first: no daemon has done so.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mailrelay.spool import lock
from mailrelay.spool.actions import NoSuchMessage
from mailrelay.spool.attempts import recover
from mailrelay.spool.database import Connection, connect, transaction


@contextmanager
def changing(directory: Path) -> Iterator[Connection]:
    """The spool in `directory`, inside a transaction that is committed at the end of the block.

    Raises FileNotFoundError where there is no spool, and SpoolError; then nothing has changed.
    """
    db = connect(directory, create=False)
    try:
        with suppress(lock.Held), lock.lock(directory), transaction(db):
            recover(db, time.time())
        with transaction(db):
            yield db
    finally:
        db.close()


def no_such_message(given: str) -> NoSuchMessage:
    """The error for any id where there is no spool."""
    return NoSuchMessage(f"no message has the id {given}; see `mailrelay queue --all`")
