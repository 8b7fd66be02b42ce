"""`mailrelay sendmail`: what programs hand in is in the spool, octet for octet, or they are told that it is not."""

import mailbox
import os
import pwd
import re
import socket
import subprocess
import sys
import syslog
import threading
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path
from typing import BinaryIO

import pytest
from harness.person import AWAY, BOUNCED, DEFERRED, SENT, Person

from mailrelay import submission
from mailrelay.cli import dead_letter
from mailrelay.cli.sendmail import exit_status
from mailrelay.mail.outcome import Outcome, Reply, Stage
from mailrelay.mail.overview import ListedRecipient
from mailrelay.spool import lock, trigger
from mailrelay.spool.database import FILE

ME = "me@example.org"
LETTER = b"From: me@example.org\nTo: bob@example.org\nDate: x\nMessage-ID: <a@b>\n\nHello.\n"
LOGIN = pwd.getpwuid(os.getuid()).pw_name.encode()


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def stored(person: Person) -> tuple[bytes, list[bytes], bytes]:
    """The one message in the spool: reverse path, recipients, content behind our Received field."""
    ((key, sender),) = person.query("SELECT id, sender FROM message")
    recipients = [
        address for (address,) in person.query(f"SELECT address FROM recipient WHERE message = {key} ORDER BY id")
    ]
    content = b"".join(data for (data,) in person.query(f"SELECT data FROM content WHERE message = {key} ORDER BY seq"))
    received, _, rest = content.partition(b"\r\n")
    assert received.startswith(b"Received: ")
    return sender, recipients, rest.partition(b"\r\n")[2]


def nothing_stored(person: Person) -> bool:
    return not (person.spool / FILE).exists() or person.query("SELECT * FROM message") == []


def dialogue(person: Person, commands: BinaryIO) -> subprocess.CompletedProcess[bytes]:
    """`sendmail -bs` with these commands on its stdin."""
    return subprocess.run(
        [sys.executable, "-m", "mailrelay", "sendmail", "-bs"],
        stdin=commands,
        capture_output=True,
        env=person.environment,
        timeout=60,
        check=False,
    )


def test_with_nobody_serving_the_message_is_on_disk_and_only_ours_to_read(person: Person) -> None:
    done = person.run("sendmail", "-f", ME, "bob@example.org", stdin=LETTER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stored(person) == (ME.encode(), [b"bob@example.org"], LETTER.replace(b"\n", b"\r\n"))
    assert person.spool.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in person.spool.iterdir())


def test_a_caller_without_a_name_is_a_sender_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert submission.login() == b"uid4000000000"


def test_without_a_stdin_the_error_says_that_there_is_none(person: Person) -> None:
    command = f"{sys.executable} -m mailrelay sendmail bob"
    done = subprocess.run(
        ["sh", "-c", f"exec {command} <&-"], env=person.environment, timeout=60, check=False, capture_output=True
    )
    assert done.returncode == 75
    assert done.stderr == b"mailrelay: the message on stdin cannot be read: Bad file descriptor; give it again\n"


def test_a_caller_that_closed_stdout_and_stderr_gets_the_right_status(person: Person) -> None:
    command = f"{sys.executable} -m mailrelay sendmail bob"
    for stdin, status in (("", 0), ("<&-", 75)):
        done = subprocess.run(
            ["sh", "-c", f"exec {command} {stdin} >&- 2>&-"],
            input=LETTER,
            env=person.environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == status
    assert len(person.states()) == 1


def test_the_daemon_hears_of_it(person: Person) -> None:
    person.spool.mkdir(mode=0o700)
    bell = trigger.listen(person.spool)
    try:
        assert person.run("sendmail", "bob", stdin=LETTER).returncode == 0
        assert os.read(bell, 100) == b"\n"
    finally:
        os.close(bell)


@pytest.mark.parametrize(
    ("options", "recipients"),
    [
        (("bob@example.org", "eve@example.org"), [b"bob@example.org", b"eve@example.org"]),
        (("bob@example.org,Eve <eve@example.org>", "bob@example.org"), [b"bob@example.org", b"eve@example.org"]),
        (("-t",), [b"to@example.org", b"cc@example.org", b"bcc@example.org"]),
        (("-ti",), [b"to@example.org", b"cc@example.org", b"bcc@example.org"]),
        (("-t", "bob"), [b"bob", b"to@example.org", b"cc@example.org", b"bcc@example.org"]),
        (("-oi", "-oem", "-odb", "--", "-x@example.org"), [b"-x@example.org"]),
        (("bob", "-v", "-O", "Timeout=1", "-L", "tag", "-Am", "-h", "3", "-G", "-p", "x"), [b"bob"]),
        (
            ("-eq", "-d0", "-c", "-T5", "-M", "x", "-x", "-X", "/log", "-oQ/dir", "-U", "-n", "-C", "/cf", "bob"),
            [b"bob"],
        ),
        (("bob@example.org eve@example.org",), [b"bob@example.org", b"eve@example.org"]),
        (("--read-recipients", "--from=me@example.org"), [b"to@example.org", b"cc@example.org", b"bcc@example.org"]),
        (("-bm", "bob"), [b"bob"]),
    ],
)
def test_options_as_programs_give_them(person: Person, options: tuple[str, ...], recipients: list[bytes]) -> None:
    letter = b"To: to@example.org\nCc: The C <cc@example.org>\nBcc: bcc@example.org\nSubject: x\n\nx\n"
    done = person.run("sendmail", *options, stdin=letter)
    assert (done.returncode, done.stderr) == (0, "")
    _, found, content = stored(person)
    assert found == recipients
    assert b"Bcc" not in content


@pytest.mark.parametrize(
    ("options", "sender"),
    [
        ((), LOGIN),
        (("-f", ME), ME.encode()),
        ((f"-f{ME}",), ME.encode()),
        (("-r", f"Me <{ME}>"), ME.encode()),
        (("-f", "<>"), b""),
        (("-f", ""), b""),
    ],
)
def test_the_sender_is_the_one_given_or_the_login_name(person: Person, options: tuple[str, ...], sender: bytes) -> None:
    assert person.run("sendmail", *options, "bob", stdin=LETTER).returncode == 0
    assert stored(person)[0] == sender


def test_a_from_field_is_made_where_there_is_none_and_left_alone_where_there_is_one(person: Person) -> None:
    assert person.run("sendmail", "-F", "Jürgen M.", "-f", ME, "bob", stdin=b"Subject: x\n\nx\n").returncode == 0
    fields = message_from_bytes(stored(person)[2], policy=SMTP).items()
    assert fields[-2:] == [("Subject", "x"), ("From", '"Jürgen M." <me@example.org>')]


def test_cron_mail_without_any_header_becomes_a_body(person: Person) -> None:
    assert person.run("sendmail", "-f", "", "root", stdin=b"it failed: 10%\r20%\nsecond\n").returncode == 0
    content = stored(person)[2]
    assert b"\r\nFrom: " + LOGIN + b"\r\n\r\n" in content
    assert content.endswith(b"\r\n\r\nit failed: 10%\r\n20%\r\nsecond\r\n")


def test_a_lone_dot_ends_the_message_unless_i_is_given(person: Person, tmp_path: Path) -> None:
    letter = LETTER + b"..\n.\nmore\n"
    assert person.run("sendmail", "bob", stdin=letter).returncode == 0
    assert stored(person)[2].endswith(b"Hello.\r\n..\r\n")
    for option in ("-i", "-oi"):
        (tmp_path / option).mkdir()
        other = Person(tmp_path / option)
        assert other.run("sendmail", option, "bob", stdin=letter).returncode == 0
        assert stored(other)[2].endswith(b"Hello.\r\n..\r\n.\r\nmore\r\n")


def test_what_reports_shall_say_and_what_the_content_is_stands_in_the_envelope(person: Person) -> None:
    options = ("-N", "success,FAILURE", "-R", "hdrs", "-V", "a+b =c", "-f", ME)
    assert person.run("sendmail", *options, "jürgen@example.org", stdin=LETTER + "ü\n".encode()).returncode == 0
    assert person.query("SELECT ret, envid, body, smtputf8 FROM message") == [("HDRS", b"a+2Bb+20+3Dc", "8BITMIME", 1)]
    assert person.query("SELECT notify FROM recipient") == [(b"SUCCESS,FAILURE",)]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("-bd",), 64, "the daemon is `mailrelay serve`"),
        (("-bD", "-q15m"), 64, "the daemon is `mailrelay serve`"),
        (("-bv", "bob"), 64, "`mailrelay test ADDRESS`"),
        (("-bt",), 64, "there are no address rules"),
        (("-bh",), 64, "`mailrelay status`"),
        (("-bH",), 64, "-bH is not supported"),
        (("-bx",), 64, "the modes are -bm, -bp, -bs and -bi"),
        (("--wait=soon", "bob"), 64, "--wait is a number of seconds"),
        (("--wait=nan", "bob"), 64, "--wait is a number of seconds"),
        (("--wait=-1", "bob"), 64, "--wait is a number of seconds"),
    ],
)
def test_what_is_not_supported_is_one_line_and_nothing_is_stored(
    person: Person, options: tuple[str, ...], status: int, words: str
) -> None:
    done = person.run("sendmail", *options, stdin=LETTER)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert words in done.stderr
    assert nothing_stored(person)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-z", "bob"), "-z is not an option of sendmail(1)"),
        (("--nonsense", "bob"), "--nonsense is not an option of sendmail(1)"),
        (("bob", "-f"), "-f is not an option of sendmail(1)"),
        (("-N", "sometimes", "bob"), "-N is never"),
        (("-N", "never,failure", "bob"), "-N is never"),
        (("-R", "some", "bob"), "-R is full or hdrs"),
        (("-V", "x" * 101, "bob"), "-V is at most"),
        (("-B", "BINARYMIME", "bob"), "-B is 7BIT or 8BITMIME"),
        (("-F", "x\r\nBcc: eve@example.org", "bob"), "-F contains a character"),
    ],
)
def test_an_option_that_cannot_be_understood_costs_no_mail(
    person: Person, options: tuple[str, ...], words: str
) -> None:
    done = person.run("sendmail", *options, stdin=LETTER)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "", 1)
    assert words in done.stderr
    assert done.stderr.endswith("ignored\n")
    assert stored(person) == (LOGIN, [b"bob"], LETTER.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("options", [("-z", "bob"), ("bob", "a b@c")])
def test_a_caller_that_does_not_read_stderr_loses_nothing(person: Person, options: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "mailrelay", "sendmail", *options]
    done = subprocess.run(argv, input=LETTER, stderr=writing, env=person.environment, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 0
    assert stored(person)[1][0] == b"bob"


def test_every_trouble_of_ours_leaves_the_message_in_dead_letter(person: Person, tmp_path: Path) -> None:
    person.put("aaaa000001")
    config = person.config.read_text()
    dead = tmp_path / "dead.letter"
    person.config.write_text(config.replace("[queue]\n", '[queue]\nmax_size = "100kB"\n'))
    full = person.run("sendmail", "bob", stdin=LETTER + b"x" * 90_000)
    assert (full.returncode, full.stderr) == (
        75,
        "mailrelay: the spool has reached queue.max_size; see what waits with `mailrelay queue`;"
        f" the message is in {dead}\n",
    )
    assert len(person.states()) == 1
    (person.spool / FILE).write_bytes(b"this is no database, " * 100)
    damaged = person.run("sendmail", "bob", stdin=LETTER + b"From here\n")
    assert (damaged.returncode, damaged.stderr.count("\n")) == (75, 1)
    (tmp_path / "file").touch()
    person.config.write_text(config.replace(str(person.spool), str(tmp_path / "file" / "spool")))
    nowhere = person.run("sendmail", "bob", stdin=LETTER)
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (75, 1)
    person.config.write_text("[nonsense]\n")
    wrong = person.run("sendmail", "bob", stdin=LETTER)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (78, 1)
    assert dead.stat().st_mode & 0o777 == 0o600
    kept = [message.as_bytes() for message in mailbox.mbox(dead)]
    assert kept == [
        LETTER + b"x" * 90_000 + b"\n",
        LETTER + b">From here\n",
        LETTER,
        LETTER,
    ]


def test_the_name_of_a_new_dead_letter_is_on_disk_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    synced: list[int] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    file = dead_letter.save(LETTER)
    assert file is not None
    assert set(synced) == {tmp_path.stat().st_ino, file.stat().st_ino}


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo", "hard link", "full"])
def test_no_other_file_is_written_in_place_of_dead_letter(person: Person, tmp_path: Path, kind: str) -> None:
    person.config.write_text("[nonsense]\n")
    dead, other = tmp_path / "dead.letter", tmp_path / "other"
    other.write_bytes(b"mine")
    match kind:
        case "symlink":
            dead.symlink_to(other)
        case "directory":
            dead.mkdir()
        case "fifo":
            os.mkfifo(dead)
        case "hard link":
            dead.hardlink_to(other)
        case _:
            with dead.open("wb") as file:
                file.truncate(100_000_000)
    done = person.run("sendmail", "bob", stdin=LETTER)
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert "dead.letter" not in done.stderr
    assert other.read_bytes() == b"mine"


def test_what_is_not_stored_is_in_the_log_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: lines.append((priority, line)))
    opened: list[tuple[str, int, int]] = []
    monkeypatch.setattr(syslog, "openlog", lambda *words: opened.append(words))
    dead_letter.report("it is lost\x1b")
    assert opened == [("mailrelay", syslog.LOG_PID, syslog.LOG_MAIL)]
    assert lines == [(syslog.LOG_ERR, "it is lost\\x1b")]


def test_a_log_of_the_system_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, goes_on, done = threading.Event(), threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        begun.set()
        goes_on.wait()

    monkeypatch.setattr(dead_letter, "PATIENCE", 0.01)
    monkeypatch.setattr(syslog, "openlog", hang)
    monkeypatch.setattr(syslog, "syslog", lambda *_: done.set())
    dead_letter.report("it is lost")
    assert not done.is_set()
    assert begun.wait(20)
    goes_on.set()
    assert done.wait(20)


def test_q_makes_all_mail_due_now_and_reads_no_message(person: Person) -> None:
    person.put("aaaa000001")
    person.attempt(DEFERRED)
    for options in (("-q",), ("-q15m",), ("-qf", "-v"), ("-qIaaaa",)):
        done = person.run("sendmail", *options, stdin=LETTER)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert person.query("SELECT next_attempt <= unixepoch() + 1 FROM message") == [(1,)]
    assert person.states() == {"aaaa000001": "deferred"}


@pytest.mark.parametrize("options", [("-bi",), ("-I",)])
def test_there_is_no_alias_database_to_make(tmp_path: Path, options: tuple[str, ...]) -> None:
    person = Person(tmp_path)
    person.config.unlink()
    done = person.run("sendmail", *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "words", "stdin", "out"),
    [
        ("sendmail", ("bob",), LETTER, ""),
        ("send-mail", ("-i", "bob"), LETTER, ""),
        ("mailq", ("-Ac",), b"", "the queue is empty\n"),
        ("newaliases", (), b"", ""),
    ],
)
def test_the_names_of_a_sendmail_are_commands(
    person: Person, name: str, words: tuple[str, ...], stdin: bytes, out: str
) -> None:
    linked = f"import sys; sys.argv[0] = '/usr/sbin/{name}'; from mailrelay.__main__ import main; main()"
    argv = [sys.executable, "-c", linked, *words]
    done = subprocess.run(argv, input=stdin, capture_output=True, env=person.environment, timeout=60, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, out, b"")
    assert nothing_stored(person) is (stdin == b"")


def test_bp_is_the_listing(person: Person) -> None:
    assert person.run("sendmail", "-bp").stdout == "the queue is empty\n"
    person.put("aaaa000001")
    listings = [person.run(*words).stdout for words in (("sendmail", "-bp"), ("queue",))]
    # A second may have passed between the two.
    first, second = (re.sub(r"\b(now|\d+ s ago)\s+", "", listing) for listing in listings)
    assert "aaaa000001" in first
    assert first == second


@pytest.mark.parametrize(
    ("outcomes", "status", "words"),
    [
        ((SENT, SENT), 0, []),
        ((SENT, BOUNCED), 69, ["<eve@example.org> is bounced: 550 5.1.1 nobody here"]),
        ((BOUNCED, BOUNCED), 67, ["<bob@example.org> is bounced: ", "<eve@example.org> is bounced: "]),
        ((SENT, DEFERRED), 75, ["<eve@example.org> is deferred: 450 4.2.0 come back later"]),
        (
            (DEFERRED, Outcome(Stage.RCPT, Reply(554, (b"5.7.1 no\x1b",)))),
            69,
            ["deferred: ", "bounced: 554 5.7.1 no\\x1b"],
        ),
    ],
)
def test_with_wait_the_status_is_what_the_remote_said(
    person: Person, outcomes: tuple[Outcome, ...], status: int, words: list[str]
) -> None:
    person.spool.mkdir(mode=0o700)
    bell = trigger.listen(person.spool)
    os.set_blocking(bell, True)

    def daemon() -> None:
        os.read(bell, 100)
        person.attempt(*outcomes)

    serving = threading.Thread(target=daemon)
    serving.start()
    # What is deferred is waited for as long as was asked; all else ends the wait.
    seconds = "2" if DEFERRED in outcomes else "50"
    done = person.run("sendmail", f"--wait={seconds}", "bob@example.org", "eve@example.org", stdin=LETTER)
    serving.join()
    os.close(bell)
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == len(words)
    assert all(expected in line for expected, line in zip(words, done.stderr.splitlines(), strict=True))


def test_with_wait_and_nobody_serving_it_is_stored_and_not_waited_for(person: Person) -> None:
    # Longer than the time limit of a test.
    done = person.run("sendmail", "--wait=500", "bob", stdin=LETTER)
    assert done.returncode == 75
    assert "the daemon is not running" in done.stderr
    assert stored(person)[1] == [b"bob"]


def test_a_bare_wait_takes_no_address_for_its_seconds(person: Person) -> None:
    assert person.run("sendmail", "--wait", "bob", stdin=LETTER).returncode == 75
    assert stored(person)[1] == [b"bob"]


def test_with_wait_a_relayhost_out_of_reach_is_named(person: Person) -> None:
    person.put("aaaa000001")
    person.relayhost_fails(AWAY)
    with lock.lock(person.spool):
        bell = trigger.listen(person.spool)
        done = person.run("sendmail", "--wait=0", "bob", stdin=LETTER)
        os.close(bell)
    assert done.returncode == 75
    assert "<bob> is queued: the network is away" in done.stderr


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ([("sent", "2.0.0")], 0),
        ([("queued", "")], 75),
        ([("active", ""), ("sent", "2.0.0")], 75),
        ([("held", "5.6.7")], 75),
        ([("bounced", "5.1.1"), ("refused", "5.1.1")], 67),
        ([("bounced", "5.1.1"), ("sent", "2.1.5")], 69),
        ([("bounced", "5.1.1"), ("bounced", "5.7.1")], 69),
        ([("expired", "4.2.0"), ("queued", "")], 69),
        ([("cancelled", "")], 69),
    ],
)
def test_one_who_will_not_get_it_outweighs_those_who_may(found: list[tuple[str, str]], status: int) -> None:
    assert exit_status([ListedRecipient(b"bob", state, code, "", b"", None) for state, code in found]) == status


def test_bs_speaks_with_the_daemon_and_says_nothing_before_its_greeting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        person = Person(tmp_path, address=f"127.0.0.1:{server.getsockname()[1]}")
        heard: list[bytes] = []

        def daemon() -> None:
            client, _ = server.accept()
            with client:
                client.settimeout(1)
                try:
                    heard.append(client.recv(1))
                except TimeoutError:
                    client.settimeout(60)
                client.sendall(b"220 hello\r\n")
                octets = b""
                while piece := client.recv(65536):
                    octets += piece
                heard.append(octets)
                client.sendall(b"221 bye\xff\r\n")

        serving = threading.Thread(target=daemon)
        serving.start()
        (tmp_path / "commands").write_bytes(b"QUIT\r\n" + b"x\x00\xff" * 50_000)
        with (tmp_path / "commands").open("rb") as commands:
            done = dialogue(person, commands)
        serving.join()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"220 hello\r\n221 bye\xff\r\n", b"")
    assert heard == [b"QUIT\r\n" + b"x\x00\xff" * 50_000]


def test_bs_with_nobody_serving_is_status_75(tmp_path: Path) -> None:
    person = Person(tmp_path, address=f"unix:{tmp_path}/socket")
    done = person.run("sendmail", "-bs")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (75, "", 1)
    assert "the daemon is not running" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_bs_with_stdin_or_stdout_closed_is_status_75(tmp_path: Path, closed: str) -> None:
    person = Person(tmp_path, address=f"unix:{tmp_path}/socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/socket")
        listener.listen()
        command = f"exec {sys.executable} -m mailrelay sendmail -bs {closed}"
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, env=person.environment, timeout=60, check=False
        )
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (75, b"", 1)


def test_bs_is_status_75_when_the_daemon_breaks_off(tmp_path: Path) -> None:
    person = Person(tmp_path, address=f"unix:{tmp_path}/socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/socket")
        listener.listen()

        def daemon() -> None:
            with listener.accept()[0] as client:
                client.sendall(b"220 hello\r\n")
                client.recv(1)
                client.shutdown(socket.SHUT_RD)
                client.recv(1)

        serving = threading.Thread(target=daemon)
        serving.start()
        with (tmp_path / "commands").open("w+b") as commands:
            commands.write(b"NOOP\r\n" * 1_000_000)
            commands.seek(0)
            done = dialogue(person, commands)
        serving.join()
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (75, b"220 hello\r\n", 1)


CRON = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@pc> backup\n\ndisk is nearly full\n"
CRON_WORDS = ("sendmail", "-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root")


def with_submission(person: Person, **settings: str) -> None:
    lines = "".join(f'{key.rstrip("_")} = "{value}"\n' for key, value in settings.items())
    person.config.write_text(f"{person.config.read_text()}[submission]\n{lines}")


def test_without_settings_bare_addresses_wait_for_the_name_of_the_mail_server(person: Person) -> None:
    assert person.run(*CRON_WORDS, stdin=CRON).stderr == ""
    sender, recipients, content = stored(person)
    assert (sender, recipients) == (LOGIN, [b"root"])
    assert b"\r\nFrom: root (Cron Daemon)\r\nTo: root\r\n" in b"\r\n" + content.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert person.query("SELECT bare_header FROM message") == [(1,)]
    assert b"@root" not in content.partition(b"Subject")[0]


def test_the_settings_complete_the_sender_the_recipients_and_the_header(person: Person) -> None:
    with_submission(person, from_=ME, domain="pc.example", local="box@example.org")
    person.run(*CRON_WORDS, LOGIN.decode(), "box@example.org", "nobody-here", stdin=CRON)
    sender, recipients, content = stored(person)
    assert sender == ME.encode()
    # Two accounts of this computer and the address itself: one recipient.
    assert recipients == [b"box@example.org", b"nobody-here@pc.example"]
    header = message_from_bytes(content)
    assert (header["From"], header["To"]) == ("root@pc.example (Cron Daemon)", "root@pc.example")
    assert header["Message-ID"].endswith("@example.org>")
    assert person.query("SELECT bare_header FROM message") == [(0,)]


def test_a_bare_name_after_f_is_completed_like_the_login_name(person: Person) -> None:
    with_submission(person, from_=ME)
    person.run("sendmail", "-f", "shop", "bob@example.org", stdin=b"Subject: x\n\nx\n")
    sender, _, content = stored(person)
    assert sender == ME.encode()
    assert f"\r\nFrom: {ME}\r\n".encode() in content


def test_with_a_domain_alone_names_keep_their_local_parts(person: Person) -> None:
    with_submission(person, domain="pc.example")
    person.run("sendmail", "-f", "shop", "-t", stdin=b"To: nobody-here, Bob <bob@example.org>\n\nx\n")
    sender, recipients, content = stored(person)
    assert (sender, recipients) == (b"shop@pc.example", [b"nobody-here@pc.example", b"bob@example.org"])
    assert b"To: nobody-here@pc.example, Bob <bob@example.org>\r\n" in content
    assert b"From: shop@pc.example\r\n" in content


def test_the_completed_sender_chooses_the_relayhost(person: Person) -> None:
    text = person.config.read_text().replace(
        "[queue]", '[relayhost.work]\nssh = "work.example"\nsenders = ["*@work.example"]\n[queue]'
    )
    person.config.write_text(text)
    with_submission(person, from_="me@work.example")
    person.run("sendmail", "bob@example.org", stdin=b"Subject: x\n\nx\n")
    assert person.query("SELECT relayhost FROM message") == [("work",)]


def test_the_null_reverse_path_and_postmaster_are_not_completed(person: Person) -> None:
    with_submission(person, from_=ME, local="box@example.org")
    person.run("sendmail", "-f", "<>", "postmaster", stdin=b"Subject: x\n\nx\n")
    assert stored(person)[:2] == (b"", [b"postmaster"])
