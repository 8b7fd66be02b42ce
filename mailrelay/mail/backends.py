"""Chooses the backends of a notice. A report by mail has rules of its own; the other backends get every kind but RELAYED.

A report by mail (a DSN) is sent to the reverse path, never to the null one, and only for recipients for which the sender
requested it (NOTIFY, RFC 3461 section 4.1). It reports the fate of messages, never a setup fault or a held message: a report
about a setup fault would wait in the queue because of this same fault.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from mailrelay.mail.notice import Backend, Kind

BackendsFor = Callable[[Kind, bytes, bytes], tuple[Backend, ...]]
"""(kind, reverse path, NOTIFY of the recipient) -> the backends that must deliver such a notice."""

_KEYWORD = {Kind.FAILED: b"FAILURE", Kind.RELAYED: b"SUCCESS"}


class NoticeSettings(Protocol):
    """The settings of the backends (`[notify]`)."""

    @property
    def desktop(self) -> bool: ...
    @property
    def dsn(self) -> bool: ...
    @property
    def mailbox(self) -> object | None: ...
    @property
    def command(self) -> tuple[str, ...]: ...
    @property
    def urls(self) -> tuple[str, ...]: ...


def backends_of(settings: NoticeSettings) -> BackendsFor:
    """The backends of each notice about one recipient, as the settings enable them."""
    enabled = enabled_backends(settings)
    return lambda kind, sender, notify: backends_for(kind, sender, (notify,), enabled)


def enabled_backends(settings: NoticeSettings) -> tuple[Backend, ...]:
    """The backends that the settings enable. `backends_for` decides which kinds of notice each one delivers."""
    enabled = {
        Backend.DESKTOP: settings.desktop,
        Backend.DSN: settings.dsn,
        Backend.MAILBOX: settings.mailbox is not None,
        Backend.COMMAND: bool(settings.command),
        Backend.URLS: bool(settings.urls),
    }
    return tuple(backend for backend, is_enabled in enabled.items() if is_enabled)


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
