"""Completes the bare addresses of a message in the spool, before it is sent (`mail.completion`).

The functions run inside the caller's transaction.
"""

import dataclasses

import apsw

from mailrelay.mail import header_completion
from mailrelay.mail.completion import Completion, completed
from mailrelay.mail.envelope import Message
from mailrelay.spool.database import PIECE, rows

MAX_PIECES = 16
"""Content pieces (`PIECE` octets) of a header that are completed; the rest of a longer header stays as it is. No mail server
accepts such a header."""


def complete(db: apsw.Connection, message: Message, completion: Completion) -> Message:
    """The message with whole addresses, in its envelope, and in its header if it has bare addresses (`has_bare_header`).

    The size of the message grows with its header. What `completion` does not know stays bare."""
    envelope = completed(message.envelope, completion)
    if envelope != message.envelope:
        db.execute("UPDATE message SET sender = ? WHERE id = ?", (envelope.sender, message.id))
        db.executemany(
            "UPDATE recipient SET address = ? WHERE id = ?",
            ((to.address, key) for to, key in zip(envelope.recipients, message.recipient_ids, strict=True)),
        )
        message = dataclasses.replace(message, envelope=envelope)
    return _with_whole_header(db, message, completion.domain_of_names) if message.has_bare_header else message


def _with_whole_header(db: apsw.Connection, message: Message, domain: bytes) -> Message:
    pieces = _pieces_of_header(db, message.id)
    if not domain or not pieces:
        return message
    before = b"".join(pieces)
    after = header_completion.complete(before, domain)
    size = message.size + len(after) - len(before)
    # The last of these pieces gets all that was added: pieces need not have the same size.
    for seq in range(len(pieces)):
        end = (seq + 1) * PIECE if seq < len(pieces) - 1 else None
        db.execute(
            "UPDATE content SET data = ? WHERE message = ? AND seq = ?", (after[seq * PIECE : end], message.id, seq)
        )
    db.execute("UPDATE message SET size = ?, bare_header = 0 WHERE id = ?", (size, message.id))
    return dataclasses.replace(message, size=size, has_bare_header=False)


def _pieces_of_header(db: apsw.Connection, message: int) -> list[bytes]:
    """The pieces of the content up to the end of the header, MAX_PIECES at most."""
    found: list[bytes] = []
    tail = b""
    query = "SELECT data FROM content WHERE message = ? ORDER BY seq LIMIT ?"
    for (data,) in rows(db, query, (message, MAX_PIECES)):
        found.append(data)
        tail += data
        if b"\r\n\r\n" in tail:
            break
        tail = tail[-3:]
    return found
