"""Completes the bare addresses of a message in the spool, before it is sent (`mail.completion`).

The functions run inside the caller's transaction.
"""

import dataclasses

import apsw

from mailrelay.mail import header_completion
from mailrelay.mail.completion import Completion, completed
from mailrelay.mail.envelope import Message
from mailrelay.spool.database import rows


def complete(db: apsw.Connection, message: Message, completion: Completion) -> Message:
    """The message with whole addresses, in its envelope, and in its header if that is to be completed (`bare_header`)."""
    envelope = completed(message.envelope, completion)
    if envelope != message.envelope:
        db.execute("UPDATE message SET sender = ? WHERE id = ?", (envelope.sender, message.id))
        db.executemany(
            "UPDATE recipient SET address = ? WHERE id = ?",
            ((to.address, key) for to, key in zip(envelope.recipients, message.recipient_ids, strict=True)),
        )
        message = dataclasses.replace(message, envelope=envelope)
    return _with_whole_header(db, message, completion.any_domain) if message.has_bare_header else message


def _with_whole_header(db: apsw.Connection, message: Message, domain: bytes) -> Message:
    first = rows(db, "SELECT data FROM content WHERE message = ? AND seq = 0", (message.id,))
    if not domain or not first:
        return message
    ((before,),) = first
    # A header that is longer than the first piece is completed as far as it is in it.
    after = header_completion.complete(before, domain)
    size = message.size + len(after) - len(before)
    db.execute("UPDATE content SET data = ? WHERE message = ? AND seq = 0", (after, message.id))
    db.execute("UPDATE message SET size = ?, bare_header = 0 WHERE id = ?", (size, message.id))
    return dataclasses.replace(message, size=size, has_bare_header=False)
