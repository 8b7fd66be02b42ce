"""The settings file that setup plans: a new file, one more relayhost, or a changed relayhost."""

import tomllib

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from mailrelay import config
from mailrelay.grammar import SettingsError
from mailrelay.setup.settings import Desired, SettingsPlan, plan

ENVIRON = {"HOME": "/home/you"}
HOST = "me@mail.example.org"


def planned(text: str | None, desired: Desired) -> SettingsPlan:
    return plan(text, desired, "config.toml", ENVIRON)


def relayhost(found: SettingsPlan) -> config.Relayhost:
    settings = config.parse(found.text, "config.toml", ENVIRON)
    return next(one for one in settings.relayhosts if one.name == found.name)


def test_a_new_file_contains_only_settings_that_differ_from_the_defaults() -> None:
    found = planned(None, Desired(HOST))
    assert tomllib.loads(found.text) == {"relayhost": {"default": {"ssh": HOST}}}
    assert found.changes == tuple(found.text.splitlines())
    more = relayhost(planned(None, Desired(HOST, command="sendmail -bs", ssh_config="~/x")))
    assert (more.command, str(more.ssh_config)) == ("sendmail -bs", "/home/you/x")


@pytest.mark.parametrize(
    ("takes", "clients"), [(0, 50_000_000), (10_240_000, 10_240_000), (10**12, 50_000_000), (1, 1)]
)
def test_a_new_file_limits_messages_to_the_size_that_the_mail_server_accepts(takes: int, clients: int) -> None:
    found = planned(None, Desired(HOST, size=takes))
    settings = config.parse(found.text, "config.toml", ENVIRON)
    assert settings.listen.max_message_size == clients
    assert planned(found.text, Desired(HOST, size=5)).changes == ()


@pytest.mark.parametrize(
    "text",
    [
        f'relayhost.default.ssh = "{HOST}"',
        f'# mine\n[relayhost.x]\nssh = "{HOST}" # the server\nsenders = ["*@example.org"]\nssh_config = "~/.ssh/config"\n',
        f'relayhost = {{default = {{ssh = "{HOST}", command = ""}}}}\n',
    ],
)
def test_a_relayhost_that_is_as_desired_is_not_changed(text: str) -> None:
    found = planned(text, Desired(HOST))
    assert (found.text, found.changes) == (text, ())


@pytest.mark.parametrize(
    "text",
    [
        f'relayhost.default.ssh = "{HOST}"   # the server\n\n[listen]   # the door\nanswer_within = "1s"\n',
        f'# mine\n[relayhost.default]\n# two\nssh = "{HOST}" # the server\n\n[listen]   # the door\nanswer_within = "1s"\n',
        f'[listen]   # the door\nanswer_within = "1s"\n[relayhost]\ndefault = {{ssh = "{HOST}"}}   # the server',
    ],
)
def test_a_setting_changes_in_place_and_comments_stay(text: str) -> None:
    found = planned(text, Desired(HOST, command='nc "a" 25'))
    assert relayhost(found).command == 'nc "a" 25'
    assert found.changes == ("relayhost.default.command: '' becomes 'nc \"a\" 25'",)
    assert all(comment in found.text for comment in ("# the server", "# the door"))
    # And back again.
    back = planned(found.text, Desired(HOST))
    assert back.changes == ("relayhost.default.command: 'nc \"a\" 25' is removed",)
    assert tomllib.loads(back.text) == tomllib.loads(text)


def test_another_relayhost_is_appended() -> None:
    text = '# mine\nrelayhost.default.ssh = "elsewhere"\n[notify]\ndsn = false # no'
    found = planned(text, Desired(HOST, senders="*@example.org"))
    assert found.text.startswith(text)
    assert found.name == "mail-example-org"
    assert relayhost(found).senders == ("*@example.org",)


def test_a_new_relayhost_gets_an_unused_name() -> None:
    text = 'relayhost.h.ssh = "elsewhere"\nrelayhost.h-2.ssh = "there"\n'
    assert planned(text, Desired("me@h")).name == "h-3"
    assert planned(text, Desired("ssh://me@[::1]:2222")).name == "1-2222"


def test_an_invalid_file_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"^config\.toml: relayhost"):
        planned('relayhost.default.shs = "x"', Desired(HOST))


def test_a_file_that_cannot_be_extended_safely_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"safely; write this yourself: .*ssh = "):
        planned('relayhost = {default = {ssh = "elsewhere"}}\n', Desired(HOST))


def test_a_change_in_which_the_library_lost_settings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tomlkit, "dumps", lambda _: f'[relayhost.default]\nssh = "{HOST}"\ncommand = "nc"\n')
    with pytest.raises(SettingsError, match="cannot be changed safely"):
        planned(f'relayhost.default.ssh = "{HOST}"\n[notify]\ndsn = false\n', Desired(HOST, command="nc"))


_SSH = st.from_regex(r"[a-z0-9@.:\[\]-]{1,20}", fullmatch=True).filter(lambda ssh: not ssh.startswith("-"))
_COMMAND = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=30).filter(str.isprintable)


@given(_SSH, _COMMAND, _SSH, _COMMAND)
def test_the_planned_text_has_the_desired_settings_and_planning_again_changes_nothing(
    ssh: str, command: str, other: str, another: str
) -> None:
    text = None
    for desired in (Desired(ssh, command), Desired(other, command), Desired(ssh, another)):
        found = planned(text, desired)
        read = relayhost(found)
        assert (read.ssh, read.command) == (desired.ssh, desired.command)
        assert planned(found.text, desired).changes == ()
        text = found.text


SENDER = "me@mail.example.org"


def test_a_new_file_names_the_sender_of_programs_that_give_none() -> None:
    found = planned(None, Desired(HOST, sender=SENDER))
    assert config.parse(found.text, "config.toml", ENVIRON).submission.sender == SENDER
    assert planned(found.text, Desired(HOST, sender="other@example.org")).changes == ()


def test_a_file_that_changes_gets_a_sender_unless_it_has_one_or_another_relayhost_takes_such_mail() -> None:
    desired = Desired(HOST, command="nc a 25", sender=SENDER)
    for text, sender in (
        (f'# mine\nrelayhost.default.ssh = "{HOST}"\n', SENDER),
        (f'[submission]\nlocal = "a@b.example" # mine\n[relayhost.x]\nssh = "{HOST}"\n', SENDER),
        (f'submission.from = "a@b.example"\nrelayhost.x.ssh = "{HOST}"\n', "a@b.example"),
        (f'relayhost.x.ssh = "{HOST}"\nrelayhost.x.senders = ["*@example.org"]\n', ""),
        ('relayhost.x.ssh = "other"\n', ""),
    ):
        found = planned(text, desired)
        settings = config.parse(found.text, "config.toml", ENVIRON)
        assert settings.submission.sender == sender, text
        assert any("submission.from" in change for change in found.changes) == (sender == SENDER)
        before = config.parse(text, "config.toml", ENVIRON).submission
        assert (settings.submission.local, settings.submission.domain) == (before.local, before.domain)
        assert text.partition(" #")[0].splitlines()[0] in found.text
