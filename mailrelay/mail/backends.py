"""Who may be told by which backend: a report by mail has rules of its own, every other backend takes what the person set up.

A report by mail (a DSN) goes to the reverse path, never to the null one, and only for recipients whose sender wanted it
(NOTIFY, RFC 3461 section 4.1). It carries what became of mail, not what is wrong with this computer: a fault in the
setup, or a message that waits for the person, would make it wait behind the very trouble it speaks of.
"""

from collections.abc import Iterable

from mailrelay.mail.notice import Backend, Kind

_ASKED = {Kind.FAILED: b"FAILURE", Kind.RELAYED: b"SUCCESS"}


def report_wanted(kind: Kind, notify: bytes) -> bool:
    """Whether a recipient's NOTIFY parameter, as sent, b"" where absent, asks for a report by mail of this kind.

    Without one, failures are reported and success is not (RFC 3461 section 4.1).
    """
    asked = _ASKED.get(kind)
    return asked is not None and asked in (notify or b"FAILURE,DELAY").upper().split(b",")


def backends_for(
    kind: Kind, sender: bytes, notify: Iterable[bytes], in_force: Iterable[Backend]
) -> tuple[Backend, ...]:
    """The backends by which a notice becomes owed, out of those in force.

    sender: the reverse path, b"" for the null one and for a setup fault. notify: the NOTIFY parameters of the recipients
    concerned. Word of RELAYED mail was asked of the mail system, so it goes by mail or not at all.
    """
    by_mail = sender != b"" and any(report_wanted(kind, one) for one in notify)
    return tuple(backend for backend in in_force if (by_mail if backend is Backend.DSN else kind is not Kind.RELAYED))
