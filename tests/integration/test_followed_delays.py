"""Mail that the mail server on the relayhost has accepted and deferred for too long is a delay, as mail that waits here."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, NOW, TAKEN, letter

from mailrelay.mail.conclusion import RetryPolicy, conclude
from mailrelay.mail.notice import THERE, Backend, Kind, Notice
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.mail.wording import body, report_text, title
from mailrelay.spool import attempts, followed, listing, notice_lifecycle, notices
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import connect, transaction
from mailrelay.tracking.followed import Found

AFTER = 900.0
BACKENDS = (Backend.MAILBOX,)
POLICY = RetryPolicy((600.0,), 432_000.0, lambda *_: BACKENDS)
DEFERRED = Verdict(There.DEFERRED, Source.QUEUE, b"451 4.7.1 Greylisted", b"mx.example.net", NOW + 5000)
UNSEEN = Verdict(There.NOT_FOLLOWED, words=b"the listing of the queue there cannot be read")
DELIVERED = Verdict(There.DELIVERED, Source.LOG, b"250 ok")
BOUNCED = Verdict(There.BOUNCED, Source.LOG, b"550 5.1.1 unknown")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    db = connect(tmp_path / "spool")
    yield db
    db.close()


def sent(db: apsw.Connection, now: float = NOW, relayhost: str = "default") -> int:
    """A message that the mail server accepted. Returns the key of its recipient."""
    with transaction(db):
        key = accept(db, letter(at=now, relayhost=relayhost), LIMIT)
        (message,) = attempts.take(db, relayhost, (key,), 1, "node", now)
        record = conclude(
            message, (TAKEN,), POLICY, client_told=False, relays_dsn=True, now=now, chance=0.5, is_followed=True
        )
        assert attempts.record(db, record, "node")
    return message.recipient_ids[0]


def find(db: apsw.Connection, recipient: int, verdict: Verdict, now: float, *, is_over: bool = False) -> bool:
    with transaction(db):
        return followed.found(db, [Found(recipient, verdict, is_over)], lambda *_: BACKENDS, now)


def update(db: apsw.Connection, now: float) -> bool:
    with transaction(db):
        return notice_lifecycle.update_delays(db, AFTER, BACKENDS, now)


def deliver(db: apsw.Connection, now: float) -> list[Notice]:
    """Delivers the pending notices, and returns them."""
    found = notices.pending_notices(db, now)
    for pending in found:
        notices.notice_delivered(db, pending, now)
    return [pending.notice for pending in found]


def test_mail_that_is_deferred_there_for_too_long_is_delayed_until_none_is_left(db: apsw.Connection) -> None:
    one, two = sent(db), sent(db, NOW + 10)
    assert notice_lifecycle.next_update(db, AFTER, NOW) is None
    assert find(db, one, DEFERRED, NOW + 20), "the notifier must look at it"
    assert not find(db, one, DEFERRED._replace(words=b"451 again"), NOW + 25)
    find(db, two, DEFERRED, NOW + 30)
    assert notice_lifecycle.next_update(db, AFTER, NOW) == NOW + AFTER
    assert not update(db, NOW + AFTER - 1)
    assert listing.status(db, NOW - 1).deferred_there == 0
    assert update(db, NOW + AFTER)
    (notice,) = deliver(db, NOW + AFTER)
    assert (notice.kind, notice.cause, notice.relayhost, notice.since, notice.waiting) == (
        Kind.DELAYED,
        THERE,
        "default",
        NOW,
        1,
    )
    assert notice.text == "The queue there says: 451 again (from mx.example.net)"
    assert listing.status(db, NOW + 5).deferred_there == 1
    assert not update(db, NOW + AFTER + 20)
    find(db, one, DELIVERED, NOW + AFTER + 30, is_over=True)
    assert not update(db, NOW + AFTER + 40), "the other one waits"
    find(db, two, BOUNCED, NOW + AFTER + 50)
    assert update(db, NOW + AFTER + 60)
    assert [(one.kind, one.cause) for one in deliver(db, NOW + AFTER + 60)] == [
        (Kind.FAILED, ""),
        (Kind.RESUMED, THERE),
    ]
    assert not update(db, NOW + 10 * AFTER)


def test_a_delay_there_is_repeated_with_the_present_numbers(db: apsw.Connection) -> None:
    one = sent(db)
    find(db, one, DEFERRED, NOW + 20)
    update(db, NOW + AFTER)
    deliver(db, NOW + AFTER)
    find(db, sent(db, NOW + 60), DEFERRED, NOW + AFTER)
    assert not update(db, NOW + AFTER + 3599)
    assert update(db, NOW + AFTER + 3600)
    (notice,) = deliver(db, NOW + AFTER + 3600)
    assert (notice.waiting, notice.repeats) == (2, 1)


def test_a_question_that_shows_nothing_does_not_say_that_mail_has_moved(db: apsw.Connection) -> None:
    one = sent(db)
    find(db, one, DEFERRED, NOW + 20)
    update(db, NOW + AFTER)
    assert len(deliver(db, NOW + AFTER)) == 1
    find(db, one, UNSEEN, NOW + AFTER + 10)
    assert not update(db, NOW + AFTER + 20)
    find(db, one, DEFERRED, NOW + AFTER + 30)
    assert not update(db, NOW + AFTER + 40), "it was told already"
    find(db, one, DELIVERED, NOW + AFTER + 50)
    assert update(db, NOW + AFTER + 60)
    assert [notice.kind for notice in deliver(db, NOW + AFTER + 60)] == [Kind.RESUMED]


def test_each_relayhost_has_a_delay_of_its_own(db: apsw.Connection) -> None:
    for name in ("default", "work"):
        find(db, sent(db, relayhost=name), DEFERRED, NOW + 20)
    update(db, NOW + AFTER)
    assert sorted(notice.relayhost for notice in deliver(db, NOW + AFTER)) == ["default", "work"]


def test_what_is_not_asked_about_any_more_is_no_delay(db: apsw.Connection) -> None:
    one = sent(db)
    find(db, one, DEFERRED, NOW + 20)
    find(db, one, DEFERRED, NOW + 30, is_over=True)
    assert notice_lifecycle.next_update(db, AFTER, NOW) is None
    assert not update(db, NOW + 2 * AFTER)


def test_mail_that_only_waits_there_is_no_delay(db: apsw.Connection) -> None:
    find(db, sent(db), Verdict(There.WAITING, Source.QUEUE), NOW + 20)
    assert not update(db, NOW + 2 * AFTER)


def test_the_texts_say_where_it_waits_and_what_is_said_there(db: apsw.Connection) -> None:
    one = sent(db)
    find(db, one, DEFERRED, NOW + 20)
    update(db, NOW + AFTER)
    (delayed,) = deliver(db, NOW + AFTER)
    assert title(delayed).startswith("1 message has been waiting on default since ")
    for text in (body(delayed), report_text(delayed)):
        assert "The queue there says: 451 4.7.1 Greylisted (from mx.example.net)" in " ".join(text.split())
        assert "mailrelay queue --all" in text
    assert "The mail server there has accepted this mail" in " ".join(report_text(delayed).split())
    find(db, one, DELIVERED, NOW + AFTER + 1)
    update(db, NOW + AFTER + 2)
    (resumed,) = deliver(db, NOW + AFTER + 2)
    assert title(resumed) == "No mail waits on default any more"
