"""Filters and --all of `mailrelay queue`: what is listed, what is changed, what is left, and what is said of it."""

import json
import os
import sys
from pathlib import Path

import pytest
from harness.person import BOUNCED, DEFERRED, SENT, Person
from harness.terminal import Terminal

from mailrelay.cli import acts
from mailrelay.control import bulk
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.selection import EVERYTHING, Filter
from mailrelay.mail.spool_errors import SpoolUnavailable
from mailrelay.mail.there import There, Verdict
from mailrelay.ports import SpoolChange
from mailrelay.spool import lock, trigger
from mailrelay.spool.command_spool import CommandSpool
from mailrelay.spool.database import connect

NO_DAEMON = "mailrelay: the daemon is not running: start `mailrelay serve`\n"
DEFERRED_ID, FAILED_ID, FRESH_ID, SENT_ID = "aaaa000001", "bbbb000001", "cccc000001", "dddd000001"


@pytest.fixture
def person(tmp_path: Path) -> Person:
    """With a message in each of the states deferred, bounced, queued and sent."""
    person = Person(tmp_path)
    person.put(DEFERRED_ID, [b"bob@example.org"], age=7200)
    person.attempt(DEFERRED)
    person.put(FAILED_ID, [b"eve@example.net"], content="Subject: Grüße\r\n\r\nx\r\n".encode())
    person.attempt(BOUNCED)
    person.put(SENT_ID, [b"joe@example.org"])
    person.attempt(SENT)
    person.put(FRESH_ID, [b"Joe@Example.net"], sender=b"")
    return person


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--from", "ME@"), [DEFERRED_ID, FAILED_ID]),
        (("--from", "<>"), [FRESH_ID]),
        (("--to", "*@example.net"), [FAILED_ID, FRESH_ID]),
        (("--to", "bob", "--to", "eve"), [DEFERRED_ID, FAILED_ID]),
        (("--subject", "GRÜSSE"), [FAILED_ID]),
        (("--since", "1h"), [FAILED_ID, FRESH_ID]),
        (("--state", "failed"), [FAILED_ID]),
        (("--state", "incoming"), [FRESH_ID]),
        (("--state", "SENT"), [SENT_ID]),
        (("--state", "pending", "--since", "3h"), [DEFERRED_ID, FRESH_ID]),
        (("--relayhost", "default", "--all"), [DEFERRED_ID, FAILED_ID, SENT_ID, FRESH_ID]),
        (("--relayhost", "other"), []),
        (("--state", "deferred", "--to", "eve"), []),
    ],
)
def test_the_listing_shows_what_fits_all_filters(person: Person, options: tuple[str, ...], ids: list[str]) -> None:
    done = person.run("queue", "--json", *options)
    assert [json.loads(line)["queue_id"] for line in done.stdout.splitlines()] == ids
    assert done.returncode == 0
    text = person.run("queue", "list", *options).stdout
    assert [line.split()[0] for line in text.splitlines()[1:-1]] == ids
    assert ids or text == "none of 3 messages fits the filters\n"


@pytest.mark.parametrize(
    ("words", "changed", "states"),
    [
        (("hold", "--to", "JOE"), f"{FRESH_ID} is held\n1 message is held\n", ("deferred", "bounced", "held")),
        (
            ("cancel", "--state", "pending"),
            f"{DEFERRED_ID} is cancelled\n{FRESH_ID} is cancelled\n2 messages are cancelled\n",
            ("cancelled", "bounced", "cancelled"),
        ),
        (
            ("drop", "--state", "failed"),
            f"{FAILED_ID} is dropped\n1 message is dropped\n",
            ("deferred", "cancelled", "queued"),
        ),
        (
            ("retry", "--from", "me", "--state", "deferred"),
            f"{DEFERRED_ID} is due now\n1 message is due now\n",
            ("deferred", "bounced", "queued"),
        ),
    ],
)
def test_a_filter_alone_selects_what_a_verb_changes(
    person: Person, words: tuple[str, ...], changed: str, states: tuple[str, ...]
) -> None:
    done = person.run("queue", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, changed, NO_DAEMON)
    found = person.states()
    assert (found[DEFERRED_ID], found[FAILED_ID], found[FRESH_ID]) == states
    assert found[SENT_ID] == "sent"


def test_what_a_verb_cannot_change_is_counted_and_left(person: Person) -> None:
    done = person.run("queue", "hold", "--all")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 messages are held")
    left = f"mailrelay: 1 message is left as before: in a state that does not allow it ({FAILED_ID})\n"
    assert done.stderr == left + NO_DAEMON
    again = person.run("queue", "hold", "--all")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.splitlines()[-1] == "mailrelay: no message was changed"
    assert person.run("queue", "release", "--all", "--to", "joe").stdout.splitlines()[-1] == "1 message is released"
    assert person.states()[DEFERRED_ID] == "held"


def test_many_messages_that_are_left_are_not_all_named(person: Person) -> None:
    for number in range(7):
        person.put(f"ffff00000{number}")
    done = person.run("queue", "drop", "--subject", "hello")
    assert "9 messages are left as before: in a state that does not allow it (aaaa000001, cccc000001," in done.stderr
    assert " ffff000000, ffff000001, ffff000002 and 4 more)" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("verb", ["hold", "release", "cancel", "drop", "retry", "resend"])
def test_where_nothing_fits_it_says_so_and_has_status_1(person: Person, tmp_path: Path, verb: str) -> None:
    done = person.run("queue", verb, "--subject", "no such")
    why = "none of 3 messages fits the filters; see `mailrelay queue`"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"mailrelay: no message was changed: {why}\n")
    assert person.states()[DEFERRED_ID] == "deferred"


@pytest.mark.parametrize("verb", ["drop", "resend"])
def test_an_empty_queue_is_said_to_be_empty_and_none_is_made(tmp_path: Path, verb: str) -> None:
    nobody = Person(tmp_path)
    done = nobody.run("queue", verb, "--all")
    said = "mailrelay: no message was changed: the queue is empty\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert not nobody.spool.exists()


@pytest.mark.parametrize("verb", ["cancel", "retry", "resend"])
def test_nothing_is_selected_by_accident(person: Person, verb: str) -> None:
    before = person.states()
    for words in (
        (),
        ("--from", ""),
        ("--subject", " "),
        ("--state", ""),
        ("--since", ""),
        ("--relayhost", ""),
        ("--all", DEFERRED_ID),
        ("--state", "deferred", DEFERRED_ID),
        ("--state", "waiting"),
    ):
        done = person.run("queue", verb, *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), words
        assert f"see `mailrelay queue {verb} --help`" in done.stderr
    assert person.run("queue", "--from", "me", verb, "--all").returncode == 2
    assert person.states() == before


@pytest.mark.parametrize(
    ("typed", "status", "state"),
    [("", 1, "deferred"), ("n", 1, "deferred"), ("y", 0, "cancelled")],
    ids=["enter", "no", "yes"],
)
def test_a_person_is_asked_before_messages_are_given_up(person: Person, typed: str, status: int, state: str) -> None:
    argv = [sys.executable, "-m", "mailrelay", "queue", "cancel", "--to", "bob"]
    terminal = Terminal(argv, person.environment)
    terminal.read_to(r"Cancel 1 message\? \[y/N\]:")
    terminal.type(typed)
    assert terminal.end() == status
    assert person.states()[DEFERRED_ID] == state
    assert ("nothing was changed" in terminal.text) is bool(status)


@pytest.mark.parametrize("words", [("drop", "--all", "--yes"), ("drop", FAILED_ID), ("hold", "--all")])
def test_nobody_is_asked_who_has_said_yes_named_the_message_or_gives_nothing_up(
    person: Person, words: tuple[str, ...]
) -> None:
    terminal = Terminal([sys.executable, "-m", "mailrelay", "queue", *words], person.environment)
    assert terminal.end() == 0
    assert "?" not in terminal.text


def test_the_daemon_is_woken_once_and_only_by_a_change(person: Person) -> None:
    with lock.lock(person.spool):
        bell = trigger.listen(person.spool)
        try:
            assert person.run("queue", "hold", "--all").returncode == 0
            assert os.read(bell, 100) == b"\n"
            assert person.run("queue", "hold", "--all").returncode == 1
            with pytest.raises(BlockingIOError):
                os.read(bell, 100)
        finally:
            os.close(bell)


def test_what_is_being_sent_is_left_but_not_what_a_crash_has_left_open(person: Person) -> None:
    person.attempt()
    (active,) = [queue_id for queue_id, in person.query("SELECT queue_id FROM message m JOIN attempt ON message = m.id"
                                                          " WHERE closed IS NULL")]  # fmt: skip
    with lock.lock(person.spool):
        done = person.run("queue", "cancel", "--all")
        assert f"1 message is left as before: being sent at this moment ({active})" in done.stderr
        assert person.run("queue", "cancel", "--state", "active").returncode == 1
    assert active in person.run("queue", "cancel", "--state", "pending").stdout


def test_all_that_failed_is_sent_again_but_not_what_is_held(person: Person) -> None:
    person.run("queue", "hold", FRESH_ID)
    done = person.run("queue", "resend", "--all")
    assert done.returncode == 0
    line, last = done.stdout.splitlines()
    assert line.startswith(f"{FAILED_ID} is replaced by ")
    assert last == "1 message is sent again"
    assert f"held: give --state held, too, or release them ({FRESH_ID})" in done.stderr
    assert person.states()[line.split()[-1]] == "queued"
    held = person.run("queue", "resend", "--state", "held", "--to", "joe@")
    assert (held.returncode, held.stdout.split()[0]) == (0, FRESH_ID)


def test_several_ids_are_sent_again_to_another_address_but_without_an_id_an_address_selects(person: Person) -> None:
    nothing = person.run("queue", "resend", "--all", "--to", "else@example.org")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "to send a message to another address, give its id" in nothing.stderr
    person.run("queue", "hold", FRESH_ID)
    done = person.run("queue", "resend", FAILED_ID, "zzzz", FRESH_ID, "--to", "else@example.org")
    assert done.returncode == 1
    new = [line.split()[-1] for line in done.stdout.splitlines()]
    assert done.stderr.startswith("mailrelay: no message has the id zzzz; ")
    found = person.query("SELECT queue_id FROM message m JOIN recipient r ON r.message = m.id"
                         " WHERE address = CAST('else@example.org' AS BLOB) ORDER BY m.id")  # fmt: skip
    assert [queue_id for (queue_id,) in found] == new


def test_a_bounce_on_the_relayhost_is_dismissed_and_what_waits_there_is_asked_for(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.put("aaaa000001")
    person.attempt(SENT, is_followed=True)
    person.found_there(Verdict(There.DEFERRED))
    asked = person.run("queue", "retry", "--state", "sent")
    assert asked.returncode == 0
    assert asked.stdout.splitlines()[-1] == "1 message is waiting on the relayhost"
    person.found_there(Verdict(There.BOUNCED))
    dismissed = person.run("queue", "cancel", "--state", "failed")
    assert dismissed.stdout == "aaaa000001 is dismissed\n1 message is dismissed\n"


def test_what_changed_after_it_was_selected_is_left(person: Person) -> None:
    selected = bulk.select(person.spool, Filter(states=("deferred",)), Act.CANCEL)
    assert selected.ids == [DEFERRED_ID]
    person.run("queue", "hold", DEFERRED_ID)
    done = bulk.change(person.spool, selected, Act.CANCEL)
    assert (done.changed, selected.skipped) == ([], {bulk.Skip.CHANGED: [DEFERRED_ID]})
    selected = bulk.select(person.spool, EVERYTHING, Act.CANCEL)
    db = connect(person.spool)
    # Its id now is the beginning of another one.
    db.execute("UPDATE message SET queue_id = queue_id || 'x' WHERE queue_id = ?", (FRESH_ID,))
    db.close()
    done = bulk.change(person.spool, selected, Act.CANCEL)
    assert (done.changed, selected.skipped[bulk.Skip.CHANGED]) == ([DEFERRED_ID], [FRESH_ID])


def test_an_error_of_the_spool_on_the_way_says_what_is_left_and_what_was_done_stays(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BATCH", 1)
    act_on = bulk.act_on

    def failing(change: SpoolChange, message: bulk.Listed, what: Act) -> bool:
        if message.queue_id == FRESH_ID:
            raise SpoolUnavailable("no disk")
        return act_on(change, message, what)

    monkeypatch.setattr(bulk, "act_on", failing)
    done = bulk.change(person.spool, bulk.select(person.spool, EVERYTHING, Act.HOLD), Act.HOLD)
    assert (done.changed, done.error) == ([DEFERRED_ID], "no disk; not done: 1 of 2 messages")
    with CommandSpool(person.spool).reading() as view:
        assert [one.queue_name for one in view.live()] == ["hold", "failed", "incoming"]
    with pytest.raises(SpoolUnavailable):
        bulk.change(person.spool, bulk.select(person.spool, EVERYTHING, Act.HOLD), Act.HOLD)


def test_after_an_interrupt_it_is_said_what_was_done_and_what_is_left(
    person: Person, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bulk, "BATCH", 1)
    act_on = bulk.act_on

    def interrupted(change: SpoolChange, message: bulk.Listed, what: Act) -> bool:
        if message.queue_id == FRESH_ID:
            raise KeyboardInterrupt
        return act_on(change, message, what)

    monkeypatch.setattr(bulk, "act_on", interrupted)
    with pytest.raises(KeyboardInterrupt):
        acts._change_selected(person.spool, EVERYTHING, Act.HOLD)
    said = capsys.readouterr()
    assert said.out == f"{DEFERRED_ID} is held\n1 message is held\n"
    assert "mailrelay: interrupted; not done: 1 of 2 messages\n" in said.err
    with CommandSpool(person.spool).reading() as view:
        assert [one.queue_name for one in view.live()] == ["hold", "failed", "incoming"]
    # Before anything was changed there is nothing to say.
    with pytest.raises(KeyboardInterrupt):
        acts._change_selected(person.spool, EVERYTHING, Act.HOLD)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("elsewhere", ["2>/dev/null", ">/dev/null"])
def test_the_question_is_seen_also_if_only_one_of_the_outputs_is_the_terminal(person: Person, elsewhere: str) -> None:
    argv = ["sh", "-c", f'"$@" {elsewhere}', "sh", sys.executable, "-m", "mailrelay", "queue", "cancel", "--all"]
    terminal = Terminal(argv, person.environment)
    terminal.answer(r"Cancel 2 messages\? \[y/N\]: ", "n")
    assert terminal.end() == 1
