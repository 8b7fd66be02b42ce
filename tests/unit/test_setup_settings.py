"""What setup makes of a settings file: a new one, one more relayhost, or a relayhost that is no longer as it was."""

import tomllib

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from mailrelay import config
from mailrelay.grammar import SettingsError
from mailrelay.setup.settings import Desired, Plan, plan

ENVIRON = {"HOME": "/home/you"}
HOST = "me@mail.example.org"


def planned(text: str | None, desired: Desired) -> Plan:
    return plan(text, desired, "config.toml", ENVIRON)


def relayhost(found: Plan) -> config.Relayhost:
    settings = config.parse(found.text, "config.toml", ENVIRON)
    return next(one for one in settings.relayhosts if one.name == found.name)


def test_a_new_file_has_what_is_not_a_default_and_no_more() -> None:
    found = planned(None, Desired(HOST))
    assert tomllib.loads(found.text) == {"relayhost": {"default": {"ssh": HOST}}}
    assert found.changes == tuple(found.text.splitlines())
    more = relayhost(planned(None, Desired(HOST, command="sendmail -bs", ssh_config="~/x")))
    assert (more.command, str(more.ssh_config)) == ("sendmail -bs", "/home/you/x")


@pytest.mark.parametrize(
    ("takes", "clients"), [(0, 50_000_000), (10_240_000, 10_240_000), (10**12, 50_000_000), (1, 1)]
)
def test_with_a_new_file_clients_may_send_no_more_than_the_mail_server_takes(takes: int, clients: int) -> None:
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
def test_a_relayhost_that_is_as_wished_is_left_alone(text: str) -> None:
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
def test_what_has_to_change_changes_where_it_stands(text: str) -> None:
    found = planned(text, Desired(HOST, command='nc "a" 25'))
    assert relayhost(found).command == 'nc "a" 25'
    assert found.changes == ("relayhost.default.command: '' becomes 'nc \"a\" 25'",)
    assert all(comment in found.text for comment in ("# the server", "# the door"))
    # And back again.
    back = planned(found.text, Desired(HOST))
    assert back.changes == ("relayhost.default.command: 'nc \"a\" 25' is removed",)
    assert tomllib.loads(back.text) == tomllib.loads(text)


def test_another_relayhost_is_put_behind_what_is_there() -> None:
    text = '# mine\nrelayhost.default.ssh = "elsewhere"\n[notify]\ndsn = false # no'
    found = planned(text, Desired(HOST, senders="*@example.org"))
    assert found.text.startswith(text)
    assert found.name == "mail-example-org"
    assert relayhost(found).senders == ("*@example.org",)


def test_names_of_relayhosts_do_not_meet() -> None:
    text = 'relayhost.h.ssh = "elsewhere"\nrelayhost.h-2.ssh = "there"\n'
    assert planned(text, Desired("me@h")).name == "h-3"
    assert planned(text, Desired("ssh://me@[::1]:2222")).name == "1-2222"


def test_a_file_that_is_wrong_is_not_touched() -> None:
    with pytest.raises(SettingsError, match=r"^config\.toml: relayhost"):
        planned('relayhost.default.shs = "x"', Desired(HOST))


def test_a_file_that_cannot_take_one_more_without_harm_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"safely; write this yourself: .*ssh = "):
        planned('relayhost = {default = {ssh = "elsewhere"}}\n', Desired(HOST))


def test_what_a_library_might_lose_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tomlkit, "dumps", lambda _: f'[relayhost.default]\nssh = "{HOST}"\ncommand = "nc"\n')
    with pytest.raises(SettingsError, match="cannot be changed safely"):
        planned(f'relayhost.default.ssh = "{HOST}"\n[notify]\ndsn = false\n', Desired(HOST, command="nc"))


_SSH = st.from_regex(r"[a-z0-9@.:\[\]-]{1,20}", fullmatch=True).filter(lambda ssh: not ssh.startswith("-"))
_COMMAND = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=30).filter(str.isprintable)


@given(_SSH, _COMMAND, _SSH, _COMMAND)
def test_whatever_is_wished_for_is_what_is_read_and_wishing_again_changes_nothing(
    ssh: str, command: str, other: str, another: str
) -> None:
    text = None
    for desired in (Desired(ssh, command), Desired(other, command), Desired(ssh, another)):
        found = planned(text, desired)
        read = relayhost(found)
        assert (read.ssh, read.command) == (desired.ssh, desired.command)
        assert planned(found.text, desired).changes == ()
        text = found.text
