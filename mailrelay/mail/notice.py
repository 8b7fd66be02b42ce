"""A notice: what the person is to hear, before it is worded for one backend or another.

Notices are owed from the commit that records their reason until a backend has carried them; they carry all that a backend
needs, so that no backend has to ask anybody.
"""

import enum
from dataclasses import dataclass


class Kind(enum.StrEnum):
    FAILED = "failed"
    """Recipients bounced or expired: their mail will not be tried again by itself."""
    HELD = "held"
    """The message waits for the person."""
    SETUP = "setup"
    """A relayhost cannot be used until the person fixes something; its mail waits."""
    DELAYED = "delayed"
    """Mail has waited for too long; it will be tried again by itself."""
    RESUMED = "resumed"
    """What a setup fault or a delay stopped moves again."""
    RELAYED = "relayed"
    """A sender who asked for NOTIFY=SUCCESS: the remote took the mail but reports no deliveries (RFC 3461 5.2.2)."""


OF_A_WAY = frozenset({Kind.SETUP, Kind.DELAYED, Kind.RESUMED})
"""Kinds that concern a relayhost and the mail that waits for it, not one message."""


class Backend(enum.StrEnum):
    """The ways by which a notice reaches the person."""

    DESKTOP = "desktop"
    DSN = "dsn"
    MAILBOX = "mailbox"
    COMMAND = "command"
    URLS = "urls"


@dataclass(frozen=True, slots=True)
class Concerned:
    """A recipient that a notice is about, and how it ended. `words` are the remote's or ours, not escaped."""

    address: bytes
    state: str
    status: str
    words: bytes
    stage: str
    remote: bool
    """Whether `words` are the remote mail server's own."""
    uncertain: bool = False
    notify: bytes = b""
    orcpt: bytes = b""
    likely: bytes = b""
    """The address that may have been meant (`mail.likeness`); b"" where none comes near."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told.

    created: epoch seconds. text and fix: for a setup fault, what happened and the step that fixes it; for a delay, why.
    since: epoch seconds, the arrival of what waits longest; waiting: messages; repeats: how often it was told before.
    The message's own fields are None or empty for what concerns a relayhost. sender is b"" for the null reverse path.
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


@dataclass(frozen=True, slots=True)
class Owed:
    """One backend of one notice that has not carried it yet. `tries` counts the failures so far."""

    notice: Notice
    backend: Backend
    tries: int
