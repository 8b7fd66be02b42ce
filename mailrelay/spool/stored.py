"""Reads a message from the spool: its envelope and its content, compared with their checksums (`checksums`).

Promises: a damaged envelope or recipient is marked as damaged (`load_message`); damaged content raises Damaged (`piece`,
`content`).
Never: raises any other error because of a damaged value, which would stop the other messages, too.
"""

from collections.abc import Collection, Iterator
from typing import Any

import apsw

from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.lifecycle import PENDING, State
from mailrelay.mail.send_time import SendTime
from mailrelay.mail.spool_errors import Damaged, SpoolBroken
from mailrelay.spool import checksums
from mailrelay.spool.database import as_text, row, rows

_STATES = {state.value.encode(): state for state in State}
# Text columns are marked with "_" here, and read as BLOB below: apsw cannot return a damaged text that is invalid UTF-8.
_MESSAGE = (
    "SELECT relayhost_, sender, body_, smtputf8, ret_, envid, size, bare_header, checksum, queue_id_, arrival, attempts,"
    " send_time, by_clock, fallback_for_, owner FROM message WHERE id = ?"
)
for _text in ("relayhost", "body", "ret", "queue_id", "fallback_for"):
    _MESSAGE = _MESSAGE.replace(f"{_text}_", f"CAST({_text} AS BLOB)")
# A piece has a checksum if its message has one.
_PIECE = (
    "SELECT data, c.checksum, m.checksum IS NULL, {last} FROM content c JOIN message m ON m.id = c.message"
    " WHERE c.message = ?1"
)
_ONE_PIECE = (
    _PIECE.format(last="EXISTS (SELECT 1 FROM content WHERE message = ?1 AND seq = ?2 + 1)") + " AND c.seq = ?2"
)
_ALL_PIECES = _PIECE.format(last="c.seq") + " ORDER BY c.seq"


def load_message(db: apsw.Connection, key: int, of: Collection[State] = PENDING, also: Collection[int] = ()) -> Message:
    """The message with this key, with those of its recipients whose state is among `of` or whose key is among `also`.

    A damaged envelope or recipient is marked. A recipient whose state does not exist is always included, and marked. Raises
    SpoolBroken for a message without recipients.
    """
    *stored, checksum, queue_id, arrival, attempts, send_time, by_clock, fallback_for, owner = row(db, _MESSAGE, (key,))
    found = rows(
        db,
        "SELECT id, address, notify, orcpt, checksum, CAST(state AS BLOB) FROM recipient WHERE message = ? ORDER BY id",
        (key,),
    )
    if not found:
        raise SpoolBroken(f"the spool's file is damaged (the message with key {key} has no recipients)")
    is_checked = checksum is not None or any(recipient[4] is not None for recipient in found)
    is_damaged = is_checked and not _matches(checksum, (*stored, len(found)), key)
    if is_damaged:
        stored = [_as_type(value, kind) for value, kind in zip(stored, _TYPES, strict=True)]
        arrival, attempts = _as_type(arrival, float), _as_type(attempts, int)
    relayhost, sender, body, smtputf8, ret, envid, size, bare_header = stored
    recipients = {
        recipient: _recipient(key, columns, is_checked=is_checked)
        for recipient, *columns in found
        if _STATES.get(columns[-1]) is None or _STATES[columns[-1]] in of or recipient in also
    }
    envelope = Envelope(
        sender,
        tuple(recipients.values()),
        body,
        bool(smtputf8),
        ret,
        envid,
        is_damaged,
        SendTime(send_time, bool(by_clock)) if isinstance(send_time, float) else None,
        owner,
    )
    return Message(
        key,
        as_text(queue_id),
        as_text(relayhost),
        envelope,
        tuple(recipients),
        size,
        arrival,
        attempts,
        has_bare_header=bool(bare_header),
        fallback_for=as_text(fallback_for),
    )


_TYPES = (bytes, bytes, bytes, int, bytes, bytes, int, int)
"""The types of the first columns of `_MESSAGE`, up to the checksum."""


def _matches(checksum: object, stored: tuple[Any, ...], key: int) -> bool:
    relayhost, sender, body, smtputf8, ret, envid, size, bare_header, recipients = stored
    try:
        return checksum == checksums.of_message(
            key, relayhost, sender, body, smtputf8, ret, envid, size, bare_header, recipients
        )
    except TypeError:
        return False


def _recipient(key: int, columns: list[Any], *, is_checked: bool) -> Recipient:
    """A recipient of the message `key`, from its address, notify, orcpt, checksum and state."""
    *stored, checksum, state = columns
    try:
        is_damaged = state not in _STATES or (is_checked and checksum != checksums.of_recipient(key, *stored))
    except TypeError:
        is_damaged = True
    if is_damaged:
        stored = [_as_type(value, bytes) for value in stored]
    address, notify, orcpt = stored
    return Recipient(address, notify, orcpt, is_damaged)


def piece(db: apsw.Connection, message: int, seq: int) -> tuple[bytes, bool] | None:
    """Piece number `seq` (from 0) of the content of a message, and whether another one follows; None after the last one.

    Raises Damaged."""
    found: tuple[Any, ...] | None = db.execute(_ONE_PIECE, (message, seq)).fetchone()
    if found is None:
        return None
    data, checksum, is_old, has_next = found
    if not is_intact(message, seq, data, checksum, is_old=is_old):
        raise damaged_content()
    return data, bool(has_next)


def content(db: apsw.Connection, message: int) -> Iterator[bytes]:
    """The content of a message, piece by piece; nothing if it was removed. Raises Damaged."""
    left = 0
    for number, (data, checksum, is_old, seq) in enumerate(db.execute(_ALL_PIECES, (message,))):
        if number == 0 and not is_old:
            left = row(db, "SELECT size FROM message WHERE id = ?", (message,))[0]
        if seq != number or not is_intact(message, seq, data, checksum, is_old=is_old):
            raise damaged_content()
        left -= len(data)
        yield data
    if left > 0:
        raise damaged_content()


def is_intact(message: int, seq: int, data: object, checksum: bytes | None, *, is_old: bool) -> bool:
    """Whether a piece is as it was written. is_old: its message has no checksum, so the piece must have none."""
    if not isinstance(data, bytes):
        return False
    return checksum is None if is_old else checksum == checksums.of_piece(message, seq, data)


def damaged_content() -> Damaged:
    """The error for content that is not as it was written."""
    return Damaged("a part of its content is not as it was written (its checksum does not match); look at the disk")


def _as_type(value: Any, kind: type[Any]) -> Any:
    return value if isinstance(value, kind) else kind()
