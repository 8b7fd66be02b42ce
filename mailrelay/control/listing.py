"""The messages of the queue, for people (`Listed`) and for programs (`records`).

Imports only what an empty queue needs: the commands of prompts and status bars run often, and the queue is mostly empty.
"""

from collections.abc import Iterator
from pathlib import Path

from mailrelay.spool.database import connect, reading
from mailrelay.spool.listing import Listed as Listed
from mailrelay.spool.listing import ListedRecipient as ListedRecipient
from mailrelay.spool.listing import everything, live


def messages(directory: Path, *, history: bool) -> Iterator[Listed]:
    """Messages that wait, are held or failed, in order of arrival; with `history` all that are kept. None without a spool.

    All are of one instant. Read the iterator to its end before anything is printed: a pager would keep the view open, and
    the spool's log would grow. Raises SpoolError.
    """
    try:
        db = connect(directory, create=False)
    except FileNotFoundError:
        return
    try:
        with reading(db):
            yield from everything(db) if history else live(db)
    finally:
        db.close()
