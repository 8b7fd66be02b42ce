"""Who is told by which road."""

import pytest

from mailrelay.config import Notify
from mailrelay.mail.notice import Kind, Road
from mailrelay.mail.roads import report_wanted, roads_for
from mailrelay.notify.notifier import roads

ALL = tuple(Road)
BUT_DSN = tuple(road for road in Road if road is not Road.DSN)
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
        (Kind.RELAYED, ME, [b"SUCCESS"], (Road.DSN,)),
        (Kind.RELAYED, ME, [b""], ()),
        (Kind.RELAYED, b"", [b"SUCCESS"], ()),
    ],
)
def test_a_report_goes_by_mail_only_to_a_sender_who_wanted_it_and_every_other_road_hears_of_trouble(
    kind: Kind, sender: bytes, notify: list[bytes], by: tuple[Road, ...]
) -> None:
    assert roads_for(kind, sender, notify, ALL) == by


def test_a_road_that_is_not_in_force_is_never_owed() -> None:
    assert roads_for(Kind.FAILED, ME, [b""], [Road.MAILBOX]) == (Road.MAILBOX,)
    assert roads_for(Kind.RELAYED, ME, [b"SUCCESS"], [Road.MAILBOX]) == ()


def test_a_recipient_with_never_is_kept_out_of_the_report() -> None:
    assert not report_wanted(Kind.FAILED, b"never")
    assert report_wanted(Kind.FAILED, b"")


def test_the_settings_put_roads_in_force() -> None:
    assert roads(Notify()) == (Road.DESKTOP, Road.DSN)
    assert roads(Notify(desktop=False, dsn=False)) == ()
    assert roads(Notify(desktop=False, command=("say",), urls=("json://x",))) == (Road.DSN, Road.COMMAND, Road.URLS)
