"""The cut messages of a relayhost: conversations have ended in their transactions before the mail server had judged them.

After a conversation that ends in its first transaction, the reason is not known: it may be the message, or the mail server
turns every message away. The message is put back behind the others that are due, so the next conversation begins with
another message, and its end shows the reason. A conversation that ends in a later transaction may have reached a limit of
the mail server. The next one begins with the same message, and shows whether the message is the reason. `plan.consequence`
decides what follows from the `CutReason`.

Pure: no I/O, no clock.
"""

from mailrelay.relay.jobs import Job
from mailrelay.relay.plan import ConversationProgress, CutReason


class CutMessages:
    """The cut messages of one relayhost, by their queue ids."""

    def __init__(self) -> None:
        # The message that was cut last in a conversation without a judged message. None once a message is judged.
        self._latest: str | None = None
        # The messages that were cut and have not been judged since.
        self._seen: set[str] = set()

    def cut(self, job: Job, progress: ConversationProgress) -> CutReason:
        """Records that a conversation has ended in the transaction of `job`. Returns the reason, as far as it is known.
        progress: that of the conversation."""
        is_seen = job.queue_id in self._seen
        self._seen.add(job.queue_id)
        if progress is ConversationProgress.REPLIED:
            return CutReason.UNKNOWN
        before, self._latest = self._latest, job.queue_id
        if before not in (None, job.queue_id):
            return CutReason.EVERY_MESSAGE
        return CutReason.THIS_MESSAGE if is_seen else CutReason.UNKNOWN

    def judged(self, job: Job) -> None:
        """Records that the mail server has judged a job."""
        self._latest = None
        self._seen.discard(job.queue_id)
