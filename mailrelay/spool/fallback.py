"""Messages that a fallback sends in the place of another relayhost, which cannot be reached.

A message is always at one relayhost (column `relayhost`). When a fallback takes it for an attempt, the column gets the name
of the fallback, and column `fallback_for` that of the relayhost of its sender. After the attempt the message goes back,
unless it was sent, or is in doubt.

Promises: a message that an attempt may have delivered to some recipient stays at the relayhost of that attempt, where its
record and the mail server's queue are, until the doubt is resolved: no other relayhost takes it. All other messages are free
(IS_FREE).

The functions run inside the caller's transaction.
"""

import dataclasses

import apsw

from mailrelay.mail.envelope import Message
from mailrelay.mail.states import OPEN
from mailrelay.spool.completing import move
from mailrelay.spool.database import rows, states
from mailrelay.spool.stored import load_message

IS_FREE = (
    "NOT EXISTS (SELECT 1 FROM recipient r WHERE r.message = message.id AND r.uncertain IS NOT NULL"
    f" AND r.state IN {states(OPEN)})"
    " AND NOT EXISTS (SELECT 1 FROM attempt a JOIN exchange e ON e.attempt = a.id WHERE a.message = message.id)"
)
"""SQL: the message in row `message` is free. No attempt may have delivered it while its reply is not known."""


def take_over(db: apsw.Connection, message: Message, relayhost: str) -> Message:
    """Moves a message to `relayhost`, which takes it for an attempt, and returns it. message: free, and at another one."""
    home = message.fallback_for or message.relayhost
    taken = dataclasses.replace(message, relayhost=relayhost, fallback_for="" if home == relayhost else home)
    _write(db, taken)
    return taken


def give_back(db: apsw.Connection, key: int) -> None:
    """Moves a message back to the relayhost of its sender, if it waits at a fallback and is free. key: of the message."""
    if rows(
        db,
        f"SELECT 1 FROM message WHERE id = ? AND fallback_for <> '' AND next_attempt IS NOT NULL AND {IS_FREE}",
        (key,),
    ):
        message = load_message(db, key, ())
        _write(db, dataclasses.replace(message, relayhost=message.fallback_for, fallback_for=""))


def give_all_back(db: apsw.Connection, relayhost: str) -> None:
    """Moves back all such messages at the fallback `relayhost`, which cannot be reached."""
    for (key,) in rows(
        db,
        "SELECT id FROM message WHERE relayhost = ? AND fallback_for <> '' AND next_attempt IS NOT NULL",
        (relayhost,),
    ):
        give_back(db, key)


def _write(db: apsw.Connection, message: Message) -> None:
    move(db, message, message.relayhost)
    db.execute("UPDATE message SET fallback_for = ? WHERE id = ?", (message.fallback_for, message.id))
