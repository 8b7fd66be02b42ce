"""Which backends deliver a notice."""

import pytest

from mailrelay.config import Notify
from mailrelay.mail.backends import backends_for, enabled_backends, report_wanted
from mailrelay.mail.notice import Backend, Kind

ALL = tuple(Backend)
BUT_DSN = tuple(backend for backend in Backend if backend is not Backend.DSN)
ME = b"me@example.org"


@pytest.mark.parametrize(
    ("kind", "sender", "notify", "by"),
    [
        (Kind.FAILED, ME, [b""], ALL),
        (Kind.FAILED, ME, [b"FAILURE"], ALL),
        (Kind.FAILED, ME, [b"success,failure"], ALL),
        (Kind.FAILED, ME, [b"NEVER"], BUT_DSN),
        (Kind.FAILED, ME, [b"SUCCESS"], BUT_DSN),
        (Kind.FAILED, ME, [b"DELAY"], BUT_DSN),
        (Kind.FAILED, ME, [b"NEVER", b""], ALL),
        (Kind.FAILED, b"", [b"FAILURE"], BUT_DSN),
        (Kind.HELD, ME, [b"FAILURE,DELAY,SUCCESS"], BUT_DSN),
        (Kind.SETUP, b"", [], BUT_DSN),
        (Kind.RELAYED, ME, [b"SUCCESS"], (Backend.DSN,)),
        (Kind.RELAYED, ME, [b""], ()),
        (Kind.RELAYED, b"", [b"SUCCESS"], ()),
    ],
)
def test_the_dsn_backend_serves_only_senders_who_want_a_report_and_the_others_get_every_failure(
    kind: Kind, sender: bytes, notify: list[bytes], by: tuple[Backend, ...]
) -> None:
    assert backends_for(kind, sender, notify, ALL) == by


def test_a_backend_that_is_not_enabled_gets_no_notice() -> None:
    assert backends_for(Kind.FAILED, ME, [b""], [Backend.MAILBOX]) == (Backend.MAILBOX,)
    assert backends_for(Kind.RELAYED, ME, [b"SUCCESS"], [Backend.MAILBOX]) == ()


def test_a_recipient_with_notify_never_is_left_out_of_the_report() -> None:
    assert not report_wanted(Kind.FAILED, b"never")
    assert report_wanted(Kind.FAILED, b"")


def test_the_settings_enable_backends() -> None:
    assert enabled_backends(Notify()) == (Backend.DESKTOP, Backend.DSN)
    assert enabled_backends(Notify(desktop=False, dsn=False)) == ()
    assert enabled_backends(Notify(desktop=False, command=("say",), urls=("json://x",))) == (
        Backend.DSN,
        Backend.COMMAND,
        Backend.URLS,
    )
