"""The recipes of docs/clients.md: with each, the real program hands its mail to mailrelay.

A program that is not installed is skipped. The text is the documentation's, but for the port. Thunderbird is not run: it is
large, and has no interface for a script; the values in its picture are compared with the text instead.
"""

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from harness.client_programs import environment, has_come, needs, received, run
from harness.readme import ROOT, code, page, section, table

PHPMAILER = "/usr/share/php/libphp-phpmailer/autoload.php"
NODE_MODULES = "/usr/share/nodejs"
JAVA = ("/usr/share/java/jakarta-mail.jar", "/usr/share/java/jakarta-activation.jar")
PYTHON = "/usr/bin/python3"
"""Debian's own, which has its Django."""
RUBY = "/usr/bin/ruby"
ACTION_MAILER = "usr/share/rubygems-integration/all/specifications/actionmailer-*.gemspec"
LF_MESSAGE = "From: me@example.org\nTo: you@example.net\nSubject: hello\n\nhello\n"


def recipe(title: str, language: str, port: str) -> str:
    """The block of code in a section, for a listener on another port."""
    text = code(section(page("clients"), title), language)
    assert text.count("7777") == 1
    return text.replace("7777", port)


def row(client: str, port: str) -> str:
    """The code in the last cell of a client's row, for a listener on another port."""
    (cell,) = (cells[2] for cells in table(page("clients"), "client") if cells[0] == client)
    text = cell.split("`")[1]
    assert text.count("7777") == 1
    return text.replace("7777", port)


@needs("swaks")
async def test_swaks(tmp_path: Path) -> None:
    def client(port: str) -> None:
        argv = shlex.split(row("swaks", port).replace("you@example.org", "you@example.net"))
        run([*argv, "--header", "Subject: hello", "--body", "hello"], environment(tmp_path), tmp_path)

    has_come(await received(tmp_path / "spool", client))


async def test_python(tmp_path: Path) -> None:
    def client(port: str) -> None:
        message = f"import email, smtplib; message = email.message_from_string({LF_MESSAGE!r}); "
        run([PYTHON, "-c", f"{message}{row('Python', port)}"], environment(tmp_path), tmp_path)

    has_come(await received(tmp_path / "spool", client))


@needs("emacs")
async def test_emacs(tmp_path: Path) -> None:
    def client(port: str) -> None:
        compose = """
            (require 'message)
            (message-mail "you@example.net" "hello")
            (message-goto-body)
            (insert "hello\\n")
            (message-send)
        """
        program = tmp_path / "send.el"
        program.write_text(f"{recipe('Emacs', 'elisp', port)}{compose}")
        run(["emacs", "--quick", "--batch", "--load", str(program)], environment(tmp_path), tmp_path)

    has_come(await received(tmp_path / "spool", client))


@needs("curl")
@pytest.mark.parametrize("has_crlf", [False, True])
async def test_curl(tmp_path: Path, has_crlf: bool) -> None:
    def client(port: str) -> None:
        (tmp_path / "message.eml").write_bytes(LF_MESSAGE.replace("\n", "\r\n" if has_crlf else "\n").encode())
        argv = shlex.split(recipe("curl", "sh", port))
        assert "--crlf" in argv
        if has_crlf:
            argv.remove("--crlf")
        run([*argv, "-sS"], environment(tmp_path), tmp_path)

    has_come(await received(tmp_path / "spool", client))


@needs("curl")
@pytest.mark.parametrize("has_crlf", [False, True])
async def test_curl_with_the_wrong_line_ends_learns_that_its_message_is_refused(tmp_path: Path, has_crlf: bool) -> None:
    def client(port: str) -> None:
        (tmp_path / "message.eml").write_bytes(LF_MESSAGE.replace("\n", "\r\n" if has_crlf else "\n").encode())
        argv = shlex.split(recipe("curl", "sh", port))
        if not has_crlf:
            argv.remove("--crlf")
        with pytest.raises(AssertionError, match="returncode="):
            run([*argv, "-sS"], environment(tmp_path), tmp_path)

    assert await received(tmp_path / "spool", client) == []


@needs("php", PHPMAILER[1:])
async def test_phpmailer(tmp_path: Path) -> None:
    def client(port: str) -> None:
        program = tmp_path / "send.php"
        program.write_text(f"<?php\nrequire '{PHPMAILER}';\n{recipe('PHP', 'php', port)}")
        run(["php", "-n", str(program)], environment(tmp_path), tmp_path)

    has_come(await received(tmp_path / "spool", client))


@needs("node", f"{NODE_MODULES[1:]}/nodemailer")
async def test_nodemailer(tmp_path: Path) -> None:
    def client(port: str) -> None:
        program = tmp_path / "send.js"
        program.write_text(recipe("nodemailer", "js", port))
        run(["node", str(program)], environment(tmp_path, NODE_PATH=NODE_MODULES), tmp_path)

    has_come(await received(tmp_path / "spool", client))


@needs(PYTHON, "usr/lib/python3/dist-packages/django")
@pytest.mark.parametrize("is_report", [False, True])
async def test_django(tmp_path: Path, is_report: bool) -> None:
    """A message of the program, and a report to its administrators."""
    call = "mail_admins('hello', 'hello')" if is_report else "send_mail('hello', 'hello', None, ['you@example.net'])"

    def client(port: str) -> None:
        more = "SECRET_KEY = 'x'\nADMINS = [('you', 'you@example.net')]\nEMAIL_SUBJECT_PREFIX = ''\n"
        (tmp_path / "recipe.py").write_text(recipe("Django", "python", port) + more)
        program = f"import django; django.setup(); from django.core import mail; mail.{call}"
        env = environment(tmp_path, DJANGO_SETTINGS_MODULE="recipe", PYTHONPATH=str(tmp_path))
        run([PYTHON, "-c", program], env, tmp_path)

    has_come(await received(tmp_path / "spool", client))


RAILS = """
require "action_mailer"
config = Struct.new(:action_mailer).new(ActionMailer::Base)
{recipe}
class Greeting < ActionMailer::Base
  def hello
    mail(from: "me@example.org", to: "you@example.net", subject: "hello", body: "hello")
  end
end
Greeting.hello.deliver_now
"""


@needs(RUBY, ACTION_MAILER)
async def test_rails(tmp_path: Path) -> None:
    def client(port: str) -> None:
        program = tmp_path / "send.rb"
        program.write_text(RAILS.format(recipe=recipe("Rails", "ruby", port)))
        run([RUBY, str(program)], environment(tmp_path), tmp_path)

    has_come(await received(tmp_path / "spool", client))


@needs("ecj", "usr/bin/java", *(file[1:] for file in JAVA))
async def test_java(tmp_path: Path) -> None:
    def client(port: str) -> None:
        (tmp_path / "Send.java").write_text(recipe("Java", "java", port))
        classes = ":".join((*JAVA, str(tmp_path)))
        run(["ecj", "-17", "-proc:none", "-cp", classes, "Send.java"], environment(tmp_path), tmp_path)
        run(["java", "-cp", classes, "Send"], environment(tmp_path), tmp_path)

    has_come(await received(tmp_path / "spool", client))


def test_the_picture_of_thunderbird_shows_what_the_text_says() -> None:
    (name,) = re.findall(r"\((images/[\w-]+\.svg)\)", section(page("clients"), "Thunderbird"))
    picture = ET.parse(ROOT / "docs" / name)
    shown = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    (row,) = re.findall(r"^\| Thunderbird \|.*$", page("clients"), re.MULTILINE)
    values = [*re.findall(r"`([^`]+)`", row), *re.findall(r"\*([^*]+)\*", row)]
    assert values == ["localhost", "7777", "None", "No authentication"]
    assert set(values) <= shown
