"""The backend back by mail: the report is queued as a message to the reverse path and leaves by the ordinary way.

Promises: the report and the word that this backend has carried the notice are one commit of the ledger's, so there is
never neither and never two. Only recipients whose sender wanted a report are in it (RFC 3461 section 4.1).
"""

import dataclasses
import secrets

from mailrelay.mail.backends import report_wanted
from mailrelay.mail.dsn import RETURN_LIMIT, compose, needs_smtputf8
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.notice import Notice, PendingNotice
from mailrelay.ports import NoticePort


async def report(owed: PendingNotice, ledger: NoticePort, now: float) -> None:
    """Queues the report that is owed. now: epoch seconds. Raises what the ledger raises."""
    wanted = tuple(one for one in owed.notice.concerned if report_wanted(owed.notice.kind, one.notify))
    notice = dataclasses.replace(owed.notice, concerned=wanted)
    original = b"" if notice.message is None else await ledger.content_start(notice.message, RETURN_LIMIT)
    utf8 = needs_smtputf8(notice)
    envelope = Envelope(
        sender=b"",
        recipients=(Recipient(notice.sender),),
        body=b"8BITMIME" if utf8 else b"7BIT",
        smtputf8=utf8,
    )
    await ledger.accept_report(owed, envelope, written(notice, original, now))


def written(notice: Notice, original: bytes, now: float) -> bytes:
    """The report on `notice` with a Message-ID and a boundary of its own; CRLF line ends. See `mail.dsn.compose`."""
    return compose(
        notice,
        original=original,
        now=now,
        message_id=b"<%s@localhost>" % secrets.token_hex(16).encode("ascii"),
        boundary=secrets.token_hex(16).encode("ascii"),
    )
