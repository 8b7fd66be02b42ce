"""The messages of the queue, for people (`Listed`) and for programs (`records`).

Imports only what an empty queue needs: the commands of prompts and status bars run often, and the queue is mostly empty.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mailrelay.mail.overview import Listed
from mailrelay.spool.database import opened_for_reading
from mailrelay.spool.listing import everything, live

if TYPE_CHECKING:
    from mailrelay.control.system import Queue


def messages(queue: "Queue", *, history: bool) -> Iterator[Listed]:
    """Messages that wait, are held or failed, in order of arrival; with `history` all that are kept. None without a spool.

    All are of one instant. Read the iterator to its end before anything is printed: a pager would keep the view open, and
    the spool's log would grow. Raises SpoolError.
    """
    if not isinstance(queue, Path):
        yield from queue.ask(list[Listed], "messages", history)
        return
    with suppress(FileNotFoundError), opened_for_reading(queue) as db:
        yield from everything(db) if history else live(db)
