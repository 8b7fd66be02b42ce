"""The choice of a notice backend, as setup writes it into the settings."""

from pathlib import Path

import pytest

from mailrelay import config
from mailrelay.config import Notify
from mailrelay.grammar import SettingsError
from mailrelay.setup import notice_backend
from mailrelay.setup.notice_backend import BackendChoice, must_be_chosen, with_backend
from mailrelay.setup.settings import Desired, SettingsPlan, plan

ENVIRON = {"HOME": "/home/me"}
NEW = plan(None, Desired("me@mail.example.org"), "config.toml", ENVIRON)
CHOICES = [
    (BackendChoice(mailbox="~/Maildir"), Notify(desktop=False, mailbox=Path("/home/me/Maildir"))),
    (BackendChoice(command=("/bin/tell", "a b")), Notify(desktop=False, command=("/bin/tell", "a b"))),
    (BackendChoice(), Notify(desktop=False)),
]


@pytest.mark.parametrize(("backend", "notify"), CHOICES)
def test_new_settings_get_the_choice_and_stay_as_planned_otherwise(backend: BackendChoice, notify: Notify) -> None:
    found = with_backend(NEW, backend, "config.toml", ENVIRON)
    assert found.text.startswith(NEW.text.rstrip())
    assert config.parse(found.text, "", ENVIRON).notify == notify
    assert found.changes[: len(NEW.changes)] == NEW.changes
    assert "desktop = false" in found.changes


@pytest.mark.parametrize("notify_text", ["", "[notify]\n# mine\ndsn = true\n", "[queue]\nkeep_sent = '1d'\n"])
@pytest.mark.parametrize(("backend", "notify"), CHOICES)
def test_settings_of_the_person_keep_all_else(backend: BackendChoice, notify: Notify, notify_text: str) -> None:
    text = f"# first\nrelayhost.default.ssh = 'me@mail.example.org'\n{notify_text}"
    found = with_backend(SettingsPlan("default", text, ()), backend, "config.toml", ENVIRON)
    assert all(line in found.text for line in text.splitlines())
    assert config.parse(found.text, "", ENVIRON).notify == notify
    assert found.changes != ()


def test_dotted_keys_stay_dotted_keys() -> None:
    text = "notify.dsn = true\nrelayhost.default.ssh = 'me@mail.example.org'\n"
    found = with_backend(SettingsPlan("default", text, ()), BackendChoice(), "config.toml", ENVIRON)
    assert config.parse(found.text, "", ENVIRON).notify == Notify(desktop=False)


def test_it_is_chosen_once_and_only_where_there_is_no_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    for there_is_one in (True, False):
        monkeypatch.setattr(notice_backend, "can_have_desktop", lambda _environ, found=there_is_one: found)
        assert must_be_chosen(Notify(), {}) is not there_is_one
        for _, notify in CHOICES:
            assert not must_be_chosen(notify, {})


def test_settings_without_reports_by_mail_leave_notices_to_the_desktop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice_backend, "can_have_desktop", lambda _environ: False)
    assert must_be_chosen(Notify(dsn=False), {})
    assert not must_be_chosen(Notify(dsn=False, urls=("ntfys://x",)), {})
    text = "notify.dsn = false\nrelayhost.default.ssh = 'me@mail.example.org'\n"
    for backend, notify in CHOICES:
        found = with_backend(SettingsPlan("default", text, ()), backend, "config.toml", ENVIRON)
        told_by_mail = not (notify.mailbox or notify.command)
        assert config.parse(found.text, "", ENVIRON).notify == notify._replace(dsn=told_by_mail)


def test_a_maildir_is_a_directory_or_can_be_made(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert notice_backend.mailbox("~/a/b", environ) == BackendChoice(mailbox="~/a/b")
    (tmp_path / "file").touch()
    for word, why in (
        ("~/file", "is not a directory"),
        ("~/file/below", "is not a directory"),
        ("relative", "not an absolute path"),
        ("$NONE/x", "is not set"),
        ("", "absolute"),
    ):
        with pytest.raises(SettingsError, match=why):
            notice_backend.mailbox(word, environ)


def test_a_command_is_a_program_that_can_be_run(tmp_path: Path) -> None:
    program = tmp_path / "tell me"
    program.write_text("#!/bin/sh\n")
    for line, why in (
        (f"'{program}' x", "no program that can be run"),
        ("", "type a program"),
        ("'no end", "a quote has no end"),
        ("/nonexistent/tell", "no program"),
    ):
        with pytest.raises(SettingsError, match=why):
            notice_backend.command(line)
    program.chmod(0o755)
    assert notice_backend.command(f"'{program}' x") == BackendChoice(command=(str(program), "x"))
    (found,) = notice_backend.command("sh").command
    assert Path(found).is_absolute()
