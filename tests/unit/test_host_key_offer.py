"""An offered host key as a person sees it, beside the keys that known_hosts has."""

import hashlib
from pathlib import Path

import asyncssh
import pytest

from mailrelay.config import Relayhost
from mailrelay.ssh.hops import Hop, hops_of
from mailrelay.ssh.host_key_scan import Offer, fingerprint_of
from mailrelay.ssh.known_hosts import Entry, HostKey, HostKeyStatus

KEY, OTHER = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))


@pytest.fixture
def hop(tmp_path: Path) -> Hop:
    config = tmp_path / "config"
    config.write_text("")
    [found] = hops_of(Relayhost(name="x", ssh="me@mail.example.org:2222", ssh_config=config))
    return found


def test_a_known_key_is_shown_as_an_offered_one(hop: Hop) -> None:
    shown = f"ssh-ed25519 {KEY.get_fingerprint()}"
    assert fingerprint_of(Entry("", KEY, Path("known_hosts"), 1)) == shown
    assert Offer(hop, HostKey(HostKeyStatus.UNKNOWN, KEY), KEY).fingerprint == shown


def test_the_fault_of_a_certificate_is_told_with_the_key_of_the_host(hop: Hop) -> None:
    faulty = Offer(hop, HostKey(HostKeyStatus.UNKNOWN, KEY, certificate_fault="has expired"), KEY)
    assert (faulty.certificate_fault, faulty.is_authority) == ("has expired", False)
    good = Offer(hop, HostKey(HostKeyStatus.TRUSTED, KEY, authority=OTHER), OTHER)
    assert (good.certificate_fault, good.is_authority) == ("", True)


@pytest.mark.parametrize(("kind", "number"), [("ssh-rsa", 1), ("ecdsa-sha2-nistp256", 3), ("ssh-ed25519", 4)])
def test_the_key_is_as_in_the_records_of_the_dns(hop: Hop, kind: str, number: int) -> None:
    key = asyncssh.generate_private_key(kind)
    data = key.public_data
    digests = {1: hashlib.sha1(data).digest(), 2: hashlib.sha256(data).digest()}
    assert Offer(hop, HostKey(HostKeyStatus.UNKNOWN, key), key).sshfp == (number, digests)
