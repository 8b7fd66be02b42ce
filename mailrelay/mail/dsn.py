"""Composes the report that a sender gets by mail: the delivery status notification.

A report is a multipart/report (RFC 6522): a text for the person, fields for programs (RFC 3464), and, unless the content is
no longer kept, the header of the message. The whole message is returned where RET=FULL requests it and the message is small
and 7-bit. If an address is not ASCII, the parts are message/global-* and the report needs SMTPUTF8 (RFC 6533); every other
report is 7-bit. A notice about a relayhost or the spool concerns no single
message: its report is the text alone.

Promises: CRLF line ends; no line over 998 octets. No octet of an address, a subject, a reply or the original can start a
header line, a field or a part. A report names neither this machine nor an address of the client (RFC 3464 section 2.2.2
allows any name for the reporting MTA).

Never: a report about a report. The caller must have chosen the backend with `mail.backends`, which excludes it.
"""

import re
from binascii import b2a_qp
from datetime import UTC, datetime
from email.header import Header
from email.utils import format_datetime

from mailrelay.mail.notice import ABOUT_NO_MESSAGE, Concerned, Kind, Notice
from mailrelay.mail.printable import printable
from mailrelay.mail.wording import MAX_ADDRESS, MAX_REASON, MAX_SUBJECT, report_text, title
from mailrelay.mail.xtext import unxtext

MAX_RETURN = 100 * 1024
"""Octets of the largest original that is returned whole for RET=FULL. Of a larger one, only the header is returned."""

_ACTION = {Kind.FAILED: b"failed", Kind.HELD: b"delayed", Kind.RELAYED: b"relayed"}
_STATUS = {Kind.FAILED: b"5.0.0", Kind.HELD: b"4.0.0", Kind.RELAYED: b"2.0.0"}
_STATUS_FORM = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(?:\n[ \t]+)?(<[!-;=?-~]{1,300}>)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_ORCPT = re.compile(rb"([A-Za-z0-9-]{1,32});([!-~]+)")
_PLAIN = re.compile(rb"[\t -~]{0,998}")
_MAX_LINE = 998


def needs_smtputf8(notice: Notice) -> bool:
    """Whether the report on `notice` holds an address that is not ASCII, and so must be sent with SMTPUTF8 and 8BITMIME."""
    return not all(address.isascii() for address in (notice.sender, *(one.address for one in notice.concerned)))


def compose(
    notice: Notice,
    *,
    original: bytes,
    now: float,
    message_id: bytes,
    boundary: bytes,
    reporting_mta: str = "localhost",
) -> bytes:
    """The report on `notice`, as content to send.

    original: the first octets of the message, CRLF line ends, b"" if it is no longer kept. They are the whole message if
    they are as many as `notice.size`. now: epoch seconds. message_id: with its angle brackets. boundary: 1 to 70 letters and
    digits, random, so that no text from outside can contain it. Raises ValueError if a part contains it. reporting_mta: the
    name in Reporting-MTA and in the address of the author.
    """
    utf8 = needs_smtputf8(notice)
    headers = [
        b"From: mailrelay <MAILER-DAEMON@%s>" % reporting_mta.encode("ascii"),
        b"To: %s" % (b"<%s>" % _address(notice.sender, utf8) if notice.sender else b"undisclosed-recipients:;"),
        b"Subject: %s" % _subject(notice),
        b"Date: %s" % _date(now),
        b"Message-ID: %s" % message_id,
        *_references(original),
        b"Auto-Submitted: auto-replied",
        b"MIME-Version: 1.0",
    ]
    text = _part(b"text/plain; charset=utf-8", report_text(notice).encode().replace(b"\n", b"\r\n"))
    if notice.kind in ABOUT_NO_MESSAGE:
        return b"\r\n".join(headers) + b"\r\n" + text + b"\r\n"
    parts = [
        text,
        _delivery_status(notice, reporting_mta, utf8),
        *([_returned(notice, original, utf8)] if original else []),
    ]
    if any(boundary in part for part in parts):
        raise ValueError("the boundary occurs in the report")
    report_type = b"global-delivery-status" if utf8 else b"delivery-status"
    headers.append(b'Content-Type: multipart/report; report-type=%s;\r\n\tboundary="%s"' % (report_type, boundary))
    if utf8:
        headers.append(b"Content-Transfer-Encoding: 8bit")
    delimited = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    return b"\r\n".join(headers) + b"\r\n\r\n" + delimited + b"--%s--\r\n" % boundary


def _delivery_status(notice: Notice, reporting_mta: str, utf8: bool) -> bytes:
    groups = [
        [
            b"Reporting-MTA: dns; %s" % reporting_mta.encode("ascii"),
            *([b"Original-Envelope-Id: %s" % _ascii(unxtext(notice.envid), 300)] if notice.envid else []),
            b"Arrival-Date: %s" % _date(notice.arrival),
        ],
        *(_recipient(notice, one, utf8) for one in notice.concerned),
    ]
    fields = b"\r\n\r\n".join(b"\r\n".join(group) for group in groups)
    if utf8:
        return b"Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%s\r\n" % fields
    return b"Content-Type: message/delivery-status\r\n\r\n%s\r\n" % fields


def _recipient(notice: Notice, one: Concerned, utf8: bool) -> list[bytes]:
    """The fields of RFC 3464 section 2.3."""
    orcpt = _ORCPT.fullmatch(one.orcpt)
    there = one.bounced_there
    enhanced = there.status if there else one.status
    status = enhanced.encode() if _STATUS_FORM.fullmatch(enhanced) else _STATUS[notice.kind]
    said, is_reply = (there.words, True) if there else (one.description, one.remote)
    return [
        *([b"Original-Recipient: %s; %s" % (orcpt[1], _ascii(unxtext(orcpt[2]), 600))] if orcpt else []),
        b"Final-Recipient: %s; %s" % (b"rfc822" if one.address.isascii() else b"utf-8", _address(one.address, utf8)),
        b"Action: %s" % _ACTION[notice.kind],
        b"Status: %s" % status,
        # The name of the mail server is not known, only that of its relayhost.
        b"Remote-MTA: x-relayhost; %s" % _ascii(notice.relayhost, 80),
        _folded(b"Diagnostic-Code: %s; %s" % (b"smtp" if is_reply else b"x-mailrelay", _ascii(said, MAX_REASON))),
        b"Last-Attempt-Date: %s" % _date(notice.created),
    ]


def _returned(notice: Notice, original: bytes, utf8: bool) -> bytes:
    whole = len(original) == notice.size and len(original) <= MAX_RETURN
    if notice.ret.upper() == b"FULL" and whole and not utf8 and _is_plain(original):
        return b"Content-Type: message/rfc822\r\n\r\n" + original
    head, end, _ = original.partition(b"\r\n\r\n")
    if not end and not whole:
        # `original` ends inside the header: its last line may be incomplete.
        head = head.rpartition(b"\r\n")[0]
    if utf8:
        lines = (printable(line.replace(b"\t", b" ")).encode()[:_MAX_LINE] for line in head.split(b"\r\n"))
        readable = b"\r\n".join(line.decode("utf-8", "ignore").encode() for line in lines)
        return b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%s\r\n" % readable
    return _part(b"text/rfc822-headers", head)


def _part(content_type: bytes, text: bytes) -> bytes:
    """A text part: as it is if it is 7-bit and its lines are short, otherwise quoted-printable (RFC 2045)."""
    if _is_plain(text):
        return b"Content-Type: %s\r\n\r\n%s\r\n" % (content_type, text)
    # Each line is encoded as binary, so that a lone CR or LF is encoded too.
    lines = (b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n") for line in text.split(b"\r\n"))
    return b"Content-Type: %s\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n%s\r\n" % (
        content_type,
        b"\r\n".join(lines),
    )


def _is_plain(text: bytes) -> bool:
    return all(_PLAIN.fullmatch(line) for line in text.split(b"\r\n"))


def _subject(notice: Notice) -> bytes:
    text = title(notice) + (f": {printable(notice.subject, MAX_SUBJECT)}" if notice.subject else "")
    # Mail clients decode "=?" (RFC 2047 section 7): an unencoded one could restore characters that were escaped here.
    charset = "us-ascii" if text.isascii() and "=?" not in text else "utf-8"
    return Header(text, charset, maxlinelen=76, header_name="Subject").encode(linesep="\r\n").encode("ascii")


def _references(original: bytes) -> list[bytes]:
    """The fields that name the original's Message-ID; none if it has none."""
    found = _MESSAGE_ID.search(original.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"\n"))
    return [b"In-Reply-To: %s" % found[1], b"References: %s" % found[1]] if found else []


def _address(address: bytes, utf8: bool) -> bytes:
    return printable(address, MAX_ADDRESS).encode() if utf8 else _ascii(address, MAX_ADDRESS)


def _ascii(text: bytes | str, limit: int) -> bytes:
    return printable(text).encode("ascii", "backslashreplace")[:limit]


def _folded(field: bytes) -> bytes:
    """`field` folded at spaces into lines of about 76 octets; longer words stay whole. No line has only spaces."""
    lines = [b""]
    for word in field.split(b" "):
        if lines[-1] and len(lines[-1]) + len(word) >= 76 and word:
            lines.append(b"")
        lines[-1] += b" " + word if lines[-1] or len(lines) > 1 else word
    return b"\r\n".join(lines)


def _date(epoch: float) -> bytes:
    return format_datetime(datetime.fromtimestamp(epoch, UTC)).encode("ascii")
