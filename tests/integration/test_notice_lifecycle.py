"""Open notices: delays and setup faults are told once, repeated at growing intervals, and their end is told."""

from harness.messages import BUSY, NOW, TAKEN, ending, letter
from harness.spool_engine import Engine

from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Kind, Notice
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.wording import body, title

AFTER = 900.0
BACKENDS = (Backend.MAILBOX,)
AWAY = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="The network is away.")
NO_KEY = Outcome(Stage.AUTH, cause=Cause.AUTH_REFUSED, text="The key was refused.", fix="Install the key.")
REVOKED = Outcome(Stage.HOST_KEY, cause=Cause.HOST_KEY_REVOKED, text="The host key is revoked.", fix="Ask its owner.")


def accept(engine: Engine, at: float = NOW) -> int:
    return engine.do(engine.spool.accept(letter(at=at)))


def next_update(engine: Engine) -> float | None:
    """When the notifier is to ask again. Asked long before, so that nothing is done now."""
    engine.now = 0.0
    return engine.do(engine.spool.update_delays(AFTER, BACKENDS))


def update(engine: Engine, now: float) -> bool:
    """What the notifier does now and then, at `now`. Whether a notice became pending."""
    engine.now = now
    before = {(one.notice.id, one.notice.repeats) for one in engine.pending()}
    engine.do(engine.spool.update_delays(AFTER, BACKENDS))
    return not before >= {(one.notice.id, one.notice.repeats) for one in engine.pending()}


def hear(engine: Engine, now: float) -> list[Notice]:
    """What the person hears at `now`: every pending notice is delivered."""
    engine.now = now
    pending = engine.pending()
    for one in pending:
        engine.do(engine.spool.notice_delivered(one))
    return [one.notice for one in pending]


def shut(engine: Engine, outcome: Outcome, now: float, *, setup: bool) -> None:
    engine.now = now
    engine.do(engine.spool.relayhost_failed("default", outcome, now + 60, setup, BACKENDS))


def up(engine: Engine, now: float) -> None:
    engine.now = now
    engine.do(engine.spool.relayhost_up("default", BACKENDS))


def send(engine: Engine, now: float) -> None:
    engine.now = now
    for key in engine.take():
        recipients = engine.taken[key].recipient_ids
        assert engine.do(engine.spool.record(ending(key, recipients, {State.SENT: TAKEN}, now=now)))


def defer(engine: Engine, now: float, again: float) -> None:
    engine.now = now
    for key in engine.take():
        end = ending(key, engine.taken[key].recipient_ids, {State.DEFERRED: BUSY}, now=now, next_attempt=again)
        assert engine.do(engine.spool.record(end))


def act(engine: Engine, key: int, what: Act, now: float = NOW) -> None:
    engine.now = now
    with engine.commands.changing() as change:
        change.act(key, change.one(key).queue_id, what)


def test_mail_that_waits_for_the_network_is_told_once_for_all_of_it(engine: Engine) -> None:
    for number in range(3):
        accept(engine, NOW + number)
    shut(engine, AWAY, NOW + 5, setup=False)
    assert not update(engine, NOW + AFTER - 1)
    assert update(engine, NOW + AFTER + 3)
    (notice,) = hear(engine, NOW + AFTER + 3)
    assert (notice.kind, notice.waiting, notice.since, notice.text) == (Kind.DELAYED, 3, NOW, "The network is away.")
    assert title(notice).startswith("3 messages have been waiting since ")
    assert not update(engine, NOW + AFTER + 60)


def test_mail_that_the_remote_asks_to_bring_back_later_is_told_with_its_words(engine: Engine) -> None:
    accept(engine)
    defer(engine, NOW + 1, NOW + 3600)
    assert update(engine, NOW + AFTER + 1)
    (notice,) = hear(engine, NOW + AFTER + 1)
    assert (notice.kind, notice.waiting, notice.text) == (Kind.DELAYED, 1, "451 4.2.1 busy")
    assert title(notice).startswith("1 message has been waiting since ")
    assert "451 4.2.1 busy" in body(notice)


def test_a_message_that_hangs_in_the_middle_of_its_attempt_is_late_too(engine: Engine) -> None:
    accept(engine)
    engine.take()
    at = next_update(engine)
    assert at == NOW + AFTER
    assert update(engine, at)
    assert [notice.waiting for notice in hear(engine, at)] == [1]


def test_a_delay_is_told_again_at_growing_distances_with_the_figures_of_the_day(engine: Engine) -> None:
    accept(engine)
    shut(engine, AWAY, NOW, setup=False)
    update(engine, NOW + AFTER)
    assert [notice.repeats for notice in hear(engine, NOW + AFTER)] == [0]
    accept(engine, NOW + 1000)
    told, now = [], NOW + AFTER
    while now < NOW + 3 * 86_400:
        now += 60
        if update(engine, now):
            told.append(now - NOW - AFTER)
            (notice,) = hear(engine, now)
            assert (notice.waiting, notice.repeats) == (2, len(told))
    assert told == [3600, 5 * 3600, 17 * 3600, 41 * 3600, 65 * 3600]


def test_the_end_of_a_delay_is_told_once_if_the_delay_was(engine: Engine) -> None:
    accept(engine)
    shut(engine, AWAY, NOW, setup=False)
    update(engine, NOW + AFTER)
    hear(engine, NOW + AFTER)
    up(engine, NOW + 2000)
    send(engine, NOW + 2000)
    assert (next_update(engine) or 0.0) <= NOW + 2001, "it is not left until the next reminder"
    assert update(engine, NOW + 2001)
    (notice,) = hear(engine, NOW + 2001)
    assert (notice.kind, title(notice)) == (Kind.RESUMED, "Mail is sent again through default")
    assert not update(engine, NOW + 2002)
    assert next_update(engine) is None


def test_what_nobody_had_heard_of_ends_in_silence(engine: Engine) -> None:
    accept(engine)
    shut(engine, AWAY, NOW, setup=False)
    update(engine, NOW + AFTER)
    up(engine, NOW + AFTER + 1)
    send(engine, NOW + AFTER + 1)
    assert not update(engine, NOW + AFTER + 2)
    assert hear(engine, NOW + AFTER + 2) == []


def test_a_delay_whose_cause_changes_on_the_way_stays_one_notice(engine: Engine) -> None:
    accept(engine)
    shut(engine, AWAY, NOW, setup=False)
    update(engine, NOW + AFTER)
    hear(engine, NOW + AFTER)
    shut(engine, Outcome(Stage.DIAL, cause=Cause.LOST, text="It broke."), NOW + 1000, setup=False)
    assert not update(engine, NOW + 1001)


def test_a_delay_that_goes_over_into_another_is_not_told_as_if_mail_moved_again(engine: Engine) -> None:
    accept(engine)
    defer(engine, NOW + 1, NOW + 3600)
    update(engine, NOW + AFTER)
    hear(engine, NOW + AFTER)
    shut(engine, AWAY, NOW + 3600, setup=False)
    assert update(engine, NOW + 3600)
    assert [(notice.kind, notice.text) for notice in hear(engine, NOW + 3600)] == [
        (Kind.DELAYED, "The network is away.")
    ]
    up(engine, NOW + 3700)
    send(engine, NOW + 3700)
    assert update(engine, NOW + 3701)
    assert [notice.kind for notice in hear(engine, NOW + 3701)] == [Kind.RESUMED]


def test_a_way_that_opens_again_is_no_new_delay_for_what_has_not_left_yet(engine: Engine) -> None:
    accept(engine)
    shut(engine, AWAY, NOW, setup=False)
    update(engine, NOW + AFTER)
    hear(engine, NOW + AFTER)
    up(engine, NOW + 4600)
    assert update(engine, NOW + 4600)
    assert [(notice.kind, notice.repeats, notice.text) for notice in hear(engine, NOW + 4600)] == [
        (Kind.DELAYED, 1, "The mail server has not replied yet.")
    ]


def test_mail_that_waits_for_a_setup_fault_is_told_with_the_fault_and_not_as_a_delay(engine: Engine) -> None:
    accept(engine)
    shut(engine, NO_KEY, NOW, setup=True)
    assert [notice.kind for notice in hear(engine, NOW)] == [Kind.SETUP]
    assert not update(engine, NOW + AFTER + 1)
    assert update(engine, NOW + 3600)
    (reminder,) = hear(engine, NOW + 3600)
    assert (reminder.kind, reminder.waiting, reminder.repeats) == (Kind.SETUP, 1, 1)
    assert title(reminder) == "Mail still cannot be sent through default"
    assert "1 message has been waiting since " in body(reminder)


def test_mail_that_waited_for_a_setup_fault_is_late_only_if_it_goes_on_waiting_when_that_is_fixed(
    engine: Engine,
) -> None:
    accept(engine)
    shut(engine, NO_KEY, NOW, setup=True)
    assert [notice.kind for notice in hear(engine, NOW)] == [Kind.SETUP]
    fixed = NOW + 10 * AFTER
    up(engine, fixed)
    assert [notice.kind for notice in hear(engine, fixed)] == [Kind.RESUMED]
    assert not update(engine, fixed + AFTER - 1)
    assert update(engine, fixed + AFTER)
    (delayed,) = hear(engine, fixed + AFTER)
    assert (delayed.kind, delayed.since) == (Kind.DELAYED, NOW)


def test_240_mails_for_one_cause_are_one_notice(engine: Engine) -> None:
    for _ in range(240):
        accept(engine)
        shut(engine, NO_KEY, NOW, setup=True)
    assert len(hear(engine, NOW)) == 1


def test_a_setup_fault_that_is_fixed_is_told_so_at_once(engine: Engine) -> None:
    accept(engine)
    shut(engine, NO_KEY, NOW, setup=True)
    hear(engine, NOW)
    up(engine, NOW + 100)
    (notice,) = hear(engine, NOW + 100)
    assert (notice.kind, notice.waiting) == (Kind.RESUMED, 1)
    assert "1 message is being sent" in body(notice)


def test_another_setup_fault_takes_the_place_of_the_first_and_is_told_itself(engine: Engine) -> None:
    shut(engine, NO_KEY, NOW, setup=True)
    hear(engine, NOW)
    shut(engine, REVOKED, NOW + 60, setup=True)
    assert [notice.text for notice in hear(engine, NOW + 60)] == ["The host key is revoked."]
    accept(engine, NOW + 60)
    assert update(engine, NOW + 3660)
    assert [notice.text for notice in hear(engine, NOW + 3660)] == ["The host key is revoked."], "the first one is over"
    up(engine, NOW + 3700)
    assert [notice.kind for notice in hear(engine, NOW + 3700)] == [Kind.RESUMED]


def test_mail_that_the_person_holds_is_not_late(engine: Engine) -> None:
    key = accept(engine)
    act(engine, key, Act.HOLD)
    assert next_update(engine) is None
    assert not update(engine, NOW + 10 * AFTER)


def test_an_empty_spool_is_not_looked_at(engine: Engine) -> None:
    assert next_update(engine) is None


def test_setup_faults_that_take_turns_are_told_once_each_and_then_at_growing_distances(engine: Engine) -> None:
    accept(engine)
    told, now = [], NOW
    while now < NOW + 86_400:
        shut(engine, REVOKED if len(told) % 2 else NO_KEY, now, setup=True)
        update(engine, now)
        told.append(len(hear(engine, now)))
        now += 900
    assert told[:2] == [1, 1]
    assert sum(told) <= 2 * 4
    up(engine, now)
    assert [notice.kind for notice in hear(engine, now)] == [Kind.RESUMED]
    shut(engine, NO_KEY, now + 60, setup=True)
    assert [notice.repeats for notice in hear(engine, now + 60)] == [0], "mail has moved since"


def test_a_line_that_comes_and_goes_under_deferred_mail_is_no_notice_each_time(engine: Engine) -> None:
    accept(engine)
    told, now = 0, NOW + AFTER
    for _ in range(20):
        shut(engine, AWAY, now, setup=False)
        update(engine, now)
        told += len(hear(engine, now))
        up(engine, now + 30)
        defer(engine, now + 30, now + 60)
        update(engine, now + 30)
        told += len(hear(engine, now + 30))
        now += 60
    assert told == 2
    up(engine, now)
    send(engine, now)
    update(engine, now)
    assert [notice.kind for notice in hear(engine, now)] == [Kind.RESUMED]


def test_a_setup_fault_for_which_no_mail_waits_is_not_told_again_until_some_does(engine: Engine) -> None:
    key = accept(engine)
    shut(engine, NO_KEY, NOW, setup=True)
    hear(engine, NOW)
    act(engine, key, Act.CANCEL, NOW + 1)
    assert next_update(engine) is None
    assert not update(engine, NOW + 7 * 86_400)
    accept(engine, NOW + 8 * 86_400)
    assert update(engine, NOW + 8 * 86_400)
    assert [notice.repeats for notice in hear(engine, NOW + 8 * 86_400)] == [1]


def test_the_end_is_told_though_the_last_of_several_causes_was_never_heard_of(engine: Engine) -> None:
    accept(engine)
    shut(engine, NO_KEY, NOW, setup=True)
    hear(engine, NOW)
    shut(engine, REVOKED, NOW + 60, setup=True)
    up(engine, NOW + 61)
    assert [notice.kind for notice in hear(engine, NOW + 61)] == [Kind.RESUMED]


def test_that_mail_moves_again_is_not_told_once_it_has_stopped_again(engine: Engine) -> None:
    accept(engine)
    shut(engine, NO_KEY, NOW, setup=True)
    hear(engine, NOW)
    up(engine, NOW + 60)
    shut(engine, NO_KEY, NOW + 120, setup=True)
    assert [notice.kind for notice in hear(engine, NOW + 120)] == [Kind.SETUP]


def test_a_reminder_days_later_names_the_day_since_which_mail_waits(engine: Engine) -> None:
    accept(engine)
    shut(engine, NO_KEY, NOW, setup=True)
    hear(engine, NOW)
    update(engine, NOW + 3 * 86_400)
    (reminder,) = hear(engine, NOW + 3 * 86_400)
    assert "1 message has been waiting since 2023-11-" in body(reminder)
