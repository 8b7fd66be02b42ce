"""What the commands say of mail after the mail server has accepted it: what became of it on the relayhost."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.person import BOUNCED, SENT, Person

from mailrelay import config
from mailrelay.cli import acts
from mailrelay.cli.base import Failed
from mailrelay.cli.test import follow
from mailrelay.mail.printable import printable
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.spool import followed, lock
from mailrelay.spool.database import connect, transaction

DELIVERED = Verdict(There.DELIVERED, Source.LOG, b"250 2.0.0 OK", b"mx.example.net[192.0.2.1]:25", 1.0)
DEFERRED = Verdict(There.DEFERRED, Source.QUEUE, b"451 4.7.1 Greyl\x1bisted")
GONE = Verdict(There.BOUNCED, Source.REPORT, b"550 5.1.1 unknown")
ID = "aaaa000001"
BOUNCED_TEXT = "bounced there: 550 5.1.1 unknown (a report in your mailbox there says so)"
NO_DAEMON = "mailrelay: the daemon is not running: start `mailrelay serve`\n"


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    # Text in this process is not wrapped.
    monkeypatch.delenv("COLUMNS", raising=False)
    person = Person(tmp_path)
    person.put(ID)
    return person


def sent(person: Person, *verdicts: Verdict) -> None:
    person.attempt(SENT, is_followed=True)
    if verdicts:
        person.found_there(*verdicts)


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        ((Verdict(There.WAITING, Source.QUEUE),), "waiting there"),
        ((DELIVERED,), "mx.example.net said 250 2.0.0 OK"),
        ((DEFERRED,), "deferred there: 451 4.7.1 Greyl\\x1bisted"),
        ((GONE,), BOUNCED_TEXT),
        ((Verdict(There.LEFT, Source.QUEUE),), "left your server, no bounce came"),
        ((Verdict(There.LEFT_UNWATCHED, Source.QUEUE),), "left your server"),
        ((Verdict(There.NOT_FOLLOWED, Source.NONE, b"no queue"),), "not followed: no queue"),
    ],
)
def test_listing_and_show_say_what_became_of_it_beside_sent(
    person: Person, verdicts: tuple[Verdict, ...], text: str
) -> None:
    sent(person, *verdicts)
    (_, row, *_) = person.run("queue", "--all").stdout.splitlines()
    assert row.split()[1] == "sent"
    assert row.endswith(f"<bob@example.org>  {text}")
    shown = person.run("queue", "show", ID).stdout
    assert f"to         <bob@example.org>  sent\n           250 2.0.0 taken\n           {text}\n" in shown


def test_until_something_was_found_there_the_listing_has_the_reply(person: Person) -> None:
    sent(person)
    (_, row, *_) = person.run("queue", "--all").stdout.splitlines()
    assert row.endswith("<bob@example.org>  250 2.0.0 taken")
    assert "           waiting there\n" in person.run("queue", "show", ID).stdout


def test_what_was_never_followed_is_shown_as_before(person: Person) -> None:
    person.attempt(SENT)
    (_, row, *_) = person.run("queue", "--all").stdout.splitlines()
    assert row.endswith("<bob@example.org>  250 2.0.0 taken")
    assert "there" not in person.run("queue", "show", ID).stdout


def test_the_timeline_has_each_verdict_at_its_time_but_no_waiting(person: Person) -> None:
    sent(person)
    assert "there" not in person.run("queue", "show", ID).stdout.rpartition("\n\n")[2]
    person.found_there(GONE)
    assert person.run("queue", "cancel", ID).stdout == f"{ID} is dismissed\n"
    timeline = json.loads(person.run("queue", "show", "--json", ID).stdout)["timeline"]
    told = [event for event in timeline if not event["what"].startswith("notice")]
    assert [event["what"] for event in told] == ["accepted", "attempt", "sent", "bounced there", "dealt with"]
    assert (told[3]["address"], told[3]["reply"]) == ("bob@example.org", "550 5.1.1 unknown")


def test_a_bounce_there_is_listed_with_the_failed_mail_and_show_says_what_to_do(person: Person) -> None:
    sent(person, GONE)
    listing = person.run("queue").stdout
    assert f"<bob@example.org>  {BOUNCED_TEXT}\n" in listing
    assert "1 failed; what to do: `mailrelay queue show ID`" in listing
    shown = person.run("queue", "show", ID).stdout
    for command in (f"resend {ID} [--to ADDRESS]", f"edit {ID}", f"cancel {ID}"):
        assert f"mailrelay queue {command} " in shown
    assert "queue drop" not in shown


def test_a_message_that_failed_here_and_there_has_each_command_once(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.put(ID, (b"bob@example.org", b"eve@example.org"))
    person.attempt(SENT, BOUNCED, is_followed=True)
    person.found_there(GONE)
    shown = person.run("queue", "show", ID).stdout
    commands = [
        line.split("mailrelay queue ")[1].split()[0] for line in shown.splitlines() if "mailrelay queue" in line
    ]
    assert sorted(commands) == ["cancel", "drop", "edit", "resend"]


def test_a_bounce_there_that_is_dismissed_is_listed_no_more_and_can_be_dismissed_once(person: Person) -> None:
    sent(person, GONE)
    done = person.run("queue", "cancel", ID)
    assert (done.returncode, done.stdout) == (0, f"{ID} is dismissed\n")
    assert person.run("queue").stdout == "the queue is empty\n"
    assert f"{BOUNCED_TEXT}; you have dealt with it" in person.run("queue", "--all").stdout
    shown = person.run("queue", "show", ID).stdout
    assert "to do" not in shown
    again = person.run("queue", "cancel", ID)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"the state of {ID} does not allow cancel; see" in again.stderr


def test_a_bounce_there_is_sent_again_to_another_address(person: Person) -> None:
    sent(person, GONE)
    done = person.run("queue", "resend", ID, "--to", "rob@example.org")
    assert (done.returncode, done.stderr) == (0, NO_DAEMON)
    new = done.stdout.split()[-1]
    assert done.stdout == f"{ID} is replaced by {new}\n"
    shown = person.run("queue", "show", ID).stdout
    assert f"replaced by {new}" in shown
    assert "to do" not in shown
    refused = person.run("queue", "resend", ID)
    assert (refused.returncode, refused.stderr) == (
        1,
        f"mailrelay: {ID} was replaced by {new}; see `mailrelay queue show {new}`\n",
    )


def test_a_message_that_waits_there_has_its_mail_server_asked_when_the_daemon_runs(person: Person) -> None:
    sent(person, DEFERRED)
    assert f"to do      mailrelay queue retry {ID} " in person.run("queue", "show", ID).stdout
    done = person.run("queue", "retry", ID)
    assert done.stdout == f"{ID} waits on default: its mail server is asked to try again when the daemon runs\n"
    assert (done.returncode, done.stderr) == (0, NO_DAEMON)
    shown = person.run("queue", "show", ID).stdout
    assert "retry      default: its mail server is to be asked to try the message again\n" in shown


def test_what_is_not_there_any_more_cannot_be_tried_again_there(person: Person) -> None:
    sent(person, DELIVERED)
    done = person.run("queue", "retry", ID)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{ID} has nothing waiting to be sent" in done.stderr


@pytest.fixture
def at_each_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Does something in place of each pause between two reads of the spool."""

    def use(do: Callable[[], None]) -> None:
        monkeypatch.setattr("mailrelay.control.following.time.sleep", lambda _seconds: do())

    return use


@pytest.mark.parametrize("text", ["its mail server was asked to try again", "only its administrator may ask it\x1b"])
def test_retry_waits_until_the_mail_server_was_asked_and_says_what_it_was_told(
    person: Person,
    text: str,
    at_each_read: Callable[[Callable[[], None]], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def told() -> None:
        db = connect(person.spool)
        with transaction(db):
            followed.retry_told(db, [1], text)
        db.close()

    sent(person, DEFERRED)
    at_each_read(told)
    monkeypatch.setenv("MAILRELAY_CONFIG", str(person.config))
    monkeypatch.setattr("mailrelay.control.acts.wake", lambda _directory: True)
    assert acts.retry.main([ID], standalone_mode=False) == 0
    assert capsys.readouterr().out == f"{ID} waits on default: {printable(text)}\n"
    assert printable(text) in person.run("queue", "show", ID).stdout


def test_retry_does_not_wait_for_ever(
    person: Person, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(person, DEFERRED)
    monkeypatch.setenv("MAILRELAY_CONFIG", str(person.config))
    monkeypatch.setattr("mailrelay.control.acts.wake", lambda _directory: True)
    monkeypatch.setattr(acts, "ASK_WAIT", 0.1)
    acts.retry.main([ID], standalone_mode=False)
    assert capsys.readouterr().out.endswith("asked to try again as soon as the relayhost can be reached\n")


def test_a_test_message_is_followed_until_its_verdict_is_known(
    person: Person, at_each_read: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sent(person)
    at_each_read(lambda: person.found_there(DELIVERED))
    begun = time.time()
    with lock.lock(person.spool):
        follow(config.load(person.config), 1, begun, begun + 60)
    *_, took, there = capsys.readouterr().out.splitlines()
    assert took == "your server took it"
    assert there.split(" s  ")[1] == "mx.example.net said 250 2.0.0 OK"


def test_a_test_message_that_bounces_there_is_a_failure(
    person: Person, at_each_read: Callable[[Callable[[], None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sent(person)
    at_each_read(lambda: person.found_there(GONE))
    begun = time.time()
    with lock.lock(person.spool), pytest.raises(Failed, match=f"{ID} has bounced there"):
        follow(config.load(person.config), 1, begun, begun + 60)
    assert capsys.readouterr().out.splitlines()[-1].endswith(f" s  {BOUNCED_TEXT}")


def test_a_test_message_without_a_verdict_is_not_waited_for_longer_than_was_asked(
    person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(person)
    begun = time.time()
    with lock.lock(person.spool):
        follow(config.load(person.config), 1, begun, begun + 0.2)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "your server took it",
        f"what becomes of it there is not known yet; see `mailrelay queue show {ID}`",
    ]


def test_a_test_message_that_is_not_followed_ends_when_the_mail_server_took_it(
    person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    person.attempt(SENT)
    begun = time.time()
    with lock.lock(person.spool):
        follow(config.load(person.config), 1, begun, begun + 60)
    assert capsys.readouterr().out.splitlines()[-1] == "your server took it"


def test_the_log_of_a_message_has_what_became_of_it_there(person: Person) -> None:
    line = f"{ID} to=<bob@example.org> relay=default there=deferred source=queue (451 later)"
    (person.spool / "mailrelay.log").write_text(
        f"{line}\naaaa000002 to=<eve> relay=default there=left source=queue ()\n"
    )
    assert person.run("log", "aaaa").stdout.splitlines() == [line]
