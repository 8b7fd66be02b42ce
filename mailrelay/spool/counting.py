"""The numbers of a spool for monitoring: messages by relayhost and state, pending notices, the size of the file.

Only reads, and reads every message, history too: about 0.2 s for 100,000 messages. `listing.status` is for what is asked
often.
"""

from typing import NamedTuple

import apsw

from mailrelay.mail.notice import Backend
from mailrelay.mail.states import COUNTED_AS
from mailrelay.spool.database import as_text, row, rows, states


class SpoolNumbers(NamedTuple):
    """messages: their number by relayhost and word of `mail.states.COUNTED_AS`; nothing where there are none.
    pending_notices: their number by backend. size: octets of the spool's file that are used."""

    messages: dict[tuple[str, str], int]
    pending_notices: dict[str, int]
    size: int


def numbers(db: apsw.Connection) -> SpoolNumbers:
    """The numbers now."""
    word = " ".join(f"WHEN r.state IN {states(fitting)} THEN '{word}'" for word, fitting in COUNTED_AS.items())
    counted: dict[tuple[str, str], int] = {
        (as_text(relayhost), word): count
        for relayhost, word, count in rows(
            db,
            f"SELECT CAST(m.relayhost AS BLOB), CASE {word} END AS word, count(DISTINCT m.id)"
            " FROM message m JOIN recipient r ON r.message = m.id WHERE word IS NOT NULL GROUP BY m.relayhost, word",
        )
    }
    pending = dict.fromkeys((backend.value for backend in Backend), 0)
    pending |= dict(
        rows(
            db,
            "SELECT b.backend, count(*) FROM notice_backend b JOIN notice n ON n.id = b.notice"
            " WHERE b.delivered IS NULL AND n.over IS NULL GROUP BY b.backend",
        )
    )
    (pages,) = row(db, "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count")
    return SpoolNumbers(counted, pending, pages * db.pragma("page_size"))
