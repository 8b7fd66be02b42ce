"""Chooses the backends of a notice. A report by mail has rules of its own; the other backends get every kind but RELAYED.

A report by mail (a DSN) is sent to the reverse path, never to the null one, and only for recipients for which the sender
requested it (NOTIFY, RFC 3461 section 4.1). It reports the fate of messages, never a setup fault or a held message: a report
about a setup fault would wait in the queue because of this same fault.
"""

from collections.abc import Iterable

from mailrelay.mail.notice import Backend, Kind

_KEYWORD = {Kind.FAILED: b"FAILURE", Kind.RELAYED: b"SUCCESS"}


def report_wanted(kind: Kind, notify: bytes) -> bool:
    """Whether a recipient's NOTIFY parameter, as sent, b"" where absent, requests a report by mail of this kind.

    Without the parameter, failures are reported and success is not (RFC 3461 section 4.1).
    """
    keyword = _KEYWORD.get(kind)
    return keyword is not None and keyword in (notify or b"FAILURE,DELAY").upper().split(b",")


def backends_for(
    kind: Kind, sender: bytes, notify: Iterable[bytes], in_force: Iterable[Backend]
) -> tuple[Backend, ...]:
    """The backends that must deliver a notice, out of those in force.

    sender: the reverse path, b"" for the null one and for a setup fault. notify: the NOTIFY parameters of the recipients
    concerned. A notice of kind RELAYED is only sent by mail: the sender requested it from the mail system.
    """
    by_mail = sender != b"" and any(report_wanted(kind, one) for one in notify)
    return tuple(backend for backend in in_force if (by_mail if backend is Backend.DSN else kind is not Kind.RELAYED))
