"""What stands until it is over: delays and setup faults, told once, told again at growing distances, and their end."""

import apsw
from harness.messages import BUSY, LIMIT, NOW, TAKEN, ending, letter

from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Kind, Notice
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.wording import body, title
from mailrelay.spool import accepting, actions, attempts, notice_lifecycle, notices
from mailrelay.spool.database import transaction

AFTER = 900.0
ROADS = (Backend.MAILBOX,)
AWAY = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="The network is away.")
NO_KEY = Outcome(Stage.AUTH, cause=Cause.AUTH_REFUSED, text="The key was refused.", fix="Install the key.")
REVOKED = Outcome(Stage.HOST_KEY, cause=Cause.HOST_KEY_REVOKED, text="The host key is revoked.", fix="Ask its owner.")


def accept(db: apsw.Connection, at: float = NOW) -> int:
    with transaction(db):
        return accepting.accept(db, letter(at=at), LIMIT)


def look(db: apsw.Connection, now: float) -> bool:
    with transaction(db):
        return notice_lifecycle.look(db, now, AFTER, ROADS)


def hear(db: apsw.Connection, now: float) -> list[Notice]:
    """What the person hears at `now`: everything owed is told."""
    owed = notices.owed(db, now)
    with transaction(db):
        for one in owed:
            notices.told(db, one, now)
    return [one.notice for one in owed]


def shut(db: apsw.Connection, outcome: Outcome, now: float, *, setup: bool) -> None:
    with transaction(db):
        attempts.relayhost_failed(db, "default", outcome, now + 60, setup, ROADS, now)


def up(db: apsw.Connection, now: float) -> None:
    with transaction(db):
        attempts.relayhost_up(db, "default", ROADS, now)


def send(db: apsw.Connection, now: float) -> None:
    with transaction(db):
        taken = attempts.take(db, "default", (), 100, "test", now)
        for message in taken:
            attempts.record(db, ending(message.id, message.recipient_ids, {State.SENT: TAKEN}, now=now))


def defer(db: apsw.Connection, now: float, again: float) -> None:
    with transaction(db):
        for message in attempts.take(db, "default", (), 100, "test", now):
            end = ending(message.id, message.recipient_ids, {State.DEFERRED: BUSY}, now=now, next_attempt=again)
            attempts.record(db, end)


def test_mail_that_waits_for_the_network_is_told_once_for_all_of_it(db: apsw.Connection) -> None:
    for number in range(3):
        accept(db, NOW + number)
    shut(db, AWAY, NOW + 5, setup=False)
    assert not look(db, NOW + AFTER - 1)
    assert look(db, NOW + AFTER + 3)
    (notice,) = hear(db, NOW + AFTER + 3)
    assert (notice.kind, notice.waiting, notice.since, notice.text) == (Kind.DELAYED, 3, NOW, "The network is away.")
    assert title(notice).startswith("3 mails wait since ")
    assert not look(db, NOW + AFTER + 60)


def test_mail_that_the_remote_asks_to_bring_back_later_is_told_with_its_words(db: apsw.Connection) -> None:
    accept(db)
    defer(db, NOW + 1, NOW + 3600)
    assert look(db, NOW + AFTER + 1)
    (notice,) = hear(db, NOW + AFTER + 1)
    assert (notice.kind, notice.waiting, notice.text) == (Kind.DELAYED, 1, "451 4.2.1 busy")
    assert title(notice).startswith("1 mail waits since ")
    assert "451 4.2.1 busy" in body(notice)


def test_a_message_that_hangs_in_the_middle_of_its_attempt_is_late_too(db: apsw.Connection) -> None:
    accept(db)
    with transaction(db):
        attempts.take(db, "default", (), 1, "test", NOW)
    at = notice_lifecycle.next_look(db, AFTER)
    assert at == NOW + AFTER
    assert look(db, at)
    assert [notice.waiting for notice in hear(db, at)] == [1]


def test_a_delay_is_told_again_at_growing_distances_with_the_figures_of_the_day(db: apsw.Connection) -> None:
    accept(db)
    shut(db, AWAY, NOW, setup=False)
    look(db, NOW + AFTER)
    assert [notice.repeats for notice in hear(db, NOW + AFTER)] == [0]
    accept(db, NOW + 1000)
    told, now = [], NOW + AFTER
    while now < NOW + 3 * 86_400:
        now += 60
        if look(db, now):
            told.append(now - NOW - AFTER)
            (notice,) = hear(db, now)
            assert (notice.waiting, notice.repeats) == (2, len(told))
    assert told == [3600, 5 * 3600, 17 * 3600, 41 * 3600, 65 * 3600]


def test_the_end_of_a_delay_is_told_once_if_the_delay_was(db: apsw.Connection) -> None:
    accept(db)
    shut(db, AWAY, NOW, setup=False)
    look(db, NOW + AFTER)
    hear(db, NOW + AFTER)
    up(db, NOW + 2000)
    send(db, NOW + 2000)
    assert (notice_lifecycle.next_look(db, AFTER) or 0.0) <= NOW + 2001, "it is not left until the next reminder"
    assert look(db, NOW + 2001)
    (notice,) = hear(db, NOW + 2001)
    assert (notice.kind, title(notice)) == (Kind.RESUMED, "Mail leaves again through default")
    assert not look(db, NOW + 2002)
    assert notice_lifecycle.next_look(db, AFTER) is None


def test_what_nobody_had_heard_of_ends_in_silence(db: apsw.Connection) -> None:
    accept(db)
    shut(db, AWAY, NOW, setup=False)
    look(db, NOW + AFTER)
    up(db, NOW + AFTER + 1)
    send(db, NOW + AFTER + 1)
    assert not look(db, NOW + AFTER + 2)
    assert hear(db, NOW + AFTER + 2) == []


def test_a_delay_whose_cause_changes_on_the_way_stays_one_notice(db: apsw.Connection) -> None:
    accept(db)
    shut(db, AWAY, NOW, setup=False)
    look(db, NOW + AFTER)
    hear(db, NOW + AFTER)
    shut(db, Outcome(Stage.DIAL, cause=Cause.LOST, text="It broke."), NOW + 1000, setup=False)
    assert not look(db, NOW + 1001)


def test_a_delay_that_goes_over_into_another_is_not_told_as_if_mail_moved_again(db: apsw.Connection) -> None:
    accept(db)
    defer(db, NOW + 1, NOW + 3600)
    look(db, NOW + AFTER)
    hear(db, NOW + AFTER)
    shut(db, AWAY, NOW + 3600, setup=False)
    assert look(db, NOW + 3600)
    assert [(notice.kind, notice.text) for notice in hear(db, NOW + 3600)] == [(Kind.DELAYED, "The network is away.")]
    up(db, NOW + 3700)
    send(db, NOW + 3700)
    assert look(db, NOW + 3701)
    assert [notice.kind for notice in hear(db, NOW + 3701)] == [Kind.RESUMED]


def test_a_way_that_opens_again_is_no_new_delay_for_what_has_not_left_yet(db: apsw.Connection) -> None:
    accept(db)
    shut(db, AWAY, NOW, setup=False)
    look(db, NOW + AFTER)
    hear(db, NOW + AFTER)
    up(db, NOW + 4600)
    assert look(db, NOW + 4600)
    assert [(notice.kind, notice.repeats, notice.text) for notice in hear(db, NOW + 4600)] == [
        (Kind.DELAYED, 1, "The server has not answered yet.")
    ]


def test_mail_that_waits_for_a_setup_fault_is_told_with_the_fault_and_not_as_a_delay(db: apsw.Connection) -> None:
    accept(db)
    shut(db, NO_KEY, NOW, setup=True)
    assert [notice.kind for notice in hear(db, NOW)] == [Kind.SETUP]
    assert not look(db, NOW + AFTER + 1)
    assert look(db, NOW + 3600)
    (reminder,) = hear(db, NOW + 3600)
    assert (reminder.kind, reminder.waiting, reminder.repeats) == (Kind.SETUP, 1, 1)
    assert title(reminder) == "Mail still cannot leave through default"
    assert "1 mail waits since " in body(reminder)


def test_mail_that_waited_for_a_setup_fault_is_late_only_if_it_goes_on_waiting_when_that_is_fixed(
    db: apsw.Connection,
) -> None:
    accept(db)
    shut(db, NO_KEY, NOW, setup=True)
    assert [notice.kind for notice in hear(db, NOW)] == [Kind.SETUP]
    fixed = NOW + 10 * AFTER
    up(db, fixed)
    assert [notice.kind for notice in hear(db, fixed)] == [Kind.RESUMED]
    assert not look(db, fixed + AFTER - 1)
    assert look(db, fixed + AFTER)
    (delayed,) = hear(db, fixed + AFTER)
    assert (delayed.kind, delayed.since) == (Kind.DELAYED, NOW)


def test_240_mails_for_one_cause_are_one_notice(db: apsw.Connection) -> None:
    for _ in range(240):
        accept(db)
        shut(db, NO_KEY, NOW, setup=True)
    assert len(hear(db, NOW)) == 1


def test_a_setup_fault_that_is_fixed_is_told_so_at_once(db: apsw.Connection) -> None:
    accept(db)
    shut(db, NO_KEY, NOW, setup=True)
    hear(db, NOW)
    up(db, NOW + 100)
    (notice,) = hear(db, NOW + 100)
    assert (notice.kind, notice.waiting) == (Kind.RESUMED, 1)
    assert "1 mail on the way now" in body(notice)


def test_another_setup_fault_takes_the_place_of_the_first_and_is_told_itself(db: apsw.Connection) -> None:
    shut(db, NO_KEY, NOW, setup=True)
    hear(db, NOW)
    shut(db, REVOKED, NOW + 60, setup=True)
    assert [notice.text for notice in hear(db, NOW + 60)] == ["The host key is revoked."]
    assert notice_lifecycle.causes(db, "default", Kind.SETUP) == ["host-key-revoked"]
    up(db, NOW + 120)
    assert [notice.kind for notice in hear(db, NOW + 120)] == [Kind.RESUMED]


def test_mail_that_the_person_holds_is_not_late(db: apsw.Connection) -> None:
    key = accept(db)
    queue_id = db.execute("SELECT queue_id FROM message").get
    assert isinstance(queue_id, str)
    with transaction(db):
        actions.act(db, key, queue_id, Act.HOLD, NOW)
    assert notice_lifecycle.next_look(db, AFTER) is None
    assert not look(db, NOW + 10 * AFTER)


def test_an_empty_spool_is_not_looked_at(db: apsw.Connection) -> None:
    assert notice_lifecycle.next_look(db, AFTER) is None


def test_asking_when_to_look_reads_no_queue(db: apsw.Connection) -> None:
    accept(db)
    plan = " ".join(
        line[3]
        for line in db.execute("EXPLAIN QUERY PLAN SELECT min(arrival) FROM message WHERE next_attempt IS NOT NULL")
    )
    assert "message_waiting" in plan


def test_setup_faults_that_take_turns_are_told_once_each_and_then_at_growing_distances(db: apsw.Connection) -> None:
    accept(db)
    told, now = [], NOW
    while now < NOW + 86_400:
        shut(db, REVOKED if len(told) % 2 else NO_KEY, now, setup=True)
        look(db, now)
        told.append(len(hear(db, now)))
        now += 900
    assert told[:2] == [1, 1]
    assert sum(told) <= 2 * 4
    up(db, now)
    assert [notice.kind for notice in hear(db, now)] == [Kind.RESUMED]
    shut(db, NO_KEY, now + 60, setup=True)
    assert [notice.repeats for notice in hear(db, now + 60)] == [0], "mail has moved since"


def test_a_line_that_comes_and_goes_under_deferred_mail_is_no_notice_each_time(db: apsw.Connection) -> None:
    accept(db)
    told, now = 0, NOW + AFTER
    for _ in range(20):
        shut(db, AWAY, now, setup=False)
        look(db, now)
        told += len(hear(db, now))
        up(db, now + 30)
        defer(db, now + 30, now + 60)
        look(db, now + 30)
        told += len(hear(db, now + 30))
        now += 60
    assert told == 2
    up(db, now)
    send(db, now)
    look(db, now)
    assert [notice.kind for notice in hear(db, now)] == [Kind.RESUMED]


def test_a_setup_fault_for_which_no_mail_waits_is_not_told_again_until_some_does(db: apsw.Connection) -> None:
    key = accept(db)
    shut(db, NO_KEY, NOW, setup=True)
    hear(db, NOW)
    queue_id = db.execute("SELECT queue_id FROM message").get
    assert isinstance(queue_id, str)
    with transaction(db):
        actions.act(db, key, queue_id, Act.CANCEL, NOW + 1)
    assert notice_lifecycle.next_look(db, AFTER) is None
    assert not look(db, NOW + 7 * 86_400)
    accept(db, NOW + 8 * 86_400)
    assert look(db, NOW + 8 * 86_400)
    assert [notice.repeats for notice in hear(db, NOW + 8 * 86_400)] == [1]


def test_the_end_is_told_though_the_last_of_several_causes_was_never_heard_of(db: apsw.Connection) -> None:
    accept(db)
    shut(db, NO_KEY, NOW, setup=True)
    hear(db, NOW)
    shut(db, REVOKED, NOW + 60, setup=True)
    up(db, NOW + 61)
    assert [notice.kind for notice in hear(db, NOW + 61)] == [Kind.RESUMED]


def test_that_mail_moves_again_is_not_told_once_it_has_stopped_again(db: apsw.Connection) -> None:
    accept(db)
    shut(db, NO_KEY, NOW, setup=True)
    hear(db, NOW)
    up(db, NOW + 60)
    shut(db, NO_KEY, NOW + 120, setup=True)
    assert [notice.kind for notice in hear(db, NOW + 120)] == [Kind.SETUP]


def test_a_reminder_days_later_names_the_day_since_which_mail_waits(db: apsw.Connection) -> None:
    accept(db)
    shut(db, NO_KEY, NOW, setup=True)
    hear(db, NOW)
    look(db, NOW + 3 * 86_400)
    (reminder,) = hear(db, NOW + 3 * 86_400)
    assert "1 mail waits since 2023-11-" in body(reminder)
