"""How a row of `followed` is read: the conditions and columns that several queries use. Small, because listings load it."""

from mailrelay.mail.there import Source, There, Verdict

BOUNCED = "f.state = 'bounced' AND f.dealt_with IS NULL"
"""The condition that a recipient, in row f of `followed`, has bounced on the relayhost and needs the person."""
DEFERRED = "f.state = 'deferred' AND f.over IS NULL"
"""The condition that the mail server there has deferred it, and is still asked."""
UNSEEN = "f.state = 'not followed' AND f.over IS NULL"
"""The condition that nothing was seen of it in the last answer."""
SUCCESSOR = "coalesce(nullif(r.successor, ''), f.successor, '')"
"""The queue id of the message that replaces another one for recipient r, in row f of `followed` if there is one."""
VERDICT = "CAST(f.state AS BLOB), CAST(f.source AS BLOB), f.words, f.said_by, f.since"
"""The columns of `verdict`."""

_STATES = {state.value.encode(): state for state in There}
_SOURCES = {source.value.encode(): source for source in Source}


def verdict(state: bytes, source: bytes, words: bytes, by: bytes, since: float | None) -> Verdict:
    """The verdict in the columns VERDICT. A state or source that does not exist comes from damage, and counts as unknown."""
    return Verdict(_STATES.get(state, There.WAITING), _SOURCES.get(source, Source.NONE), words, by, since)
