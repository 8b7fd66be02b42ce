"""Addresses that mail was sent to before: a refused address is compared with them, because it may be mistyped.

Never compares with all of them: a similar address has the local part or the domain in common, and both are indexed.
"""

import apsw

from mailrelay.mail.address_suggestion import nearest, normal, parts
from mailrelay.mail.outcome import Stage
from mailrelay.spool.database import rows

KEPT = 5_000
"""Addresses that are remembered, at most; the ones used longest ago are deleted."""
COMPARED = 200
"""Addresses of one domain, or of one local part, that an address is compared with: the most often used ones."""

_LIKE = "SELECT address FROM correspondent WHERE {} ORDER BY times DESC, last DESC LIMIT ?"


def remember(db: apsw.Connection, address: bytes, now: float) -> None:
    """Remembers that a message was sent to `address`. now: epoch seconds."""
    db.execute(
        "INSERT INTO correspondent (address, domain, last) VALUES (?,?,?)"
        " ON CONFLICT (address) DO UPDATE SET times = times + 1, last = excluded.last",
        (normal(address), parts(address)[1], now),
    )


def suggestion(db: apsw.Connection, address: bytes, stage: str) -> bytes:
    """The remembered address that was probably meant by `address`; b"" if none is similar, or if it is remembered itself.

    stage: of the last attempt. Only an address that was refused itself, at RCPT, can be mistyped.
    """
    if stage != Stage.RCPT:
        return b""
    local, domain = parts(address)
    if rows(db, "SELECT 1 FROM correspondent WHERE address = ?", (normal(address),)):
        return b""
    # "A" is the octet after "@".
    same_local = rows(db, _LIKE.format("address > ? AND address < ?"), (local + b"@", local + b"A", COMPARED))
    same_domain = rows(db, _LIKE.format("domain = ?"), (domain, COMPARED))
    return nearest(address, (known for (known,) in same_local + same_domain)) or b""


def forget(db: apsw.Connection) -> None:
    """Deletes all but the `KEPT` addresses that were used last."""
    db.execute(
        "DELETE FROM correspondent WHERE address IN"
        " (SELECT address FROM correspondent ORDER BY last DESC LIMIT -1 OFFSET ?)",
        (KEPT,),
    )
