"""The file of RevokedHostKeys: public keys, a key revocation list, or neither."""

import subprocess
from pathlib import Path

import asyncssh
import pytest
from harness.processes import program
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.ssh.revoked_keys import is_revoked, parse, read

FILE = Path("revoked")
KEY, OTHER = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))


def line(key: asyncssh.SSHKey) -> bytes:
    return key.export_public_key()


def test_the_keys_of_a_list_of_lines_are_revoked_and_others_are_not() -> None:
    found = parse(FILE, b"# old\n\n  " + line(KEY) + b"\r\n")
    assert is_revoked(found, KEY.public_data) and not is_revoked(found, OTHER.public_data)
    assert not is_revoked(parse(FILE, b""), KEY.public_data)


@pytest.mark.parametrize("spec", ["{key}", "key: {key}", "sha1: {key}", "sha256: {key}"])
def test_the_keys_of_a_key_revocation_list_are_revoked(tmp_path: Path, spec: str) -> None:
    (tmp_path / "spec").write_text(spec.format(key=line(KEY).decode()))
    keygen = program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-k", "-f", tmp_path / "list", tmp_path / "spec"], check=True)
    found = read(tmp_path / "list")
    assert not found.fault
    assert is_revoked(found, KEY.public_data) and not is_revoked(found, OTHER.public_data)
    octets = (tmp_path / "list").read_bytes()
    with pytest.raises(ValueError, match="broken"):
        parse(FILE, octets[:-1])


def test_a_file_that_cannot_be_read_revokes_every_key(tmp_path: Path) -> None:
    for content in (None, b"junk\n", b"SSHKRL\n\0"):
        if content is not None:
            (tmp_path / "revoked").write_bytes(content)
        found = read(tmp_path / "revoked")
        assert found.fault and is_revoked(found, KEY.public_data)


@given(st.binary() | st.binary().map(lambda octets: b"SSHKRL\n\0" + octets))
def test_any_octets_either_parse_or_raise_value_error(octets: bytes) -> None:
    try:
        found = parse(FILE, octets)
    except ValueError:
        return
    assert (found.file, found.fault) == (FILE, "")
