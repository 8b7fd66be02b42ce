"""How a command of the person's changes the spool: one commit, then the daemon's bell.

Works with the daemon down; then, before anything is changed, what a crash has left open is closed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mailrelay.cli import NOBODY_SERVES, say
from mailrelay.spool import actions, lock, trigger
from mailrelay.spool.attempts import recover
from mailrelay.spool.database import connect, transaction


@contextmanager
def changing(directory: Path) -> Iterator[Any]:
    """The spool, for one commit. What a crash has left open is closed before it, if no daemon is there to have done so.

    Raises FileNotFoundError where there is no spool.
    """
    db = connect(directory, create=False)
    try:
        with suppress(lock.Held), lock.lock(directory), transaction(db):
            recover(db, time.time())
        with transaction(db):
            yield db
    finally:
        db.close()


def ring(directory: Path, word: bytes = trigger.LOOK) -> None:
    """Rings the daemon's bell, or says that nobody is there to hear it."""
    if not trigger.fire(directory, word):
        say(NOBODY_SERVES)


def no_such(queue_id: str) -> actions.NoSuchMessage:
    """What is wrong with any id where there is no spool."""
    return actions.NoSuchMessage(f"no message has the id {queue_id}; see `mailrelay queue --all`")
