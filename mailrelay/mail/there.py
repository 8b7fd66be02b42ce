"""What has become of a recipient on the relayhost after the mail server's 250, as the spool keeps it and the person sees it.

`tracking` finds it out. It is information beside the state `sent` (`mail.lifecycle`), and changes no state.
"""

import enum
import re
from typing import NamedTuple, TypedDict

from mailrelay.mail.printable import printable
from mailrelay.mail.reply_text import reply_text

MAX_WORDS = 900
"""Octets of the words of a verdict, at most."""


class There(enum.StrEnum):
    """What has become of a recipient on the relayhost."""

    WAITING = "waiting"
    """In the queue there and not tried; or not known yet."""
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    LEFT = "left"
    """Gone from the queue, and no report has come."""
    LEFT_UNWATCHED = "left unwatched"
    """Gone from the queue; a report would not go to a mailbox that this account can read."""
    NOT_FOLLOWED = "not followed"


class Source(enum.StrEnum):
    """Where a verdict comes from."""

    QUEUE = "queue"
    LOG = "log"
    REPORT = "report"
    NONE = ""


_STATUS = re.compile(rb"(?<![\d.])5\.\d{1,3}\.\d{1,3}(?![\d.])")
_SAYS = {
    Source.QUEUE: "The queue there says",
    Source.LOG: "The log there says",
    Source.REPORT: "A report in your mailbox there says",
    Source.NONE: "The server there says",
}


_HEADINGS = {
    There.WAITING: "waiting there",
    There.DEFERRED: "deferred there",
    There.DELIVERED: "delivered there",
    There.BOUNCED: "bounced there",
    There.LEFT: "left your server, no bounce came",
    There.LEFT_UNWATCHED: "left your server",
    There.NOT_FOLLOWED: "not followed",
}


class Verdict(NamedTuple):
    """words: as the source has them, up to MAX_WORDS octets; `shown_words` for display. by: the server that said them.
    since: epoch seconds, as the source says, or when it was first seen; None if it is not known."""

    state: There
    source: Source = Source.NONE
    words: bytes = b""
    by: bytes = b""
    since: float | None = None

    @property
    def heading(self) -> str:
        """The state in words: "deferred there"; with the words of the source in `mail.there_wording`."""
        return _HEADINGS[self.state]

    @property
    def shown_words(self) -> str:
        """The words, without control characters."""
        return printable(self.words, MAX_WORDS)

    @property
    def shown_by(self) -> str:
        return printable(self.by, 255)

    @property
    def status(self) -> str:
        """The enhanced status code (RFC 3463) of a failure in the words; "5.0.0" if there is none."""
        found = _STATUS.search(self.words)
        return found[0].decode("ascii") if found else "5.0.0"

    @property
    def sentence(self) -> str:
        """Who says what, for the person: "The queue there says: 451 4.7.1 Greylisted". Escaped, in one line."""
        says = _SAYS[self.source]
        if not self.words:
            return f"{says} nothing about the reason"
        by = f" (from {self.shown_by})" if self.by else ""
        return f"{says}: {reply_text(self.words, MAX_WORDS)}{by}"


NOTHING_FOUND = Verdict(There.WAITING)
"""Of a recipient that the relayhost was not asked about yet, or that nothing has shown."""


class ThereRecord(TypedDict):
    """A verdict for programs. state: waiting, deferred, delivered, bounced, left or "not followed". words: of the server
    `by`, or why it is not followed; by: "" if it is not named. source: queue, log or report; "" if nothing was found. since:
    epoch seconds, null if the source does not say. All text is escaped."""

    state: str
    words: str
    source: str
    since: int | None
    by: str


def there_record(verdict: Verdict) -> ThereRecord:
    """The verdict for programs."""
    is_left = verdict.state is There.LEFT_UNWATCHED
    return {
        # Whether a report would have been seen matters to the person only.
        "state": There.LEFT.value if is_left else verdict.state.value,
        "words": verdict.shown_words,
        "source": verdict.source.value,
        "since": None if verdict.since is None else int(verdict.since),
        "by": verdict.shown_by,
    }


class RetryThere(NamedTuple):
    """What became of the person's wish that the mail server on the relayhost try a message again at once.

    is_wanted: it was not told yet. text: what it was told, or why not, a sentence; "" if it was not told yet.
    """

    is_wanted: bool
    text: str


class Retried(enum.Enum):
    """What `queue retry` has made of a message."""

    HERE = enum.auto()
    """It is due now."""
    THERE = enum.auto()
    """Nothing of it waits here. The mail server on the relayhost is asked to try it again; see RetryThere."""
