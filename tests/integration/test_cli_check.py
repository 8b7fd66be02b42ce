"""`mailrelay check` as a person runs it: every check has a result, and every failure a fix."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from harness.command import person_of, run
from harness.daemon import served, settings
from harness.desktop import a_screen
from harness.desktop import bus as bus
from harness.loops import on_both_loops
from harness.nameserver import Nameserver
from harness.person import Person
from harness.processes import Child
from harness.remotes import amend, two_jump_hosts
from harness.remotes import no_agent_and_no_home as no_agent_and_no_home

from mailrelay import config
from mailrelay.check.examination import CheckOptions, examine
from mailrelay.demo.remote import HOST, Remote
from mailrelay.dns.resolver import Resolver
from mailrelay.spool import lock

PUBLIC = "192.0.2.1"
GOOD = {
    ("good.example", "MX"): ["10 mx.good.example."],
    ("good.example", "TXT"): [f"v=spf1 ip4:{PUBLIC} -all"],
    ("_dmarc.good.example", "TXT"): ["v=DMARC1; p=reject"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["mail.good.example."],
    ("mail.good.example", "A"): [PUBLIC],
}
SENDERS = 'relayhost.default.senders = ["*@good.example", "*"]'


class Checked:
    """The findings: ok, text and fix by (check, about). status: the exit status, 0 if no process ran."""

    def __init__(self, records: Iterable[dict[str, Any]], status: int = 0) -> None:
        self.status = status
        self.found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for record in records:
            assert set(record) == {"check", "about", "ok", "text", "fix"}
            assert record["ok"] is not False or record["fix"], f"nothing fixes {record}"
            self.found.setdefault((record["check"], record["about"]), []).append(record)

    def ok(self, check: str, about: str = "default") -> bool | None:
        """Of the last finding with this check and about."""
        ok = self.found[check, about][-1]["ok"]
        assert ok is None or isinstance(ok, bool)
        return ok

    def fix(self, check: str, about: str = "default") -> str:
        return str(self.found[check, about][-1]["fix"])

    def text(self, check: str, about: str = "default") -> str:
        return str(self.found[check, about][-1]["text"])

    @property
    def failed(self) -> set[str]:
        return {check for (check, _), records in self.found.items() if any(record["ok"] is False for record in records)}


async def checked(person: Person, *words: str, env: dict[str, str] | None = None) -> Checked:
    """The findings of the command, run as a process."""
    said = await run(person, "check", "--json", *words, env=env)
    assert said.err == ""
    return Checked(map(json.loads, said.out.splitlines()), said.status)


async def examined(
    person: Person, server: Nameserver | None = None, *public: str, online: bool = True, blacklists: bool = False
) -> Checked:
    """The findings of `examine`, called in this process."""
    ours = config.load(person.config)
    look_up = Resolver(server.address if server else "127.0.0.1:1").look_up
    questions = CheckOptions(look_up, online=online, public=public, blacklists=blacklists)
    async with aclosing(examine(ours, lock.holder(ours.queue.directory), questions)) as findings:
        return Checked([asdict(finding) async for finding in findings])


async def test_without_a_failure_every_line_says_so_and_the_status_is_0(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote, SENDERS, 'listen.address = "127.0.0.1:0"')
        ours = settings(remote.directory, remote.relayhost("default"))
        with Nameserver(GOOD) as server:
            async with served(ours) as (port, _):
                address = f'listen.address = "127.0.0.1:{port}"'
                person.config.write_text(person.config.read_text().replace('listen.address = "127.0.0.1:0"', address))
                words = ("--nameserver", server.address, "--address", PUBLIC)
                found = await checked(person, *words)
                said = await run(person, "check", *words)
        assert found.failed == set()
        assert (found.status, said.status) == (0, 0)
        lines = said.out.splitlines()
        assert all(line.startswith(("✓ ", "– ")) for line in lines), said.out
        for check in ("ssh_config", "key", "host key", "login", "channel", "greeting", "EHLO", "size"):
            assert found.ok(check) is True, check
        assert found.ok("SPF", "good.example") and found.ok("MX", "good.example") and found.ok("DMARC", "good.example")
        # This server runs no commands.
        assert found.ok("track") is None and "messages are not followed there: " in found.text("track")
        assert found.ok("PTR", PUBLIC)
        assert found.text("address", "") == f"mailrelay listens on 127.0.0.1:{port}"
        assert remote.host_key.get_fingerprint() in found.text("host key")
        assert remote.received == []


async def test_offline_no_network_is_used_and_local_checks_are_made(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote, SENDERS)
        with Nameserver(GOOD) as server:
            found = await checked(person, "--offline", "--nameserver", server.address)
        assert server.asked == []
        assert found.ok("host key") is True and "known_hosts:1" in found.text("host key")
        assert found.ok("connection") is None
        assert found.failed == {"service"} and found.status == 1
        remote.known_hosts.write_text("")
        found = await checked(person, "--offline")
        assert found.failed == {"service", "host key"} and found.fix("host key") == "mailrelay trust"
        assert remote.logins == 0


async def go_away(verb: str, _argument: bytes) -> bytes | None:
    return b"554 5.7.1 go away" if verb == "GREETING" else None


@pytest.mark.parametrize(
    "what", ["down", "host key", "login", "forwarding", "no mail server", "greeting", "no key", "config"]
)
async def test_a_failed_step_is_named_with_its_fix_and_the_steps_before_it_are_ok(what: str, tmp_path: Path) -> None:
    expected = {
        "down": ("connection", (), ""),
        "host key": ("host key", (), "mailrelay trust"),
        "login": ("login", ("host key",), "authorized_keys"),
        "forwarding": ("channel", ("host key", "login"), "AllowTcpForwarding"),
        "no mail server": ("channel", ("host key", "login"), "Start it there"),
        "greeting": ("greeting", ("host key", "login"), "see the log"),
        "no key": ("key", ("host key",), "ssh-keygen"),
        "config": ("ssh_config", (), "ssh"),
    }

    async with Remote(tmp_path) as remote:
        match what:
            case "down":
                await remote.down()
            case "host key":
                await remote.change_host_key()
            case "login":
                remote.refuse_key = True
            case "forwarding":
                remote.forbid_forwarding = True
            case "no mail server":
                await remote.mail_down()
            case "greeting":
                remote.policy = go_away
            case "no key":
                (remote.directory / "id_ed25519").unlink()
            case "config":
                remote.ssh_config.write_text("Host *\n    Port nonsense\n")
        found = await examined(person_of(remote))
        step, before, fix = expected[what]
        assert found.ok(step) is False and fix in found.fix(step)
        assert all(found.ok(check) for check in before)
        assert found.failed - {"service", "address"} <= {step, "login"}


@on_both_loops
async def test_jump_hosts_are_checked_one_by_one(tmp_path: Path) -> None:
    async with two_jump_hosts(tmp_path) as (target, one, _two):
        amend(target, "ProxyJump hop1")
        person = person_of(target)
        found = await examined(person)
        assert [record["text"].split()[0] for record in found.found["login", "default"]] == ["hop1", HOST]
        assert len(found.found["host key", "default"]) == 2
        await one.change_host_key()
        found = await examined(person)
        assert found.ok("host key") is False and "hop1" in found.text("host key")
        assert target.logins == 1


async def test_a_mail_server_with_a_smaller_size_limit_than_the_listener_is_found(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.extensions = (b"SIZE 1000", b"8BITMIME")
        person = person_of(remote)
        found = await examined(person)
        assert found.ok("size") is False
        assert found.text("EHLO") == "offers 8BITMIME, SIZE"
        # The fix that it names works.
        line = found.fix("size").removesuffix(" in the settings")
        person.config.write_text(f"{person.config.read_text()}\n{line}\n")
        assert (await examined(person)).ok("size") is True


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's ssh")
async def test_ignored_directives_of_ssh_config_are_named(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        amend(remote, "KnownHostsCommand /bin/false")
        found = await examined(person_of(remote), online=False)
        assert found.ok("ssh_config") is None and "KnownHostsCommand" in found.text("ssh_config")


BAD = {
    ("spf.example", "MX"): ["10 mx.example."],
    ("spf.example", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"],
    ("_dmarc.spf.example", "TXT"): ["v=DMARC1; p=quarantine"],
    ("null.example", "MX"): ["0 ."],
    ("null.example", "TXT"): ["v=spf1 nonsense"],
    ("many.example", "A"): ["192.0.2.9"],
    ("many.example", "TXT"): ["v=spf1 " + " ".join(["a:many.example"] * 11) + " -all"],
    ("_dmarc.many.example", "TXT"): ["v=DMARC1; p=none"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["liar.example."],
    ("1.2.0.192.bl.spamcop.net", "A"): ["127.0.0.2"],
    ("1.2.0.192.zen.spamhaus.org", "A"): ["127.255.255.254"],
}


async def test_bad_dns_records_are_found_and_each_has_a_fix(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        names = ("spf", "null", "many", "broken", "nothing")
        person = person_of(remote, f"relayhost.default.senders = {[f'*@{name}.example' for name in names]}")
        with Nameserver(BAD, broken=["broken.example"]) as server:
            found = await examined(person, server, PUBLIC)
            asked = list(server.asked)
            listed = await examined(person, server, PUBLIC, blacklists=True)
        assert found.ok("SPF", "spf.example") is False and f"ip4:{PUBLIC}" in found.fix("SPF", "spf.example")
        assert found.ok("DMARC", "spf.example") is False and "quarantine" in found.text("DMARC", "spf.example")
        assert found.ok("MX", "null.example") is False and "RFC 7505" in found.text("MX", "null.example")
        assert found.ok("SPF", "null.example") is False and "nonsense" in found.text("SPF", "null.example")
        assert found.ok("MX", "many.example") is True
        assert found.ok("SPF", "many.example") is False and "more than 10" in found.text("SPF", "many.example")
        assert found.ok("DMARC", "many.example") is None
        assert found.ok("MX", "broken.example") is None and found.ok("SPF", "broken.example") is None
        assert found.ok("MX", "nothing.example") is False
        assert f'"v=spf1 ip4:{PUBLIC}' in found.fix("SPF", "nothing.example")
        assert found.ok("PTR", PUBLIC) is False
        assert not any("spamcop" in name for name, _ in asked), "blacklists are asked only when asked for"
        lists = {record["text"].split()[0]: record["ok"] for record in listed.found["blacklist", PUBLIC]}
        assert lists["bl.spamcop.net"] is False and lists["zen.spamhaus.org"] is None and True in lists.values()


async def test_the_senders_of_messages_in_the_spool_and_their_from_fields_are_checked(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote)
        person.put("aaaa000001", sender=b"me@good.example", content=b"From: Me <me@GOOD.example>\r\n\r\nhello\r\n")
        person.put("aaaa000002", sender=b"me@bounces.good.example", content=b"From: me@good.example\r\n\r\nhello\r\n")
        person.put("aaaa000003", sender=b"me@other.example", content=b"From: me@good.example\r\n\r\nhello\r\n")
        person.put("aaaa000004", sender=b"", content=b"Subject: a report\r\n\r\nhello\r\n")
        person.put("aaaa000005", sender=b"root@laptop", content=b"From\x1b: [ <> @\r\n\r\nhello\r\n")
        zone = GOOD | {(f"{name}.example", "TXT"): GOOD["good.example", "TXT"] for name in ("bounces.good", "other")}
        with Nameserver(zone) as server:
            found = await examined(person, server, PUBLIC)
        assert {about for check, about in found.found if check == "SPF"} == {
            "good.example",
            "bounces.good.example",
            "other.example",
        }
        said = {record["ok"]: record["text"] for record in found.found["DMARC", "good.example"]}
        assert set(said) == {True, False}, "an organisation's own subdomain is aligned, another domain is not"
        assert "other.example is not part of good.example" in said[False]


async def test_a_private_address_of_the_server_is_not_checked_in_the_dns(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        with Nameserver(GOOD) as server:
            found = await examined(person_of(remote, SENDERS), server)
        assert found.ok("public address") is None and "--address" in found.text("public address")
        assert found.ok("SPF", "good.example") is None
        assert found.ok("MX", "good.example") is True


HANG_UP = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
while True:
    listener.accept()[0].close()
"""


async def test_an_address_in_use_by_another_program_is_found_with_and_without_a_daemon(tmp_path: Path) -> None:
    # A process of its own: a child of this one, which exists for a moment, would have the same socket.
    other = Child([sys.executable, "-c", HANG_UP])
    try:
        port = other.wait_line("^port ").split()[1]
        async with Remote(tmp_path) as remote:
            person = person_of(remote, f'listen.address = "127.0.0.1:{port}"')
            found = await examined(person, online=False)
            assert found.ok("address", "") is False and f"process {other.pid} " in found.text("address", "")
            # The daemon listens on another address, so the program on this one is not mailrelay.
            ours = settings(remote.directory, remote.relayhost("default"))
            async with served(ours):
                found = await examined(person, online=False)
            assert found.ok("address", "") is False and found.ok("service", "") is True
    finally:
        other.stop()


async def test_a_spool_that_is_open_to_others_or_cannot_be_created_is_found(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote)
        person.put("aaaa000001")
        assert (await examined(person, online=False)).ok("spool", "") is True
        person.spool.chmod(0o755)
        found = await examined(person, online=False)
        assert found.ok("spool", "") is False and found.fix("spool", "").startswith("chmod 700")
        shutil.rmtree(person.spool)
        person.spool.write_text("a file")
        found = await examined(person, online=False)
        assert found.ok("spool", "") is False and "is not a directory" in found.text("spool", "")


async def test_backends_that_cannot_deliver_are_found(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote, "notify.dsn = false")
        assert "[notify]" in (await examined(person, online=False)).fix("notify", "")
        person = person_of(remote, 'notify.command = ["/nonexistent/tell"]')
        found = await examined(person, online=False)
        assert "notify" in found.failed and "/nonexistent/tell" in found.found["notify", ""][0]["text"]


async def test_without_a_desktop_session_the_desktop_backend_fails_and_another_backend_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")

    async with Remote(tmp_path) as remote:
        found = await examined(person_of(remote, desktop=True), online=False)
        (shut, left) = found.found["notify", ""]
        assert shut["ok"] is False and "no desktop session" in shut["text"] and "notify.mailbox" in shut["fix"]
        assert left["ok"] is True and left["text"] == "notices reach you by dsn"
        mailbox = f'notify.mailbox = "{tmp_path}/Maildir"'
        found = await examined(person_of(remote, mailbox, desktop=True), online=False)
        assert found.found["notify", ""][0]["fix"] == "set notify.desktop = false if there is never a desktop"
        assert found.text("notify", "") == "notices reach you by dsn, mailbox"
        assert not (tmp_path / "Maildir").exists()


@pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (package dbus)")
async def test_a_desktop_session_is_probed_without_a_notification(bus: str, tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote, a_screen(bus) as screen:
        found = await examined(person_of(remote, desktop=True), online=False)
        assert found.text("notify", "") == "notices reach you by desktop, dsn"
        assert screen.shown == []


def test_wrong_settings_are_one_line_and_status_78(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.config.write_text("nonsense = 1\n")
    done = person.run("check")
    assert (done.returncode, done.stdout) == (78, "")


@pytest.mark.parametrize("words", [("--address", "what"), ("--nameserver", "what")])
def test_an_invalid_address_is_a_usage_error(words: tuple[str, ...], tmp_path: Path) -> None:
    assert Person(tmp_path).run("check", *words).returncode == 2


async def test_control_c_ends_the_command_at_once_without_a_message(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        await remote.mute()
        person = person_of(remote)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mailrelay", "check"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=person.environment,
        )
        assert process.stdout is not None and process.stderr is not None
        while not (await process.stdout.readline()).decode().startswith("✓ notify"):
            pass
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert (await process.stderr.read()).strip() == b""


# The environment of the daemon.


@contextmanager
def agent(remote: Remote) -> Iterator[Path]:
    """An agent with the key that the remote accepts; the key's file is deleted."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is missing")
    path = remote.directory / "agent"
    running = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE)
    try:
        # It prints its socket path once it listens.
        assert running.stdout is not None and running.stdout.readline()
        key = remote.directory / "id_ed25519"
        subprocess.run(["ssh-add", key], env=os.environ | {"SSH_AUTH_SOCK": str(path)}, capture_output=True, check=True)
        key.unlink()
        amend(remote, "IdentityAgent SSH_AUTH_SOCK", "IdentitiesOnly no")
        yield path
    finally:
        running.terminate()
        running.wait(10)
        assert running.stdout is not None
        running.stdout.close()


async def test_the_agent_of_the_running_daemon_is_checked(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote, 'listen.address = "127.0.0.1:0"')
        with agent(remote) as path:
            mine = {"SSH_AUTH_SOCK": str(path)}
            assert (await checked(person, env=mine)).ok("login") is True
            daemon = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mailrelay", "serve"), stderr=asyncio.subprocess.PIPE, env=person.environment
            )
            assert daemon.stderr is not None
            assert b"ready" in await daemon.stderr.readline()
            found = await checked(person, env=mine)
            daemon.terminate()
            assert await daemon.wait() == 0
        assert found.ok("key") is False and found.ok("login") is False
        assert f"process {daemon.pid}" in found.text("environment", "")
        assert f"its SSH_AUTH_SOCK is not set, yours is {path}" in found.text("environment", "")


@pytest.mark.parametrize("installed", [True, False])
async def test_with_an_installed_unit_the_agent_of_the_systemd_user_manager_is_checked(
    installed: bool, tmp_path: Path
) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote)
        with agent(remote) as path:
            fake_systemctl(remote.directory, installed=installed, agent=str(path))
            found = await checked(person, env={"PATH": f"{remote.directory}:{os.environ['PATH']}"})
        assert found.ok("login") is installed
        assert ("systemd user manager" in found.text("environment", "")) is installed


def fake_systemctl(directory: Path, *, installed: bool, agent: str) -> None:
    program = directory / "systemctl"
    program.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        f"cat) exit {0 if installed else 1};;\n"
        'show-environment) printf \'%s\\n\' "HOME=$HOME" "PATH=$PATH" "PYTHONPATH=$PYTHONPATH"'
        " \"ODD=\\$'a\\\\nb'\";;\n"
        f"show) echo 'SSH_AUTH_SOCK={agent}';;\n"
        "esac\n"
    )
    program.chmod(0o755)


async def test_the_sender_of_programs_that_give_none_is_shown_and_one_that_is_refused_is_found(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        found = await examined(person_of(remote))
        assert found.ok("sender") is True
        assert found.text("sender").split(",")[0].endswith("@demo-remote")

        async def strict(verb: str, argument: bytes) -> bytes | None:
            if verb == "MAIL" and b"@demo-remote" in argument:
                return b"553 5.1.8 Domain of sender address does not exist"
            return b"450 4.7.1 later" if verb == "MAIL" and b"later@" in argument else None

        remote.policy = strict
        found = await examined(person_of(remote))
        assert found.ok("sender") is False
        assert "553 5.1.8 Domain of sender" in found.text("sender")
        assert "[submission]" in found.fix("sender")
        for sender, ok in (("me@good.example", True), ("later@good.example", None)):
            found = await examined(person_of(remote, f'submission.from = "{sender}"'))
            assert found.ok("sender") is ok
            assert found.text("sender").startswith(f"{sender}, for programs that give none")


async def test_a_relayhost_that_gets_no_mail_without_a_sender_is_not_asked_about_it(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        found = await examined(person_of(remote, 'relayhost.default.senders = ["*@good.example"]'))
        assert ("sender", "default") not in found.found
        # No other relayhost gets it either.
        assert found.ok("sender", "") is False
        assert "no relayhost takes mail" in found.text("sender", "")
