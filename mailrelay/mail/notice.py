"""A notice: information for the person about a failure or delay, before it is worded for a backend.

A notice is pending for a backend from the commit that records its reason until the backend has delivered it. It contains
everything that a backend needs. A notice about the spool itself is never in the spool (`notify.emergency`).
"""

import enum
from dataclasses import dataclass

from mailrelay.mail.there import There, Verdict


class Kind(enum.StrEnum):
    FAILED = "failed"
    """Recipients bounced or expired: the message is not tried again by itself."""
    HELD = "held"
    """The message waits for the person."""
    SETUP = "setup"
    """A relayhost cannot be used until the person fixes something; its mail waits."""
    DELAYED = "delayed"
    """Mail has waited for too long; it will be tried again by itself."""
    RESUMED = "resumed"
    """Mail that a setup fault or a delay stopped moves again."""
    RELAYED = "relayed"
    """Asked for with NOTIFY=SUCCESS: the mail server accepted the message but reports no deliveries (RFC 3461 5.2.2)."""
    SPOOL = "spool"
    """The spool cannot be used, or its disk is full: no mail is accepted."""


ABOUT_NO_MESSAGE = frozenset({Kind.SETUP, Kind.DELAYED, Kind.RESUMED, Kind.SPOOL})
"""Kinds that concern a relayhost and all mail that waits for it, or the spool, not one message."""


class Backend(enum.StrEnum):
    """The means by which a notice reaches the person."""

    DESKTOP = "desktop"
    DSN = "dsn"
    MAILBOX = "mailbox"
    COMMAND = "command"
    URLS = "urls"


@dataclass(frozen=True, slots=True)
class Concerned:
    """A recipient that a notice is about, and its outcome. `description` is the reply or our own text, not escaped."""

    address: bytes
    state: str
    status: str
    description: bytes
    stage: str
    remote: bool
    """Whether `description` is a reply of the mail server."""
    uncertain: bool = False
    notify: bytes = b""
    orcpt: bytes = b""
    likely: bytes = b""
    """The address that was probably meant (`mail.address_suggestion`); b"" if none is similar."""
    accepted: float = 0.0
    """When the mail server on the relayhost accepted it, epoch seconds; 0 if it is not followed there."""
    there: Verdict | None = None
    """What became of it there after that; None if it is not followed there."""

    @property
    def bounced_there(self) -> Verdict | None:
        """The verdict of a recipient that has bounced on the relayhost; None for others."""
        return self.there if self.there is not None and self.there.state is There.BOUNCED else None


THERE = "there"
"""The cause of a delay of mail that the mail server on the relayhost has accepted and not delivered yet."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice.

    created: epoch seconds. text and fix: for a setup fault and the spool, what happened and the step that fixes it; for a
    delay, why. relayhost: "" for the spool. cause: of a delay, THERE if mail waits on the relayhost.
    since: epoch seconds, the earliest arrival of the messages that wait; waiting: their number; repeats: how often the
    notice was repeated. The fields from `message` on are None or empty for a notice about no message. sender is b"" for the
    null reverse path. is_damaged: the envelope of the message is not as it was written: nothing must be sent to `sender`.
    is_kept: whether the content of the message can be sent again. stand_in: the fallback that sends the mail of `relayhost`
    meanwhile, "" for none. fallback_for: the relayhost of the message's sender, if `relayhost` had taken it as a fallback;
    else "".
    """

    id: int
    kind: Kind
    relayhost: str
    created: float
    text: str = ""
    fix: str = ""
    since: float = 0.0
    waiting: int = 0
    repeats: int = 0
    message: int | None = None
    queue_id: str = ""
    sender: bytes = b""
    subject: str = ""
    arrival: float = 0.0
    size: int = 0
    smtputf8: bool = False
    ret: bytes = b""
    envid: bytes = b""
    concerned: tuple[Concerned, ...] = ()
    is_damaged: bool = False
    cause: str = ""
    is_kept: bool = True
    stand_in: str = ""
    fallback_for: str = ""


@dataclass(frozen=True, slots=True)
class PendingNotice:
    """A notice that one backend has not delivered yet. `tries` counts its failures so far."""

    notice: Notice
    backend: Backend
    tries: int
