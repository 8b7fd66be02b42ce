"""Completes the bare addresses of a message in the spool, before it is sent (`mail.completion`), and changes its relayhost.

Promises: the checksums follow what is changed. What is damaged is not changed: a new checksum would hide the damage.

The functions run inside the caller's transaction.
"""

import dataclasses
from itertools import islice

import apsw

from mailrelay.mail import header_completion
from mailrelay.mail.completion import Completion, completed
from mailrelay.mail.envelope import Message
from mailrelay.mail.spool_errors import Damaged
from mailrelay.spool import checksums
from mailrelay.spool.database import PIECE, row
from mailrelay.spool.stored import content

MAX_PIECES = 16
"""Content pieces (`PIECE` octets) of a header that are completed; the rest of a longer header stays as it is. No mail server
accepts such a header."""


def complete(db: apsw.Connection, message: Message, completion: Completion) -> Message:
    """The message with whole addresses, in its envelope, and in its header if it has bare addresses (`has_bare_header`).

    The size of the message grows with its header. What `completion` does not know stays bare, and so does what is damaged:
    it is not sent. A row that has no checksum gets none."""
    if message.envelope.is_damaged:
        return message
    envelope = completed(message.envelope, completion)
    if envelope == message.envelope and not message.has_bare_header:
        return message
    whole = dataclasses.replace(message, envelope=envelope)
    if envelope != message.envelope:
        db.executemany(
            "UPDATE recipient SET address = ?, checksum = iif(checksum IS NULL, NULL, ?) WHERE id = ?",
            (
                (to.address, checksums.of_recipient(message.id, to.address, to.notify, to.orcpt), key)
                for to, key in zip(envelope.recipients, message.recipient_ids, strict=True)
                if not to.is_damaged
            ),
        )
    if message.has_bare_header:
        whole = _with_whole_header(db, whole, completion.domain_of_names)
    if whole != message:
        _write_message(db, whole)
    return whole


def move(db: apsw.Connection, message: Message, relayhost: str) -> None:
    """Writes the relayhost of a message. A damaged message keeps its checksum, which does not match."""
    if message.envelope.is_damaged:
        db.execute("UPDATE message SET relayhost = ? WHERE id = ?", (relayhost, message.id))
    else:
        _write_message(db, dataclasses.replace(message, relayhost=relayhost))


def _write_message(db: apsw.Connection, message: Message) -> None:
    """Writes what is changed in a row after its arrival, with its checksum."""
    envelope = message.envelope
    (recipients,) = row(db, "SELECT count(*) FROM recipient WHERE message = ?", (message.id,))
    checksum = checksums.of_message(
        message.id,
        message.relayhost.encode(),
        envelope.sender,
        envelope.body,
        int(envelope.smtputf8),
        envelope.ret,
        envelope.envid,
        message.size,
        int(message.has_bare_header),
        recipients,
    )
    db.execute(
        "UPDATE message SET relayhost = ?, sender = ?, size = ?, bare_header = ?,"
        " checksum = iif(checksum IS NULL, NULL, ?) WHERE id = ?",
        (message.relayhost, envelope.sender, message.size, int(message.has_bare_header), checksum, message.id),
    )


def _with_whole_header(db: apsw.Connection, message: Message, domain: bytes) -> Message:
    pieces = _pieces_of_header(db, message.id)
    if not domain or not pieces:
        return message
    before = b"".join(pieces)
    after = header_completion.complete(before, domain)
    # The last of these pieces gets all that was added: pieces need not have the same size.
    for seq in range(len(pieces)):
        end = (seq + 1) * PIECE if seq < len(pieces) - 1 else None
        data = after[seq * PIECE : end]
        db.execute(
            "UPDATE content SET data = ?, checksum = iif(checksum IS NULL, NULL, ?) WHERE message = ? AND seq = ?",
            (data, checksums.of_piece(message.id, seq, data), message.id, seq),
        )
    return dataclasses.replace(message, size=message.size + len(after) - len(before), has_bare_header=False)


def _pieces_of_header(db: apsw.Connection, message: int) -> list[bytes]:
    """The pieces of the content up to the end of the header, MAX_PIECES at most; none if one of them is damaged."""
    found: list[bytes] = []
    tail = b""
    try:
        for data in islice(content(db, message), MAX_PIECES):
            found.append(data)
            tail += data
            if b"\r\n\r\n" in tail:
                break
            tail = tail[-3:]
    except Damaged:
        # The message is held when its content is read to be sent.
        return []
    return found
