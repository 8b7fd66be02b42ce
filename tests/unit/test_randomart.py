"""The picture of a fingerprint is the one that OpenSSH draws."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import asyncssh
import pytest

from mailrelay.ssh.host_key_scan import art
from mailrelay.ssh.randomart import draw

# ssh-keygen -lv, of OpenSSH 9.2.
EXPECTED = """\
+--[ED25519 256]--+
__BOARD__
+----[SHA256]-----+"""


def test_the_bishop_goes_nowhere_without_a_fingerprint() -> None:
    middle = "|        E        |"
    empty = "|                 |"
    board = "\n".join([empty] * 4 + [middle] + [empty] * 4)
    assert draw(b"", "ED25519 256", "SHA256") == EXPECTED.replace("__BOARD__", board)


@pytest.mark.parametrize("octet", [0x00, 0xFF])
def test_the_bishop_stops_at_the_walls(octet: int) -> None:
    lines = draw(bytes([octet]) * 64, "X", "Y").splitlines()
    assert {len(line) for line in lines} == {19}
    corner = lines[1][1] if octet == 0 else lines[9][17]
    assert corner == "E"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is missing")
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("ssh-ed25519", {}),
        ("ecdsa-sha2-nistp256", {}),
        ("ecdsa-sha2-nistp521", {}),
        ("ssh-rsa", {"key_size": 2048}),
        ("ssh-rsa", {"key_size": 3072}),
    ],
)
def test_the_picture_is_that_of_ssh_keygen(algorithm: str, options: dict[str, int], tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    for _ in range(2):
        key = asyncssh.generate_private_key(algorithm, **options)
        file.write_bytes(key.export_public_key())
        said = subprocess.run(["ssh-keygen", "-lv", "-f", file], capture_output=True, text=True, check=True).stdout
        line, _, picture = said.partition("\n")
        assert art(key) == picture.rstrip("\n"), hashlib.sha256(key.public_data).hexdigest()
        assert key.get_fingerprint() in line
