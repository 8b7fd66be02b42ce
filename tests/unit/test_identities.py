"""The certificates of a key: which are read, and which were issued for it."""

from pathlib import Path

import asyncssh

from mailrelay.ssh.identities import certificates, certified

KEY, OTHER = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))


def certificate(key: asyncssh.SSHKey, name: str) -> asyncssh.SSHCertificate:
    return OTHER.generate_user_certificate(key, name, principals=["me"])


def test_a_key_is_offered_with_each_certificate_that_was_issued_for_it() -> None:
    pair = asyncssh.load_keypairs([KEY])[0]
    own = [certificate(KEY, "one"), certificate(KEY, "two")]
    found = list(certified(pair, [own[0], certificate(OTHER, "other"), own[1]]))
    assert [one.public_data for one in found] == [one.public_data for one in own]
    # The key itself is unchanged.
    assert pair.public_data == KEY.public_data
    assert list(certified(pair, [])) == []


def test_each_certificate_is_read_with_its_file_and_what_is_none_is_skipped(tmp_path: Path) -> None:
    first, both, junk, missing = (tmp_path / name for name in ("first", "both", "junk", "missing"))
    one, two = certificate(KEY, "one").export_certificate(), certificate(OTHER, "two").export_certificate()
    first.write_bytes(one)
    both.write_bytes(two + one)
    junk.write_bytes(b"ssh-ed25519-cert-v01@openssh.com AAAA\n")
    found = [(file, cert.export_certificate()) for file, cert in certificates([first, junk, missing, both])]
    assert found == [(first, one), (both, two), (both, one)]
