"""The `dsn` backend: the report is queued as a message to the reverse path and delivered like other mail.

Promises: the spool queues the report and marks the notice as delivered in one commit, so exactly one report is queued.
The report names only recipients for which the sender wanted one (RFC 3461 section 4.1).
"""

import dataclasses
import secrets

from mailrelay.mail.backends import report_wanted
from mailrelay.mail.dsn import MAX_RETURN, compose, needs_smtputf8
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.notice import Notice, PendingNotice
from mailrelay.ports import NoticePort


async def report(pending: PendingNotice, spool: NoticePort, now: float) -> None:
    """Queues the report for a pending notice. now: epoch seconds. Raises what the spool raises."""
    wanted = tuple(one for one in pending.notice.concerned if report_wanted(pending.notice.kind, one.notify))
    notice = dataclasses.replace(pending.notice, concerned=wanted)
    original = b"" if notice.message is None else await spool.content_start(notice.message, MAX_RETURN)
    utf8 = needs_smtputf8(notice)
    envelope = Envelope(
        sender=b"",
        recipients=(Recipient(notice.sender),),
        body=b"8BITMIME" if utf8 else b"7BIT",
        smtputf8=utf8,
    )
    await spool.accept_report(pending, envelope, render(notice, original, now))


def render(notice: Notice, original: bytes, now: float) -> bytes:
    """The report on `notice` with a random Message-ID and boundary; CRLF line ends. See `mail.dsn.compose`."""
    return compose(
        notice,
        original=original,
        now=now,
        message_id=b"<%s@localhost>" % secrets.token_hex(16).encode("ascii"),
        boundary=secrets.token_hex(16).encode("ascii"),
    )
