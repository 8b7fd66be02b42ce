"""The known fault of one relayhost: why it cannot be used, since when, and when it is over.

It is recorded in the spool, so that it is known after a restart and commands can show it.

Promises: a fault is recorded once, however much mail waits for it, and no attempt is counted for it. It is over when the
mail server is ready again. After a reply that refuses mailrelay itself, and after the mail server has turned every message
away, it is over when the mail server has judged a message.
"""

import dataclasses
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from mailrelay.config import Relayhost
from mailrelay.mail import setup_reply
from mailrelay.mail.conclusion import RetryPolicy
from mailrelay.mail.notice import Kind
from mailrelay.mail.outcome import SETUP_REPLIES, Cause, Outcome
from mailrelay.mail.printable import printable
from mailrelay.mail.triage import is_setup_fault
from mailrelay.ports import RelayhostFailure, RelayhostPort
from mailrelay.relay import dial_policy

log = logging.getLogger("mailrelay.relay")


class KnownFault:
    """The fault of a relayhost, if one is known.

    run_to_end: runs a coroutine that must not be cancelled. notices_pending: called when a commit may have made notices
    pending. now: the clock, epoch seconds.

    known: the fault as recorded in the spool; None if no fault is known.
    """

    def __init__(
        self,
        relayhost: Relayhost,
        spool: RelayhostPort,
        policy: RetryPolicy,
        run_to_end: Callable[[Coroutine[Any, Any, None]], None],
        notices_pending: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.known: RelayhostFailure | None = None
        self._relayhost = relayhost
        self._name = relayhost.name
        self._spool = spool
        self._policy = policy
        self._run_to_end = run_to_end
        self._notices_pending = notices_pending
        self._now = now
        # The last fault is over: the spool has none to read.
        self._is_known_usable = False
        # Failures up to the last change of the network; None if there was none since the mail server was ready.
        self._failures_before_change: int | None = None

    @property
    def text(self) -> str:
        """Why the relayhost cannot be used, not escaped; "" if no fault is known."""
        return self.known.text if self.known is not None else ""

    @property
    def _failures(self) -> int:
        return self.known.failures if self.known is not None else 0

    def network_changed(self) -> None:
        """The network has changed, or may have: if the next failures are transient, their waits begin with the
        shortest."""
        self._failures_before_change = self._failures

    async def read(self) -> None:
        """Reads the recorded fault again, if there may be one: a command may have made the next dial due. Raises
        SpoolError."""
        if not self._is_known_usable:
            found = await self._spool.relayhost_failure(self._name)
            # The fault may have ended meanwhile.
            if not self._is_known_usable:
                self.known = found

    def mail_server_ready(self) -> None:
        """The mail server has replied to EHLO: a fault before MAIL, if there was one, is over."""
        self._failures_before_change = None
        if self.known is not None and self.known.cause in (*SETUP_REPLIES, Cause.TURNED_AWAY):
            # The same may happen again, at MAIL or RCPT: `mail_judged` says when it is over.
            return
        self._end()

    def mail_judged(self) -> None:
        """The mail server has judged a message: the fault, if there was one, is over."""
        self._end()

    def _end(self) -> None:
        if self._is_known_usable:
            return
        self._is_known_usable = True
        if self.known is not None:
            self.known = None
            self._run_to_end(self._record_usable())
            log.info("relay=%s usable again", self._name)

    async def _record_usable(self) -> None:
        backends = self._policy.backends_for(Kind.RESUMED, b"", b"")
        if await self._spool.relayhost_up(self._name, backends):
            self._notices_pending()

    async def record(self, outcome: Outcome) -> str:
        """Records that the relayhost cannot be used. Its mail waits; no attempt is counted.

        outcome: has scope relayhost. Returns its description, not escaped. Raises SpoolError.
        """
        self._is_known_usable = False
        is_setup = is_setup_fault(outcome)
        if is_setup and outcome.reply is not None:
            outcome = dataclasses.replace(outcome, fix=setup_reply.fix(outcome.cause, self._relayhost))
        wait = dial_policy.wait_after_fault(
            outcome.cause,
            self._failures + 1,
            self._failures_before_change,
            self._policy.schedule,
            random.random(),  # noqa: S311
        )
        text = outcome.description.decode("utf-8", "backslashreplace")
        level = logging.ERROR if is_setup else logging.WARNING
        fix = f". {outcome.fix}" if outcome.fix else ""
        log.log(level, "relay=%s unusable (%s: %s)%s", self._name, outcome.stage, printable(text).rstrip("."), fix)
        backends = self._policy.backends_for(Kind.SETUP, b"", b"")
        await self._spool.relayhost_failed(self._name, outcome, self._now() + wait, is_setup, backends)
        # A setup fault has a notice now, another fault when mail has waited long enough.
        self._notices_pending()
        self.known = await self._spool.relayhost_failure(self._name)
        return text
