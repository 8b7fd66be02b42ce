"""A new message in the place of one that failed, waits or is held: what `queue resend` and `queue edit` do to the spool.

Promises: the new message is accepted and the old recipients are cancelled in one commit; those that have bounced on the
relayhost stay `sent`, and are dealt with. If the state of the old message has
changed since the person saw it, nothing happens.
"""

import apsw

from mailrelay.mail.envelope import Message
from mailrelay.mail.lifecycle import ACT_TABLE, Act, State
from mailrelay.mail.record import Arrival
from mailrelay.mail.spool_errors import Damaged, NotAllowed
from mailrelay.spool import actions, followed
from mailrelay.spool.accepting import accept
from mailrelay.spool.stored import content, load_message
from mailrelay.spool.successors import not_allowed


def replaceable(db: apsw.Connection, prefix: str, what: Act) -> tuple[Message, bytes]:
    """The message whose id begins with `prefix`, with those recipients whose state allows `what` or that have bounced on the
    relayhost, and its whole content.

    Raises NoSuchMessage; NotAllowed where there are no such recipients or no content, or where it is damaged.
    """
    key, queue_id = actions.find(db, prefix)
    actions.check_not_active(db, key, queue_id)
    allowed = [state for state in State if (state, what) in ACT_TABLE]
    found = load_message(db, key, allowed, also=followed.bounced_there(db, key))
    if not found.recipient_ids:
        why = f"the state of {queue_id} does not allow {what}; see `mailrelay queue show {queue_id}`"
        raise not_allowed(db, queue_id, what, why)
    see = f"`mailrelay queue show {queue_id} --content`"
    damaged = f"{queue_id} is damaged in the spool; read it with {see}, and write it again"
    if found.envelope.is_damaged or any(to.is_damaged for to in found.envelope.recipients):
        raise NotAllowed(damaged)
    try:
        octets = b"".join(content(db, key))
    except Damaged:
        raise NotAllowed(damaged) from None
    if not octets:
        raise NotAllowed(f"the content of {queue_id} is no longer kept; write the message again")
    return found, octets


def replace(db: apsw.Connection, old: Message, what: Act, new: Arrival, max_size: int) -> None:
    """Accepts `new` in the place of `old`, which came from `replaceable` for the same act, and cancels its recipients.

    max_size: octets, as for `accepting.accept`. Raises NotAllowed if their states have changed since; SpoolFull.
    """
    if replaceable(db, old.queue_id, what)[0].recipient_ids != old.recipient_ids:
        raise NotAllowed(
            f"the state of {old.queue_id} has changed meanwhile; see `mailrelay queue show {old.queue_id}`"
        )
    accept(db, new, max_size)
    actions.act(db, old.id, old.queue_id, what, new.arrival, new.queue_id)
    db.executemany(
        "UPDATE recipient SET successor = ? WHERE id = ? AND state = 'cancelled'",
        ((new.queue_id, to) for to in old.recipient_ids),
    )
