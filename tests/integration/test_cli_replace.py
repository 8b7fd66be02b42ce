"""`mailrelay queue resend` and `queue edit`, as a person runs them; the editor is a small script."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from harness.person import BOUNCED, CONTENT, DEFERRED, SENT, Person
from harness.terminal import Terminal

from mailrelay.control import acts
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.spool import lock, trigger

NO_DAEMON = "mailrelay: the daemon is not running: start `mailrelay serve`\n"
OLD = "aaaa000001"
LATIN = b"Subject: gr\xfc\xdfe\r\n\r\nna\xefve\r\n.\r\n\r\n\xff\xfe\r\n"


@pytest.fixture
def person(tmp_path: Path) -> Person:
    (tmp_path / "tmp").mkdir()
    return Person(tmp_path)


def content(person: Person, queue_id: str) -> bytes:
    sql = f"SELECT data FROM content c JOIN message m ON m.id = c.message WHERE queue_id = '{queue_id}' ORDER BY seq"
    return b"".join(data for (data,) in person.query(sql))


def envelope(person: Person, queue_id: str) -> tuple[bytes, list[bytes]]:
    sql = f"SELECT sender, address FROM message m JOIN recipient r ON r.message = m.id WHERE queue_id = '{queue_id}'"
    found = person.query(f"{sql} ORDER BY r.id")
    return found[0][0], [address for _, address in found]


def successor(stdout: str) -> str:
    old, _, new = stdout.rstrip("\n").partition(" is replaced by ")
    assert old == OLD
    return new


def editor(person: Person, script: str) -> dict[str, str]:
    """An editor that does `script`, Python, to the octets `text` of the file `path`."""
    program = person.config.parent / "editor.py"
    program.write_text(
        "import os, sys\nfrom pathlib import Path\npath = Path(sys.argv[1])\ntext = path.read_bytes()\n"
        f"{script}\npath.write_bytes(text)\n"
    )
    words = shlex.join([sys.executable, str(program)])
    return {"EDITOR": words, "TMPDIR": str(person.config.parent / "tmp")}


def left_behind(person: Person) -> list[Path]:
    return [path for path in (person.config.parent / "tmp").rglob("*") if path.is_file()]


# resend


def test_a_bounced_message_goes_to_another_address_without_being_written_again(person: Person) -> None:
    person.put(OLD, [b"bob@exmaple.org", b"eve@example.org"])
    person.attempt(BOUNCED, SENT)
    before = content(person, OLD)
    done = person.run("queue", "resend", "aaaa", "--to", "bob@example.org")
    assert (done.returncode, done.stderr) == (0, NO_DAEMON)
    new = successor(done.stdout)
    assert envelope(person, new) == (b"me@example.org", [b"bob@example.org"])
    assert content(person, new) == before
    assert person.states() == {OLD: "cancelled,sent", new: "queued"}
    assert f"cancelled  <bob@exmaple.org>  replaced by {new}" in person.run("queue", "show", OLD).stdout


def test_it_goes_to_the_same_ones_where_nobody_else_is_named_and_to_all_who_are(person: Person) -> None:
    person.put(OLD)
    person.attempt(BOUNCED)
    new = successor(person.run("queue", "resend", OLD).stdout)
    assert envelope(person, new) == (b"me@example.org", [b"bob@example.org"])
    person.attempt(BOUNCED)
    done = person.run(
        "queue", "resend", new, "--to", "ann@example.org", "--to", "Joe <joe@example.org>", "--from", "<>"
    )
    assert envelope(person, done.stdout.split()[-1]) == (b"", [b"ann@example.org", b"joe@example.org"])


UNKNOWN = Verdict(There.BOUNCED, Source.REPORT, b"550 5.1.1 unknown", b"mx.example.org")


def test_what_bounced_on_the_relayhost_is_sent_again_to_another_address_and_stays_sent(person: Person) -> None:
    person.put(OLD, [b"bob@example.org", b"eve@example.org"])
    person.attempt(SENT, SENT, is_followed=True)
    person.found_there(UNKNOWN, Verdict(There.DELIVERED, Source.LOG))
    assert "1 bounced there" in person.run("status", "--brief").stdout
    done = person.run("queue", "resend", OLD, "--to", "rob@example.org")
    assert (done.returncode, done.stderr) == (0, NO_DAEMON)
    new = successor(done.stdout)
    assert envelope(person, new) == (b"me@example.org", [b"rob@example.org"])
    assert content(person, new).endswith(CONTENT.partition(b"\r\n\r\n")[2])
    assert person.states() == {OLD: "sent,sent", new: "queued"}
    assert "1 failed" not in person.run("queue").stdout
    shown = json.loads(person.run("queue", "show", OLD, "--json").stdout)
    assert shown["replaced_by"] == [new]
    assert shown["recipients"][0]["there"] == {
        "state": "bounced",
        "words": "550 5.1.1 unknown",
        "source": "report",
        "since": None,
        "by": "mx.example.org",
        "dealt_with": True,
    }


def test_what_bounced_on_the_relayhost_is_dismissed(person: Person) -> None:
    person.put(OLD)
    person.attempt(SENT, is_followed=True)
    person.found_there(UNKNOWN)
    (listed,) = map(json.loads, person.run("queue", "--json").stdout.splitlines())
    assert (listed["queue_name"], listed["recipients"][0]["state"]) == ("failed", "sent")
    assert person.run("queue", "cancel", OLD).returncode == 0
    assert person.run("queue", "--json").stdout == ""
    (listed,) = map(json.loads, person.run("queue", "--all", "--json").stdout.splitlines())
    assert (listed["queue_name"], listed["recipients"][0]["there"]["dealt_with"]) == ("sent", True)


def test_a_retry_of_what_is_deferred_there_is_allowed_and_says_that_it_is_there(person: Person) -> None:
    person.put(OLD)
    person.put("aaaa000002")
    person.attempt(SENT, is_followed=True)
    person.found_there(Verdict(There.DEFERRED, Source.QUEUE, b"451 4.7.1 Greylisted"))
    done = acts.retry(person.spool, [OLD, "aaaa000002"])
    assert (done.changed, done.only_there, done.failures) == ([OLD, "aaaa000002"], [OLD], [])


def test_another_reverse_path_may_go_another_way_or_none(person: Person) -> None:
    other = '[relayhost.work]\nssh = "work.example"\nsenders = ["*@work.example"]\n'
    person.config.write_text(person.config.read_text().replace('["*"]', '["*@example.org"]') + other)
    person.put(OLD)
    person.attempt(BOUNCED)
    done = person.run("queue", "resend", OLD, "--from", "me@nowhere.example")
    assert done.returncode == 1
    assert done.stderr.startswith("mailrelay: no relayhost takes mail from <me@nowhere.example>; ")
    assert person.states() == {OLD: "bounced"}
    new = successor(person.run("queue", "resend", OLD, "--from", "me@work.example").stdout)
    assert person.query(f"SELECT relayhost FROM message WHERE queue_id = '{new}'") == [("work",)]


def test_what_was_sent_or_waits_or_is_not_there_is_not_resent(person: Person) -> None:
    for queue_id, end in ((OLD, SENT), ("aaaa000002", DEFERRED)):
        person.put(queue_id)
        person.attempt(end)
        done = person.run("queue", "resend", queue_id)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"the state of {queue_id} does not allow resend" in done.stderr
    assert "no message has the id zzzz" in person.run("queue", "resend", "zzzz").stderr


def test_where_there_is_no_spool_nothing_is_fixed_and_none_is_made(person: Person) -> None:
    for verb in ("resend", "edit"):
        done = person.run("queue", verb, "abcd", env=editor(person, ""))
        assert (done.returncode, done.stderr.split(";")[0]) == (1, "mailrelay: no message has the id abcd")
    assert not person.spool.exists()


@pytest.mark.parametrize(
    "words", [("--to", "bob@"), ("--to", ""), ("--to", "a b@c"), ("--from", "a@b, c@d"), ("--from", ""), ("--cc", "x")]
)
def test_what_is_no_address_is_one_line_and_changes_nothing(person: Person, words: tuple[str, ...]) -> None:
    person.put(OLD)
    person.attempt(BOUNCED)
    done = person.run("queue", "resend", OLD, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert person.states() == {OLD: "bounced"}


def test_a_daemon_hears_of_the_new_message(person: Person) -> None:
    person.put(OLD)
    person.attempt(BOUNCED)
    with lock.lock(person.spool):
        bell = trigger.listen(person.spool)
        try:
            assert person.run("queue", "resend", OLD).stderr == ""
            assert os.read(bell, 100) == b"\n"
        finally:
            os.close(bell)


# edit


def test_the_editor_gets_a_private_file_with_the_envelope_on_top_and_plain_line_ends(person: Person) -> None:
    person.put(OLD, content=LATIN)
    seen = person.config.parent / "seen"
    modes = "oct(path.stat().st_mode)[-3:], oct(path.parent.stat().st_mode)[-3:]"
    person.run(
        "queue", "edit", OLD, env=editor(person, f"Path({str(seen)!r}).write_bytes(repr(({modes}, text)).encode())")
    )
    file_mode, directory_mode, text = eval(seen.read_text())
    assert (file_mode, directory_mode) == ("600", "700")
    assert b"\nEnvelope-From: <me@example.org>\nEnvelope-To: <bob@example.org>\n----" in text
    assert text.endswith(LATIN.replace(b"\r\n", b"\n"))
    assert left_behind(person) == []


def test_what_was_changed_goes_in_the_place_of_the_old_one_and_the_rest_octet_for_octet(person: Person) -> None:
    person.put(OLD, [b"bob@example.org", b"eve@example.org"], content=LATIN)
    person.attempt(BOUNCED, DEFERRED)
    before = content(person, OLD)
    change = "text = text.replace(b'na\\xefve', b'wise').replace(b'<bob@example.org>', b'<ann@example.org>')"
    done = person.run("queue", "edit", OLD, env=editor(person, change))
    assert (done.returncode, done.stderr) == (0, NO_DAEMON)
    new = successor(done.stdout)
    assert content(person, new) == before.replace(b"na\xefve", b"wise")
    assert envelope(person, new) == (b"me@example.org", [b"ann@example.org", b"eve@example.org"])
    assert person.query(f"SELECT body FROM message WHERE queue_id = '{new}'") == [("8BITMIME",)]
    assert person.states() == {OLD: "cancelled,cancelled", new: "queued,queued"}
    assert left_behind(person) == []


@pytest.mark.parametrize("verb", ["hold", None])
def test_mail_that_waits_or_is_held_can_be_edited(person: Person, verb: str | None) -> None:
    person.put(OLD)
    if verb:
        person.run("queue", verb, OLD)
    new = successor(person.run("queue", "edit", OLD, env=editor(person, "text += b'PS\\n'")).stdout)
    assert content(person, new).endswith(b"\r\nPS\r\n")
    assert person.states() == {OLD: "cancelled", new: "queued"}


@pytest.mark.parametrize("script", ["", "text = b''", "text = b' \\n'", "path.unlink(); sys.exit()"])
def test_unchanged_or_empty_nothing_happens(person: Person, script: str) -> None:
    person.put(OLD)
    done = person.run("queue", "edit", OLD, env=editor(person, script))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{OLD} is left as it was: nothing was changed\n", "")
    assert person.states() == {OLD: "queued"}
    assert left_behind(person) == []


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("text = text.replace(b'<bob@', b'<bob bob@')", "the path does not follow RFC 5321"),
        ("text = text.replace(b'Envelope-To', b'To')", "line 4 is neither Envelope-From nor Envelope-To"),
        ("text += b'x' * 200_000", "the message is larger than listen.max_message_size"),
        ("text += b'x'; path.write_bytes(text); sys.exit(3)", "the editor ended with status 3"),
    ],
)
def test_what_cannot_be_sent_is_kept_where_the_person_is_told(person: Person, script: str, why: str) -> None:
    person.put(OLD)
    done = person.run("queue", "edit", OLD, env=editor(person, script))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"mailrelay: {why}") or why in done.stderr
    (kept,) = left_behind(person)
    assert done.stderr.endswith(f"; {OLD} is left as it was, your text is in {kept}\n")
    assert b"Subject: hello" in kept.read_bytes()
    assert person.states() == {OLD: "queued"}


def test_a_nul_is_sent_as_it_was_written(person: Person) -> None:
    person.put(OLD)
    done = person.run("queue", "edit", OLD, env=editor(person, "text += b'a\\0b\\n'"))
    assert done.returncode == 0
    assert content(person, done.stdout.split()[-1]).endswith(b"\r\na\0b\r\n")


def test_what_is_sent_while_it_is_edited_is_not_sent_twice(person: Person) -> None:
    person.put(OLD)
    env = editor(
        person,
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from harness.person import SENT, Person\n"
        f"from mailrelay.spool.database import connect\n"
        f"person = object.__new__(Person); person.spool = Path({str(person.spool)!r}); person.attempt(SENT)\n"
        "text += b'PS\\n'",
    )
    done = person.run("queue", "edit", OLD, env=env)
    assert done.returncode == 1
    assert "does not allow edit" in done.stderr
    assert person.states() == {OLD: "sent"}
    assert b"PS\n" in left_behind(person)[0].read_bytes()


def test_a_signature_that_a_change_broke_is_spoken_of_and_one_that_holds_is_not(person: Person) -> None:
    person.put(OLD, content=b"DKIM-Signature: v=1; h=from\r\n\r\nsigned\r\n")
    done = person.run("queue", "edit", OLD, env=editor(person, "text = text.replace(b'bob@', b'ann@')"))
    assert done.stderr == NO_DAEMON
    new = done.stdout.split()[-1]
    done = person.run("queue", "edit", new, env=editor(person, "text += b'PS\\n'"))
    assert done.stderr.splitlines()[-1].startswith("mailrelay: the message was signed")


@pytest.mark.parametrize("name", ["VISUAL", "EDITOR"])
def test_an_editor_that_is_not_there_is_named(person: Person, name: str) -> None:
    person.put(OLD)
    for words in ("no-such-editor -w", "'unbalanced"):
        done = person.run("queue", "edit", OLD, env={name: words})
        assert (done.returncode, done.stderr) == (
            1,
            f"mailrelay: the editor '{words}' cannot be started; name one in VISUAL or EDITOR\n",
        )


def test_visual_comes_before_editor_and_vi_where_there_is_neither(person: Person) -> None:
    person.put(OLD)
    env = editor(person, "")
    assert person.run("queue", "edit", OLD, env=env | {"VISUAL": "no-such-editor"}).returncode == 1
    bare = {"PATH": str(person.spool), "EDITOR": " "}
    terminal = Terminal([sys.executable, "-m", "mailrelay", "queue", "edit", OLD], person.environment | bare)
    assert terminal.end() == 1
    assert "the editor 'vi' cannot be started" in terminal.text
    # It would wait for keys that nobody can press.
    assert "there is no terminal for an editor" in person.run("queue", "edit", OLD, env={"EDITOR": " "}).stderr


def test_on_a_terminal_a_mistake_can_be_fixed_at_once(person: Person) -> None:
    person.put(OLD)
    script = "text = text.replace(b'ann@@', b'ann@') if b'ann@@' in text else text.replace(b'<bob@', b'<ann@@')"
    master, slave = pty.openpty()
    os.write(master, b"y\n")
    done = subprocess.run(
        [sys.executable, "-m", "mailrelay", "queue", "edit", OLD],
        stdin=slave,
        capture_output=True,
        env=person.environment | editor(person, script),
        timeout=60,
        check=False,
    )
    os.close(master)
    os.close(slave)
    assert done.returncode == 0, done.stderr
    assert b"Open it again?" in done.stderr
    assert envelope(person, successor(done.stdout.decode())) == (b"me@example.org", [b"ann@example.org"])
    assert left_behind(person) == []


# Did you mean?


def test_show_asks_whether_somebody_reached_before_was_meant(person: Person) -> None:
    person.put("bbbb000001", [b"ann@example.org"])
    person.attempt(SENT)
    person.put(OLD, [b"ann@exmaple.org", b"joe@example.com"])
    person.attempt(BOUNCED, DEFERRED)
    command = f"mailrelay queue resend {OLD} --to ann@example.org"
    assert f"Did you mean ann@example.org? {command}\n" in person.run("queue", "show", OLD).stdout
    shown = json.loads(person.run("queue", "show", OLD, "--json").stdout)
    assert [to["did_you_mean"] for to in shown["recipients"]] == ["ann@example.org", ""]
    assert person.run(*shlex.split(command)[1:]).returncode == 0
    assert person.states()[OLD] == "cancelled,deferred"


def test_where_several_failed_the_question_names_the_editor(person: Person) -> None:
    person.put("bbbb000001", [b"ann@example.org"])
    person.attempt(SENT)
    person.put(OLD, [b"ann@exmaple.org", b"joe@example.com"])
    person.attempt(BOUNCED, BOUNCED)
    assert f"Did you mean ann@example.org? mailrelay queue edit {OLD}\n" in person.run("queue", "show", OLD).stdout


@pytest.mark.parametrize("after", ["sent", "bounced", "held", "cancelled"])
def test_the_command_that_an_old_id_leads_to_works(person: Person, after: str) -> None:
    person.put(OLD)
    person.attempt(BOUNCED)
    new = successor(person.run("queue", "resend", OLD).stdout)
    if after in ("held", "cancelled"):
        person.run("queue", {"held": "hold", "cancelled": "cancel"}[after], new)
    else:
        person.attempt({"sent": SENT, "bounced": BOUNCED}[after])
    changed = editor(person, "text = text.replace(b'hello', b'goodbye')")
    for what in ("drop", "retry", "hold", "release", "resend", "cancel", "edit"):
        said = person.run("queue", what, OLD, env=changed).stderr
        command = re.search("`mailrelay ([^`]*)`", said)
        assert command, said
        done = person.run(*command[1].split(), env=changed)
        assert done.returncode == 0, (said, done.stderr)


def test_the_help_of_queue_names_them(person: Person) -> None:
    shown = person.run("queue", "--help").stdout
    assert "\n  resend " in shown
    assert "\n  edit " in shown
    for verb in ("resend", "edit"):
        assert "--config FILE" in person.run("queue", verb, "--help").stdout


# an old id


def test_an_old_id_leads_to_the_newest_message_whatever_is_asked_of_it(person: Person) -> None:
    person.put(OLD)
    person.attempt(BOUNCED)
    first = successor(person.run("queue", "resend", OLD).stdout)
    changed = editor(person, "text = text.replace(b'hello', b'goodbye')")
    done = person.run("queue", "edit", first, env=changed)
    second = done.stdout.split()[-1]
    assert first in done.stdout
    newest = person.run("queue", "edit", second, env=editor(person, "text += b'more'")).stdout.split()[-1]
    assert len({OLD, first, second, newest}) == 4
    for old in (OLD, first, second):
        for what in ("retry", "hold", "release", "cancel", "drop", "resend", "edit"):
            done = person.run("queue", what, old, env=changed)
            assert done.returncode == 1
            # The newest message waits, so it can be neither released, nor dropped, nor sent again.
            use = f"use that id: `mailrelay queue {what} {newest}`"
            hint = f"see `mailrelay queue show {newest}`" if what in ("release", "drop", "resend") else use
            assert done.stderr == f"mailrelay: {old} was replaced by {newest}; {hint}\n"
        shown = person.run("queue", "show", old).stdout
        assert f"replaced   by {newest}; see `mailrelay queue show {newest}`\n" in shown
        assert "to do" not in shown
        assert json.loads(person.run("queue", "show", "--json", old).stdout)["replaced_by"] == [newest]
        done = person.run("queue", "show", "--content", old)
        assert done.stderr.endswith(f"see `mailrelay queue show --content {newest}`, which replaced it\n")
    assert f"replaced by {first}" in person.run("queue", "--all").stdout
    assert "replaced" not in person.run("queue", "show", newest).stdout


def test_an_id_whose_recipients_were_replaced_one_after_the_other_leads_to_all_of_them(person: Person) -> None:
    person.put(OLD, [b"bob@example.org", b"eve@example.org"])
    person.attempt(BOUNCED, DEFERRED)
    first = successor(person.run("queue", "resend", OLD).stdout)
    second = successor(person.run("queue", "edit", OLD, env=editor(person, "text += b'x'")).stdout)
    done = person.run("queue", "retry", OLD)
    assert f"{OLD} was replaced by {first} and {second}; " in done.stderr
    # One of them is replaced in its turn, and the other one is cancelled: it stays the newest for its recipient.
    third = person.run("queue", "edit", first, env=editor(person, "text += b'y'")).stdout.split()[-1]
    assert f"{OLD} was replaced by {second} and {third}; " in person.run("queue", "retry", OLD).stderr


def test_a_message_that_still_stands_for_a_recipient_is_no_old_one(person: Person) -> None:
    person.put(OLD, [b"bob@example.org", b"eve@example.org"])
    person.attempt(BOUNCED, DEFERRED)
    successor(person.run("queue", "resend", OLD).stdout)
    assert person.run("queue", "retry", OLD).returncode == 0
