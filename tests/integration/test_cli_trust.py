"""`mailrelay trust` as a person runs it: what is shown, when it asks, and what is written."""

import asyncio
import contextlib
import hashlib
from pathlib import Path

import asyncssh
import pytest
from harness.command import Said, person_of, run
from harness.daemon import served, settings, submit
from harness.loops import on_both_loops
from harness.nameserver import Nameserver
from harness.person import Person
from harness.remotes import amend, two_jump_hosts

from mailrelay.demo.remote import HOST, Remote
from mailrelay.spool import listing
from mailrelay.spool.database import connect, reading


async def trust(person: Person, *words: str, typed: str | None = None) -> Said:
    return await run(person, "trust", *words, typed=typed)


async def test_a_key_that_is_known_is_shown_and_nothing_is_asked(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        said = await trust(person_of(remote))
        assert (said.status, said.err) == (0, "")
        assert said.out.startswith(f"{HOST} ([127.0.0.1]:{remote.ssh_port}): trusted\n")
        assert said.out.count(remote.host_key.get_fingerprint()) == 2
        assert remote.logins == 0


async def test_old_and_new_are_shown_side_by_side_and_a_yes_accepts_the_new_one(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person, old = person_of(remote), remote.host_key.get_fingerprint()
        await remote.change_host_key()
        said = await trust(person, typed="y\n")
        assert said.status == 0, said.err
        assert f"known     ssh-ed25519 {old}  {remote.known_hosts}:1" in said.out
        assert f"offered   ssh-ed25519 {remote.host_key.get_fingerprint()}" in said.out
        assert "  +--[ED25519 256]--+   +--[ED25519 256]--+\n" in said.out
        assert "THE KEY HAS CHANGED" in said.out and "hotspots" in said.out
        assert f"Written to {remote.known_hosts}. The file as it was: {remote.known_hosts}.old." in said.out
        assert (await trust(person)).status == 0


async def test_the_key_of_an_authority_is_labelled_as_one(tmp_path: Path) -> None:
    authority, host_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    certificate = authority.generate_host_certificate(host_key, "id", principals=["127.0.0.1"])
    async with asyncio.timeout(30), Remote(tmp_path) as remote:
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[(host_key, certificate)], config=None, gss_host=None
        )
        amend(remote, f"Port {server.get_port()}")
        remote.known_hosts.write_text(f"@cert-authority * {authority.export_public_key().decode()}")
        said = await trust(person_of(remote))
        assert (said.status, said.err) == (0, "")
        assert f"  authority ssh-ed25519 {authority.get_fingerprint()}\n" in said.out
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("typed", ["n\n", "\n"])
async def test_anything_but_a_yes_writes_nothing(typed: str, tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        before = remote.known_hosts.read_text()
        await remote.change_host_key()
        said = await trust(person_of(remote), typed=typed)
        assert said.status == 1 and "not accepted; its mail waits" in said.err
        assert remote.known_hosts.read_text() == before


async def test_without_a_terminal_only_yes_as_an_option_writes(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote)
        remote.known_hosts.write_text("")
        said = await trust(person)
        assert said.status == 1 and "use --yes" in said.err
        assert remote.known_hosts.read_text() == ""
        assert (await trust(person, "--yes")).status == 0
        assert (await trust(person)).status == 0


async def test_a_revoked_key_is_not_accepted_by_any_means(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.known_hosts.write_text(f"@revoked {remote.known_hosts.read_text()}")
        for words in ((), ("--yes",)):
            said = await trust(person_of(remote), *words, typed="y\ny\n")
            assert said.status == 1 and "revoked" in said.err and "REVOKED" in said.out
        assert remote.known_hosts.read_text().count("\n") == 1


@on_both_loops
async def test_jump_hosts_are_asked_about_before_what_lies_behind_them(tmp_path: Path) -> None:
    async with two_jump_hosts(tmp_path) as (target, one, _two):
        amend(target, "ProxyJump hop1")
        for remote in (target, one):
            remote.known_hosts.write_text("")
        person = person_of(target)
        said = await trust(person, typed="y\nn\n")
        assert said.status == 1
        assert said.out.index("hop1 (") < said.out.index(f"{HOST} (")
        assert one.known_hosts.read_text() and not target.known_hosts.read_text()
        assert (await trust(person, typed="y\n")).status == 0
        assert target.logins == 0


async def test_a_host_may_be_named_by_relayhost_or_as_for_ssh(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote, name="work")
        for name in ("work", HOST):
            said = await trust(person, name)
            assert (said.status, said.out.startswith(HOST)) == (0, True), said.err
        other = await trust(person, f"127.0.0.1:{remote.ssh_port}", "--yes")
        assert other.status in (0, 1) and f"127.0.0.1:{remote.ssh_port}" in other.out
        assert (await trust(person, "-oProxyCommand=x")).status == 2
        assert (await trust(person, "two words")).status == 2


async def test_a_host_that_cannot_be_reached_is_one_line_and_status_1(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        await remote.down()
        said = await trust(person_of(remote), "--yes")
        assert (said.status, len(said.err.splitlines())) == (1, 1)
        assert "No SSH server answers" in said.err


def records_of(remote: Remote, *, right: bool = True) -> list[str]:
    digest = hashlib.sha256(remote.host_key.public_data if right else b"another").hexdigest()
    return [f"4 2 {digest}", f"1 2 {'00' * 32}"]


@pytest.mark.parametrize(
    ("right", "validated", "word", "status"),
    [
        (True, True, "publishes this key, validated by DNSSEC", 0),
        (False, True, "publishes ANOTHER key", 1),
        (True, False, "they prove nothing", 0),
        (False, False, "they prove nothing", 0),
        (None, True, "publishes no key of this kind", 0),
    ],
)
async def test_what_the_domain_publishes_counts_only_under_dnssec_and_stops_a_yes_that_nobody_typed(
    right: bool | None, validated: bool, word: str, status: int, tmp_path: Path
) -> None:
    async with Remote(tmp_path) as remote:
        records = [] if right is None else records_of(remote, right=right)
        remote.known_hosts.write_text("")
        amend(remote, "HostName localhost")
        with Nameserver({("localhost", "SSHFP"): records}, validated=validated) as server:
            said = await trust(person_of(remote), "--yes", "--nameserver", server.address)
        assert "DNS: localhost " in said.out and word in said.out
        assert said.status == status
        assert bool(remote.known_hosts.read_text()) is (status == 0)


async def test_dns_that_does_not_answer_is_said_and_stops_nobody(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.known_hosts.write_text("")
        amend(remote, "HostName localhost")
        with Nameserver({}, broken=["localhost"]) as server:
            said = await trust(person_of(remote), "--yes", "--nameserver", server.address)
        assert said.status == 0 and "DNS: the DNS has no answer for SSHFP of localhost" in said.out


async def test_after_a_yes_waiting_mail_goes_at_once(tmp_path: Path) -> None:
    """The next dial is minutes away after a host key that did not match; the yes does not wait for it."""

    async with Remote(tmp_path) as remote:
        person = person_of(remote)
        await remote.change_host_key()
        ours = settings(remote.directory, remote.relayhost("default"))
        async with served(ours) as (port, _):
            await asyncio.to_thread(submit, port)
            said = await trust(person, "--yes")
            assert said.status == 0, said.err
            await remote.arrived(1)


async def test_while_another_host_answers_mail_waits_and_it_goes_once_the_right_one_does(tmp_path: Path) -> None:
    """As behind a hotel's network: no yes is needed, and none is given."""

    async with Remote(tmp_path) as remote:
        person, right = person_of(remote), remote.host_key
        await remote.change_host_key()
        ours = settings(remote.directory, remote.relayhost("default"))
        async with served(ours) as (port, _):
            code, words = await asyncio.to_thread(submit, port)
            assert code == 250 and b"queued" in words and b"hotels" in words
            db = connect(person.spool)
            with reading(db):
                (trouble,) = listing.status(db).faults
            db.close()
            assert trouble.setup and "hotels and hotspots" in trouble.text and "mail is sent once" in trouble.fix
            assert remote.logins == 0
            await remote.down()
            remote.host_key = right
            await remote.up()
            assert await asyncio.to_thread(person.run, "queue", "retry", "--all")
            await remote.arrived(1)


async def test_a_server_that_shows_another_key_each_time_is_accepted_once(tmp_path: Path) -> None:
    """As behind a name that stands for several servers; a script must not run for ever there."""

    async with Remote(tmp_path) as remote:
        keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(8)]

        servers = [
            await asyncssh.listen("127.0.0.1", 0, server_host_keys=[key], config=None, gss_host=None) for key in keys
        ]
        turn = iter(servers)

        async def take_turns(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", next(turn).get_port())
            await asyncio.gather(_carry(reader, back), _carry(there, writer))

        front = await asyncio.start_server(take_turns, "127.0.0.1", 0)
        amend(remote, f"Port {front.sockets[0].getsockname()[1]}")
        said = await trust(person_of(remote), "--yes")
        assert said.status == 1 and "yet another key" in said.err
        assert said.out.count("Written to") == 1
        front.close()
        for server in servers:
            server.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()
