"""Programs that hand their mail to sendmail(1), each as it does it: the message is stored, or held with a notice.

A program that is not installed is skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness.mail_clients import require_git_send_email
from harness.person import Person


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@dataclass(frozen=True)
class Computer:
    """A person for whom `directory`/bin/sendmail is mailrelay."""

    person: Person
    directory: Path

    @property
    def sendmail(self) -> str:
        return str(self.directory / "bin" / "sendmail")

    def run(self, argv: Sequence[str], stdin: bytes = b"", **more: str) -> None:
        """Runs a program, which must succeed; its stderr must be empty."""
        env = self.person.environment | {"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", **more}
        done = subprocess.run(
            argv, input=stdin, capture_output=True, env=env, cwd=self.directory, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")

    def stored(self) -> list[tuple[str, dict[str, str], bytes]]:
        """Of each message: sender, the states of the recipients, content."""
        records: list[dict[str, Any]] = [
            json.loads(line) for line in self.person.run("queue", "--json").stdout.splitlines()
        ]
        return [
            (
                record["sender"],
                {to["address"]: to["state"] for to in record["recipients"]},
                self.content(record["queue_id"]),
            )
            for record in records
        ]

    def content(self, queue_id: str) -> bytes:
        rows = self.person.query(
            f"SELECT data FROM content c JOIN message m ON m.id = c.message WHERE queue_id = '{queue_id}' ORDER BY seq"
        )
        return b"".join(data for (data,) in rows)


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sendmail", "mailrelay"):
        program = programs / name
        linked = f"import sys; sys.argv[0] = '{program}'; from mailrelay.__main__ import main; main()"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{linked}" "$@"\n')
        program.chmod(0o755)
    return Computer(Person(tmp_path), tmp_path)


CRON_HEADER = (
    b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> find -print0\nMIME-Version: 1.0\n"
    b"Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\n\n"
)


@pytest.mark.parametrize(
    ("words", "letter", "state"),
    [
        # Debian's cron; cronie; busybox; at; anacron.
        (("-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root"), CRON_HEADER + b"found: a\0b\n", "held"),
        (("-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"), CRON_HEADER + b"x\n.\n\xff\n", "queued"),
        (("-ti",), b"To: root\nSubject: cron: make\n\nx\n", "queued"),
        (("-i", "root"), b"Subject: Output from your job        5\nTo: root\n\nx\n", "queued"),
        (
            ("-FAnacron", "-odi", "root"),
            b"From: Anacron <root>\nTo: root\nSubject: Anacron job\n\n10%\r20%\r\n",
            "queued",
        ),
        # mdadm, smartd, logwatch, unattended-upgrades, Debian's reportbug, Nagios, sudo.
        (("-oi", "-t"), b"From: mdadm monitoring <root>\nTo: root\nSubject: DegradedArray\n\nx\n", "queued"),
        (("-oi", "-eq", "root"), b"Subject: x\n\nx\n", "queued"),
        (("-oi", "-t", "-odq", "-f", "root"), b"To: root\nSubject: x\n\nx\n", "queued"),
        (("-t", "-U", "-v", "-d0"), b"To: root\n\nx\n", "queued"),
        (("-Am", "-t", "-h", "5", "-p", "proto", "-L", "tag"), b"To: root\n\nx\n", "queued"),
    ],
)
def test_jobs(computer: Computer, words: tuple[str, ...], letter: bytes, state: str) -> None:
    computer.person.run("sendmail", *words, stdin=letter)
    ((_, recipients, content),) = computer.stored()
    assert recipients == {"root": state}
    body = letter.partition(b"\n\n")[2].replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert content.endswith(b"\r\n\r\n" + body)


@needs("php")
def test_php(computer: Computer) -> None:
    headers = r'"From: me@example.org\r\nBcc: bob@example.org\r\nX-A: 1"'
    code = f'exit(mail("alice@example.org, a b@c", "two words", "one\\r\\ntwo\\n", {headers}, "-fme@example.org") ? 0 : 1);'
    done = subprocess.run(
        ["php", "-n", "-d", f"sendmail_path={computer.sendmail} -t -i", "-r", code],
        capture_output=True,
        env=computer.person.environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    ((sender, recipients, content),) = computer.stored()
    assert sender == "me@example.org"
    assert recipients == {"alice@example.org": "queued", "bob@example.org": "queued", "a b@c": "bounced"}
    assert b"Bcc" not in content
    assert content.endswith(b"\r\n\r\none\r\ntwo\r\n\r\n")


@needs("s-nail")
def test_s_nail(computer: Computer) -> None:
    argv = ["s-nail", "-:u", "-Sv15-compat", "-Ssendwait", f"-Smta={computer.sendmail}", "-r", "me@example.org"]
    argv += ["-s", "hello", "-b", "bob@example.org", "alice@example.org"]
    computer.run(argv, b"hello\n", MAILRC="/dev/null")
    ((sender, recipients, content),) = computer.stored()
    assert sender == "me@example.org"
    assert recipients == {"alice@example.org": "queued", "bob@example.org": "queued"}
    assert b"Bcc" not in content


@needs("perl")
@pytest.mark.parametrize("library", ["Mail::Mailer", "Mail::Send"])
def test_perl(computer: Computer, library: str) -> None:
    if subprocess.run(["perl", f"-M{library}", "-e1"], capture_output=True, check=False).returncode:
        pytest.skip(f"Perl's {library} is not installed")
    made = (
        'my $m = Mail::Mailer->new("sendmail"); $m->open({From => "me\\@example.org", To => "alice\\@example.org",'
        ' Cc => "bob\\@example.org", Subject => "x"}); print $m "hello\\n"; $m->close or die;'
        if library == "Mail::Mailer"
        else 'my $m = Mail::Send->new(To => "alice\\@example.org", Subject => "x"); $m->cc("bob\\@example.org");'
        ' my $f = $m->open("sendmail"); print $f "hello\\n"; $f->close or die;'
    )
    computer.run(["perl", f"-M{library}", "-e", made], PERL_MAILERS=f"sendmail:{computer.sendmail}")
    ((_, recipients, content),) = computer.stored()
    assert recipients == {"alice@example.org": "queued", "bob@example.org": "queued"}
    assert content.endswith(b"\r\n\r\nhello\r\n")


def test_git_send_email_with_a_command(computer: Computer) -> None:
    require_git_send_email()
    patch = computer.directory / "0001.patch"
    patch.write_text(
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: me@example.org\nSubject: [PATCH] x\n\nx\n---\n 1\n"
    )
    me = {f"GIT_{who}_{what}": "me@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    argv = [
        "git",
        "-c",
        f"sendemail.sendmailCmd={computer.sendmail}",
        "-c",
        "sendemail.envelopeSender=auto",
        "send-email",
    ]
    argv += ["--quiet", "--confirm=never", "--suppress-cc=all", "--from=me@example.org", "--to=alice@example.org"]
    computer.run([*argv, "--bcc=bob@example.org", str(patch)], GIT_CONFIG_GLOBAL="/dev/null", **me)
    ((sender, recipients, content),) = computer.stored()
    assert sender == "me@example.org"
    assert recipients == {"alice@example.org": "queued", "bob@example.org": "queued"}
    assert b"\r\nSubject: [PATCH] x\r\n" in content


@pytest.mark.parametrize(
    ("words", "recipients"),
    [
        (("-C", "/etc/msmtprc", "-a", "default", "-X", "/log", "-t"), {"alice@example.org", "bob@example.org"}),
        (("--read-recipients", "--from=me@example.org", "--host=x"), {"alice@example.org", "bob@example.org"}),
        (("-auuser", "-appass", "-amLOGIN", "-C/etc/ssmtp.conf", "eve@example.org"), {"eve@example.org"}),
        (("-oMr", "local-smtp", "-oem", "-G", "eve@example.org"), {"eve@example.org"}),
    ],
)
def test_options_of_other_programs_with_this_name(
    computer: Computer, words: tuple[str, ...], recipients: set[str]
) -> None:
    letter = b"From: me@example.org\r\nTo: alice@example.org\r\nBcc: bob@example.org\r\n\r\nx\r\n"
    assert computer.person.run("sendmail", *words, stdin=letter).returncode == 0
    ((_, found, content),) = computer.stored()
    assert set(found) == recipients
    assert b"Bcc" not in content


PYTHON = """\
import subprocess
from email.message import EmailMessage
message = EmailMessage()
message["From"], message["To"], message["Bcc"] = "me@example.org", "Älice <alice@example.org>", "bob@example.org"
message["Subject"] = "x"
message.set_content("hällo\\n")
sendmail = subprocess.Popen(["{sendmail}", "-t", "-oi"], stdin=subprocess.PIPE)
sendmail.communicate(message.{how})
raise SystemExit(sendmail.returncode)
"""


@pytest.mark.parametrize("how", ["as_bytes()", "as_bytes(policy=__import__('email.policy').policy.SMTP)"])
def test_a_python_script(computer: Computer, how: str) -> None:
    computer.run([sys.executable, "-c", PYTHON.format(sendmail=computer.sendmail, how=how)])
    ((_, recipients, content),) = computer.stored()
    assert recipients == {"alice@example.org": "queued", "bob@example.org": "queued"}
    assert b"Bcc" not in content
