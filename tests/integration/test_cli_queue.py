"""`mailrelay queue`: what it shows of mail in every state, and what it does to it."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness.person import AWAY, BOUNCED, CONTENT, DEFERRED, LOST, SENT, Person

from mailrelay.mail.outcome import Outcome, Reply, Stage
from mailrelay.spool import lock, trigger
from mailrelay.spool.database import connect

HEAVY = {
    "aiosmtpd",
    "asyncio",
    "asyncssh",
    "cryptography",
    "dns",
    "uvloop",
    "desktop_notifier",
    "ssl",
    "mailrelay.daemon",
}
NEEDLESS = HEAVY | {
    "click.shell_completion",
    "difflib",
    "email",
    "encodings.utf_8_sig",
    "importlib.metadata",
    "json",
    "logging",
    "lzma",
    "shlex",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "unicodedata",
    *(f"mailrelay.cli.{name}" for name in ("acts", "listing_table", "listing_text", "rows", "show")),
    *(f"mailrelay.control.{name}" for name in ("acts", "daemon", "details", "errors", "records")),
    *(
        f"mailrelay.mail.{name}"
        for name in ("address_suggestion", "envelope", "lifecycle", "notice", "outcome", "record", "trace")
    ),
    *(
        f"mailrelay.spool.{name}"
        for name in ("actions", "attempts", "correspondents", "lock", "notice_lifecycle", "trigger")
    ),
}
"""What is needed for mail only, for mistakes, or by who asks for something else."""
NO_DAEMON = "mailrelay: the daemon is not running: start `mailrelay serve`\n"
HOSTILE = Outcome(Stage.RCPT, Reply(550, (b"5.7.1 \x1b]0;owned\x07 \xe2\x80\xae [red]no\xff",)))


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def listed(person: Person, *options: str) -> list[dict[str, Any]]:
    done = person.run("queue", "--json", *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def on_a_terminal(person: Person, *words: str, **env: str) -> str:
    master, slave = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "mailrelay", *words],
        stdout=slave,
        env=person.environment | {"TERM": "xterm", "COLUMNS": "150"} | env,
        timeout=60,
        check=True,
    )
    os.close(slave)
    seen = b""
    try:
        while piece := os.read(master, 65536):
            seen += piece
    except OSError:
        pass
    os.close(master)
    return seen.decode()


@pytest.mark.parametrize(
    "words",
    [
        ("queue",),
        ("queue", "--json"),
        ("queue", "show", "aaaa000001"),
        ("queue", "show", "--json", "aaaa000001"),
        ("queue", "hold", "aaaa000001"),
        ("queue", "retry", "--all"),
        ("status",),
        ("status", "--json"),
        ("sendmail", "-bp"),
        ("log",),
    ],
)
def test_a_command_loads_nothing_that_it_does_not_need(person: Person, words: tuple[str, ...]) -> None:
    person.put("aaaa000001")
    (person.spool / "mailrelay.log").write_text("aaaa000001\n")
    loaded = loaded_by(person, *words)
    assert f"mailrelay.cli.{words[0]}" in loaded
    assert HEAVY & loaded == set()


@pytest.mark.parametrize("there_is_a_spool", [False, True])
@pytest.mark.parametrize(
    ("words", "needless"),
    [
        (("queue",), NEEDLESS),
        (("queue", "list"), NEEDLESS),
        (("status",), NEEDLESS - {"mailrelay.spool.lock", "mailrelay.spool.trigger"}),
    ],
)
def test_where_there_is_nothing_to_show_nothing_is_loaded_that_shows_or_changes_mail(
    person: Person, words: tuple[str, ...], needless: set[str], there_is_a_spool: bool
) -> None:
    if there_is_a_spool:
        connect(person.spool).close()
    loaded = loaded_by(person, *words)
    assert f"mailrelay.cli.{words[0]}" in loaded
    assert needless & loaded == set()


def loaded_by(person: Person, *words: str) -> set[str]:
    """The modules that there are when a command has ended."""
    program = (
        f"import sys; sys.argv = {['mailrelay', *words]}\n"
        "from mailrelay.cli.command_line import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=person.environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("words", [("queue",), ("queue", "list"), ("queue", "--all")])
def test_where_there_is_no_spool_the_queue_is_empty_and_none_is_made(person: Person, words: tuple[str, ...]) -> None:
    done = person.run(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the queue is empty\n", "")
    assert listed(person) == []
    assert not person.spool.exists()


def test_where_there_is_no_spool_no_message_has_the_id(person: Person) -> None:
    for words in (("show",), ("retry",), ("hold",), ("drop",)):
        done = person.run("queue", *words, "abcd")
        assert (done.returncode, done.stderr) == (
            1,
            "mailrelay: no message has the id abcd; see `mailrelay queue --all`\n",
        )
    assert person.run("queue", "retry", "--all").returncode == 0
    assert not person.spool.exists()


def test_every_key_of_the_contract_is_in_the_json_and_says_what_is(person: Person) -> None:
    person.put("aaaa000001", [b"bob@example.org", b"eve@example.org", b"joe@example.org"], age=60)
    person.attempt(DEFERRED, BOUNCED, SENT)
    person.put("aaaa000002", sender=b"")
    before = time.time()
    tried, fresh = listed(person)
    recipients = tried.pop("recipients")
    arrival, next_attempt = tried.pop("arrival_time"), tried.pop("next_attempt")
    size = tried.pop("message_size")
    assert isinstance(arrival, int)
    assert isinstance(next_attempt, int)
    assert isinstance(size, int)
    assert 55 < before - arrival < 100
    assert 1500 < next_attempt - before < 6000
    assert size > len(CONTENT)
    assert tried == {
        "queue_name": "deferred",
        "queue_id": "aaaa000001",
        "forced_expire": False,
        "sender": "me@example.org",
        "relayhost": "default",
        "fallback_for": "",
        "subject": "hello",
        "attempts": 1,
        "send_time": None,
    }
    assert recipients == [
        {
            "address": "bob@example.org",
            "delay_reason": "450 4.2.0 come back later",
            "state": "deferred",
            "status": "4.2.0",
            "reply": "450 4.2.0 come back later",
            "uncertain": False,
            "there": None,
        },
        {
            "address": "eve@example.org",
            "delay_reason": "",
            "state": "bounced",
            "status": "5.1.1",
            "reply": "550 5.1.1 nobody here",
            "uncertain": False,
            "there": None,
        },
        {
            "address": "joe@example.org",
            "delay_reason": "",
            "state": "sent",
            "status": "2.0.0",
            "reply": "250 2.0.0 taken",
            "uncertain": False,
            "there": None,
        },
    ]
    assert (fresh["sender"], fresh["queue_name"], fresh["next_attempt"]) == ("", "incoming", fresh["arrival_time"])


def test_what_waits_for_a_relayhost_says_what_is_wrong_with_it_and_when_it_is_dialled_again(person: Person) -> None:
    person.put("aaaa000001")
    person.relayhost_fails(AWAY)
    (message,) = listed(person)
    assert message["recipients"][0]["delay_reason"] == "the network is away"
    assert message["next_attempt"] > time.time() + 300
    done = person.run("queue")
    assert "the network is away" in done.stdout
    assert "in 9 min" in done.stdout


def test_what_keeps_a_relayhost_from_being_reached_is_said_once_however_much_waits_for_it(person: Person) -> None:
    for number in range(3):
        person.put(f"aaaa00000{number}")
    person.relayhost_fails(AWAY)
    for shown in (
        person.run("queue").stdout,
        on_a_terminal(person, "queue"),
        on_a_terminal(person, "queue", COLUMNS="80"),
    ):
        assert shown.count("default cannot be reached: the network is away; see `mailrelay status`") == 1
        assert shown.count("the network is away") == 1
        assert shown.count("default cannot be reached") == 4


def test_the_commands_that_fix_failed_mail_are_shown_with_it(person: Person) -> None:
    person.put("aaaa000001")
    assert "to do" not in person.run("queue", "show", "aaaa").stdout
    person.attempt(BOUNCED)
    assert "1 failed; what to do: `mailrelay queue show ID`" in person.run("queue").stdout
    shown = person.run("queue", "show", "aaaa").stdout
    for command in ("resend aaaa000001 [--to ADDRESS]", "edit aaaa000001", "drop aaaa000001"):
        assert f"mailrelay queue {command}" in shown
    assert person.run("queue", "drop", "aaaa").returncode == 0
    assert "to do" not in person.run("queue", "show", "aaaa").stdout


def test_the_commands_for_held_mail_are_shown_with_it(person: Person) -> None:
    person.put("aaaa000001")
    person.run("queue", "hold", "aaaa")
    assert "1 held; what to do: `mailrelay queue show ID`" in person.run("queue").stdout
    shown = person.run("queue", "show", "aaaa").stdout
    for command in ("release", "resend", "edit", "cancel"):
        assert f" mailrelay queue {command} aaaa000001 " in shown
    assert "drop" not in shown


def test_the_fault_of_a_relayhost_is_shown_only_with_mail_that_waits_for_it(person: Person) -> None:
    person.put("aaaa000001")
    person.relayhost_fails(AWAY)
    assert "fault      the network is away" in person.run("queue", "show", "aaaa").stdout
    person.run("queue", "hold", "aaaa")
    assert "the network is away" not in person.run("queue", "show", "aaaa").stdout


def test_mail_that_may_arrive_twice_is_shown_as_such(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(LOST)
    (message,) = listed(person)
    assert message["recipients"][0]["uncertain"] is True
    assert "may arrive twice; the connection broke" in person.run("queue").stdout
    assert "may arrive twice" in person.run("queue", "show", "aaaa").stdout


def test_the_plain_listing_has_a_line_for_each_recipient_and_a_summary(person: Person) -> None:
    person.put("aaaa000001", [b"bob@example.org", b"eve@example.org"])
    person.attempt(DEFERRED, BOUNCED)
    person.put("aaaa000002", age=7300)
    with_nobody = person.run("queue").stdout.splitlines()
    assert [line[:22].split() for line in with_nobody[:-1]] == [
        ["ID", "STATE"],
        ["aaaa000001", "deferred"],
        ["aaaa000001", "bounced"],
        ["aaaa000002", "queued"],
    ]
    assert "2 h ago" in with_nobody[3]
    assert "<me@example.org>  <bob@example.org>  450 4.2.0 come back later" in with_nobody[1]
    assert with_nobody[-1].startswith("2 messages, ")
    assert with_nobody[-1].endswith("""\
: 2 pending, 1 failed (a message counts once for each state of its recipients); what to do: `mailrelay queue show ID`;\
 the daemon is not running: start `mailrelay serve`""")
    with lock.lock(person.spool):
        assert person.run("queue").stdout.splitlines()[-1].endswith("; what to do: `mailrelay queue show ID`")


def test_history_is_listed_only_when_asked_for(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(SENT)
    assert listed(person) == []
    assert person.run("queue").stdout == "the queue is empty\n"
    for words in (("queue", "--all"), ("queue", "list", "--all")):
        assert "aaaa000001" in person.run(*words).stdout
    (message,) = listed(person, "--all")
    assert (message["queue_name"], message["next_attempt"]) == ("sent", None)


def test_hostile_words_and_addresses_reach_no_terminal_raw(person: Person) -> None:
    person.put(
        "aaaa000001", ["b\u202eob@example.org".encode()], content=b"Subject: =?utf-8?q?=1b=9b?=\r\n\r\nx\x1b[2J\ty\r\n"
    )
    person.attempt(HOSTILE)
    seen = [
        person.run("queue").stdout,
        person.run("queue", "--json").stdout,
        person.run("queue", "show", "aaaa000001").stdout,
        person.run("queue", "show", "aaaa000001", "--json").stdout,
        on_a_terminal(person, "queue", NO_COLOR="1"),
        on_a_terminal(person, "queue", "show", "aaaa000001", "--content"),
    ]
    for text in seen:
        bare = text.replace("\r\n", "\n").replace("\n", "").replace("\x1b[1m", "").replace("\x1b[0m", "")
        assert bare.replace("\t", "").isprintable(), text
        assert "\u202e" not in text
    assert all("owned" in text for text in seen[:-1])
    assert "[red]no" in seen[4].replace("\r\n", "")
    assert "x\\x1b[2J\ty" in seen[-1]


def test_a_terminal_gets_a_table_in_colour_unless_no_color_is_set(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(DEFERRED)
    coloured = on_a_terminal(person, "queue")
    assert "\x1b[33mdeferred" in coloured
    assert "come back later" in coloured
    assert "\x1b[33m" not in on_a_terminal(person, "queue", NO_COLOR="1")
    assert "\x1b" not in person.run("queue").stdout


def story_of(shown: str) -> list[str]:
    """The timeline of `queue show`, without the times."""
    return [line[27:] for line in shown.rpartition("\n\n")[2].splitlines()]


def test_show_tells_the_story_in_order(person: Person) -> None:
    person.put("aaaa000001", age=60)
    person.attempt(DEFERRED)
    shown = person.run("queue", "show", "aaaa000001").stdout
    assert "from       <me@example.org>" in shown
    assert "to         <bob@example.org>  deferred\n           450 4.2.0 come back later\n" in shown
    assert story_of(shown) == ["accepted", "attempt", "deferred  <bob@example.org>  at RCPT  450 4.2.0 come back later"]
    record = json.loads(person.run("queue", "show", "--json", "aaaa").stdout)
    assert [event["what"] for event in record["timeline"]] == ["accepted", "attempt", "deferred"]
    assert record["timeline"][2]["reply"] == "450 4.2.0 come back later"
    assert record["queue_id"] == "aaaa000001"


def test_show_content_gives_the_message_octet_for_octet_while_it_is_kept(person: Person) -> None:
    content = b"Date: x\r\nMessage-ID: <a@b>\r\n\r\n.\r\n\xff\x1b\r\n" + b"long" * 10_000 + b"\r\n"
    person.put("aaaa000001", content=content)
    shown = subprocess.run(
        [sys.executable, "-m", "mailrelay", "queue", "show", "--content", "aaaa000001"],
        env=person.environment,
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout
    assert shown.startswith(b"Received: ")
    assert shown.endswith(b"\r\n" + content)
    person.attempt(SENT)
    gone = person.run("queue", "show", "--content", "aaaa000001")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "no longer kept" in gone.stderr


def test_the_person_moves_mail_through_its_states(person: Person) -> None:
    for number in (1, 2):
        person.put(f"aaaa00000{number}")
    assert person.run("queue", "hold", "aaaa000001").stdout == "aaaa000001 is held\n"
    assert person.states() == {"aaaa000001": "held", "aaaa000002": "queued"}
    assert person.run("queue", "release", "aaaa000001").stdout == "aaaa000001 is released\n"
    assert person.run("queue", "cancel", "aaaa000001").stdout == "aaaa000001 is cancelled\n"
    assert person.states() == {"aaaa000001": "cancelled", "aaaa000002": "queued"}
    person.attempt(BOUNCED)
    assert person.states()["aaaa000002"] == "bounced"
    assert person.run("queue", "drop", "aaaa000002").stdout == "aaaa000002 is dropped\n"
    assert listed(person) == []


def test_retry_makes_one_or_all_due_now(person: Person) -> None:
    for number in (1, 2):
        person.put(f"aaaa00000{number}")
        person.attempt(DEFERRED)
    later = time.time() + 1000
    assert [message["next_attempt"] > later for message in listed(person)] == [True, True]
    assert person.run("queue", "retry", "aaaa000002").stdout == "aaaa000002 is due now\n"
    assert [message["next_attempt"] > later for message in listed(person)] == [True, False]
    assert person.run("queue", "retry", "--all").stdout == "2 messages are due now\n"
    assert [message["next_attempt"] > later for message in listed(person)] == [False, False]


def test_of_several_ids_all_are_done_that_can_be_and_each_other_one_has_a_line(person: Person) -> None:
    for queue_id in ("aaaa000001", "aaaa000002", "bbbb000001"):
        person.put(queue_id)
    done = person.run("queue", "hold", "bbb", "zz", "aaaa", "aaaa000002")
    assert done.returncode == 1
    assert done.stdout == "bbbb000001 is held\naaaa000002 is held\n"
    assert [line.split(";")[0] for line in done.stderr.splitlines()[:2]] == [
        "mailrelay: no message has the id zz",
        "mailrelay: more than one message has an id that begins with aaaa",
    ]
    assert person.states() == {"aaaa000001": "queued", "aaaa000002": "held", "bbbb000001": "held"}


def test_what_the_state_does_not_allow_is_one_line_and_changes_nothing(person: Person) -> None:
    person.put("aaaa000001")
    for verb in ("release", "drop"):
        done = person.run("queue", verb, "aaaa000001")
        assert (done.returncode, done.stderr) == (
            1,
            f"mailrelay: the state of aaaa000001 does not allow {verb}; see `mailrelay queue show aaaa000001`\n",
        )
    assert person.states() == {"aaaa000001": "queued"}


def test_a_change_rings_the_daemon_or_says_that_nobody_serves(person: Person) -> None:
    person.put("aaaa000001")
    done = person.run("queue", "hold", "aaaa000001")
    assert (done.returncode, done.stderr) == (0, NO_DAEMON)
    with lock.lock(person.spool):
        bell = trigger.listen(person.spool)
        try:
            done = person.run("queue", "release", "aaaa000001")
            assert (done.returncode, done.stderr) == (0, "")
            assert os.read(bell, 100) == b"\n"
            assert person.run("queue", "drop", "aaaa000001").returncode == 1
            with pytest.raises(BlockingIOError):
                os.read(bell, 100)
        finally:
            os.close(bell)


def test_a_hook_tells_the_daemon_that_the_network_has_changed_and_changes_nothing_itself(person: Person) -> None:
    person.put("aaaa000001")
    done = person.run("queue", "retry", "--network")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", NO_DAEMON)
    with lock.lock(person.spool):
        bell = trigger.listen(person.spool)
        try:
            assert trigger.fire(person.spool)
            assert person.run("queue", "retry", "--network").returncode == 0
            assert trigger.drain(bell) == trigger.LOOK + trigger.NETWORK
        finally:
            os.close(bell)


def test_an_attempt_that_a_crash_left_open_is_closed_before_a_change_but_never_a_living_daemons(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt()
    with lock.lock(person.spool):
        done = person.run("queue", "hold", "aaaa000001")
        assert done.returncode == 1
        assert "is being sent at this moment" in done.stderr
        assert listed(person)[0]["queue_name"] == "active"
    assert person.run("queue", "hold", "aaaa000001").returncode == 0
    (message,) = listed(person)
    assert (message["queue_name"], message["recipients"][0]["uncertain"]) == ("hold", True)


@pytest.mark.parametrize(
    "words",
    [
        ("queue", "nonsense"),
        ("queue", "show"),
        ("queue", "hold"),
        ("queue", "retry"),
        ("queue", "retry", "--all", "abcd"),
        ("queue", "retry", "--all", "--network"),
        ("queue", "retry", "--network", "abcd"),
        ("queue", "show", "--content", "--json", "abcd"),
        ("queue", "--json", "show", "abcd"),
        ("queue", "--nonsense"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(person: Person, words: tuple[str, ...]) -> None:
    done = person.run(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--help`" in done.stderr


@pytest.mark.parametrize(
    "words", [("queue", "show"), ("queue", "hold"), ("queue", "resend"), ("queue", "edit"), ("log",)]
)
def test_an_id_that_is_no_text_is_one_line_and_status_1(person: Person, words: tuple[str, ...]) -> None:
    person.put("aaaa000001")
    done = person.run(*words, "aa\udcff")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_a_narrow_terminal_cuts_nothing_off(person: Person) -> None:
    person.put("aaaa000001", ["日本語@example.org".encode()])
    person.attempt(DEFERRED)
    for columns in ("40", "80"):
        seen = on_a_terminal(person, "queue", COLUMNS=columns)
        for words in ("aaaa000001", "deferred", "<me@example.org>", "<日本語@example.org>", "come back later"):
            assert words in seen


def test_a_status_code_is_shown_once_and_beside_a_reply_that_lacks_it(person: Person) -> None:
    lines = Outcome(Stage.RCPT, Reply(550, (b"5.1.1 No such account. Please", b"5.1.1 check the address")))
    person.put("aaaa000001", [b"bob@example.org", b"eve@example.org", b"joe@example.org"])
    person.attempt(lines, Outcome(Stage.RCPT, Reply(550, (b"No such account",))), LOST)
    shown = person.run("queue", "show", "aaaa000001").stdout
    said = "550 5.1.1 No such account. Please check the address"
    assert f"to         <bob@example.org>  bounced\n           {said}\n" in shown
    assert "to         <eve@example.org>  bounced  5.0.0\n           550 No such account\n" in shown
    assert "to         <joe@example.org>  deferred  4.4.2  may arrive twice\n           the connection broke\n" in shown
    assert story_of(shown)[2] == f"bounced  <bob@example.org>  at RCPT  {said}"
    assert said in person.run("queue").stdout
    # A program gets the words of the mail server.
    assert listed(person)[0]["recipients"][0]["reply"] == ("550 5.1.1 No such account. Please 5.1.1 check the address")


def test_times_are_local_and_name_their_zone(person: Person) -> None:
    person.put("aaaa000001", age=60)
    arrival = listed(person)[0]["arrival_time"]
    for zone, offset, hours in (("UTC", "+0000", 0), ("XXX-9", "+0900", 9), ("XXX8", "-0800", -8)):
        done = person.run("queue", "show", "aaaa000001", env={"TZ": zone})
        local = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(arrival + hours * 3600))
        assert f"arrived    {local} {offset} (1 min ago)\n" in done.stdout
        assert f"\n{local} {offset}  accepted\n" in done.stdout


def test_what_is_planned_stands_last_and_is_not_shown_as_past(person: Person) -> None:
    person.put("aaaa000001", age=60)
    person.attempt(BOUNCED)
    person.put("aaaa000002")
    db = connect(person.spool)
    sql = "UPDATE notice_backend SET tries = 1, why = 'no such Maildir', next_try = ?"
    db.execute(sql, (time.time() + 190,))
    late = story_of(person.run("queue", "show", "aaaa000001").stdout)
    planned = "notice (failed) not delivered by mailbox, next try  no such Maildir"
    assert late[-1] == f"planned, in 3 min:  {planned}"
    db.execute(sql, (time.time() - 30,))
    shown = person.run("queue", "show", "aaaa000001").stdout
    assert story_of(shown)[-1] == f"due:  {planned}"
    assert "planned" not in person.run("queue", "show", "aaaa000002").stdout
    record = json.loads(person.run("queue", "show", "--json", "aaaa000001").stdout)
    assert [event["planned"] for event in record["timeline"]] == [False, False, False, True]
    db.close()


def test_the_next_attempt_of_a_message_says_that_no_daemon_will_make_it(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(DEFERRED)
    assert "the daemon is not running: start `mailrelay serve`" in person.run("queue", "show", "aaaa").stdout
    with lock.lock(person.spool):
        assert "the daemon is not running" not in person.run("queue", "show", "aaaa").stdout


def test_what_happened_before_the_clock_was_set_back_keeps_its_order_and_is_not_in_the_future(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(DEFERRED)
    db = connect(person.spool)
    db.execute("UPDATE attempt SET opened = opened + 3600, closed = closed + 3600")
    db.execute("UPDATE message SET arrival = arrival + 3600, next_attempt = 0")
    db.close()
    person.attempt(BOUNCED)
    shown = person.run("queue", "show", "aaaa000001").stdout
    since = "(the clock was set back since)"
    assert shown.count("in 59 min") == 0
    assert f" {since}\nrelayhost" in shown
    story = story_of(shown)
    assert [line.removeprefix(since).split()[0] for line in story] == [
        *("accepted", "attempt", "deferred", "attempt", "bounced")
    ]
    assert [line.startswith(since) for line in story] == [True, True, True, False, False]
    assert "now" in person.run("queue").stdout.splitlines()[1]
