"""`mailrelay setup` as a newcomer meets it: a process on a terminal, before a host with a password and a mail server."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncssh
import pytest
from harness.account import HOST, PASSWORD, Account, AccountSSHServer, Newcomer
from harness.daemon import served
from harness.terminal import Terminal, lines_too_wide, words

from mailrelay import config
from mailrelay.notify.desktop_presence import can_have_desktop

T = TypeVar("T")

ME = f"me@{HOST}"
SYSTEMCTL = """\
#!/bin/sh
# Starts the daemon as the real one would, but on a port that is free.
echo "$*" >>"{directory}/systemctl.log"
case $2 in
  is-active) test -f "{directory}/pid" ;;
  enable) test "$3" = --now || exit 0
    {{ cat "{config}"; printf '[listen]\\naddress = "127.0.0.1:0"\\n'; }} >"{directory}/served.toml"
    chmod 600 "{directory}/served.toml"
    exec_start=$(sed -n 's/^ExecStart=//p' "{home}/.config/systemd/user/mailrelay.service")
    MAILRELAY_CONFIG="{directory}/served.toml" setsid $exec_start >/dev/null 2>&1 &
    echo $! >"{directory}/pid" ;;
esac
"""
QUIET = '[listen]\naddress = "127.0.0.1:0"\n[notify]\ndesktop = false\n'


SPOOL = '[queue]\ndirectory = "{directory}/spool"\n'
SERVED = f'[relayhost.default]\nssh = "{{me}}"\nssh_config = "{{ssh}}/config"\n{QUIET}{SPOOL}'


@dataclass
class Scene:
    directory: Path
    account: Account
    newcomer: Newcomer

    def terminal(self, *words: str, columns: int = 0) -> Terminal:
        return Terminal(self.newcomer.argv("setup", *words), self.newcomer.environment, columns)

    async def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Without a terminal."""
        return await aside(
            lambda: subprocess.run(
                self.newcomer.argv("setup", *words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=self.newcomer.environment,
                timeout=100,
                check=False,
            )
        )

    def let_in(self) -> None:
        """What three steps of setup do: a key of hers, let in, at a host that is known."""
        key = asyncssh.generate_private_key("ssh-ed25519", comment="hers")
        key.write_private_key(str(self.newcomer.ssh / "id_ed25519"))
        key.write_public_key(str(self.newcomer.ssh / "id_ed25519.pub"))
        (self.newcomer.ssh / "id_ed25519").chmod(0o600)
        self.account.authorized_keys.parent.mkdir(mode=0o700)
        self.account.authorized_keys.write_bytes(key.export_public_key())
        self.newcomer.know(self.account)

    def settings(self, text: str) -> None:
        self.newcomer.config.parent.mkdir(mode=0o700, parents=True)
        self.newcomer.config.touch(mode=0o600)
        self.newcomer.config.write_text(text)

    def systemctl(self) -> None:
        """Gives her a session with systemd in it."""
        script = self.newcomer.bin / "systemctl"
        script.write_text(
            SYSTEMCTL.format(directory=self.directory, config=self.newcomer.config, home=self.newcomer.home)
        )
        script.chmod(0o755)

    def files(self) -> dict[str, bytes]:
        """All that is in her home, and in that of the account, but for the spool."""
        found = [*self.newcomer.home.rglob("*"), *self.account.home.rglob("*")]
        return {str(path): path.read_bytes() for path in found if path.is_file() and ".local" not in path.parts}


async def aside(run: Callable[[], T]) -> T:
    return await asyncio.to_thread(run)


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    (directory / "remote").mkdir()
    async with Account(directory / "remote") as account:
        try:
            yield Scene(directory, account, Newcomer(directory, account))
        finally:
            pid = directory / "pid"
            if pid.exists():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.mark.parametrize("by_question", [False, True])
async def test_a_newcomer_with_nothing_but_a_password_gets_to_a_letter_that_has_arrived(
    tmp_path: Path, by_question: bool
) -> None:
    def first(here: Scene) -> tuple[int, str]:
        terminal = here.terminal(ME)
        terminal.answer(r"There is no key\. Make ~/\.ssh/id_ed25519.*: ", "y")
        terminal.answer(r"Trust this key from now on\?.*: ", "y")
        terminal.answer(r"Put it there\?.*: ", "y")
        terminal.answer(r"Password of me.*: ", "battery staple")
        terminal.answer(r"Password of me.*: ", PASSWORD)
        terminal.answer(r"To which address is the test message sent\?.*: ", "me@example.org")
        terminal.answer(r"Write that to ~/\.config/mailrelay/config\.toml\?.*: ", "y")
        terminal.answer(r"Have systemd run .*: ", "y")
        return terminal.end(), terminal.text

    async with scene(tmp_path) as here:
        here.account.by_question = by_question
        here.systemctl()
        status, said = await aside(lambda: first(here))
        assert status == 0, said
        assert "220 demo-remote ESMTP" in said
        assert "your server took it" in said
        (letter,) = here.account.received
        assert letter.recipients == (b"me@example.org",)
        home = here.newcomer
        assert (home.ssh / "id_ed25519").stat().st_mode & 0o777 == 0o600
        assert home.config.stat().st_mode & 0o777 == 0o600
        public = (home.ssh / "id_ed25519.pub").read_text()
        assert here.account.authorized_keys.read_text() == public
        assert here.account.authorized_keys.stat().st_mode & 0o777 == 0o600
        # Every step that did something says how to undo it.
        assert said.count("undo: ") == 4
        assert said.count(f"Undo: ssh-keygen -R '[127.0.0.1]:{here.account.ssh_port}' -f {home.ssh}/known_hosts") == 1
        # The password is nowhere but where it was asked for.
        assert here.account.passwords[-1] == PASSWORD
        assert PASSWORD not in said
        texts = [path.read_bytes() for path in home.home.rglob("*") if path.is_file()]
        assert not any(PASSWORD.encode() in text for text in texts)

        # Again: everything is done already, and nobody is asked.
        before = here.files()
        again = await here.run(ME, "--to", "me@example.org")
        assert (again.returncode, again.stderr) == (0, "")
        assert "undo" not in again.stdout
        assert here.files() == before
        assert len(here.account.received) == 2
        calls = (tmp_path / "systemctl.log").read_text().splitlines()
        assert [call for call in calls if "enable" in call] == ["--user enable --now mailrelay"]


@pytest.mark.parametrize("columns", [80, 60, 40])
async def test_on_a_terminal_no_line_is_wider_and_no_word_is_broken(tmp_path: Path, columns: int) -> None:
    def first(here: Scene) -> tuple[int, str]:
        terminal = here.terminal(ME, columns=columns)
        for question, line in (
            (r"Make\s+~/\.ssh/id_ed25519", "y"),
            (r"Trust\s+this\s+key", "y"),
            (r"Put\s+it\s+there\?", "y"),
            (r"Password\s+of\s+me", PASSWORD),
            (r"To\s+which\s+address", "me@example.org"),
            (r"Write\s+that\s+to", "y"),
            (r"Have\s+systemd\s+run", "y"),
        ):
            terminal.answer(question + r"[^:]*: $", line)
        return terminal.end(), terminal.text

    async with scene(tmp_path) as here:
        here.systemctl()
        status, said = await aside(lambda: first(here))
        assert status == 0, said
        # What the person typed is on the terminal, too.
        assert [line for line in lines_too_wide(said, columns) if not line.endswith(": me@example.org")] == []
        whole = {"~/.ssh/id_ed25519.pub", "me@mail.example.org", "~/.config/mailrelay/config.toml"}
        assert whole <= {word.rstrip(",?:") for word in words(said)}
        assert "`mailrelay status`" in said
        again = here.terminal(ME, "--to", "me@example.org", columns=columns)
        assert await aside(again.end) == 0
        assert lines_too_wide(again.text, columns) == []


def without_a_desktop(here: Scene) -> None:
    here.newcomer.has_desktop = False
    if can_have_desktop(here.newcomer.environment):
        pytest.skip("this computer has a desktop")


@pytest.mark.parametrize(
    ("answers", "written"),
    [
        ([("Which one", "")], 'mailbox = "~/Maildir"'),
        ([("Which one", "mail"), ("Which one", "mailbox")], 'mailbox = "~/Maildir"'),
        (
            [("Which one", "command"), ("Which command", "/no/such"), ("Which one", "command")],
            'command = ["/bin/sh", "-c", "x y"]',
        ),
        ([("Which one", "dsn")], "desktop = false"),
    ],
)
async def test_on_a_computer_without_a_desktop_it_asks_how_failures_are_told(
    tmp_path: Path, answers: list[tuple[str, str]], written: str
) -> None:
    last = {"m": [("Which Maildir", "")], "c": [("Which command", "/bin/sh -c 'x y'")]}

    def first(here: Scene) -> tuple[int, str]:
        terminal = here.terminal(ME, "--to", "me@example.org")
        for question, line in (*answers, *last.get(written[0], []), ("Write that to", "y"), ("Have systemd run", "y")):
            terminal.answer(question + ".*: ", line)
        return terminal.end(), terminal.text

    async with scene(tmp_path) as here:
        without_a_desktop(here)
        here.systemctl()
        here.let_in()
        status, said = await aside(lambda: first(here))
        assert status == 0, said
        assert ("'mail' is none of them. Type mailbox, command or dsn." in said) == (("Which one", "mail") in answers)
        assert ("'/no/such' is no program that can be run" in said) == (("Which command", "/no/such") in answers)
        text = here.newcomer.config.read_text()
        assert "[notify]\ndesktop = false\n" in text
        assert written in text
        # It is asked once.
        again = here.terminal(ME, "--to", "me@example.org")
        assert await aside(again.end) == 0
        assert "Which one" not in again.text


async def test_without_a_desktop_yes_takes_a_maildir_and_settings_that_say_how_are_left_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        without_a_desktop(here)
        here.systemctl()
        here.let_in()
        done = await here.run(ME, "--yes", "--to", "me@example.org")
        assert done.returncode == 0, done.stderr
        assert here.newcomer.config.read_text().endswith('[notify]\ndesktop = false\nmailbox = "~/Maildir"\n')
        before = here.newcomer.config.read_text()
        done = await here.run(ME, "--yes", "--to", "me@example.org")
        assert (done.returncode, here.newcomer.config.read_text()) == (0, before)


async def test_without_a_service_manager_it_serves_for_the_letter_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.let_in()
        here.settings(f'relayhost.default.ssh = "{ME}"\n{QUIET}')
        done = await here.run(ME)
        assert done.returncode == 0, done.stderr
        assert "Start `mailrelay serve` when you want to send mail." in done.stdout
        (letter,) = here.account.received
        # Under the host's own name, where the mail server's greeting has none.
        assert letter.recipients == (ME.encode(),)
        status = await aside(
            lambda: subprocess.run(
                here.newcomer.argv("status", "--brief"),
                env=here.newcomer.environment,
                capture_output=True,
                check=False,
            )
        )
        assert b"nobody serves" in status.stdout


async def test_without_a_terminal_a_password_is_not_asked_for_and_the_line_to_run_is_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        done = await here.run(ME, "--yes")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "ssh-copy-id" in line
        assert line.endswith("; then run `mailrelay setup` again")
        assert here.account.passwords == []
        assert not here.newcomer.config.exists()


async def test_without_a_terminal_and_without_yes_nothing_is_done(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        before = here.files()
        done = await here.run(ME)
        assert done.returncode == 1
        assert "run it in a terminal, or with --yes" in done.stderr
        assert here.files() == before


async def test_a_host_key_that_is_not_accepted_ends_it(tmp_path: Path) -> None:
    def refuse(here: Scene) -> tuple[int, str]:
        terminal = here.terminal(ME)
        terminal.answer(r"Trust this key from now on\?.*: ", "n")
        return terminal.end(), terminal.text

    async with scene(tmp_path) as here:
        here.let_in()
        (here.newcomer.ssh / "known_hosts").unlink()
        status, said = await aside(lambda: refuse(here))
        assert status == 1
        assert "is not trusted yet" in said
        assert here.account.logins == 0
        assert not (here.newcomer.ssh / "known_hosts").exists()


async def test_yes_takes_no_key_in_the_place_of_a_known_one(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.let_in()
        before = here.files()
        await here.account.change_host_key()
        done = await here.run(ME, "--yes")
        assert done.returncode == 1
        assert "the host key of me@mail.example.org has changed" in done.stderr
        assert "mailrelay trust" in done.stderr
        assert here.files() == before


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("me@nowhere.invalid", "nowhere.invalid"),
        (f"me@{HOST}:{{port}}", "accepted the connection and closed it before the SSH protocol began"),
        (f"me@{HOST}:1", "No SSH server answers on port 1 of 127.0.0.1"),
    ],
)
async def test_a_host_that_cannot_be_reached_is_told_in_one_line(tmp_path: Path, host: str, said: str) -> None:
    async with scene(tmp_path) as here:
        here.let_in()
        await here.account.down()

        async def goes_away(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(goes_away, "127.0.0.1", 0) as no_ssh:
            done = await here.run(host.format(port=no_ssh.sockets[0].getsockname()[1]), "--yes")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert said in line
        assert line.endswith("hen run `mailrelay setup` again")


async def test_a_host_that_takes_no_password_gets_the_line_for_whoever_runs_it(tmp_path: Path) -> None:
    def first(here: Scene) -> tuple[int, str]:
        terminal = here.terminal(ME, "--yes")
        terminal.answer(r"Password of me.*: ", PASSWORD)
        return terminal.end(), terminal.text

    async with scene(tmp_path) as here:
        here.account.takes_password = False
        status, said = await aside(lambda: first(here))
        assert status == 1
        assert "takes no password" in said
        assert (here.newcomer.ssh / "id_ed25519.pub").read_text().strip() in said
        assert here.account.passwords == []


async def test_a_host_that_takes_no_key_is_told_as_such_and_no_password_is_asked_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.let_in()
        here.account.takes_keys = False
        here.account.authorized_keys.unlink()
        done = await here.run(ME, "--yes")
        assert done.returncode == 1
        assert "takes no key for the login of me; it wants a password" in done.stderr
        assert "PubkeyAuthentication yes" in done.stderr and "ssh-copy-id" not in done.stderr


async def test_a_wrong_password_is_asked_for_three_times(tmp_path: Path) -> None:
    def first(here: Scene) -> tuple[int, str]:
        terminal = here.terminal(ME, "--yes")
        for _ in range(3):
            terminal.answer(r"Password of me.*: ", "battery staple")
        return terminal.end(), terminal.text

    async with scene(tmp_path) as here:
        status, said = await aside(lambda: first(here))
        assert status == 1
        assert "did not take the password" in said
        assert here.account.passwords == ["battery staple"] * 3


async def test_a_key_with_a_passphrase_and_no_agent_is_told_with_what_brings_it_there(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        key = asyncssh.generate_private_key("ssh-ed25519")
        file = here.newcomer.ssh / "id_ed25519"
        file.write_bytes(key.export_private_key("pkcs8-pem", passphrase="secret"))
        key.write_public_key(f"{file}.pub")
        file.chmod(0o600)
        done = await here.run(ME, "--yes")
        assert done.returncode == 1
        assert "ssh-add" in done.stderr
        assert here.account.logins == 0


async def test_a_host_whose_mail_server_is_down_is_told_with_all_that_was_tried(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.let_in()
        await here.account.mail_down()
        done = await here.run(ME, "--yes")
        assert done.returncode == 1
        assert "No mail server answers on localhost:25" in done.stderr
        assert "forwarding: " in done.stdout
        assert not here.newcomer.config.exists()


async def test_a_file_with_other_relayhosts_gets_one_more_and_keeps_all_else(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.let_in()
        here.settings(f'# mine\nrelayhost.default.ssh = "nowhere.example"   # at work\n{QUIET}')
        before = here.newcomer.config.read_text()
        done = await here.run(ME, "--yes", "--to", "me@example.org")
        assert done.returncode == 0, done.stderr
        after = here.newcomer.config.read_text()
        assert after.startswith(before.rstrip())
        assert after.endswith(f'[relayhost.mail-example-org]\nssh = "{ME}"\nsenders = ["*@example.org"]\n')
        assert (here.newcomer.config.parent / "config.toml.old").read_text() == before
        (letter,) = here.account.received
        assert letter.sender == b"me@example.org"


async def test_settings_that_are_wrong_already_end_it_before_anything_is_done(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.settings("[relayhost]\n")
        done = await here.run(ME, "--yes")
        assert done.returncode == 78
        assert not (here.newcomer.ssh / "id_ed25519").exists()


async def test_a_key_that_could_do_more_than_mail_is_taken_out_again(tmp_path: Path) -> None:
    class LaxSSHServer(AccountSSHServer):
        """A server that knows nothing of options: whatever a line says, its key opens everything."""

        def begin_auth(self, username: str) -> bool:
            return True

        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            return key.export_public_key().split()[1] in self.remote.authorized_keys.read_bytes()

    class Lax(Account):
        def ssh_server(self) -> asyncssh.SSHServer:
            return LaxSSHServer(self)

    (tmp_path / "remote").mkdir()
    async with Lax(tmp_path / "remote") as account:
        here = Scene(tmp_path, account, Newcomer(tmp_path, account))
        here.let_in()
        here.settings(f'relayhost.default.ssh = "{ME}"\n{QUIET}')
        before = account.authorized_keys.read_bytes()
        done = await here.run(ME, "--yes", "--restricted")
        assert done.returncode == 1
        assert "NOT REFUSED: -L to another port" in done.stdout
        assert "so it was removed again" in done.stderr
        assert account.authorized_keys.read_bytes() == before
        assert here.newcomer.config.read_text().startswith(f'relayhost.default.ssh = "{ME}"\n[listen]')


async def test_after_restricted_the_last_lines_name_the_key_for_mail_and_the_one_for_ssh(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.let_in()
        here.settings(f'relayhost.default.ssh = "{ME}"\n{QUIET}')
        plain = await here.run(ME, "--yes")
        assert f"`ssh {ME}`, rsync and scp need no password either: they use the same key." in plain.stdout
        first = await here.run(ME, "--yes", "--restricted")
        assert first.returncode == 0, first.stdout + first.stderr
        for_mail = f"Mail uses the key ~/.ssh/id_mailrelay, which can do nothing on {ME} but send mail.\n"
        for_ssh = f"`ssh {ME}`, rsync and scp do not use it: they use your ordinary key"
        assert f"{for_mail}{for_ssh}, ~/.ssh/id_ed25519.\n" in first.stdout
        assert "ssh offers ~/.ssh/id_ed25519" in first.stdout
        assert "the same key" not in first.stdout
        again = await here.run(ME, "--yes")
        assert f"{for_mail}{for_ssh}.\n" in again.stdout
        assert "mail offers ~/.ssh/id_mailrelay" in again.stdout


async def test_a_wrong_answer_is_asked_again_with_what_is_wanted(tmp_path: Path) -> None:
    def answers(here: Scene) -> tuple[int, str]:
        terminal = here.terminal(ME)
        question = r"To which address is the test message sent\?.*: "
        terminal.answer(question, "nonsense")
        terminal.answer(
            r"'nonsense' has no domain; give one address, as in name@example\.org\.\n.*" + question, "a@b c"
        )
        terminal.answer(
            r"'a@b c' is not an address; give one address, as in name@example\.org\.\n.*" + question, "a@b.de, c@d.de"
        )
        terminal.answer(r"is not one address; give one address.*\n.*" + question, "friend@example.net")
        senders = r"Mail from which senders uses this one\?.*: "
        terminal.answer(senders, "nonsense")
        terminal.answer(r'is not a sender pattern; write "user@domain".*\n.*' + senders, "*@example.net")
        terminal.answer(r"Write that to .*: ", "perhaps")
        terminal.answer(r"Answer y for yes or n for no\.\n.*Write that to .*: ", "Yes")
        return terminal.end(), terminal.text

    async with scene(tmp_path) as here:
        here.let_in()
        here.settings(f'relayhost.other.ssh = "elsewhere.example"\n{QUIET}')
        status, said = await aside(lambda: answers(here))
        assert status == 0, said
        (letter,) = here.account.received
        assert letter.recipients == (b"friend@example.net",)
        assert letter.sender == b"friend@example.net"


@pytest.mark.parametrize("address", ["nonsense", "", "a@b c", "a@example.org, b@example.org"])
async def test_what_is_no_address_for_the_test_message_is_wrong_usage(tmp_path: Path, address: str) -> None:
    async with scene(tmp_path) as here:
        done = await here.run(ME, "--to", address)
        assert (done.returncode, done.stdout) == (2, "")
        assert "give one address, as in name@example.org" in done.stderr
        assert len(done.stderr.splitlines()) == 1


async def test_where_the_input_ends_setup_ends_with_a_sentence(tmp_path: Path) -> None:
    def gone(here: Scene, question: str) -> tuple[int, str]:
        terminal = here.terminal(ME)
        terminal.answer(question, "\x04")
        return terminal.end(), terminal.text.splitlines()[-1]

    async with scene(tmp_path) as here:
        ended = "mailrelay: the input ended before an answer to: "
        status, last = await aside(lambda: gone(here, r"There is no key\..*: "))
        assert (status, last.startswith(f"{ended}There is no key.")) == (1, True)
        here.let_in()
        status, last = await aside(lambda: gone(here, r"To which address .*: "))
        assert (status, last) == (1, f"{ended}To which address is the test message sent?; run it again")


async def test_a_key_for_mail_alone_that_was_taken_out_comes_back_with_its_restriction(tmp_path: Path) -> None:
    def again(here: Scene) -> tuple[int, str]:
        terminal = here.terminal(ME, "--yes")
        terminal.answer(r"Password of me.*: ", PASSWORD)
        return terminal.end(), terminal.text

    async with scene(tmp_path) as here:
        here.let_in()
        here.settings(f'relayhost.default.ssh = "{ME}"\n{QUIET}')
        first = await here.run(ME, "--yes", "--restricted")
        assert first.returncode == 0, first.stdout + first.stderr
        _, line = here.account.authorized_keys.read_text().splitlines()
        assert line.startswith('restrict,port-forwarding,permitopen="localhost:25",')
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        here.account.authorized_keys.write_text(other)
        status, said = await aside(lambda: again(here))
        assert status == 0, said
        assert here.account.authorized_keys.read_text().splitlines() == [other.strip(), line]


async def test_a_daemon_that_was_started_by_hand_takes_the_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as here:
        here.let_in()
        monkeypatch.setenv("HOME", str(here.newcomer.home))
        here.settings(f'relayhost.default.ssh = "{ME}"\n{QUIET}{SPOOL.format(directory=tmp_path)}')
        async with served(config.parse(SERVED.format(directory=tmp_path, me=ME, ssh=here.newcomer.ssh), "")):
            done = await here.run(ME)
            assert done.returncode == 0, done.stderr
            assert "started by hand" in done.stdout
            assert len(here.account.received) == 1
            # Settings that are new to it do nothing as long as it runs.
            here.newcomer.config.write_text(here.newcomer.config.read_text().replace(ME, "elsewhere"))
            changed = await here.run(ME, "--yes")
            assert changed.returncode == 1
            assert f"End it: kill {os.getpid()}" in changed.stderr


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "", "me@", "me@host:0", "host:port"])
async def test_what_is_no_host_is_wrong_usage(tmp_path: Path, host: str) -> None:
    async with scene(tmp_path) as here:
        done = await here.run("--", host)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_the_steps_stand_in_the_help_of_the_module_in_their_order() -> None:
    from mailrelay.cli import setup

    headings = re.findall(r'heading\("(\d)', Path(setup.__file__).read_text())
    assert headings == re.findall(r"^    (\d)  ", setup.__doc__ or "", re.MULTILINE) == list("12345678")
