"""The mailbox backend: a report in a Maildir is complete, and readable for its owner only."""

import dataclasses
import mailbox as maildirs
import stat
from pathlib import Path

import pytest

from mailrelay.mail.notice import Concerned, Kind, Notice
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.mailbox import mailbox

BOB = Concerned(b"bob@example.net", "bounced", "5.1.1", b"550 5.1.1 no such user", "RCPT", True)
REFUSED = Notice(
    id=1,
    kind=Kind.FAILED,
    relayhost="default",
    created=1.7e9,
    message=1,
    queue_id="3KQ7Z",
    sender=b"",
    concerned=(BOB,),
)
SETUP = Notice(id=2, kind=Kind.SETUP, relayhost="default", created=1.7e9, text="The key was refused.", fix="ssh-add")


async def test_every_kind_of_notice_becomes_a_readable_message_in_a_maildir_made_for_it(tmp_path: Path) -> None:
    place = tmp_path / "Mail" / "reports"
    held = dataclasses.replace(REFUSED, kind=Kind.HELD, sender=b"me@example.org")
    await mailbox(place, lambda: 1.7e9)([REFUSED, SETUP, held])

    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in (place / "new").iterdir()] == [0o600] * 3
    assert list((place / "tmp").iterdir()) == []
    messages = list(maildirs.Maildir(place, create=False))
    assert {message["Subject"] for message in messages} == {
        "Mail to bob@example.net was refused",
        "Mail cannot be sent through default",
        "Mail to bob@example.net needs your decision",
    }
    assert not [message for message in messages if "\r" in message.as_string()]


async def test_a_second_report_is_a_second_file(tmp_path: Path) -> None:
    deliver = mailbox(tmp_path / "reports")
    await deliver([REFUSED])
    await deliver([REFUSED])
    assert len(maildirs.Maildir(tmp_path / "reports", create=False)) == 2


async def test_a_file_at_the_path_of_the_maildir_fails_the_backend_and_is_not_changed(tmp_path: Path) -> None:
    place = tmp_path / "mbox"
    place.write_text("From me\n")
    with pytest.raises(BackendFailed, match="mbox: File exists"):
        await mailbox(place)([REFUSED])
    assert place.read_text() == "From me\n"
