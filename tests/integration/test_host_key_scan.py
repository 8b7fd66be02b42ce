"""What hosts show before anybody logs in, and what accepting a key does to the person's files."""

import asyncio
import os
import shutil
import stat
from pathlib import Path

import asyncssh
import pytest
from harness.loops import on_both_loops
from harness.remotes import amend, fault_of, greeting, two_jump_hosts
from harness.remotes import no_agent_and_no_home as no_agent_and_no_home

from mailrelay.config import Relayhost
from mailrelay.demo.remote import HOST, Remote
from mailrelay.mail.outcome import Cause
from mailrelay.ssh.host_key_scan import Offer, Unpinnable, pin, scan
from mailrelay.ssh.known_hosts import HostKeyStatus


async def offered(relayhost: Relayhost) -> list[Offer]:
    found, fault = await scan(relayhost)
    assert fault is None
    return found


async def statuses(relayhost: Relayhost) -> list[tuple[str, HostKeyStatus]]:
    return [(offer.place, offer.status) for offer in await offered(relayhost)]


async def test_the_key_is_shown_as_openssh_shows_it_and_nobody_logs_in(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        (offer,) = await offered(remote.relayhost())
        assert offer.status is HostKeyStatus.TRUSTED
        assert offer.fingerprint == f"ssh-ed25519 {remote.host_key.get_fingerprint()}"
        assert offer.name == f"[127.0.0.1]:{remote.ssh_port}" and offer.place == HOST
        assert offer.art.startswith("+--[ED25519 256]--+\n")
        assert remote.logins == 0


async def test_an_unknown_key_is_trusted_once_it_is_pinned(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        remote.known_hosts.write_text("# mine\nother.example ssh-ed25519 broken")
        (offer,) = await offered(remote.relayhost())
        assert offer.status is HostKeyStatus.UNKNOWN
        pinned = pin(offer)
        assert (pinned.file, pinned.old, pinned.stale) == (remote.known_hosts, None, ())
        assert remote.known_hosts.read_text().startswith("# mine\nother.example ssh-ed25519 broken\n[127.0.0.1]:")
        assert await greeting(remote.relayhost())


async def test_a_changed_key_takes_the_place_of_the_old_one_and_the_file_as_it_was_is_kept(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        before = remote.known_hosts.read_text() + "other.example ssh-ed25519 x\n"
        remote.known_hosts.write_text(before)
        remote.known_hosts.chmod(0o640)
        await remote.change_host_key()
        (offer,) = await offered(remote.relayhost())
        assert offer.status is HostKeyStatus.CHANGED
        assert remote.logins == 0
        pinned = pin(offer)
        assert pinned.old == Path(f"{remote.known_hosts}.old") and pinned.old.read_text() == before
        assert stat.S_IMODE(remote.known_hosts.stat().st_mode) == 0o640
        after = remote.known_hosts.read_text()
        assert after.startswith("other.example ssh-ed25519 x\n") and after.count("[127.0.0.1]") == 1
        assert await statuses(remote.relayhost()) == [(HOST, HostKeyStatus.TRUSTED)]
        assert await greeting(remote.relayhost())
        assert {path.name for path in tmp_path.glob("known_hosts*")} == {"known_hosts", "known_hosts.old"}


async def test_a_revoked_key_is_shown_and_never_pinned(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        text = f"@revoked * {remote.host_key.export_public_key().decode()}"
        remote.known_hosts.write_text(text)
        (offer,) = await offered(remote.relayhost())
        assert offer.status is HostKeyStatus.REVOKED
        with pytest.raises(Unpinnable, match="revoked"):
            pin(offer)
        assert remote.known_hosts.read_text() == text


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's ssh")
async def test_names_are_hashed_where_ssh_config_says_so(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        amend(remote, "HashKnownHosts yes")
        remote.known_hosts.write_text("")
        pin((await offered(remote.relayhost()))[0])
        assert remote.known_hosts.read_text().startswith("|1|")
        assert await statuses(remote.relayhost()) == [(HOST, HostKeyStatus.TRUSTED)]


async def test_a_file_that_is_not_there_is_made_for_the_person_alone(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        file = tmp_path / "new" / "known"
        amend(remote, f"UserKnownHostsFile {file} {remote.known_hosts}.2")
        assert pin((await offered(remote.relayhost()))[0]).file == file
        assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
        assert await greeting(remote.relayhost())


async def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        kept = remote.known_hosts.rename(tmp_path / "dotfiles")
        remote.known_hosts.symlink_to(kept)
        await remote.change_host_key()
        assert pin((await offered(remote.relayhost()))[0]).old == Path(f"{kept}.old")
        assert remote.known_hosts.is_symlink()
        assert await greeting(remote.relayhost())


async def test_what_knows_the_old_key_elsewhere_is_named_and_left(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        system = tmp_path / "system"
        text = f"[127.0.0.*]:{remote.ssh_port} {remote.host_key.export_public_key().decode()}"
        system.write_text(text)
        remote.known_hosts.write_text(f"# pattern\n{text}")
        amend(remote, f"GlobalKnownHostsFile {system}")
        await remote.change_host_key()
        pinned = pin((await offered(remote.relayhost()))[0])
        assert pinned.stale == (f"{remote.known_hosts}:2", f"{system}:1")
        assert system.read_text() == text
        assert await greeting(remote.relayhost())


@pytest.mark.parametrize("file", ["none", "/dev/null"])
async def test_where_ssh_config_names_no_file_nothing_is_pinned_and_the_reason_is_told(
    file: str, tmp_path: Path
) -> None:
    async with Remote(tmp_path) as remote:
        amend(remote, f"UserKnownHostsFile {file}")
        (offer,) = await offered(remote.relayhost())
        with pytest.raises(Unpinnable, match="UserKnownHostsFile"):
            pin(offer)


async def test_a_disk_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Remote(tmp_path) as remote:
        before = remote.known_hosts.read_text()
        await remote.change_host_key()
        (offer,) = await offered(remote.relayhost())

        def fail(_handle: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            pin(offer)
        assert remote.known_hosts.read_text() == before
        assert {path.name for path in tmp_path.glob("known_hosts*")} == {"known_hosts", "known_hosts.old"}


@on_both_loops
async def test_the_way_ends_with_the_first_host_that_is_not_trusted_and_nobody_logs_in_there(tmp_path: Path) -> None:
    async with two_jump_hosts(tmp_path) as (target, one, two):
        amend(target, "ProxyJump hop1,hop2")
        await two.change_host_key()
        assert await statuses(target.relayhost()) == [("hop1", HostKeyStatus.TRUSTED), ("hop2", HostKeyStatus.CHANGED)]
        assert (one.logins, two.logins, target.logins) == (1, 0, 0)
        pin((await offered(target.relayhost()))[-1])
        target.known_hosts.write_text("")
        assert (await statuses(target.relayhost()))[-1] == (HOST, HostKeyStatus.UNKNOWN)
        pin((await offered(target.relayhost()))[-1])
        assert await greeting(target.relayhost())


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's ssh")
@on_both_loops
async def test_what_keeps_us_from_the_next_host_is_told_beside_what_was_seen(tmp_path: Path) -> None:
    async with two_jump_hosts(tmp_path) as (target, one, _two):
        amend(target, "ProxyJump hop1")
        one.refuse_key = True
        found, fault = await scan(target.relayhost())
        assert [offer.place for offer in found] == ["hop1"]
        assert fault is not None and fault.cause is Cause.AUTH_REFUSED
        await one.down()
        found, fault = await scan(target.relayhost())
        assert found == [] and fault is not None and fault.cause is Cause.SSH_REFUSED
        target.ssh_config.write_text("Nonsense\n")
        found, fault = await scan(target.relayhost())
        assert found == [] and fault is not None and fault.cause is Cause.SSH_CONFIG


async def test_an_authority_is_not_pinned_but_the_key_of_a_host_with_another_one_is(tmp_path: Path) -> None:
    authority, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    certificate = authority.generate_host_certificate(host_key, "id", principals=["127.0.0.1"])
    async with asyncio.timeout(30), Remote(tmp_path) as remote:
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[(host_key, certificate)], config=None, gss_host=None
        )
        amend(remote, f"Port {server.get_port()}")
        for known, status in ((authority, HostKeyStatus.TRUSTED), (other, HostKeyStatus.UNKNOWN)):
            remote.known_hosts.write_text(f"@cert-authority * {known.export_public_key().decode()}")
            (offer,) = await offered(remote.relayhost())
            assert (offer.status, offer.is_authority) == (status, known is authority)
            if known is authority:
                with pytest.raises(Unpinnable, match="authority"):
                    pin(offer)
            else:
                assert offer.key.public_data == host_key.public_data
                pin(offer)
                assert [each.status for each in await offered(remote.relayhost())] == [HostKeyStatus.TRUSTED]
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "setting",
    [
        "StrictHostKeyChecking no",
        "StrictHostKeyChecking off",
        "StrictHostKeyChecking accept-new",
        "CheckHostIP no",
        "NoHostAuthenticationForLocalhost yes",
        "VerifyHostKeyDNS yes",
        "UserKnownHostsFile none",
        "UserKnownHostsFile /dev/null",
        "KnownHostsCommand /bin/echo %H ssh-ed25519 AAAA",
        "UpdateHostKeys yes",
    ],
)
@pytest.mark.parametrize("where", ["target", "jump host"])
@on_both_loops
async def test_no_setting_switches_verification_off(setting: str, where: str, tmp_path: Path) -> None:
    async with two_jump_hosts(tmp_path) as (target, one, _two):
        amend(target, "ProxyJump hop1", "StrictHostKeyChecking no", setting)
        with target.ssh_config.open("a") as file:
            file.write(f"Host *\n    StrictHostKeyChecking no\n    {setting}\n")
        changed = target if where == "target" else one
        await changed.change_host_key()
        outcome = await fault_of(target.relayhost())
        assert outcome.cause in (Cause.HOST_KEY_CHANGED, Cause.HOST_KEY_UNKNOWN)
        assert changed.logins == 0 and target.logins == 0
