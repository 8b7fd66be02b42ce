"""A handed-in message that cannot be sent is on disk, held or failed, with a notice, and every command works on it.

Each kind is a row of the table in docs/failures.md.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.person import Person
from harness.readme import page, section, table

ME = "me@example.org"
HEADER = b"From: me@example.org\nTo: alice@example.org\nSubject: hello\n\n"


@dataclass(frozen=True)
class Kind:
    """words: after `sendmail`. letter: on stdin. state, status, text: of each recipient that is not tried."""

    words: tuple[str, ...]
    letter: bytes
    untried: tuple[str, ...]
    state: str
    status: str
    text: str
    good: tuple[str, ...] = ()
    exit_status: int = 0


T = ("-t", "-i", "-f", ME)
ALICE = ("alice@example.org",)
KINDS = {
    "a recipient that is not an address": [
        Kind(
            T,
            b"To: alice@example.org, a b@c\n\nx\n",
            ("a b@c",),
            "bounced",
            "5.1.3",
            "'a b@c' is not an address",
            ALICE,
        ),
        Kind(
            T,
            b'Cc: "bob <b@x.example>\nTo: alice@example.org\n\nx\n',
            ('"bob <b@x.example>',),
            "bounced",
            "5.1.3",
            "is not an address",
            ALICE,
        ),
        Kind(T, b"Bcc: b\x01@x.example\n\nx\n", ("b @x.example",), "bounced", "5.1.3", "is not an address"),
        Kind(T, b"To: list: alice@example.org, @;\n\nx\n", ("@",), "bounced", "5.1.3", "is not an address", ALICE),
        Kind(
            T,
            b"To: alice@example.org, " + b"x" * 700 + b"@x.example\n\nx\n",
            ("x" * 300 + " ...",),
            "bounced",
            "5.1.3",
            "longer than",
            ALICE,
        ),
        Kind(
            ("-f", ME, "alice@example.org", "a b@c", "<>", ""),
            HEADER,
            ("a b@c", "<>", " (not an address)"),
            "bounced",
            "5.1.3",
            "is not an address",
            ALICE,
        ),
    ],
    "no recipient": [
        Kind(T, b"Subject: hello\n\nTo: bob\n", ("(no recipient)",), "bounced", "5.1.3", "no To, Cc or Bcc"),
        Kind(T, b"To: undisclosed-recipients:;\n\nx\n", ("(no recipient)",), "bounced", "5.1.3", "no To, Cc or Bcc"),
        Kind(T, b"", ("(no recipient)",), "bounced", "5.1.3", "no To, Cc or Bcc"),
        Kind(("-f", ME), HEADER, ("(no recipient)",), "bounced", "5.1.3", "no argument and no -t"),
    ],
    "a NUL in the message": [
        Kind(T, HEADER + b"a\0b\n", ALICE, "held", "5.6.0", "NUL octet"),
        Kind(T, b"To: alice@example.org\nSubject: a\0b\n\nx\n", ALICE, "held", "5.6.0", "NUL octet"),
    ],
    "a mail loop": [Kind(T, b"Received: x\n" * 50 + HEADER, ALICE, "held", "5.4.6", "mail loop")],
    "larger than `listen.max_message_size`": [
        Kind(T, HEADER + b"x" * 100_001, ALICE, "held", "5.3.4", "larger than listen.max_message_size")
    ],
    "larger than twice `listen.max_message_size`": [
        Kind(T, HEADER + b"x\n" * 250_000, ALICE, "bounced", "5.3.4", "is not kept", exit_status=65)
    ],
    "a sender that is not an address": [
        Kind(("-f", "a b", "alice@example.org"), HEADER, ALICE, "held", "5.1.7", "the sender 'a b' is not an address"),
        Kind(("-f", f"{ME},you@x", *ALICE), HEADER, ALICE, "held", "5.1.7", "is not an address"),
    ],
    "no relayhost takes mail from this sender": [
        Kind(
            ("-f", "me@example.com", *ALICE),
            HEADER,
            ALICE,
            "held",
            "5.7.1",
            "no relayhost takes mail from <me@example.com>: see `senders`",
        ),
        Kind(
            ("-f", "taro", *ALICE),
            HEADER,
            ALICE,
            "held",
            "5.7.1",
            "no relayhost takes mail from <taro>: see `from` below [submission] and `senders`",
        ),
    ],
}
EVERY = [pytest.param(kind, id=f"{name} {place}") for name, kinds in KINDS.items() for place, kind in enumerate(kinds)]


@pytest.fixture
def person(tmp_path: Path) -> Person:
    # The login name is a bare one: another pattern than * takes mail from none.
    person = Person(tmp_path, senders="*@example.org")
    lines = "[relayhost.other]\nssh = 'other.example'\nsenders = ['*@example.net']\n[notify]\nmailbox = '{}/box'\n"
    person.config.write_text(person.config.read_text() + lines.format(tmp_path))
    return person


def hand_in(person: Person, kind: Kind) -> str:
    """Hands the message in; returns its queue id."""
    done = person.run("sendmail", *kind.words, stdin=kind.letter)
    assert done.returncode == kind.exit_status
    assert kind.text in done.stderr
    ((queue_id,),) = person.query("SELECT queue_id FROM message")
    return str(queue_id)


def test_every_kind_has_its_row_and_no_other_has() -> None:
    rows = table(section(page("failures"), "Handed-in messages that cannot be sent"))
    assert {(row[0], row[1], row[2]) for row in rows} == {
        (name, kind.state, f"`{kind.status}`") for name, kinds in KINDS.items() for kind in kinds
    }


@pytest.mark.parametrize("kind", EVERY)
def test_it_is_stored_and_every_reader_shows_it(person: Person, kind: Kind) -> None:
    queue_id = hand_in(person, kind)
    found = person.query("SELECT address, state, status FROM recipient ORDER BY id")
    good = [(address.encode(), "queued", "") for address in kind.good]
    assert found == [*good, *((address.encode(), kind.state, kind.status) for address in kind.untried)]
    due = person.query("SELECT next_attempt IS NOT NULL FROM message")
    assert due == [(int(bool(kind.good)),)]
    told = person.query("SELECT kind, backend FROM notice JOIN notice_backend ON notice = id ORDER BY backend")
    if kind.state == "held":
        assert told == [("held", "desktop"), ("held", "mailbox")]
    else:
        assert told == [("failed", "desktop"), ("failed", "dsn"), ("failed", "mailbox")]
    listing = person.run("queue").stdout
    record = person.run("queue", "--json").stdout
    shown = person.run("queue", "show", queue_id).stdout
    log = person.run("log", queue_id).stdout
    for address in kind.untried:
        assert f"<{address}>  " in listing
        assert f"<{address}>" in log
        assert shown.count(f"<{address}>") == 2
    assert kind.text in listing
    assert kind.text in shown
    assert f"dsn={kind.status} status={kind.state}" in log
    assert f'"status":"{kind.status}"' in record
    assert "  attempt" not in shown
    assert "attempts   0\n" in shown
    status = person.run("status", "--brief").stdout
    assert ("1 failed" if kind.state == "bounced" else "1 cannot be sent") in status


@pytest.mark.parametrize("kind", [kind for kinds in KINDS.values() for kind in kinds if kind.state == "held"])
def test_a_release_sends_it_as_it_is(person: Person, kind: Kind) -> None:
    queue_id = hand_in(person, kind)
    assert f"mailrelay queue release {queue_id}" in person.run("queue", "show", queue_id).stdout
    before = person.query("SELECT data FROM content ORDER BY seq")
    assert person.run("queue", "release", queue_id).returncode == 0
    assert person.query("SELECT state FROM recipient") == [("queued",)] * len(kind.untried)
    assert person.query("SELECT next_attempt IS NOT NULL, relayhost FROM message") == [(1, "default")]
    assert person.query("SELECT data FROM content ORDER BY seq") == before
    # The notice is needless now.
    assert person.query("SELECT 1 FROM notice_backend WHERE delivered IS NULL") == []
    assert f"held  <{kind.untried[0]}>" in person.run("queue", "show", queue_id).stdout


@pytest.mark.parametrize("kind", EVERY)
def test_it_can_be_sent_to_another_address_from_another_one(person: Person, kind: Kind) -> None:
    queue_id = hand_in(person, kind)
    done = person.run("queue", "resend", queue_id, "--to", "bob@example.org", "--from", "you@example.org")
    if kind.exit_status:
        assert (done.returncode, "is no longer kept" in done.stderr) == (1, True)
        return
    assert done.returncode == 0
    new = done.stdout.split()[-1]
    assert person.states() == {
        queue_id: ",".join([*["queued"] * len(kind.good), *["cancelled"] * len(kind.untried)]),
        new: "queued",
    }
    assert person.query("SELECT sender FROM message ORDER BY id DESC LIMIT 1") == [(b"you@example.org",)]


@pytest.mark.parametrize("kind", EVERY)
def test_it_can_be_edited(person: Person, kind: Kind, tmp_path: Path) -> None:
    queue_id = hand_in(person, kind)
    script = tmp_path / "editor.py"
    script.write_text(
        "import pathlib, re, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "head, line, body = path.read_bytes().partition(b'---- The message begins below this line ----\\n')\n"
        "path.write_bytes(b'Envelope-From: <me@example.org>\\nEnvelope-To: <bob@example.org>\\n' + line + body)\n"
    )
    done = person.run("queue", "edit", queue_id, env={"EDITOR": f"{sys.executable} {script}"})
    assert done.returncode == (1 if kind.exit_status else 0)
    if not kind.exit_status:
        assert set(person.states()[queue_id].split(",")) == {"cancelled"}


@pytest.mark.parametrize("kind", EVERY)
def test_it_can_be_given_up(person: Person, kind: Kind) -> None:
    queue_id = hand_in(person, kind)
    done = person.run("queue", "drop" if kind.state == "bounced" else "cancel", queue_id)
    assert (done.returncode, done.stdout) == (
        0,
        f"{queue_id} is {'dropped' if kind.state == 'bounced' else 'cancelled'}\n",
    )
    assert person.query("SELECT 1 FROM notice_backend WHERE delivered IS NULL") == []
    assert person.query("SELECT count(*) > 0 FROM content") == [(int(bool(kind.good)),)]


def test_what_is_no_address_is_not_sent_again_as_it_is(person: Person) -> None:
    queue_id = hand_in(person, KINDS["a recipient that is not an address"][0])
    done = person.run("queue", "resend", queue_id)
    assert done.returncode == 1
    assert done.stderr == (
        f"mailrelay: <a b@c> is not an address; name all recipients of {queue_id} with --to ADDRESS\n"
    )


def test_nobody_is_told_by_mail_who_wants_no_report(person: Person) -> None:
    person.run("sendmail", "-t", "-f", ME, "-N", "never", stdin=b"To: a b@c\n\nx\n")
    assert person.query("SELECT backend FROM notice_backend ORDER BY backend") == [("desktop",), ("mailbox",)]


def test_with_wait_the_status_is_that_of_the_recipients(person: Person) -> None:
    done = person.run("sendmail", "--wait", "-f", ME, "a b@c", stdin=HEADER)
    assert done.returncode == 69
    done = person.run("sendmail", "--wait", "-f", ME, *ALICE, stdin=HEADER + b"\0")
    assert done.returncode == 75


def test_many_addresses_that_are_none_are_a_few_lines(person: Person) -> None:
    done = person.run(
        "sendmail", "-t", "-f", ME, stdin=b"To: " + b", ".join(b"a b%d" % n for n in range(500)) + b"\n\n"
    )
    assert (done.returncode, done.stderr.count("\n")) == (0, 6)
    assert person.query("SELECT count(*) FROM recipient") == [(101,)]
