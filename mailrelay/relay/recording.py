"""Whether a new conversation with a relayhost is to be recorded there, and what is known after that was tried.

Pure. The spool remembers what is known (`mail.recorded.Recording`), so that it is found out once, and not at each start. As
long as it is not known, one conversation at a time tries; the message in it waits for the recorder, a few seconds at most.
"""

from mailrelay.mail.recorded import Recording, RecordingState
from mailrelay.ssh.interface import NotRecorded

REST = 86_400.0
"""Seconds to the next trial, where the relayhost cannot record."""
SHORT_REST = 3600.0
"""Seconds to the next trial, where the relayhost did not reply in time, or had no more sessions, the first time."""


def is_trial_due(known: Recording, now: float) -> bool:
    """Whether a conversation is to try. now: epoch seconds."""
    # Beyond REST: the clock was wrong when the time was set.
    return known.state is not RecordingState.POSSIBLE and not now < known.next_trial <= now + REST


def after_refusal(error: NotRecorded, known: Recording, now: float, *, others: bool) -> Recording:
    """What is known after a conversation could not be recorded. known: before. others: whether others are being recorded."""
    if not error.is_temporary:
        return Recording(RecordingState.IMPOSSIBLE, now + REST)
    if known.state is RecordingState.POSSIBLE:
        # With others, it is the limit of sessions. Without, the next conversation shows it.
        return known if others else Recording()
    return Recording(RecordingState.UNKNOWN, now + (REST if known.next_trial else SHORT_REST))
