"""Reads the file of RevokedHostKeys: host keys that must not be trusted, whatever known_hosts says.

    revoked = read(Path("~/.ssh/revoked"))
    is_revoked(revoked, key.public_data)

The file has one public key on each line, or is a key revocation list (OpenSSH's PROTOCOL.krl), as for ssh(1).
Promises: as strict as ssh(1). If the file cannot be read, every key counts as revoked. Of a list that revokes single
certificates of an authority (by serial number or name), all certificates of that authority count as revoked.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket

MAX_FILE = 1 << 24
"""Octets of a file that are read."""
_MAGIC = b"SSHKRL\n\0"
_CERTIFICATES, _KEYS, _SHA1, _SHA256 = 1, 2, 3, 5


@dataclass(frozen=True, slots=True)
class RevokedKeys:
    """The keys of a file: public data of keys, and digests of such. fault: why the file cannot be read, or ""."""

    file: Path
    keys: frozenset[bytes] = frozenset()
    digests: frozenset[bytes] = frozenset()
    fault: str = ""


def is_revoked(revoked: RevokedKeys, public_data: bytes) -> bool:
    """Whether a key is revoked. public_data: a key in the SSH protocol, that of a host or of an authority."""
    if revoked.fault or public_data in revoked.keys:
        return True
    digests = {hashlib.sha1(public_data).digest(), hashlib.sha256(public_data).digest()}  # noqa: S324 - as in the list
    return not revoked.digests.isdisjoint(digests)


def read(file: Path) -> RevokedKeys:
    """The keys of a file. Never raises. It blocks."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE)
        return parse(file, content)
    except OSError as error:
        return RevokedKeys(file, fault=f"cannot be read ({error.strerror or error})")
    except ValueError:
        return RevokedKeys(file, fault="is neither a list of public keys nor a key revocation list")


def parse(file: Path, content: bytes) -> RevokedKeys:
    """The keys in the octets of a file. Pure. Raises ValueError."""
    if not content.startswith(_MAGIC):
        lines = [line.strip() for line in content.split(b"\n")]
        keys = [asyncssh.import_public_key(line) for line in lines if line and not line.startswith(b"#")]
        return RevokedKeys(file, frozenset(key.public_data for key in keys))
    try:
        sections = list(_sections(content))
    except PacketDecodeError as error:
        raise ValueError("the key revocation list is broken") from error
    return RevokedKeys(
        file,
        frozenset(value for kind, value in sections if kind in (_KEYS, _CERTIFICATES)),
        frozenset(value for kind, value in sections if kind in (_SHA1, _SHA256)),
    )


def _sections(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The values in a key revocation list, each with the kind of its section: keys, digests, or an authority of which
    certificates are revoked."""
    packet = SSHPacket(content)
    packet.get_bytes(len(_MAGIC))
    packet.get_uint32()  # the version of the format
    for _ in ("the version of the list", "its date", "flags"):
        packet.get_uint64()
    for _ in ("reserved", "a comment"):
        packet.get_string()
    while packet:
        kind, section = packet.get_byte(), SSHPacket(packet.get_string())
        if kind == _CERTIFICATES:
            yield kind, section.get_string()
        elif kind in (_KEYS, _SHA1, _SHA256):
            while section:
                yield kind, section.get_string()
