"""The mail path by a command, for servers that prohibit forwarding: the command speaks SMTP on its stdin and stdout."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.dropbear import Dropbear
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.postfix import Postfix
from harness.processes import program
from harness.sendmail import Sendmail
from harness.sshd import ALIAS, Sshd

from mailrelay.config import Relayhost
from mailrelay.endpoint import Tcp
from mailrelay.mail.outcome import Cause, Outcome
from mailrelay.ssh.dial import dial
from mailrelay.ssh.mail_path import MailPath, find

pytestmark = pytest.mark.system

BODY = b".\r\n..dots\r\n\xff8-bit\r\n"
Remote = Sendmail | Postfix


@pytest.fixture(params=["sendmail", "postfix"])
def remote(request: pytest.FixtureRequest) -> Remote:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


class Door:
    """An SSH server that prohibits forwarding, and the options of the client's key in its authorized_keys."""

    def __init__(self, server: Sshd | Dropbear, keys: Path, public: str, ssh_config: Path) -> None:
        self.server = server
        self._keys = keys
        self._public = public
        self.ssh_config = ssh_config

    def force(self, command: str) -> None:
        """Makes the server run this command, whatever command the client requests."""
        # A script file, because sshd and dropbear parse nested quotes differently.
        script = self._keys.with_name("forced")
        script.write_text(f"{command}\n")
        options = f'command="bash {script}",no-port-forwarding,no-agent-forwarding,no-X11-forwarding,no-pty'
        self._keys.write_text(f"{options} {self._public}\n")


@pytest.fixture(params=["sshd", "dropbear"])
def door(request: pytest.FixtureRequest, sshd: Sshd, tmp_path: Path) -> Iterator[Door]:
    public = (sshd.directory / "client.pub").read_text().strip()
    if request.param == "sshd":
        sshd.stop()
        sshd.start(forwarding=False)
        yield Door(sshd, sshd.directory / "authorized_keys", public, sshd.ssh_config)
        return
    dropbear = Dropbear(tmp_path / "dropbear", f"{public}\n")
    dropbear.start(forwarding=False)
    config = sshd.ssh_config.read_text().replace(f"Port {sshd.port}", f"Port {dropbear.port}")
    sshd.ssh_config.write_text(config)
    (sshd.directory / "known_hosts").write_text(f"[127.0.0.1]:{dropbear.port} {dropbear.host_key}\n")
    yield Door(dropbear, dropbear.directory / "home/.ssh/authorized_keys", public, sshd.ssh_config)
    dropbear.stop()


def arrives(relay: Relay, remote: Remote, token: str) -> None:
    """Sends two messages one after the other; both may use one dialogue."""
    relay.start()
    for number in (1, 2):
        code, words = submit(relay.port, [f"alice@{DOMAIN}"], message(f"{token}-{number}", BODY))
        assert (code, words.split()[2]) == (250, "sent:"), words
        (letter,) = remote.boxes.wait("alice", f"{token}-{number}")
        assert letter.endswith(b"\r\n\r\n" + BODY)


def test_sendmail_bs_delivers_mail(door: Door, remote: Remote, relays: Callable[..., Relay], token: str) -> None:
    arrives(relays(remote.port, command=remote.on_stdin), remote, token)


@pytest.mark.parametrize("words", ["nc localhost {}", "ncat localhost {}", "socat - TCP:localhost:{}"])
def test_a_command_that_connects_to_the_port_delivers_mail(
    door: Door, sendmail: Sendmail, relays: Callable[..., Relay], token: str, words: str
) -> None:
    package = {"nc": "netcat-openbsd"}
    name = words.partition(" ")[0]
    program(name, package.get(name, name))
    arrives(relays(sendmail.port, command=words.format(sendmail.port)), sendmail, token)


def test_a_forced_command_replaces_the_requested_one_and_shell_output_is_skipped(
    door: Door, sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    noise = "echo Welcome; echo '2200 days up'; echo 220-not yet >&2"
    door.force(f"{noise}; exec {sendmail.on_stdin}")
    arrives(relays(sendmail.port, command="rm -rf /nonexistent"), sendmail, token)


@pytest.mark.parametrize(
    "noise",
    [
        "echo '427 packages can be updated.'; echo '12 updates are security updates.'",
        "echo '520 days up'; sleep 3",
        "echo '220 packages can be updated.'",
        "echo 220-hello",
        "printf '\\033]0;title\\007'",
        "printf 'Welcome '",
        "yes 'la la 220 la' | head -c 1000000",
    ],
)
def test_a_line_of_the_shell_that_looks_like_a_reply_is_no_greeting(
    door: Door, sendmail: Sendmail, relays: Callable[..., Relay], token: str, noise: str
) -> None:
    door.force(f"{noise}; exec {sendmail.on_stdin}")
    arrives(relays(sendmail.port, command="sendmail -bs"), sendmail, token)


def test_no_command_is_sent_before_the_greeting(
    door: Door, sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    early = "echo 554 You talk before you are greeted"
    door.force(f"if read -r -t 0.5 -n 1; then {early}; else exec {sendmail.on_stdin}; fi")
    arrives(relays(sendmail.port, command="sendmail -bs"), sendmail, token)


async def ways(ssh_config: Path, smtp_port: int) -> tuple[MailPath | None, list[tuple[str, Outcome]]]:
    relayhost = Relayhost(name="x", ssh=ALIAS, ssh_config=ssh_config, smtp=Tcp("localhost", smtp_port))
    link = await dial(relayhost)
    try:
        return await find(link, relayhost)
    finally:
        await link.close()


async def test_the_mail_path_is_found_with_a_forced_command(door: Door, sendmail: Sendmail) -> None:
    door.force(sendmail.on_stdin)
    way, failures = await ways(door.ssh_config, sendmail.port)
    assert way is not None
    assert way.command == "sendmail -bs"
    assert way.greeting.startswith("220 ") and way.extensions.size is not None
    [(tried, outcome)] = failures
    assert (tried, outcome.cause) == ("", Cause.FORWARDING_PROHIBITED)


async def test_with_a_forced_command_other_than_a_mail_server_each_mail_path_has_an_error(door: Door) -> None:
    door.force("echo This account is for backups only >&2; exit 1")
    way, failures = await ways(door.ssh_config, 25)
    assert way is None
    assert len(failures) == 7
    assert [text for _, outcome in failures[1:] if "for backups only" not in (text := outcome.text)] == []
