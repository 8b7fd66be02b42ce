"""What the spool does not hold as it was written is never sent: it is held and told, and all other mail goes on."""

import asyncio
import dataclasses
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from harness.messages import LIMIT, NO_SUCH_USER, NOW, TAKEN, ending, letter
from harness.person import Person
from harness.relay import running_relay
from harness.spool_engine import Engine

from mailrelay.mail.completion import Completion
from mailrelay.mail.envelope import Envelope, Message, Recipient, Unreadable
from mailrelay.mail.lifecycle import Act, State
from mailrelay.mail.notice import Backend, Kind
from mailrelay.mail.record import arrive
from mailrelay.mail.spool_errors import Damaged, NotAllowed, SpoolBroken
from mailrelay.mail.there import There
from mailrelay.spool import accepting, actions, attempts, followed, inspection, listing, log_end, notices, stored
from mailrelay.spool.command_spool import CommandSpool
from mailrelay.spool.database import FILE, PIECE, VERSION, connect, rows, transaction

BACKENDS = (Backend.MAILBOX,)


def full_letter(content: bytes = b"hello\r\n", *, to: int = 2, sender: bytes = b"a@example.org") -> Envelope:
    recipients = tuple(Recipient(b"%d@example.net" % n, b"FAILURE", b"rfc822;b") for n in range(to))
    return Envelope(sender, recipients, b"8BITMIME", smtputf8=False, ret=b"HDRS", envid=b"x+2By")


def accept(db: apsw.Connection, envelope: Envelope, content: bytes = b"hello\r\n", *, completes: bool = False) -> int:
    arrival = arrive(
        envelope,
        b"Subject: a letter\r\n\r\n" + content,
        queue_id=letter().queue_id,
        token="t",
        relayhost="default",
        now=NOW,
        completes_header=completes,
    )
    with transaction(db):
        return accepting.accept(db, arrival, LIMIT)


def damaged(message: Message) -> list[bool]:
    """Whether the envelope is damaged, and whether each of its recipients is."""
    return [message.envelope.is_damaged, *(to.is_damaged for to in message.envelope.recipients)]


def break_rules(db: apsw.Connection, sql: str, *values: object) -> None:
    """Writes what the schema does not allow, as a damaged disk does."""
    db.pragma("ignore_check_constraints", True)
    db.execute(sql, values)
    db.pragma("ignore_check_constraints", False)


@pytest.mark.parametrize(
    "change",
    [
        "sender = x'622e6578616d706c652e6f7267'",
        "relayhost = 'other'",
        "relayhost = CAST(x'ff64' AS TEXT)",
        "body = '7BIT'",
        "smtputf8 = 1",
        "ret = 'FULL'",
        "envid = x''",
        "size = size + 1",
        "bare_header = 1",
        "checksum = NULL",
        "checksum = x'00'",
    ],
)
def test_a_message_whose_row_has_changed_is_damaged(db: apsw.Connection, change: str) -> None:
    key, other = accept(db, full_letter()), accept(db, full_letter())
    break_rules(db, f"UPDATE message SET {change} WHERE id = ?", key)
    assert damaged(stored.load_message(db, key)) == [True, False, False]
    assert damaged(stored.load_message(db, other)) == [False, False, False]


@pytest.mark.parametrize(
    "change",
    [
        "address = x'62406578616d706c652e6e6574'",
        "notify = x''",
        "orcpt = x'61'",
        "state = 'qteued'",
        "state = CAST(x'ff' AS TEXT)",
        "checksum = NULL",
    ],
)
def test_a_recipient_whose_row_has_changed_is_damaged_alone(db: apsw.Connection, change: str) -> None:
    key = accept(db, full_letter())
    break_rules(db, f"UPDATE recipient SET {change} WHERE message = ? AND address = x'30406578616d706c652e6e6574'", key)
    assert damaged(stored.load_message(db, key)) == [False, True, False]


def test_a_message_that_has_lost_a_recipient_is_damaged(db: apsw.Connection) -> None:
    key = accept(db, full_letter())
    db.execute("DELETE FROM recipient WHERE address = x'30406578616d706c652e6e6574'")
    assert damaged(stored.load_message(db, key)) == [True, False]
    db.execute("DELETE FROM recipient")
    with pytest.raises(SpoolBroken):
        stored.load_message(db, key)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE content SET data = CAST(data || x'00' AS BLOB) WHERE seq = 1",
        "UPDATE content SET checksum = NULL WHERE seq = 1",
        "UPDATE content SET data = (SELECT data FROM content WHERE seq = 0), checksum ="
        " (SELECT checksum FROM content WHERE seq = 0) WHERE seq = 1",
        "UPDATE content SET seq = seq + 1 WHERE seq = 2",
        "DELETE FROM content WHERE seq = 2",
    ],
)
def test_content_that_has_changed_is_never_given_as_if_it_were_right(db: apsw.Connection, change: str) -> None:
    key = accept(db, full_letter(), b"x" * 100 + b"y" * 2 * PIECE)
    whole = b"".join(stored.content(db, key))
    db.execute(change)
    assert notices.content_start(db, key, PIECE) == whole[:PIECE]
    with pytest.raises(Damaged):
        b"".join(stored.content(db, key))
    if "seq = 1" in change:
        with pytest.raises(Damaged):
            stored.piece(db, key, 1)
        assert notices.content_start(db, key, 2 * PIECE) == b"", "a report has all of it, or nothing"


def test_content_of_another_message_does_not_match(db: apsw.Connection) -> None:
    key, other = accept(db, full_letter(), b"a" * 50), accept(db, full_letter(), b"b" * 50)
    db.execute(
        "UPDATE content SET (data, checksum) = (SELECT data, checksum FROM content WHERE message = ?2) WHERE message = ?1",
        (key, other),
    )
    with pytest.raises(Damaged):
        stored.piece(db, key, 0)


def test_old_rows_without_checksums_are_sent(db: apsw.Connection) -> None:
    key = accept(db, full_letter())
    for table in ("message", "recipient", "content"):
        db.execute(f"UPDATE {table} SET checksum = NULL")
    assert damaged(stored.load_message(db, key)) == [False, False, False]
    assert b"".join(stored.content(db, key)).endswith(b"hello\r\n")
    assert stored.piece(db, key, 0) is not None


# What is changed on purpose.

BARE = Completion(sender=b"me@example.org", domain=b"example.org")


@pytest.mark.parametrize("has_checksums", [True, False])
def test_a_completed_message_is_as_it_was_written(db: apsw.Connection, has_checksums: bool) -> None:
    key = accept(db, Envelope(b"root", (Recipient(b"root"), Recipient(b"b@x.org"))), completes=True)
    if not has_checksums:
        for table in ("message", "recipient", "content"):
            db.execute(f"UPDATE {table} SET checksum = NULL")
    with transaction(db):
        (message,) = attempts.take(db, "default", (), 1, "1", NOW, completion=BARE)
    assert message.envelope.sender == b"me@example.org"
    assert damaged(stored.load_message(db, key)) == [False, False, False]
    assert stored.load_message(db, key) == message
    assert len(b"".join(stored.content(db, key))) == message.size


def test_what_is_damaged_is_not_completed_so_that_it_stays_damaged(db: apsw.Connection) -> None:
    key = accept(db, Envelope(b"root", (Recipient(b"root"), Recipient(b"nobody"))), completes=True)
    db.execute("UPDATE recipient SET address = x'726f6f54' WHERE address = x'726f6f74'")
    db.execute("UPDATE content SET data = CAST(data || x'00' AS BLOB)")
    with transaction(db):
        (message,) = attempts.take(db, "default", (), 1, "1", NOW, completion=BARE)
    assert damaged(message) == damaged(stored.load_message(db, key)) == [False, True, False]
    with pytest.raises(Damaged):
        stored.piece(db, key, 0)


def test_mail_of_a_relayhost_that_is_gone_moves_with_its_checksum_and_damaged_mail_without(db: apsw.Connection) -> None:
    key, bad = accept(db, full_letter()), accept(db, full_letter())
    db.execute("UPDATE message SET relayhost = 'defaulu' WHERE id = ?", (bad,))
    with transaction(db):
        assert attempts.reroute(db, {"new"}, lambda _sender: "new", NOW) == (2, 0)
        assert sorted(message.id for message in attempts.take(db, "new", (), 5, "1", NOW)) == [key, bad]
    assert damaged(stored.load_message(db, key)) == [False, False, False]
    assert damaged(stored.load_message(db, bad)) == [True, False, False]


# On its way.


async def test_a_damaged_recipient_is_held_and_told_and_the_others_get_the_message(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await at.remote.down()
        key = await at.send(b"b@example.net", b"c@example.net")
        await at.failure()
        at.db.execute("UPDATE recipient SET address = x'6340657861' WHERE address = x'63406578616d706c652e6e6574'")
        await at.remote.up()
        await _retry(at.db, at.scheduler.look_again)
        await at.settled(key, "sent", "held")
        assert [letter.recipients for letter in at.remote.received] == [(b"b@example.net",)]
        assert Kind.HELD in [one.notice.kind for one in await at.spool.pending_notices()]
        assert b"not as it was written" in at.message(key).recipients[1].description


async def test_a_damaged_envelope_is_held_and_told_and_other_messages_go_on(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as at:
        await at.remote.down()
        bad, fine = await at.send(), await at.send()
        await at.failure()
        at.db.execute("UPDATE message SET sender = x'62406578616d706c652e6f7267' WHERE id = ?", (bad,))
        await at.remote.up()
        await _retry(at.db, at.scheduler.look_again)
        await at.settled(bad, "held")
        await at.settled(fine, "sent")
        assert len(at.remote.received) == 1
        held = [one.notice for one in await at.spool.pending_notices() if one.notice.kind is Kind.HELD]
        assert [one.is_damaged for one in held] == [True], "no report goes to a damaged address"


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("seq", [0, 5])
async def test_a_message_of_which_a_part_was_sent_is_never_completed(tmp_path: Path, seq: int, chunking: bool) -> None:
    async with running_relay(tmp_path) as at:
        if not chunking:
            at.remote.extensions = tuple(one for one in at.remote.extensions if one != b"CHUNKING")
        await at.remote.down()
        bad, fine = await at.send(content=b"x" * 6 * PIECE), await at.send()
        await at.failure()
        at.db.execute("UPDATE content SET data = zeroblob(length(data)) WHERE message = ? AND seq = ?", (bad, seq))
        await at.remote.up()
        await _retry(at.db, at.scheduler.look_again)
        await at.settled(bad, "held")
        await at.settled(fine, "sent")
        assert [len(letter.content) < PIECE for letter in at.remote.received] == [True]


async def _retry(db: apsw.Connection, wake: Callable[[], None]) -> None:
    with transaction(db):
        actions.retry_all(db, time.time())
    wake()


async def _pieces(engine: Engine, key: int) -> list[bytes]:
    return [piece async for piece in engine.spool.pieces(key)]


def test_damaged_content_is_unreadable_for_the_relay(engine: Engine) -> None:
    key = engine.do(engine.spool.accept(letter(at=NOW)))
    db = connect(engine.directory)
    db.execute("UPDATE content SET data = zeroblob(length(data))")
    db.close()
    with pytest.raises(Unreadable, match="not as it was written"):
        engine.do(_pieces(engine, key))


# The person.


def test_damaged_content_is_shown_with_a_sentence_and_not_sent_again(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.put("aaaa000001", content=b"Subject: x\r\n\r\nhello\r\n")
    db = connect(person.spool)
    db.execute("UPDATE content SET data = CAST(replace(data, x'68656c6c6f', x'68656c6c6e') AS BLOB)")
    db.execute("UPDATE recipient SET state = 'held'")
    db.close()
    shown = person.run("queue", "show", "aaaa", "--content")
    assert shown.returncode == 1
    assert "helln" in shown.stdout
    assert "aaaa000001 is shown as it is in the spool" in shown.stderr.replace("\nmailrelay: ", " ")
    for command in ("resend", "edit"):
        refused = person.run("queue", command, "aaaa", env={"EDITOR": "true"})
        assert refused.returncode == 1
        assert "is damaged in the spool" in refused.stderr
    assert person.query("SELECT count(*) FROM message") == [(1,)]


@pytest.mark.parametrize("table", ["message SET sender = x'6100'", "recipient SET address = x'6100'"])
def test_a_damaged_envelope_is_not_sent_again(engine: Engine, table: str) -> None:
    key = engine.do(engine.spool.accept(letter(at=NOW)))
    db = connect(engine.directory)
    db.execute(f"UPDATE {table}")
    db.close()
    with engine.commands.changing() as change:
        change.act(key, engine.one(key).queue_id, Act.HOLD)
        with pytest.raises(NotAllowed, match="damaged"):
            change.replaceable(engine.one(key).queue_id, Act.RESEND)


# The whole spool.


def inspect(engine: Engine) -> list[str]:
    return engine.do(engine.spool.inspect(lambda _kind, _sender, _notify: BACKENDS))


def test_a_spool_without_damage_is_found_to_be_whole(engine: Engine) -> None:
    engine.do(engine.spool.accept(letter(at=NOW)))
    assert inspect(engine) == []


def test_a_recipient_in_a_state_that_does_not_exist_is_held_and_told(engine: Engine) -> None:
    key = engine.do(engine.spool.accept(letter(b"b@example.net", b"c@example.net", at=NOW)))
    db = connect(engine.directory)
    break_rules(db, "UPDATE recipient SET state = 'hemd' WHERE address = x'62406578616d706c652e6e6574'")
    db.close()
    assert inspect(engine) == ["CHECK constraint failed in recipient"]
    assert engine.states(key) == ["held", "queued"]
    assert [one.notice.kind for one in engine.pending()] == [Kind.HELD]
    assert inspect(engine) == []


def test_a_repair_holds_the_damaged_recipients_only_with_one_notice_for_each_message(db: apsw.Connection) -> None:
    keys = [accept(db, full_letter(to=3)) for _ in range(3)]
    first, _, third = ([one for (one,) in rows(db, RECIPIENTS, (key,))] for key in keys)
    before = rows(db, "SELECT * FROM recipient WHERE id NOT IN (?, ?, ?) ORDER BY id", (first[0], first[2], third[1]))
    break_rules(db, "UPDATE recipient SET state = CAST(x'ff' AS TEXT) WHERE id IN (?, ?)", first[0], third[1])
    break_rules(db, "UPDATE recipient SET state = 'sant' WHERE id = ?", first[2])
    asked: list[tuple[Kind, bytes, bytes]] = []

    def backends_for(*about: Kind | bytes) -> tuple[Backend, ...]:
        asked.append(about)  # type: ignore[arg-type]
        return BACKENDS if len(asked) == 1 else ()

    with transaction(db):
        assert inspection.repair(db, backends_for, NOW + 1) == 2
    assert asked == [(Kind.HELD, b"a@example.org", b"")] * 2
    held = "state, remote, changed, uncertain, length(description) > 0, stage <> ''"
    assert rows(db, f"SELECT id, {held} FROM recipient WHERE state = 'held' ORDER BY id") == [
        (one, "held", 0, NOW + 1, NOW + 1, 1, 1) for one in (first[0], first[2], third[1])
    ]
    assert rows(db, "SELECT * FROM recipient WHERE state <> 'held' ORDER BY id") == before
    # The last message has no backend for its notice.
    assert rows(db, "SELECT message, kind, created FROM notice") == [(keys[0], "held", NOW + 1)]
    assert rows(db, "SELECT recipient FROM notice_recipient ORDER BY recipient") == [(first[0],), (first[2],)]


RECIPIENTS = "SELECT id FROM recipient WHERE message = ? ORDER BY id"


@pytest.mark.parametrize(
    ("columns", "state", "is_active", "next_attempt", "retired"),
    [
        ({}, "queued", False, NOW + 1, None),
        ({"send_time": NOW + 9}, "queued", False, NOW + 9, None),
        ({"send_time": NOW - 9}, "queued", False, NOW + 1, None),
        ({"retired": NOW}, "queued", False, NOW + 1, None),
        ({}, "queued", True, None, None),
        ({"next_attempt": NOW + 5}, "queued", False, NOW + 5, None),
        ({"retired": NOW}, "bounced", False, None, None),
        ({}, "bounced", False, None, None),
        ({}, "held", False, None, None),
        ({"retired": NOW}, "cancelled", False, None, NOW),
    ],
)
def test_a_repair_makes_due_what_is_pending_and_nothing_else(
    db: apsw.Connection,
    columns: dict[str, float],
    state: str,
    is_active: bool,
    next_attempt: float | None,
    retired: float | None,
) -> None:
    key, _ = accept(db, full_letter(to=1)), accept(db, full_letter(to=1))
    with transaction(db):
        db.execute("UPDATE recipient SET state = ?, description = x'78' WHERE message = ?", (state, key))
        db.execute("INSERT INTO attempt (message, node, opened, closed) VALUES (?, 'node', 0, 1)", (key,))
        if is_active:
            db.execute("INSERT INTO attempt (message, node, opened) VALUES (?, 'node', 0)", (key,))
        for name, value in ({"next_attempt": None} | columns).items():
            db.execute(f"UPDATE message SET {name} = ? WHERE id = ?", (value, key))
        assert inspection.repair(db, lambda *_: BACKENDS, NOW + 1) == 0
    found = rows(db, "SELECT next_attempt, retired FROM message ORDER BY id")
    assert found == [(next_attempt, retired), (NOW, None)]


@pytest.mark.parametrize(
    "damage", ["state = 'bmunced'", "source = 'lmg'", "dealt_with = 1.0, over = NULL", "successor = 'abcdefgh'"]
)
def test_a_damaged_row_about_the_relayhost_stops_nothing_and_is_asked_for_again(engine: Engine, damage: str) -> None:
    key = engine.do(engine.spool.accept(letter(at=NOW)))
    (taken,) = engine.take()
    record = ending(taken, engine.taken[taken].recipient_ids, {State.SENT: TAKEN})
    assert engine.do(engine.spool.record(dataclasses.replace(record, is_followed=True)))
    with closing(connect(engine.directory)) as db:
        break_rules(db, f"UPDATE followed SET {damage}")
        assert listing.one(db, key).recipients[0].state == "sent"
        assert inspect(engine) == ["CHECK constraint failed in followed"]
        (one,) = followed.followed(db, "default")
        assert one.verdict.state is There.WAITING
    assert inspect(engine) == []


def test_a_message_is_not_over_while_a_recipient_has_an_unknown_state(engine: Engine) -> None:
    key = engine.do(engine.spool.accept(letter(b"b@example.net", b"c@example.net", at=NOW)))
    assert engine.take() == [key]
    db = connect(engine.directory)
    break_rules(db, "UPDATE recipient SET state = 'hemd' WHERE address = x'62406578616d706c652e6e6574'")
    (other,) = engine.taken[key].recipient_ids[1:]
    db.close()
    assert engine.do(engine.spool.record(ending(key, (other,), {State.SENT: TAKEN})))
    assert engine.content(key)


@pytest.mark.parametrize("index", ["message_due", "message_live", "recipient_of_message"])
def test_an_index_that_does_not_fit_is_built_again(engine: Engine, index: str) -> None:
    key = engine.do(engine.spool.accept(letter(at=NOW)))
    db = connect(engine.directory)
    # An index whose definition is away while a row is written lacks that row.
    (sql, root) = db.execute("SELECT sql, rootpage FROM sqlite_schema WHERE name = ?", (index,)).fetchone()  # type: ignore[misc]
    db.execute("PRAGMA writable_schema = ON")
    db.execute("DELETE FROM sqlite_schema WHERE name = ?", (index,))
    db.execute("PRAGMA writable_schema = RESET")
    with transaction(db):
        hidden = accepting.accept(db, letter(at=NOW), LIMIT)
    db.execute("PRAGMA writable_schema = ON")
    table = sql.split(" ON ")[1].split(" ")[0]
    db.execute("INSERT INTO sqlite_schema VALUES ('index', ?, ?, ?, ?)", (index, table, root, sql))
    db.execute("PRAGMA writable_schema = RESET")
    db.close()
    assert any(index in line for line in inspect(engine))
    assert sorted(engine.take()) == [key, hidden]


def test_damage_in_the_pages_of_sqlite_ends_the_daemon(engine: Engine) -> None:
    for _ in range(50):
        engine.do(engine.spool.accept(letter(at=NOW, content=b"x" * 3000)))
    db = connect(engine.directory)
    db.pragma("wal_checkpoint", "TRUNCATE")
    root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'recipient'").get
    db.close()
    with (engine.directory / FILE).open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 12)
    with pytest.raises(SpoolBroken, match="damaged"):
        inspect(engine)
    assert engine.spool.broken.done()  # type: ignore[attr-defined]


def test_damage_in_many_pages_is_told_in_one_line(engine: Engine) -> None:
    engine.do(engine.spool.accept(letter(at=NOW, content=b"x" * 300_000)))
    db = connect(engine.directory)
    db.pragma("wal_checkpoint", "TRUNCATE")
    pages = db.pragma("page_count")
    db.close()
    with (engine.directory / FILE).open("r+b") as file:
        for page in range(pages - 10, pages, 2):
            file.seek(page * 4096)
            file.write(b"\xff" * 12)
    with pytest.raises(SpoolBroken, match="damaged") as broken:
        inspect(engine)
    assert "\n" not in str(broken.value)


def test_a_person_whose_spool_is_damaged_hears_how_to_go_on_and_can(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.put("aaaa000001")
    with (person.spool / FILE).open("r+b") as file:
        file.write(b"\xff" * 16)
    refused = person.run("queue")
    assert refused.returncode == 1
    assert "move its directory away and keep it" in " ".join(refused.stderr.replace("mailrelay: ", "").split())
    person.spool.rename(tmp_path / "kept")
    handed_in = person.run("sendmail", "b@example.net", stdin=b"Subject: x\n\nhello\n")
    assert handed_in.returncode == 0
    assert "b@example.net" in person.run("queue").stdout


def test_an_index_entry_of_mail_that_is_not_due_ends_the_daemon(db: apsw.Connection) -> None:
    """It would be found due for ever."""
    key = accept(db, full_letter())
    with transaction(db), pytest.raises(SpoolBroken):
        db.execute("CREATE TEMP TRIGGER t BEFORE INSERT ON attempt BEGIN UPDATE message SET next_attempt = NULL; END")
        attempts.take(db, "default", (key,), 1, "1", NOW)


def test_check_has_a_line_for_damage(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.put("aaaa000001")
    db = connect(person.spool)
    break_rules(db, "UPDATE recipient SET state = 'hemd'")
    db.close()
    checked = person.run("check", "--offline")
    assert "the spool's file is damaged: CHECK constraint failed in recipient" in " ".join(checked.stdout.split())


def test_an_inspection_that_is_cancelled_ends_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    def endless(db: apsw.Connection) -> list[str]:
        loop.call_soon_threadsafe(begun.set)
        db.execute("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n").fetchall()
        return ["it has ended by itself"]

    async def run() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        inspecting = asyncio.ensure_future(engine.spool.inspect(lambda _kind, _sender, _notify: ()))
        await begun.wait()
        inspecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await inspecting

    loop: asyncio.AbstractEventLoop
    monkeypatch.setattr(inspection, "findings", endless)
    engine.do(run())


def test_a_text_that_nobody_has_written_is_damage(engine: Engine) -> None:
    key = engine.do(engine.spool.accept(letter(at=NOW)))
    db = connect(engine.directory)
    db.execute("UPDATE recipient SET status = CAST(x'ff' AS TEXT)")
    db.close()
    with pytest.raises(SpoolBroken, match="damaged"):
        engine.one(key)
    assert engine.take() == [key], "it is not sent, and stops nothing"


def test_a_damaged_subject_stops_neither_the_listing_nor_a_notice(engine: Engine) -> None:
    key = engine.do(engine.spool.accept(letter(at=NOW)))
    (taken,) = engine.take()
    db = connect(engine.directory)
    db.execute("UPDATE message SET subject = CAST(x'61ff' AS TEXT)")
    db.close()
    bounced = ending(taken, engine.taken[taken].recipient_ids, {State.BOUNCED: NO_SUCH_USER}, backends=BACKENDS)
    assert engine.do(engine.spool.record(bounced))
    assert [one.subject for one in engine.live()] == ["a\ufffd"]
    assert [(one.notice.message, one.notice.subject) for one in engine.pending()] == [(key, "a\ufffd")]


# The log.


def crashed(tmp_path: Path) -> Path:
    """The files of a spool that was not closed, with three messages in its log."""
    db = connect(tmp_path / "spool")
    db.pragma("wal_checkpoint", "TRUNCATE")
    for _ in range(3):
        accept(db, full_letter())
    copy = Path(shutil.copytree(tmp_path / "spool", tmp_path / "crashed"))
    db.close()
    (copy / f"{FILE}-shm").unlink()
    return copy


def unreadable(directory: Path) -> int:
    with closing(connect(directory)) as db:
        return log_end.unreadable_commits(db)


def test_a_log_that_a_crash_has_left_is_read_to_its_end(tmp_path: Path) -> None:
    assert unreadable(crashed(tmp_path)) == 0


def test_a_spool_that_was_closed_has_no_log(tmp_path: Path) -> None:
    assert unreadable(tmp_path / "spool") == 0
    assert unreadable(tmp_path / "spool") == 0


# 47: the salts of the first frame.
@pytest.mark.parametrize("at", [0, 9, 17, 25, 47, 32 + 24 + 100, -100])
def test_commits_that_cannot_be_read_at_the_end_of_the_log_are_counted(tmp_path: Path, at: int) -> None:
    spool = crashed(tmp_path)
    log = bytearray((spool / f"{FILE}-wal").read_bytes())
    log[at] ^= 1
    (spool / f"{FILE}-wal").write_bytes(log)
    assert unreadable(spool) == (1 if at < 0 else 3)


def test_a_command_that_only_reads_leaves_damage_in_the_log_for_the_daemon_to_find(tmp_path: Path) -> None:
    spool = crashed(tmp_path)
    log = bytearray((spool / f"{FILE}-wal").read_bytes())
    log[47] ^= 1
    (spool / f"{FILE}-wal").write_bytes(log)
    with CommandSpool(spool).reading() as view:
        assert list(view.everything()) == []
    assert unreadable(spool) == 3


def test_a_log_that_was_begun_again_has_no_unreadable_commits(tmp_path: Path) -> None:
    """What is left of the log before is not taken for commits."""
    db = connect(tmp_path / "spool")
    for _ in range(3):
        accept(db, full_letter())
    db.pragma("wal_checkpoint", "RESTART")
    accept(db, full_letter())
    copy = Path(shutil.copytree(tmp_path / "spool", tmp_path / "crashed"))
    db.close()
    (copy / f"{FILE}-shm").unlink()
    assert unreadable(copy) == 0


def test_of_a_log_that_cannot_be_opened_no_commit_is_called_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect(tmp_path / "spool")) as db:

        def fails(_path: Path, _mode: str) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", fails)
        assert log_end.unreadable_commits(db) == 0


def test_the_schema_of_a_new_spool_is_in_its_file_and_not_only_in_the_log(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "spool")):
        alone = Path(shutil.copy(tmp_path / "spool" / FILE, tmp_path / "alone.db"))
    with closing(apsw.Connection(str(alone))) as copy:
        assert copy.pragma("user_version") == VERSION
        assert copy.execute("SELECT count(*) FROM message").get == 0
