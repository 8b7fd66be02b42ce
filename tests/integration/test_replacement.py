"""One message takes the place of another, and addresses that were reached before are remembered."""

from dataclasses import replace

import pytest
from harness.messages import BUSY, NO_SUCH_USER, NOW, TAKEN, ending, letter
from harness.spool_engine import Engine

from mailrelay.mail.draft import readdressed
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.record import NewNotice
from mailrelay.mail.spool_errors import NotAllowed, SpoolFull
from mailrelay.spool.actions import KEEP_REFUSED
from mailrelay.spool.database import connect

REFUSED_CONTENT = Outcome(Stage.CONTENT, Reply(552, (b"5.3.4 too large",)))
UNREADABLE = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="it cannot be read")


def accept(engine: Engine, *recipients: bytes) -> tuple[int, str]:
    arrival = letter(*recipients)
    return engine.do(engine.spool.accept(arrival)), arrival.queue_id


def attempt(engine: Engine, *ends: tuple[State, Outcome], next_attempt: float | None = None) -> int:
    """Tries the message that is due, with an end for each of its recipients."""
    (key,) = engine.take(limit=1)
    record = ending(key, (), {}, next_attempt=next_attempt)
    settled = [
        ending(key, (recipient,), {state: outcome}, backends=(Backend.DESKTOP,))
        for recipient, (state, outcome) in zip(engine.taken[key].recipient_ids, ends, strict=True)
    ]
    record = replace(
        record,
        settled=tuple(one for end in settled for one in end.settled),
        notices=tuple(one for end in settled for one in end.notices),
    )
    assert engine.do(engine.spool.record(record))
    return key


def act(engine: Engine, key: int, what: Act) -> None:
    with engine.commands.changing() as change:
        change.act(key, change.one(key).queue_id, what)


def resend(engine: Engine, queue_id: str, *to: bytes, what: Act = Act.RESEND) -> str:
    """The queue id of the new message."""
    engine.now = NOW + 1
    with engine.commands.changing() as change:
        old, content = change.replaceable(queue_id, what)
        addresses = to or [recipient.address for recipient in old.envelope.recipients]
        envelope = readdressed(old.envelope, old.envelope.sender, addresses)
        return change.replace(old, what, envelope, content, "default")


def suggestion(engine: Engine, address: bytes) -> bytes:
    with engine.commands.reading() as view:
        return view.suggestion(address, Stage.RCPT)


BOUNCED, SENT, DEFERRED = (State.BOUNCED, NO_SUCH_USER), (State.SENT, TAKEN), (State.DEFERRED, BUSY)


def test_what_failed_goes_again_octet_for_octet_to_those_it_failed_for(engine: Engine) -> None:
    key, queue_id = accept(engine, b"bob@example.net", b"eve@example.net", b"joe@example.net")
    attempt(engine, BOUNCED, SENT, BOUNCED)
    before = engine.content(key)
    resend(engine, queue_id)
    assert engine.states(key) == ["cancelled", "sent", "cancelled"]
    (new,) = engine.take()
    assert [to.address for to in engine.taken[new].envelope.recipients] == [b"bob@example.net", b"joe@example.net"]
    assert engine.content(new) == before
    assert before.count(b"Received: ") == before.count(b"Message-ID: ") == 1
    assert engine.content(key) == b""
    assert engine.one(key).queue_name == "sent"


def test_what_was_owed_of_the_old_one_is_struck_off_and_what_was_told_stays_in_its_story(engine: Engine) -> None:
    key, queue_id = accept(engine, b"bob@example.net", b"eve@example.net")
    attempt(engine, BOUNCED, BOUNCED)
    first, _ = engine.pending()
    engine.do(engine.spool.notice_delivered(first))
    new = resend(engine, queue_id, b"ann@example.net")
    assert engine.pending() == []
    with engine.commands.reading() as view:
        told = [(event.what, event.description) for event in view.events(key)][-3:]
    assert told == [
        ("notice (failed) delivered by desktop", b""),
        *[("cancelled", b"replaced by %s" % new.encode())] * 2,
    ]


def test_a_notice_of_what_still_waits_for_the_person_stays_owed(engine: Engine) -> None:
    key, _ = accept(engine, b"bob@example.net", b"eve@example.net")
    attempt(engine, BOUNCED, DEFERRED, next_attempt=NOW)
    act(engine, key, Act.HOLD)
    assert len(engine.pending()) == 1
    act(engine, key, Act.RELEASE)
    assert len(engine.pending()) == 1


@pytest.mark.parametrize("what", [Act.RELEASE, Act.CANCEL])
def test_a_notice_of_held_mail_is_not_owed_once_the_person_has_decided(engine: Engine, what: Act) -> None:
    key, _ = accept(engine)
    engine.take()
    recipients = engine.taken[key].recipient_ids
    record = ending(key, recipients, {State.HELD: UNREADABLE})
    held = NewNotice(Kind.HELD, recipients, (Backend.DESKTOP,))
    assert engine.do(engine.spool.record(replace(record, notices=(held,))))
    assert engine.status().stranded == 1
    assert len(engine.pending()) == 1
    act(engine, key, what)
    assert engine.pending() == []


def test_recipients_who_wait_go_on_waiting_when_those_who_failed_are_resent(engine: Engine) -> None:
    key, queue_id = accept(engine, b"bob@example.net", b"eve@example.net")
    attempt(engine, BOUNCED, DEFERRED, next_attempt=NOW + 60)
    resend(engine, queue_id)
    assert engine.states(key) == ["cancelled", "deferred"]
    assert engine.one(key).next_attempt == NOW + 60
    assert engine.content(key)


def test_a_refused_message_can_be_resent_from_history_for_as_long_as_its_content_is_kept(engine: Engine) -> None:
    (key, queue_id), (late, late_id) = accept(engine), accept(engine)
    for _ in range(2):
        attempt(engine, (State.REFUSED, NO_SUCH_USER))
    resend(engine, queue_id, b"ann@example.net")
    assert engine.states(key) == ["cancelled"]
    engine.now = NOW + KEEP_REFUSED + 1
    engine.do(engine.spool.purge(1e9))
    with pytest.raises(NotAllowed, match="no longer kept"):
        resend(engine, late_id)
    assert engine.states(late) == ["refused"]


@pytest.mark.parametrize(
    ("what", "end"), [(Act.RESEND, SENT), (Act.RESEND, DEFERRED), (Act.EDIT, SENT)], ids=["sent", "waits", "edit sent"]
)
def test_there_is_nothing_to_fix_where_nothing_failed(engine: Engine, what: Act, end: tuple[State, Outcome]) -> None:
    _, queue_id = accept(engine)
    attempt(engine, end, next_attempt=NOW + 60)
    with engine.commands.changing() as change, pytest.raises(NotAllowed, match=f"does not allow {what}"):
        change.replaceable(queue_id, what)


def test_it_cannot_be_fixed_twice(engine: Engine) -> None:
    _, queue_id = accept(engine)
    attempt(engine, BOUNCED)
    resend(engine, queue_id)
    with pytest.raises(NotAllowed, match="was replaced by"):
        resend(engine, queue_id)


@pytest.mark.parametrize("meanwhile", ["active", "sent", "partly sent"])
def test_what_became_of_a_message_while_it_was_edited_is_not_undone(engine: Engine, meanwhile: str) -> None:
    key, queue_id = accept(engine, b"bob@example.net", b"eve@example.net")
    with engine.commands.changing() as change:
        old, content = change.replaceable(queue_id, Act.EDIT)
    if meanwhile == "active":
        engine.take()
    else:
        attempt(engine, SENT, SENT if meanwhile == "sent" else DEFERRED, next_attempt=NOW + 60)
    before = engine.states(key)
    with pytest.raises(NotAllowed), engine.commands.changing() as change:
        change.replace(old, Act.EDIT, old.envelope, content, "default")
    assert engine.states(key) == before
    assert len(engine.everything()) == 1


def test_waiting_mail_that_was_edited_is_not_due_any_more(engine: Engine) -> None:
    key, queue_id = accept(engine)
    resend(engine, queue_id, what=Act.EDIT)
    (new,) = engine.take(key)
    assert new != key
    assert engine.states(key) == ["cancelled"]


def test_where_the_new_message_does_not_fit_the_old_one_is_left_alone(engine: Engine) -> None:
    key, queue_id = accept(engine)
    attempt(engine, BOUNCED)
    engine.restart(max_size=1)
    with pytest.raises(SpoolFull):
        resend(engine, queue_id)
    assert engine.states(key) == ["bounced"]
    assert len(engine.pending()) == 1
    assert len(engine.everything()) == 1


# Addresses that were reached before.


def test_who_was_reached_is_likely_and_who_was_only_tried_is_not(engine: Engine) -> None:
    accept(engine, b"ann@Example.NET", b"eve@example.net")
    attempt(engine, SENT, BOUNCED)
    assert suggestion(engine, b"ann@exmaple.net") == b"ann@example.net"
    assert suggestion(engine, b"eve@exmaple.net") == b""


def test_a_notice_names_who_was_likely_meant(engine: Engine) -> None:
    accept(engine, b"ann@example.net")
    attempt(engine, SENT)
    accept(engine, b"ann@exmaple.net", b"joe@example.com")
    attempt(engine, BOUNCED, BOUNCED)
    likely = [one.likely for pending in engine.pending() for one in pending.notice.concerned]
    assert likely == [b"ann@example.net", b""]


@pytest.mark.parametrize(("owner", "known"), [(None, b"ann@example.net"), (0, b"ann@example.net"), (1000, b"")])
def test_a_report_to_an_account_names_nobody_to_whom_others_write(
    engine: Engine, owner: int | None, known: bytes
) -> None:
    accept(engine, b"ann@example.net")
    attempt(engine, SENT)
    key, _ = accept(engine, b"ann@exmaple.net")
    db = connect(engine.directory)
    db.execute("UPDATE message SET owner = ? WHERE id = ?", (owner, key))
    db.close()
    attempt(engine, BOUNCED)
    assert [one.likely for pending in engine.pending() for one in pending.notice.concerned] == [known]


def test_nobody_is_likely_where_the_address_was_not_what_was_refused(engine: Engine) -> None:
    accept(engine, b"ann@example.net")
    attempt(engine, SENT)
    accept(engine, b"ann@exmaple.net")
    attempt(engine, (State.BOUNCED, REFUSED_CONTENT))
    (pending,) = engine.pending()
    assert pending.notice.concerned[0].likely == b""


def test_who_has_been_reached_is_no_slip_whoever_else_there_is(engine: Engine) -> None:
    accept(engine, b"ann@example.net", b"anne@example.net")
    attempt(engine, SENT, SENT)
    assert suggestion(engine, b"ann@EXAMPLE.net") == b""


def test_of_two_that_are_as_near_the_one_reached_more_often_is_likely(engine: Engine) -> None:
    for address in (b"anna@example.net", b"anne@example.net", b"anne@example.net"):
        accept(engine, address)
        attempt(engine, SENT)
    assert suggestion(engine, b"annx@example.net") == b"anne@example.net"
