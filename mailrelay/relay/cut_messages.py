"""The messages in whose transactions conversations have ended before the mail server had judged them.

A conversation that ends in its first transaction shows nothing: the message may be the reason, or the mail server turns
every message away. The next conversation shows it: it begins with another message, because this one is put back behind the
others that are due. A conversation that ends in a later transaction may have reached a limit of the mail server; the next
one begins with the same message, and shows whether that is the reason. `plan.consequence` decides by `CutBy`.

Pure: no I/O, no clock.
"""

from mailrelay.relay.jobs import Job
from mailrelay.relay.plan import ConversationProgress, CutBy


class CutMessages:
    """Those of one relayhost, by their queue ids."""

    def __init__(self) -> None:
        # The message in whose transaction the last conversation ended that had judged none; None once one is judged.
        self._latest: str | None = None
        # The messages that have ended a conversation and were not judged since.
        self._seen: set[str] = set()

    def cut(self, job: Job, progress: ConversationProgress) -> CutBy:
        """A conversation has ended in the transaction of `job`, by the mail server or after its time-out."""
        is_seen = job.queue_id in self._seen
        self._seen.add(job.queue_id)
        if progress is ConversationProgress.REPLIED:
            return CutBy.FIRST
        before, self._latest = self._latest, job.queue_id
        if before not in (None, job.queue_id):
            return CutBy.ANOTHER
        return CutBy.AGAIN if is_seen else CutBy.FIRST

    def judged(self, job: Job) -> None:
        """The mail server has judged a job."""
        self._latest = None
        self._seen.discard(job.queue_id)
