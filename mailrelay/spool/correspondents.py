"""Who has been reached before: remembered when a message was sent, asked when an address looks mistyped.

Never: a look at all of them. What is near an address has its local part or its domain, and both are indexed.
"""

import apsw

from mailrelay.mail.address_suggestion import nearest, normal, parts
from mailrelay.mail.outcome import Stage
from mailrelay.spool.database import rows

KEPT = 5_000
"""How many are remembered; of more, those go whom nothing has been sent to for the longest time."""
COMPARED = 200
"""How many of one domain, or of one local part, an address is held against: the most often reached."""

_LIKE = "SELECT address FROM correspondent WHERE {} ORDER BY times DESC, last DESC LIMIT ?"


def reached(db: apsw.Connection, address: bytes, now: float) -> None:
    """Remembers that something was sent to `address`. now: epoch seconds."""
    db.execute(
        "INSERT INTO correspondent (address, domain, last) VALUES (?,?,?)"
        " ON CONFLICT (address) DO UPDATE SET times = times + 1, last = excluded.last",
        (normal(address), parts(address)[1], now),
    )


def likely(db: apsw.Connection, address: bytes, stage: str) -> bytes:
    """Whom the person may have meant by `address`, b"" if nobody comes near, or if it has been reached before.

    stage: at which the last attempt at it broke off. Only where it was the address that was refused is another one likely.
    """
    if stage != Stage.RCPT:
        return b""
    local, domain = parts(address)
    if rows(db, "SELECT 1 FROM correspondent WHERE address = ?", (normal(address),)):
        return b""
    # "A" comes right behind "@".
    same_local = rows(db, _LIKE.format("address > ? AND address < ?"), (local + b"@", local + b"A", COMPARED))
    same_domain = rows(db, _LIKE.format("domain = ?"), (domain, COMPARED))
    return nearest(address, (known for (known,) in same_local + same_domain)) or b""


def forget(db: apsw.Connection) -> None:
    """Forgets all but the `KEPT` that were reached last."""
    db.execute(
        "DELETE FROM correspondent WHERE address IN"
        " (SELECT address FROM correspondent ORDER BY last DESC LIMIT -1 OFFSET ?)",
        (KEPT,),
    )
