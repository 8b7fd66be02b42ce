"""Recipients that are followed on the relayhost after they were sent: what the spool keeps, and what the person can do."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from harness.messages import BUSY, LIMIT, NO_SUCH_USER, NOW, TAKEN, letter

from mailrelay.mail.conclusion import RetryPolicy, conclude
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.record import Arrival
from mailrelay.mail.spool_errors import NotAllowed
from mailrelay.mail.there import Retried, RetryThere, Source, There, Verdict
from mailrelay.spool import actions, attempts, followed, listing, notices, replacement, stored, successors
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import connect, transaction
from mailrelay.spool.spool import Spool
from mailrelay.tracking.followed import Found


def backends_for(_kind: Kind, _sender: bytes, _notify: bytes) -> tuple[Backend, ...]:
    return (Backend.DESKTOP, Backend.DSN, Backend.MAILBOX)


POLICY = RetryPolicy((600.0,), 432_000.0, backends_for)
BOUNCED = Verdict(There.BOUNCED, Source.REPORT, b"550 5.1.1 unknown", b"mx.example.net", NOW + 60)
DEFERRED = Verdict(There.DEFERRED, Source.QUEUE, b"451 4.7.1 Greylisted", b"mx.example.net", NOW + 1)
DELIVERED = Verdict(There.DELIVERED, Source.LOG, b"250 ok", b"mx.example.net", NOW + 2)
LEFT = Verdict(There.LEFT, Source.QUEUE)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    db = connect(tmp_path / "spool")
    yield db
    db.close()


def sent(
    db: apsw.Connection,
    *recipients: bytes,
    outcomes: tuple[Outcome, ...] = (),
    now: float = NOW,
    is_followed: bool = True,
    arrival: Arrival | None = None,
) -> int:
    """A message that the mail server has accepted, for all recipients if no outcomes are given. Returns its key."""
    with transaction(db):
        key = accept(db, arrival or letter(*recipients, at=now), LIMIT)
        (message,) = attempts.take(db, "default", (key,), 1, "node", now)
        outcomes = outcomes or (TAKEN,) * len(message.recipient_ids)
        record = conclude(
            message,
            outcomes,
            POLICY,
            client_told=False,
            relays_dsn=True,
            now=now,
            chance=0.5,
            is_followed=is_followed,
        )
        assert attempts.record(db, record, "node")
    return key


def find(db: apsw.Connection, *verdicts: Verdict, now: float = NOW + 10, is_over: bool = False) -> bool:
    """A question about all recipients that are followed, the oldest first. Returns whether a notice became pending."""
    keys = sorted(one.recipient for one in followed.followed(db, "default"))
    found = [Found(key, verdict, is_over) for key, verdict in zip(keys, verdicts, strict=True)]
    with transaction(db):
        return followed.found(db, found, backends_for, now)


def has_content(db: apsw.Connection, key: int) -> bool:
    return b"".join(stored.content(db, key)) != b""


def test_a_recipient_that_was_sent_is_followed_with_all_that_a_question_needs(db: apsw.Connection) -> None:
    key = sent(db, b"one@example.net", b"two@example.net", outcomes=(TAKEN, NO_SUCH_USER))
    (one,) = followed.followed(db, "default")
    assert (one.message, one.queue_id) == (key, listing.one(db, key).queue_id)
    assert (one.address, one.sender, one.envid) == (b"one@example.net", b"a@example.org", b"")
    assert (one.reply, one.accepted, one.is_retry_wanted) == (b"250 2.0.0 taken", NOW, False)
    assert one.verdict == Verdict(There.WAITING)
    assert followed.followed(db, "other") == []
    there = [to.there for to in listing.one(db, key).recipients]
    assert there == [Verdict(There.WAITING), None]


def test_the_latest_accepted_recipient_comes_first(db: apsw.Connection) -> None:
    keys = [sent(db, now=at) for at in (NOW + 5, NOW, NOW + 9)]
    assert [one.message for one in followed.followed(db, "default")] == [keys[2], keys[0], keys[1]]


def test_where_the_setting_is_off_nothing_is_followed_and_no_content_is_kept(db: apsw.Connection) -> None:
    key = sent(db, is_followed=False)
    assert followed.followed(db, "default") == []
    assert listing.one(db, key).recipients[0].there is None
    assert not has_content(db, key)


def test_a_message_that_bounced_there_is_listed_as_failed_and_stays_sent(db: apsw.Connection) -> None:
    key = sent(db)
    assert list(listing.live(db)) == []
    assert find(db, BOUNCED)
    (message,) = listing.live(db)
    (to,) = message.recipients
    assert (message.id, message.queue_name, to.state, to.there) == (key, "failed", "sent", BOUNCED)
    assert to.has_bounced_there
    assert listing.status(db).bounced_there == 1
    assert has_content(db, key)


@pytest.mark.parametrize("what", [Act.CANCEL, Act.DROP])
def test_the_person_dismisses_what_bounced_there(db: apsw.Connection, what: Act) -> None:
    key = sent(db)
    find(db, BOUNCED)
    with transaction(db):
        assert actions.act(db, key, "id", what, NOW + 20) == 1
    assert list(listing.live(db)) == []
    message = listing.one(db, key)
    assert (message.queue_name, message.recipients[0].state, message.recipients[0].there) == ("sent", "sent", BOUNCED)
    assert message.recipients[0].is_dealt_with
    assert listing.status(db).bounced_there == 0
    assert not has_content(db, key)
    assert notices.pending_notices(db, NOW + 30) == []
    with transaction(db), pytest.raises(NotAllowed):
        actions.act(db, key, "id", what, NOW + 30)


def test_the_same_is_dealt_with_by_sending_it_again_in_another_message(db: apsw.Connection) -> None:
    key = sent(db, b"one@example.net", b"two@example.net")
    find(db, BOUNCED, DELIVERED, is_over=True)
    old_id = listing.one(db, key).queue_id
    old, content = replacement.replaceable(db, old_id, Act.RESEND)
    assert [to.address for to in old.envelope.recipients] == [b"one@example.net"]
    assert content.endswith(b"hello\r\n")
    new = letter(b"uno@example.net", at=NOW + 30)
    with transaction(db):
        replacement.replace(db, old, Act.RESEND, new, LIMIT)
    one, two = listing.one(db, key).recipients
    assert (one.state, one.successor, one.is_dealt_with) == ("sent", new.queue_id, True)
    assert (two.state, two.successor, two.is_dealt_with) == ("sent", "", False)
    assert sorted(successors.successors(db, old_id)) == [new.queue_id]
    assert [message.queue_id for message in listing.live(db)] == [new.queue_id]
    assert not has_content(db, key)
    assert notices.pending_notices(db, NOW + 40) == []
    with pytest.raises(NotAllowed, match=new.queue_id):
        replacement.replaceable(db, old_id, Act.RESEND)


def test_a_message_that_replaces_another_is_known_as_such_when_it_is_followed(db: apsw.Connection) -> None:
    key = sent(db)
    find(db, BOUNCED, is_over=True)
    old, _ = replacement.replaceable(db, listing.one(db, key).queue_id, Act.RESEND)
    new = letter(at=NOW + 30)
    with transaction(db):
        replacement.replace(db, old, Act.RESEND, new, LIMIT)
        (message,) = attempts.take(db, "default", (), 1, "node", NOW + 31)
        taken = conclude(
            message, (TAKEN,), POLICY, client_told=False, relays_dsn=True, now=NOW + 31, chance=0.5, is_followed=True
        )
        assert attempts.record(db, taken, "node")
    sent(db, now=NOW + 40)
    assert [one.is_successor for one in followed.followed(db, "default")] == [False, True]


def test_an_edit_takes_what_bounced_there_together_with_what_waits_here(db: apsw.Connection) -> None:
    key = sent(db, b"one@example.net", b"two@example.net", b"three@example.net", outcomes=(TAKEN, BUSY, TAKEN))
    find(db, BOUNCED, DELIVERED)
    queue_id = listing.one(db, key).queue_id
    old, _ = replacement.replaceable(db, queue_id, Act.EDIT)
    assert [to.address for to in old.envelope.recipients] == [b"one@example.net", b"two@example.net"]
    new = letter(b"one@example.net", b"two@example.net", at=NOW + 30)
    with transaction(db):
        replacement.replace(db, old, Act.EDIT, new, LIMIT)
    assert [to.state for to in listing.one(db, key).recipients] == ["sent", "cancelled", "sent"]
    assert [to.successor for to in listing.one(db, key).recipients] == [new.queue_id, new.queue_id, ""]


def test_what_the_server_has_delivered_cannot_be_sent_again(db: apsw.Connection) -> None:
    key = sent(db)
    find(db, DELIVERED)
    with pytest.raises(NotAllowed):
        replacement.replaceable(db, listing.one(db, key).queue_id, Act.RESEND)


def test_a_bounce_has_one_notice_for_all_recipients_of_a_question_and_none_by_mail(db: apsw.Connection) -> None:
    sent(db, b"one@example.net", b"two@example.net")
    assert find(db, BOUNCED, BOUNCED._replace(source=Source.LOG))
    pending = notices.pending_notices(db, NOW + 20)
    assert sorted(one.backend for one in pending) == [Backend.DESKTOP, Backend.MAILBOX]
    assert len({one.notice.id for one in pending}) == 1
    (one, two) = pending[0].notice.concerned
    assert (pending[0].notice.kind, pending[0].notice.is_kept) == (Kind.FAILED, True)
    assert (one.address, one.state, one.accepted, one.there) == (b"one@example.net", "sent", NOW, BOUNCED)
    assert two.there == BOUNCED._replace(source=Source.LOG)


def test_repeating_what_is_known_changes_nothing(db: apsw.Connection) -> None:
    key = sent(db)
    assert find(db, BOUNCED)
    changes = db.total_changes()
    assert not find(db, BOUNCED, now=NOW + 60)
    assert db.total_changes() == changes
    assert not find(db, BOUNCED._replace(words=b"550 in other words"), now=NOW + 60)
    (to,) = listing.one(db, key).recipients
    assert to.there == BOUNCED._replace(words=b"550 in other words")
    assert len(notices.pending_notices(db, NOW + 90)) == 2


@pytest.mark.parametrize("later", [Verdict(There.WAITING), DEFERRED, DELIVERED, LEFT])
def test_after_a_bounce_no_other_verdict_is_written(db: apsw.Connection, later: Verdict) -> None:
    key = sent(db)
    find(db, BOUNCED)
    assert not find(db, later, is_over=True)
    assert listing.one(db, key).recipients[0].there == BOUNCED
    assert followed.followed(db, "default") == []
    assert [message.id for message in listing.live(db)] == [key]


@pytest.mark.parametrize("earlier", [DELIVERED, LEFT, DEFERRED])
def test_what_bounces_after_another_verdict_is_a_new_bounce(db: apsw.Connection, earlier: Verdict) -> None:
    key = sent(db)
    find(db, earlier)
    assert find(db, BOUNCED)
    assert listing.one(db, key).recipients[0].has_bounced_there


def test_a_bounce_that_was_dealt_with_is_not_told_again(db: apsw.Connection) -> None:
    key = sent(db)
    (one,) = followed.followed(db, "default")
    find(db, BOUNCED)
    with transaction(db):
        actions.act(db, key, "id", Act.CANCEL, NOW + 20)
        assert not followed.found(db, [Found(one.recipient, BOUNCED)], backends_for, NOW + 30)
    assert list(listing.live(db)) == []


def test_a_verdict_about_a_message_that_is_gone_is_ignored(db: apsw.Connection) -> None:
    with transaction(db):
        assert not followed.found(db, [Found(4711, BOUNCED)], backends_for, NOW)


def test_no_content_is_kept_where_no_bounce_could_be_seen(db: apsw.Connection) -> None:
    key = sent(db)
    (one,) = followed.followed(db, "default")
    with transaction(db):
        followed.found(db, [Found(one.recipient, Verdict(There.NOT_FOLLOWED), is_blind=True)], backends_for, NOW)
    assert not has_content(db, key)
    assert followed.followed(db, "default")


def test_words_without_end_are_cut(db: apsw.Connection) -> None:
    sent(db)
    find(db, BOUNCED._replace(words=b"x" * 100_000, by=b"y" * 100_000))
    (one,) = followed.followed(db, "default")
    assert (len(one.verdict.words), len(one.verdict.by)) == (900, 900)


# The content.


@pytest.mark.parametrize("verdict", [DELIVERED, LEFT, Verdict(There.NOT_FOLLOWED, words=b"no queue")])
def test_the_content_is_kept_until_nobody_asks_any_more(db: apsw.Connection, verdict: Verdict) -> None:
    key = sent(db)
    find(db, verdict)
    assert has_content(db, key)
    find(db, verdict, is_over=True)
    assert not has_content(db, key)
    assert listing.one(db, key).recipients[0].there == verdict
    assert followed.followed(db, "default") == []


def test_the_content_is_kept_for_the_last_recipient_that_is_followed(db: apsw.Connection) -> None:
    key = sent(db, b"one@example.net", b"two@example.net")
    one, two = followed.followed(db, "default")
    with transaction(db):
        followed.found(db, [Found(one.recipient, DELIVERED, is_over=True)], backends_for, NOW)
    assert has_content(db, key)
    with transaction(db):
        followed.found(db, [Found(two.recipient, DELIVERED, is_over=True)], backends_for, NOW)
    assert not has_content(db, key)


def test_what_waits_here_keeps_its_content_whatever_is_found_there(db: apsw.Connection) -> None:
    key = sent(db, b"one@example.net", b"two@example.net", outcomes=(TAKEN, BUSY))
    find(db, DELIVERED, is_over=True)
    assert has_content(db, key)
    assert [message.queue_name for message in listing.live(db)] == ["deferred"]


def test_a_message_is_over_from_its_end_here_on_and_again_from_the_end_of_its_bounce_there(db: apsw.Connection) -> None:
    def retired() -> list[float | None]:
        return [at for (at,) in db.execute("SELECT retired FROM message ORDER BY id")]

    sent(db)
    sent(db, now=NOW + 1)
    find(db, DELIVERED, DELIVERED, now=NOW + 10)
    assert retired() == [NOW, NOW + 1]
    find(db, BOUNCED, DELIVERED, now=NOW + 20)
    assert retired() == [None, NOW + 1]
    find(db, BOUNCED, DELIVERED, now=NOW + 30, is_over=True)
    assert retired() == [None, NOW + 1]
    with transaction(db):
        actions.act(db, 1, "id", Act.DROP, NOW + 40)
    assert retired() == [NOW + 40, NOW + 1]


DAY = 86_400.0


def purge(db: apsw.Connection, now: float, keep_sent: float = 7 * DAY) -> None:
    with transaction(db):
        while actions.purge(db, now, keep_sent):
            pass


@pytest.mark.parametrize("queued", [DEFERRED, Verdict(There.WAITING, Source.QUEUE)])
def test_a_message_stays_in_the_history_while_it_is_in_the_queue_there(db: apsw.Connection, queued: Verdict) -> None:
    key = sent(db)
    find(db, queued)
    purge(db, NOW + DAY, keep_sent=0.0)
    assert listing.one(db, key).recipients[0].there == queued
    find(db, DELIVERED, now=NOW + DAY)
    purge(db, NOW + 2 * DAY, keep_sent=0.0)
    assert list(listing.everything(db)) == []


def test_the_history_is_kept_no_longer_than_the_person_wants_where_nothing_was_found_there(db: apsw.Connection) -> None:
    sent(db)
    purge(db, NOW + DAY, keep_sent=0.0)
    assert list(listing.everything(db)) == []
    assert followed.followed(db, "default") == []


def test_where_nobody_asks_any_more_the_following_ends_by_itself(db: apsw.Connection) -> None:
    key = sent(db)
    purge(db, NOW + followed.LONGEST - 1)
    assert has_content(db, key)
    purge(db, NOW + followed.LONGEST + 1)
    assert followed.followed(db, "default") == []
    assert listing.one(db, key).recipients[0].there == Verdict(There.NOT_FOLLOWED, words=followed.NOBODY_ASKED)
    assert not has_content(db, key)


def test_what_bounced_there_is_listed_until_it_is_dealt_with_and_its_content_kept_for_a_week(
    db: apsw.Connection,
) -> None:
    key = sent(db)
    find(db, BOUNCED, is_over=True)
    purge(db, NOW + 7 * DAY)
    assert has_content(db, key)
    purge(db, NOW + 7 * DAY + 20)
    assert not has_content(db, key)
    purge(db, NOW + 30 * DAY)
    assert [message.queue_name for message in listing.live(db)] == ["failed"]
    with pytest.raises(NotAllowed, match="no longer kept"):
        replacement.replaceable(db, listing.one(db, key).queue_id, Act.RESEND)
    assert not notices.pending_notices(db, NOW + 30 * DAY)[0].notice.is_kept


# Trying again.


@pytest.mark.parametrize("verdict", [Verdict(There.WAITING), DEFERRED])
def test_a_retry_of_what_waits_there_is_for_the_server_there(db: apsw.Connection, verdict: Verdict) -> None:
    key = sent(db)
    find(db, verdict)
    assert followed.retry_there(db, key) is None
    with transaction(db):
        assert actions.retry(db, key, "id", NOW + 20) is Retried.THERE
    (one,) = followed.followed(db, "default")
    assert one.is_retry_wanted
    assert followed.retry_there(db, key) == RetryThere(is_wanted=True, text="")
    with transaction(db):
        followed.retry_told(db, [key], "the mail server tries it now")
    (one,) = followed.followed(db, "default")
    assert not one.is_retry_wanted
    assert followed.retry_there(db, key) == RetryThere(is_wanted=False, text="the mail server tries it now")
    with transaction(db):
        actions.retry(db, key, "id", NOW + 30)
    assert followed.retry_there(db, key) == RetryThere(is_wanted=True, text="")


def test_a_retry_is_wanted_of_the_relayhost_that_has_the_message_until_its_mail_server_was_told(
    db: apsw.Connection,
) -> None:
    key = sent(db)
    assert not followed.is_retry_wanted(db, "default")
    with transaction(db):
        actions.retry(db, key, "id", NOW + 20)
    assert (followed.is_retry_wanted(db, "default"), followed.is_retry_wanted(db, "other")) == (True, False)
    with transaction(db):
        followed.retry_told(db, [key], "the mail server tries it now")
    assert not followed.is_retry_wanted(db, "default")


async def test_the_daemon_sees_the_wish_of_a_command_and_writes_what_became_of_it(
    db: apsw.Connection, tmp_path: Path
) -> None:
    key = sent(db)
    with transaction(db):
        actions.retry(db, key, "id", NOW + 20)
    spool = Spool(tmp_path / "spool", LIMIT, lambda _relayhost: None)
    try:
        assert [await spool.is_retry_wanted(name) for name in ("default", "other")] == [True, False]
        await spool.retry_told([key], "it has no command for that")
        assert not await spool.is_retry_wanted("default")
    finally:
        spool.close()
    assert followed.retry_there(db, key) == RetryThere(is_wanted=False, text="it has no command for that")


def test_a_retry_of_what_waits_here_makes_it_due(db: apsw.Connection) -> None:
    key = sent(db, b"one@example.net", b"two@example.net", outcomes=(TAKEN, BUSY))
    with transaction(db):
        assert actions.retry(db, key, "id", NOW + 20) is Retried.HERE
    assert attempts.next_due(db, "default") == NOW + 20
    assert [one.is_retry_wanted for one in followed.followed(db, "default")] == [True]


@pytest.mark.parametrize("verdict", [BOUNCED, DELIVERED, LEFT])
def test_what_has_left_the_server_there_cannot_be_tried_again(db: apsw.Connection, verdict: Verdict) -> None:
    key = sent(db)
    find(db, verdict)
    with transaction(db), pytest.raises(NotAllowed):
        actions.retry(db, key, "id", NOW + 20)


# The history.


def test_the_history_says_what_was_found_and_when_the_person_dealt_with_it(db: apsw.Connection) -> None:
    key = sent(db, b"one@example.net", b"two@example.net")
    find(db, DEFERRED, DELIVERED, now=NOW + 2)
    find(db, BOUNCED, DELIVERED, now=NOW + 600)
    old, _ = replacement.replaceable(db, listing.one(db, key).queue_id, Act.RESEND)
    new = letter(at=NOW + 700)
    with transaction(db):
        replacement.replace(db, old, Act.RESEND, new, LIMIT)
    found = [(event.at, event.what, event.address, event.description) for event in listing.events(db, key)]
    assert found[-3:] == [
        (NOW + 2, "delivered there", b"two@example.net", b"250 ok"),
        (NOW + 600, "bounced there", b"one@example.net", b"550 5.1.1 unknown"),
        (NOW + 700, "dealt with", b"one@example.net", b"replaced by %s" % new.queue_id.encode()),
    ]


def test_what_was_found_of_several_recipients_stands_in_their_order(db: apsw.Connection) -> None:
    key = sent(db, b"b@example.net", b"c@example.net", b"d@example.net")
    find(db, DELIVERED, LEFT, DEFERRED)
    found = [event.address for event in listing.events(db, key)]
    assert found[-3:] == [b"b@example.net", b"c@example.net", b"d@example.net"]


def test_where_the_clock_was_put_back_nothing_is_found_before_it_was_sent(db: apsw.Connection) -> None:
    key = sent(db)
    find(db, BOUNCED, now=NOW - 600)
    assert [event.what for event in listing.events(db, key)][-2:] == ["sent", "bounced there"]
