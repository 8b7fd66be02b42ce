"""One message takes the place of another in a real spool, and who has been reached before is remembered."""

from dataclasses import replace

import apsw
import pytest
from harness.messages import BUSY, LIMIT, NO_SUCH_USER, NOW, TAKEN, ending, letter, new_queue_id

from mailrelay.mail.draft import readdressed
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Outcome, Reply, Stage
from mailrelay.mail.record import Arrival, Owing
from mailrelay.spool import (
    accepting,
    actions,
    attempts,
    correspondents,
    listing,
    notice_lifecycle,
    notices,
    replacement,
)
from mailrelay.spool.database import SpoolFull, transaction

REFUSED_CONTENT = Outcome(Stage.CONTENT, Reply(552, (b"5.3.4 too large",)))


def accept(db: apsw.Connection, *recipients: bytes) -> tuple[int, str]:
    arrival = letter(*recipients)
    with transaction(db):
        return accepting.accept(db, arrival, LIMIT), arrival.queue_id


def attempt(db: apsw.Connection, *ends: tuple[State, Outcome], next_attempt: float | None = None) -> int:
    """Tries the message that is due, with an end for each of its recipients."""
    with transaction(db):
        (message,) = attempts.take(db, "default", (), 1, "test", NOW)
        record = ending(message.id, (), {}, backends=(Backend.DESKTOP,), next_attempt=next_attempt)
        settled = [
            ending(message.id, (key,), {state: outcome}, backends=(Backend.DESKTOP,))
            for key, (state, outcome) in zip(message.recipient_ids, ends, strict=True)
        ]
        attempts.record(
            db,
            replace(
                record,
                settled=tuple(one for end in settled for one in end.settled),
                notices=tuple(one for end in settled for one in end.notices),
            ),
        )
    return message.id


def states(db: apsw.Connection, key: int) -> list[str]:
    return [to.state for to in listing.one(db, key).recipients]


def resend(db: apsw.Connection, queue_id: str, *to: bytes, what: Act = Act.RESEND) -> Arrival:
    with transaction(db):
        old, content = replacement.fixable(db, queue_id, what)
        addresses = to or [recipient.address for recipient in old.envelope.recipients]
        envelope = readdressed(old.envelope, old.envelope.sender, addresses)
        new = Arrival(new_queue_id(), envelope, content, "default", NOW + 1, "a letter")
        replacement.replace(db, old, what, new, LIMIT)
    return new


BOUNCED, SENT, DEFERRED = (State.BOUNCED, NO_SUCH_USER), (State.SENT, TAKEN), (State.DEFERRED, BUSY)


def test_what_failed_goes_again_octet_for_octet_to_those_it_failed_for(db: apsw.Connection) -> None:
    key, queue_id = accept(db, b"bob@example.net", b"eve@example.net", b"joe@example.net")
    attempt(db, BOUNCED, SENT, BOUNCED)
    before = b"".join(listing.content(db, key))
    new = resend(db, queue_id)
    assert states(db, key) == ["cancelled", "sent", "cancelled"]
    with transaction(db):
        (message,) = attempts.take(db, "default", (), 9, "test", NOW + 1)
    assert [to.address for to in message.envelope.recipients] == [b"bob@example.net", b"joe@example.net"]
    assert b"".join(listing.content(db, message.id)) == before == new.content
    assert before.count(b"Received: ") == before.count(b"Message-ID: ") == 1
    assert list(listing.content(db, key)) == []
    assert listing.one(db, key).queue_name == "sent"


def test_what_was_owed_of_the_old_one_is_struck_off_and_what_was_told_stays_in_its_story(db: apsw.Connection) -> None:
    key, queue_id = accept(db, b"bob@example.net", b"eve@example.net")
    attempt(db, BOUNCED, BOUNCED)
    first, _ = notices.owed(db, NOW)
    with transaction(db):
        notices.told(db, first, NOW)
    new = resend(db, queue_id, b"ann@example.net")
    assert notices.owed(db, NOW + 1) == []
    told = [(event.what, event.words) for event in listing.story(db, key)][-3:]
    assert told == [
        ("notice (failed) told by desktop", b""),
        *[("cancelled", b"goes again as %s" % new.queue_id.encode())] * 2,
    ]


def test_a_notice_of_what_still_waits_for_the_person_stays_owed(db: apsw.Connection) -> None:
    key, _ = accept(db, b"bob@example.net", b"eve@example.net")
    attempt(db, BOUNCED, DEFERRED, next_attempt=NOW)
    with transaction(db):
        actions.act(db, key, "", Act.HOLD, NOW)
    assert len(notices.owed(db, NOW)) == 1
    with transaction(db):
        actions.act(db, key, "", Act.RELEASE, NOW)
    assert len(notices.owed(db, NOW)) == 1


@pytest.mark.parametrize("what", [Act.RELEASE, Act.CANCEL])
def test_a_notice_of_held_mail_is_not_owed_once_the_person_has_decided(db: apsw.Connection, what: Act) -> None:
    key, _ = accept(db)
    recipient: int = db.execute("SELECT id FROM recipient").get
    with transaction(db):
        actions.act(db, key, "", Act.HOLD, NOW)
        notice_lifecycle.owe(db, key, Owing(Kind.HELD, (recipient,), (Backend.DESKTOP,)), NOW)
    assert len(notices.owed(db, NOW)) == 1
    with transaction(db):
        actions.act(db, key, "", what, NOW)
    assert notices.owed(db, NOW) == []


def test_recipients_who_wait_go_on_waiting_when_those_who_failed_are_resent(db: apsw.Connection) -> None:
    key, queue_id = accept(db, b"bob@example.net", b"eve@example.net")
    attempt(db, BOUNCED, DEFERRED, next_attempt=NOW + 60)
    resend(db, queue_id)
    assert states(db, key) == ["cancelled", "deferred"]
    assert listing.one(db, key).next_attempt == NOW + 60
    assert list(listing.content(db, key))


def test_a_refused_message_can_be_resent_from_history_for_as_long_as_its_content_is_kept(db: apsw.Connection) -> None:
    (key, queue_id), (late, late_id) = accept(db), accept(db)
    for _ in range(2):
        attempt(db, (State.REFUSED, NO_SUCH_USER))
    resend(db, queue_id, b"ann@example.net")
    assert states(db, key) == ["cancelled"]
    with transaction(db):
        actions.purge(db, NOW + actions.KEEP_REFUSED + 1, 1e9)
    with pytest.raises(actions.NotAllowed, match="no longer kept"):
        replacement.fixable(db, late_id, Act.RESEND)
    assert states(db, late) == ["refused"]


@pytest.mark.parametrize(
    ("what", "end"), [(Act.RESEND, SENT), (Act.RESEND, DEFERRED), (Act.EDIT, SENT)], ids=["sent", "waits", "edit sent"]
)
def test_there_is_nothing_to_fix_where_nothing_failed(
    db: apsw.Connection, what: Act, end: tuple[State, Outcome]
) -> None:
    _, queue_id = accept(db)
    attempt(db, end, next_attempt=NOW + 60)
    with pytest.raises(actions.NotAllowed, match=f"no state to {what}"):
        replacement.fixable(db, queue_id, what)


def test_it_cannot_be_fixed_twice(db: apsw.Connection) -> None:
    _, queue_id = accept(db)
    attempt(db, BOUNCED)
    resend(db, queue_id)
    with pytest.raises(actions.NotAllowed, match="no state to resend"):
        resend(db, queue_id)


@pytest.mark.parametrize("meanwhile", ["active", "sent", "partly sent"])
def test_what_became_of_a_message_while_it_was_edited_is_not_undone(db: apsw.Connection, meanwhile: str) -> None:
    key, queue_id = accept(db, b"bob@example.net", b"eve@example.net")
    with transaction(db):
        old, content = replacement.fixable(db, queue_id, Act.EDIT)
    if meanwhile == "active":
        with transaction(db):
            attempts.take(db, "default", (), 1, "test", NOW)
    else:
        attempt(db, SENT, SENT if meanwhile == "sent" else DEFERRED, next_attempt=NOW + 60)
    before = states(db, key)
    new = Arrival(new_queue_id(), old.envelope, content, "default", NOW, "")
    with pytest.raises(actions.NotAllowed), transaction(db):
        replacement.replace(db, old, Act.EDIT, new, LIMIT)
    assert states(db, key) == before
    assert len(list(listing.everything(db))) == 1


def test_waiting_mail_that_was_edited_is_not_due_any_more(db: apsw.Connection) -> None:
    key, queue_id = accept(db)
    resend(db, queue_id, what=Act.EDIT)
    with transaction(db):
        assert [message.id for message in attempts.take(db, "default", (), 9, "test", NOW + 1)] != [key]
    assert states(db, key) == ["cancelled"]


def test_where_the_new_message_does_not_fit_the_old_one_is_left_alone(db: apsw.Connection) -> None:
    key, queue_id = accept(db)
    attempt(db, BOUNCED)
    with transaction(db):
        old, content = replacement.fixable(db, queue_id, Act.RESEND)
    new = Arrival(new_queue_id(), old.envelope, content, "default", NOW, "")
    with pytest.raises(SpoolFull), transaction(db):
        replacement.replace(db, old, Act.RESEND, new, 1)
    assert states(db, key) == ["bounced"]
    assert len(notices.owed(db, NOW)) == 1


# Who has been reached before.


def test_who_was_reached_is_likely_and_who_was_only_tried_is_not(db: apsw.Connection) -> None:
    accept(db, b"ann@Example.NET", b"eve@example.net")
    attempt(db, SENT, BOUNCED)
    assert correspondents.likely(db, b"ann@exmaple.net", Stage.RCPT) == b"ann@example.net"
    assert correspondents.likely(db, b"eve@exmaple.net", Stage.RCPT) == b""


def test_a_notice_names_who_was_likely_meant(db: apsw.Connection) -> None:
    accept(db, b"ann@example.net")
    attempt(db, SENT)
    accept(db, b"ann@exmaple.net", b"joe@example.com")
    attempt(db, BOUNCED, BOUNCED)
    likely = [one.likely for owed in notices.owed(db, NOW) for one in owed.notice.concerned]
    assert likely == [b"ann@example.net", b""]


def test_nobody_is_likely_where_the_address_was_not_what_was_refused(db: apsw.Connection) -> None:
    accept(db, b"ann@example.net")
    attempt(db, SENT)
    accept(db, b"ann@exmaple.net")
    attempt(db, (State.BOUNCED, REFUSED_CONTENT))
    (owed,) = notices.owed(db, NOW)
    assert owed.notice.concerned[0].likely == b""


def test_who_has_been_reached_is_no_slip_whoever_else_there_is(db: apsw.Connection) -> None:
    with transaction(db):
        for address in (b"ann@example.net", b"anne@example.net"):
            correspondents.reached(db, address, NOW)
    assert correspondents.likely(db, b"ann@EXAMPLE.net", Stage.RCPT) == b""


def test_of_two_that_are_as_near_the_one_reached_more_often_is_likely(db: apsw.Connection) -> None:
    with transaction(db):
        for address in (b"anna@example.net", b"anne@example.net", b"anne@example.net"):
            correspondents.reached(db, address, NOW)
    assert correspondents.likely(db, b"annx@example.net", Stage.RCPT) == b"anne@example.net"


def test_only_the_last_ones_are_remembered(db: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correspondents, "KEPT", 3)
    with transaction(db):
        for number in range(6):
            correspondents.reached(db, b"%d@example.net" % number, NOW + number)
        correspondents.reached(db, b"0@example.net", NOW + 10)
        actions.purge(db, NOW, 0.0)
    kept = {address for (address,) in db.execute("SELECT address FROM correspondent")}
    assert kept == {b"0@example.net", b"4@example.net", b"5@example.net"}
