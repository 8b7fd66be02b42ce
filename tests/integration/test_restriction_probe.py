"""The proof that a key is for mail alone, against a remote that is in no hurry."""

import asyncio
from pathlib import Path

import asyncssh
import pytest
from harness.remotes import no_agent_and_no_home as no_agent_and_no_home

from mailrelay.demo import remote as demo
from mailrelay.demo.remote import Remote
from mailrelay.ssh import restriction_probe


async def test_a_host_that_the_remote_tries_to_reach_is_not_one_that_it_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def goes_there(_server: object, host: str, *_: object) -> None:
        if host == "192.0.2.1":
            # As a connection to an address from which nothing comes back.
            await asyncio.Event().wait()
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")

    monkeypatch.setattr(demo.RemoteSSHServer, "connection_requested", goes_there)
    monkeypatch.setattr(restriction_probe, "TRIAL_TIMEOUT", 0.3)

    async with Remote(tmp_path) as remote:
        tried = await restriction_probe.trials(remote.relayhost(), remote.directory / "id_ed25519")
        by_port, by_host = (trial for trial in tried if trial.what.startswith("-L to another"))
        assert by_port.is_refused
        assert not by_host.is_refused
