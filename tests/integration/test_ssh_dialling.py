"""Dialling a real SSH server: what is connected to, what is refused, and in which words the person hears of it."""

import asyncio
import base64
import hmac
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest
from harness.loops import on_both_loops
from harness.remotes import amend, fault_of, greeting, two_jump_hosts
from harness.remotes import no_agent_and_no_home as no_agent_and_no_home
from harness.ssh_agent import agent

from mailrelay.config import Relayhost
from mailrelay.demo.remote import HOST, Remote
from mailrelay.mail.outcome import Cause, Stage
from mailrelay.ssh import hop_connection
from mailrelay.ssh.dial import dial


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def listening(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]],
) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_the_mail_server_behind_ssh_is_reached_with_the_persons_ssh_config(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        assert await greeting(remote.relayhost()) == b"220 demo-remote ESMTP\r\n"
        assert remote.logins == 1


async def test_a_remote_that_went_down_is_reached_again_when_it_is_back(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        link = await dial(remote.relayhost())
        await remote.down()
        await link.wait_closed()
        assert not link.is_up
        await link.close()
        outcome = await fault_of(remote.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.SSH_REFUSED)
        assert str(remote.ssh_port) in outcome.text
        await remote.up()
        assert await greeting(remote.relayhost())


async def test_an_unknown_host_key_stops_the_dial_before_any_login(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.known_hosts.write_text("")
        outcome = await fault_of(remote.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.HOST_KEY, Cause.HOST_KEY_UNKNOWN)
        assert remote.host_key.get_fingerprint() in outcome.text
        assert "mailrelay trust" in outcome.fix
        assert remote.logins == 0


async def test_a_changed_host_key_is_told_apart_from_an_unknown_one(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        before = remote.host_key.get_fingerprint()
        await remote.change_host_key()
        outcome = await fault_of(remote.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.HOST_KEY, Cause.HOST_KEY_CHANGED)
        assert before in outcome.text and remote.host_key.get_fingerprint() in outcome.text
        assert "hotels and hotspots" in outcome.text and "mailrelay trust" in outcome.fix
        assert remote.logins == 0


async def test_a_host_known_by_another_kind_of_key_has_changed(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
        remote.known_hosts.write_text(f"[127.0.0.1]:{remote.ssh_port} {other}")
        assert (await fault_of(remote.relayhost())).cause is Cause.HOST_KEY_CHANGED


async def test_a_revoked_host_key_is_refused_even_when_it_is_also_known(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        with remote.known_hosts.open("a") as file:
            file.write(f"@revoked * {remote.host_key.export_public_key().decode()}")
        outcome = await fault_of(remote.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.HOST_KEY, Cause.HOST_KEY_REVOKED)
        assert f"{remote.known_hosts}:2" in outcome.text
        assert remote.logins == 0


async def test_known_hosts_none_knows_nobody_instead_of_everybody(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        amend(remote, "UserKnownHostsFile none", "StrictHostKeyChecking no")
        assert (await fault_of(remote.relayhost())).cause is Cause.HOST_KEY_UNKNOWN


async def test_a_hashed_name_and_a_line_that_cannot_be_read_do_not_hide_the_host_key(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        key = remote.host_key.export_public_key().decode()
        name = f"[127.0.0.1]:{remote.ssh_port}"
        salt, digest = b"s" * 20, hmac.digest(b"s" * 20, name.encode(), "sha1")
        hashed = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()} {key}"
        remote.known_hosts.write_text(f"nonsense\n@what * x\n{name} ssh-ed25519 broken\n{hashed}")
        assert await greeting(remote.relayhost())


async def test_a_line_of_known_hosts_that_cannot_be_read_is_named_where_the_host_is_not_known(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        name = f"[127.0.0.1]:{remote.ssh_port}"
        remote.known_hosts.write_text(f"other ssh-ed25519 broken\n{name} ssh-ed25519 broken\n{name}\n")
        outcome = await fault_of(remote.relayhost())
        assert outcome.cause is Cause.HOST_KEY_UNKNOWN
        assert f"({remote.known_hosts}:2, {remote.known_hosts}:3 cannot be read)" in outcome.text


async def test_host_key_alias_stands_for_host_and_port(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.known_hosts.write_text(f"mail.example {remote.host_key.export_public_key().decode()}")
        assert (await fault_of(remote.relayhost())).cause is Cause.HOST_KEY_UNKNOWN
        amend(remote, "HostKeyAlias Mail.Example")
        assert await greeting(remote.relayhost())


async def test_a_key_that_is_not_let_in_is_named_with_the_step_that_lets_it_in(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.refuse_key = True
        outcome = await fault_of(remote.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.AUTH, Cause.AUTH_REFUSED)
        assert str(tmp_path / "id_ed25519") in outcome.text
        assert "authorized_keys of demo" in outcome.fix


async def test_an_encrypted_key_is_never_asked_for_and_the_fixing_step_is_the_agent(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        (tmp_path / "id_ed25519").write_bytes(remote.client_key.export_private_key("pkcs8-pem", passphrase="secret"))
        outcome = await fault_of(remote.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.AUTH, Cause.AUTH_REFUSED)
        assert "passphrase" in outcome.text
        assert f"ssh-add {tmp_path / 'id_ed25519'}" in outcome.fix


async def test_a_key_that_others_can_read_is_left_alone_as_ssh_leaves_it(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        (tmp_path / "id_ed25519").chmod(0o644)
        outcome = await fault_of(remote.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.AUTH, Cause.AUTH_REFUSED)
        assert "other users can read it" in outcome.text
        assert f"chmod 600 {tmp_path / 'id_ed25519'}" in outcome.fix
        (tmp_path / "id_ed25519").chmod(0o600)
        assert await greeting(remote.relayhost())


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs OpenSSH's ssh-agent")
async def test_an_agent_that_comes_later_is_found_by_the_next_dial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Remote(tmp_path) as remote:
        key = tmp_path / "id_ed25519"
        amend(remote, "IdentityAgent SSH_AUTH_SOCK")
        remote.ssh_config.write_text(remote.ssh_config.read_text().replace("    IdentitiesOnly yes\n", ""))
        moved = tmp_path / "elsewhere"
        key.rename(moved)
        assert (await fault_of(remote.relayhost())).cause is Cause.AUTH_REFUSED

        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        async with agent(tmp_path / "openssh_agent", moved):
            assert await greeting(remote.relayhost())


async def test_an_ssh_config_that_cannot_be_understood_is_named_with_its_line(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.ssh_config.write_text("\nPort many\n")
        outcome = await fault_of(remote.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.SSH_CONFIG)
        assert f"{remote.ssh_config} line 2" in outcome.text


async def test_an_ssh_config_that_is_not_there_is_a_fault_unless_it_is_the_default_one(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        missing = Relayhost(name="x", ssh=HOST, ssh_config=tmp_path / "missing")
        outcome = await fault_of(missing)
        assert outcome.cause is Cause.SSH_CONFIG
        assert str(tmp_path / "missing") in outcome.text
        await remote.down()
        default = Relayhost(name="x", ssh=f"127.0.0.1:{remote.ssh_port}", ssh_config=Path("~/.ssh/config"))
        assert (await fault_of(default)).cause is Cause.SSH_REFUSED


async def test_a_destination_that_makes_no_sense_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    outcome = await fault_of(Relayhost(name="x", ssh="a@b@:x", ssh_config=Path("~/.ssh/config")))
    assert outcome.cause is Cause.SSH_CONFIG


async def test_a_name_that_cannot_be_looked_up_is_a_network_that_is_away(tmp_path: Path) -> None:
    outcome = await fault_of(Relayhost(name="x", ssh="nowhere.invalid", ssh_config=Path("~/.ssh/config")))
    assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.UNREACHABLE)
    assert "nowhere.invalid" in outcome.text


async def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hop_connection, "LOGIN_TIMEOUT", 0.2)

    async with Remote(tmp_path) as remote:
        await remote.mute()
        outcome = await fault_of(remote.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.UNREACHABLE)
        assert "sent nothing" in outcome.text


@pytest.mark.parametrize("stays", [False, True], ids=["hangs up", "waits"])
async def test_a_port_that_speaks_something_else_is_told_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    monkeypatch.setattr(hop_connection, "LOGIN_TIMEOUT", 0.2)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\x1b\r\n")
        if stays:
            await reader.read()
        writer.close()

    async with listening(greet) as port:
        outcome = await fault_of(Relayhost(name="x", ssh=f"127.0.0.1:{port}", ssh_config=Path("~/.ssh/config")))
        assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.SSH_REFUSED)
        assert f"port {port} of 127.0.0.1 does not speak SSH" in outcome.text
        assert "220 mail.example ESMTP" in outcome.text and "port" in outcome.fix


async def test_a_server_that_turns_us_away_for_now_is_no_fault_of_the_setup() -> None:
    async def turn_away(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"Not allowed at this time\r\n")
        writer.close()

    async with listening(turn_away) as port:
        outcome = await fault_of(Relayhost(name="x", ssh=f"127.0.0.1:{port}", ssh_config=Path("~/.ssh/config")))
        assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.UNREACHABLE)
        assert "for now: Not allowed at this time" in outcome.text


async def test_what_a_hostile_server_says_reaches_nobody_unescaped(tmp_path: Path) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-9.9-\x1b]0;owned\x07\r\n")
        await reader.read()
        writer.close()

    async with listening(rude) as port:
        outcome = await fault_of(Relayhost(name="x", ssh=f"127.0.0.1:{port}", ssh_config=Path("~/.ssh/config")))
        assert outcome.cause is Cause.SSH_REFUSED


async def test_a_connection_cut_in_the_middle_of_the_handshake_is_a_lost_one(tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-test\r\n")
        await reader.readline()
        writer.close()

    async with listening(cut) as port:
        outcome = await fault_of(Relayhost(name="x", ssh=f"127.0.0.1:{port}", ssh_config=Path("~/.ssh/config")))
        assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.LOST)


async def test_a_cancelled_dial_closes_its_connection(tmp_path: Path) -> None:
    came, went = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()
        went.set()
        writer.close()

    async with asyncio.timeout(20), listening(silent) as port:
        dialling = asyncio.create_task(
            dial(Relayhost(name="x", ssh=f"127.0.0.1:{port}", ssh_config=Path("~/.ssh/config")))
        )
        await came.wait()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await went.wait()


@pytest.mark.parametrize(("jump", "logins"), [("hop1", (1, 0)), ("hop1,hop2", (1, 1))])
@on_both_loops
async def test_jump_hosts_are_passed_one_through_the_other(tmp_path: Path, jump: str, logins: tuple[int, int]) -> None:
    async with two_jump_hosts(tmp_path) as (target, one, two):
        amend(target, f"ProxyJump {jump}")
        assert await greeting(target.relayhost())
        assert (one.logins, two.logins) == logins
        assert target.logins == 1


@on_both_loops
async def test_a_jump_host_is_verified_by_its_own_known_hosts(tmp_path: Path) -> None:
    async with two_jump_hosts(tmp_path) as (target, one, _two):
        amend(target, "ProxyJump hop1")
        await one.change_host_key()
        outcome = await fault_of(target.relayhost())
        assert outcome.cause is Cause.HOST_KEY_CHANGED
        assert "hop1" in outcome.text and target.logins == 0


@on_both_loops
async def test_a_jump_host_cannot_pass_its_own_key_off_as_that_of_the_host_behind_it(tmp_path: Path) -> None:
    async with two_jump_hosts(tmp_path) as (target, _one, _two):
        # Known at the jump host's address, but under no name of the target's.
        target.known_hosts.write_text(f"127.0.0.1 {target.host_key.export_public_key().decode()}")
        amend(target, "ProxyJump hop1", "HostName localhost")
        assert (await fault_of(target.relayhost())).cause is Cause.HOST_KEY_UNKNOWN


@on_both_loops
async def test_a_jump_host_that_prohibits_forwarding_is_a_setup_fault_and_nothing_stays_open(tmp_path: Path) -> None:
    async with two_jump_hosts(tmp_path) as (target, one, _two):
        amend(target, "ProxyJump hop1")
        one.forbid_forwarding = True
        outcome = await fault_of(target.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.FORWARDING_PROHIBITED)
        one.forbid_forwarding = False
        await target.down()
        outcome = await fault_of(target.relayhost())
        assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.UNREACHABLE)


@on_both_loops
async def test_proxy_jump_in_a_circle_is_seen(tmp_path: Path) -> None:
    async with two_jump_hosts(tmp_path) as (target, _one, _two):
        with target.ssh_config.open("a") as file:
            file.write(f"Host hop1\n    ProxyJump {HOST}\n")
        amend(target, "ProxyJump hop1")
        outcome = await fault_of(target.relayhost())
        assert outcome.cause is Cause.SSH_CONFIG and "circle" in outcome.text


@pytest.mark.parametrize("deaf", ["", "signal.signal(signal.SIGHUP, signal.SIG_IGN)"], ids=["", "to SIGHUP"])
@on_both_loops  # They differ in what they make of a socket that is not the network's.
async def test_a_proxy_command_is_run_as_ssh_would(tmp_path: Path, deaf: str) -> None:
    async with Remote(tmp_path) as remote:
        program = tmp_path / "proxy.py"
        program.write_text(
            f"import os, signal, socket, sys, threading, time\n{deaf}\n"
            "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
            "def up():\n"
            "    while data := os.read(0, 65536): s.sendall(data)\n"
            "threading.Thread(target=up, daemon=True).start()\n"
            "try:\n"
            "    while data := s.recv(65536): os.write(1, data)\n"
            "finally: time.sleep(1000)\n"
        )
        # By a shell, and whatever it says on the way is not SSH.
        pid = tmp_path / "pid"
        amend(remote, f"ProxyCommand sh -c 'echo $$ >{pid}; echo Hello >&2; exec python3 {program} \"$@\"' sh %h %p")
        assert await greeting(remote.relayhost())
        # It has ended with the connection, though it does not mind the end of its stdin.
        assert not runs(int(pid.read_text()))


@pytest.mark.parametrize(
    ("command", "cause", "said"),
    [
        ("/nonexistent/proxy %h", Cause.SSH_CONFIG, "/nonexistent/proxy"),
        ("true", Cause.UNREACHABLE, "ended before the SSH server answered."),
        (
            "sh -c 'echo first >&2; echo no route to %h >&2; exit 1'",
            Cause.UNREACHABLE,
            "answered: no route to 127.0.0.1.",
        ),
    ],
)
async def test_a_proxy_command_that_fails_is_told_in_its_own_words(
    tmp_path: Path, command: str, cause: Cause, said: str
) -> None:
    async with Remote(tmp_path) as remote:
        amend(remote, f"ProxyCommand {command}")
        outcome = await fault_of(remote.relayhost())
        assert outcome.cause is cause
        assert said in outcome.text


async def test_an_address_that_refuses_leaves_the_next_one_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_addresses(_host: str, port: int, *_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (each, port)) for each in ("127.0.0.2", "127.0.0.1")]

    async with Remote(tmp_path) as remote:
        with remote.known_hosts.open("a") as file:
            file.write(f"[mail.example]:{remote.ssh_port} {remote.host_key.export_public_key().decode()}")
        amend(remote, "HostName mail.example")
        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
        assert await greeting(remote.relayhost())


def test_an_ssh_config_that_hangs_is_told_and_keeps_nobody_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def test() -> None:
        async with Remote(tmp_path) as remote:
            amend(remote, f'Match exec "cat {gate}"')
            monkeypatch.setattr("mailrelay.ssh.dial.READ_TIMEOUT", 0.2)
            outcome = await fault_of(remote.relayhost())
            assert outcome.cause is Cause.SSH_CONFIG
            assert "Match exec" in outcome.text

    # Not a coroutine itself: the end of the event loop is part of the test.
    asyncio.run(test())
    # Still there, with the event loop long gone.
    os.close(os.open(gate, os.O_WRONLY))
