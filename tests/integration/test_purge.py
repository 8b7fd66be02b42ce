"""The deletion of old history: what goes, from which moment on, in which order, and how much at once."""

import apsw
import pytest
from harness.messages import LIMIT, NOW, letter

from mailrelay.spool import accepting, actions
from mailrelay.spool.actions import KEEP_REFUSED, purge
from mailrelay.spool.database import row, rows, transaction

KEEP_SENT = 1000.0
OLD = NOW - KEEP_REFUSED


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "PURGE_BATCH", 1)


def message(db: apsw.Connection, *states: str, retired: float | None = None) -> int:
    """A message that waits for nothing any more, whose content is kept; with a recipient in each of these states."""
    with transaction(db):
        key = accepting.accept(db, letter(*(b"%d@example.net" % number for number in range(len(states)))), LIMIT)
        db.execute("UPDATE message SET next_attempt = NULL, retired = ? WHERE id = ?", (retired, key))
        for recipient, state in zip(recipients(db, key), states, strict=True):
            db.execute(
                "UPDATE recipient SET state = ?, remote = 1, stage = 'content', description = x'78' WHERE id = ?",
                (state, recipient),
            )
    return key


def recipients(db: apsw.Connection, key: int) -> list[int]:
    return [one for (one,) in rows(db, "SELECT id FROM recipient WHERE message = ? ORDER BY id", (key,))]


def follow(db: apsw.Connection, recipient: int, **columns: object) -> None:
    """A recipient is followed, with these values in its row."""
    values = {"recipient": recipient, "relayhost": "default", "accepted": NOW, "changed": OLD - 1} | columns
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO followed ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def with_content(db: apsw.Connection) -> list[int]:
    return [key for (key,) in rows(db, "SELECT DISTINCT message FROM content ORDER BY message")]


def messages(db: apsw.Connection) -> list[int]:
    return [key for (key,) in rows(db, "SELECT id FROM message ORDER BY id")]


def test_the_content_of_a_refused_message_is_kept_for_its_time_and_no_longer(db: apsw.Connection) -> None:
    waiting, kept = message(db, "refused"), message(db, "refused", retired=OLD)
    message(db, "refused", retired=OLD - 1)
    assert purge(db, NOW, 10 * KEEP_REFUSED) == 0
    assert with_content(db) == [waiting, kept]
    assert len(messages(db)) == 3


@pytest.mark.usefixtures("one_at_a_time")
def test_the_content_of_the_message_that_was_refused_first_goes_first(db: apsw.Connection) -> None:
    keys = [message(db, "refused", retired=OLD - age) for age in (1, 3, 2)]
    left = []
    for _ in keys:
        purge(db, NOW, 10 * KEEP_REFUSED)
        left.append(with_content(db))
    assert left == [[keys[0], keys[2]], [keys[0]], []]


@pytest.mark.parametrize(
    ("last", "other", "is_followed", "goes"),
    [
        # The moment.
        (OLD - 1, "cancelled", None, True),
        (OLD, "cancelled", None, False),
        # The other recipient, which nothing else keeps.
        (OLD - 1, "sent", None, True),
        (OLD - 1, "refused", None, True),
        (OLD - 1, "sent", False, True),
        # What else keeps it.
        (OLD - 1, "sent", True, False),
        (OLD - 1, "queued", None, False),
        (OLD - 1, "deferred", None, False),
        (OLD - 1, "held", None, False),
        (OLD - 1, "bounced", None, False),
        (OLD - 1, "expired", None, False),
    ],
)
def test_content_of_what_bounced_there_goes_a_week_after_the_last_bounce_if_nothing_else_keeps_it(
    db: apsw.Connection, last: float, other: str, is_followed: bool | None, goes: bool
) -> None:
    """last: when the latest of two bounces was found. is_followed: whether the other recipient still is; None if it never
    was."""
    beside, key = message(db, "queued"), message(db, "sent", "sent", other)
    first, second, third = recipients(db, key)
    follow(db, first, state="bounced", changed=last)
    follow(db, second, state="bounced", changed=OLD - 100, over=NOW)
    if is_followed is not None:
        follow(db, third, state="delivered", over=None if is_followed else NOW)
    # The first is followed no more, either.
    db.execute("UPDATE followed SET over = ? WHERE recipient = ?", (NOW, first))
    purge(db, NOW, KEEP_SENT)
    assert with_content(db) == ([beside] if goes else [beside, key])
    assert messages(db) == [beside, key]


def test_content_is_kept_while_a_bounce_there_can_still_change(db: apsw.Connection) -> None:
    key = message(db, "sent")
    follow(db, *recipients(db, key), state="bounced")
    purge(db, NOW, KEEP_SENT)
    assert with_content(db) == [key]


def test_history_is_kept_for_as_long_as_the_person_wants_and_no_longer(db: apsw.Connection) -> None:
    live, kept = message(db, "bounced"), message(db, "sent", retired=NOW - KEEP_SENT)
    for _ in range(2):
        message(db, "sent", retired=NOW - KEEP_SENT - 1)
    assert purge(db, NOW, KEEP_SENT) == 2
    assert messages(db) == with_content(db) == [live, kept]
    assert purge(db, NOW, KEEP_SENT) == 0


@pytest.mark.usefixtures("one_at_a_time")
def test_the_oldest_history_goes_first_and_a_batch_at_once(db: apsw.Connection) -> None:
    keys = [message(db, "cancelled", retired=NOW - KEEP_SENT - age) for age in (1, 3, 2)]
    found = []
    for _ in range(4):
        found.append((purge(db, NOW, KEEP_SENT), messages(db)))
    assert found == [(1, [keys[0], keys[2]]), (1, [keys[0]]), (1, []), (0, [])]


@pytest.mark.parametrize(
    ("columns", "goes"),
    [
        ({"state": "deferred", "source": "queue"}, False),
        ({"state": "deferred"}, False),
        ({"state": "waiting", "source": "queue"}, False),
        ({"state": "waiting"}, True),
        ({"state": "delivered", "source": "queue"}, True),
        ({"state": "left", "source": "log"}, True),
        ({"state": "deferred", "source": "queue", "over": NOW}, True),
        ({"state": "waiting", "source": "queue", "over": NOW}, True),
    ],
)
def test_history_of_what_is_in_the_queue_there_stays_while_it_is_asked_about(
    db: apsw.Connection, columns: dict[str, object], goes: bool
) -> None:
    key = message(db, "cancelled", "sent", retired=NOW - KEEP_SENT - 1)
    follow(db, recipients(db, key)[1], **columns)
    # Another message says nothing about this one.
    follow(db, *recipients(db, message(db, "sent")), state="deferred" if goes else "delivered")
    assert purge(db, NOW, KEEP_SENT) == int(goes)


@pytest.mark.parametrize(
    ("states", "has_content", "goes"),
    [
        (("refused",), True, False),
        (("cancelled", "refused"), True, False),
        (("refused",), False, True),
        (("sent",), True, True),
    ],
)
def test_history_of_what_was_refused_stays_while_its_content_does(
    db: apsw.Connection, states: tuple[str, ...], has_content: bool, goes: bool
) -> None:
    key = message(db, *states, retired=NOW - KEEP_SENT - 1)
    message(db, "sent" if not goes else "refused")
    if not has_content:
        db.execute("DELETE FROM content WHERE message = ?", (key,))
    assert purge(db, NOW, KEEP_SENT) == int(goes)


@pytest.mark.parametrize("delivered", [(None,), (NOW, None), (NOW,), ()])
def test_history_stays_until_each_backend_has_delivered_its_notice(
    db: apsw.Connection, delivered: tuple[float | None, ...]
) -> None:
    key = message(db, "sent", retired=NOW - KEEP_SENT - 1)
    db.execute(
        "INSERT INTO notice (id, kind, relayhost, message, created) VALUES (1, 'failed', 'default', ?, 0)", (key,)
    )
    for backend, at in zip(("desktop", "mailbox"), delivered, strict=False):
        db.execute(
            "INSERT INTO notice_backend (notice, backend, delivered, next_try) VALUES (1, ?, ?, 0)", (backend, at)
        )
    goes = None not in delivered
    assert purge(db, NOW, KEEP_SENT) == int(goes)
    assert row(db, "SELECT count(*) FROM notice") == (int(not goes),)


def notice(db: apsw.Connection, number: int, kind: str = "delayed", **columns: object) -> None:
    values = {"id": number, "kind": kind, "relayhost": "default", "cause": f"{number}", "created": 0.0} | columns
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO notice ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def test_notices_about_relayhosts_go_as_history_does_but_not_open_ones(db: apsw.Connection) -> None:
    before = NOW - KEEP_SENT
    notice(db, 1, over=before - 1)
    notice(db, 2, over=before)
    notice(db, 3, reminder=NOW)
    notice(db, 4, "resumed", created=before - 1)
    notice(db, 5, "resumed", created=before)
    notice(db, 6, "resumed", created=before - 1, over=before)
    notice(db, 7, "failed", cause="", message=message(db, "bounced"))
    purge(db, NOW, KEEP_SENT)
    assert rows(db, "SELECT id FROM notice ORDER BY id") == [(2,), (3,), (5,), (6,), (7,)]


@pytest.mark.usefixtures("one_at_a_time")
def test_notices_about_relayhosts_go_a_batch_at_once(db: apsw.Connection) -> None:
    for number in range(3):
        notice(db, number, over=NOW - KEEP_SENT - 1)
    left = []
    for _ in range(3):
        purge(db, NOW, KEEP_SENT)
        left.append(row(db, "SELECT count(*) FROM notice")[0])
    assert left == [2, 1, 0]
