"""Reads the key files that ssh_config names, or the usual ones, with their certificates.

Promises: a key with a passphrase is used only through an agent; a key file that other users can read is not used, as in
ssh(1). What cannot be used has a reason and, if there is one, a fix. All functions block, so they must run on a thread.
"""

import binascii
import contextlib
import copy
import enum
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.packet import SSHPacket

USUAL = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
"""The names in ~/.ssh that are tried where ssh_config names no key."""
_MAGIC = b"openssh-key-v1\0"
_OTHER_USUAL = ("id_xmss", "id_dsa")
"""More names of this kind, which `ssh -G` lists."""
MAX_KEY_FILE = 1 << 20
"""Octets of a file that are read."""


class Obstacle(enum.Enum):
    """Why a key file cannot be used, or only through an agent; the values are for people, after the name of the file."""

    NONE = ""
    PUBLIC_HALF = "only its public key is here"
    NAMED_BY_PUBLIC_HALF = "is only the public key; the private one beside it is not named"
    PROTECTED = "needs a passphrase, so only an agent can use it"
    CERTIFICATE = "is a certificate, not a key"
    MISSING = "does not exist"
    NO_FILE = "is not a file"
    OTHERS_CAN_READ = "other users can read it"
    UNREADABLE = "cannot be read"
    PUTTY = "is a PuTTY key, which ssh cannot read"
    NO_KEY = "is not a private key that ssh can read"
    SECURITY_KEY = "is on a security key, so only an agent can use it"


@dataclass(frozen=True, slots=True)
class Identity:
    """A key file. pairs: its private keys that can be used without an agent. public: its public keys, by which a key of an
    agent is recognized. certificates: for these public keys, each with its file. fix: how to make the file usable, or "".
    """

    file: Path
    pairs: tuple[asyncssh.SSHKeyPair, ...]
    public: frozenset[bytes]
    certificates: tuple[tuple[Path, asyncssh.SSHCertificate], ...] = ()
    obstacle: Obstacle = Obstacle.NONE
    fix: str = ""

    @property
    def note(self) -> str:
        """Why the file cannot be used, or only through an agent; "" if it can be used by itself."""
        return self.obstacle.value


def read(names: Sequence[Path], certs: Sequence[Path]) -> Iterator[Identity]:
    """The identities in these files. A file with one of the usual names that does not exist is left out. certs: the files of
    CertificateFile."""
    for file in names:
        public = frozenset(_public_keys(file))
        is_usual = file.name in (*USUAL, *_OTHER_USUAL) and file.parent == Path.home() / ".ssh"
        if is_usual and not file.exists() and not public:
            continue
        plain, obstacle = _load(file, has_public=bool(public))
        public = public.union(pair.key_public_data for pair in plain)
        own = tuple(
            each for each in certificates((*certs, Path(f"{file}-cert.pub"))) if each[1].key.public_data in public
        )
        yield Identity(
            file,
            tuple(each for pair in plain for each in (*certified(pair, [cert for _, cert in own]), pair)),
            public,
            own,
            obstacle,
            _FIXES[obstacle].format(
                file=shlex.quote(str(file)),
                private=shlex.quote(str(file).removesuffix(".pub")),
                new=shlex.quote(str(file.with_suffix(".key"))),
            ),
        )


def certified(
    pair: asyncssh.SSHKeyPair, certificates: Sequence[asyncssh.SSHCertificate]
) -> Iterator[asyncssh.SSHKeyPair]:
    """A key with each certificate that was issued for it."""
    for one in certificates:
        if one.key.public_data == pair.key_public_data:
            with_certificate = copy.copy(pair)
            with_certificate.set_certificate(one)
            yield with_certificate


def _load(file: Path, *, has_public: bool) -> tuple[tuple[asyncssh.SSHKeyPair, ...], Obstacle]:
    """The usable key in a file, without certificates, or why there is none. The files beside it do not matter: a certificate
    or a public key for another key leaves this one usable."""
    obstacle = _obstacle(file, has_public=has_public)
    if obstacle is not Obstacle.NONE:
        return (), obstacle
    try:
        # None: no certificate, not even one beside the file.
        alone = (file.read_bytes(), None)
        pairs = tuple(asyncssh.load_keypairs([alone], ignore_encrypted=True))  # type: ignore[list-item]
    except (OSError, ValueError):
        return (), Obstacle.NO_KEY
    if not pairs:
        return (), Obstacle.PROTECTED
    # With a security key a signature needs a touch by the person, and a library that is seldom installed.
    return ((), Obstacle.SECURITY_KEY) if pairs[0].algorithm.startswith(b"sk-") else (pairs, Obstacle.NONE)


def _obstacle(file: Path, *, has_public: bool) -> Obstacle:
    """What is wrong with a file, before its key is read. has_public: whether a public key is in it, or beside it."""
    if not file.is_file():
        missing = Obstacle.NO_FILE if file.exists() else Obstacle.MISSING
        return Obstacle.PUBLIC_HALF if has_public else missing
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_KEY_FILE)
    except OSError:
        return Obstacle.UNREADABLE
    status = file.stat()
    if content.startswith(b"PuTTY-User-Key-File-"):
        return Obstacle.PUTTY
    if content.partition(b" ")[0].endswith(b"-cert-v01@openssh.com"):
        return Obstacle.CERTIFICATE
    if b"PRIVATE KEY-----" not in content:
        is_private_beside = file.suffix == ".pub" and file.with_suffix("").is_file()
        only_public = Obstacle.NAMED_BY_PUBLIC_HALF if is_private_beside else Obstacle.PUBLIC_HALF
        return only_public if has_public else Obstacle.NO_KEY
    # ssh(1) does not use such a file either.
    others_can_read = status.st_uid == os.getuid() and status.st_mode & 0o077
    return Obstacle.OTHERS_CAN_READ if others_can_read else Obstacle.NONE


_FIXES = {
    Obstacle.NONE: "",
    Obstacle.PUBLIC_HALF: "Load its private key into an agent, wherever that key is: ssh-add FILE",
    Obstacle.NAMED_BY_PUBLIC_HALF: "Name the private key as IdentityFile in ssh_config: {private}",
    Obstacle.PROTECTED: "Add the key to the agent: ssh-add {file}",
    Obstacle.SECURITY_KEY: "Add the key to the agent: ssh-add {file}",
    Obstacle.CERTIFICATE: "In ssh_config, name the private key as IdentityFile, and {file} as CertificateFile",
    Obstacle.MISSING: "Correct IdentityFile in ssh_config, or make the key: ssh-keygen -f {file}",
    Obstacle.NO_FILE: "Name a private key as IdentityFile in ssh_config instead of {file}",
    Obstacle.OTHERS_CAN_READ: "Remove their access: chmod 600 {file}",
    Obstacle.UNREADABLE: "Make it readable for the account that runs mailrelay; who may read it: ls -l {file}",
    Obstacle.PUTTY: "Convert it, and name the new file as IdentityFile: puttygen {file} -O private-openssh -o {new}",
    Obstacle.NO_KEY: "Name another file as IdentityFile in ssh_config; what ssh makes of this one: ssh-keygen -y -f {file}",
}


def certificates(files: Sequence[Path]) -> Iterator[tuple[Path, asyncssh.SSHCertificate]]:
    """The certificates in these files, each with its file; files that cannot be read are skipped."""
    for file in files:
        try:
            found = asyncssh.load_certificates(file)
        except (OSError, ValueError):
            continue
        yield from ((file, cert) for cert in found)


def _public_keys(file: Path) -> Iterator[bytes]:
    """The public keys of a key file and of its .pub, as far as they can be read."""
    for candidate in (file, Path(f"{file}.pub")):
        try:
            yield asyncssh.read_public_key(candidate).public_data
        except (OSError, ValueError):
            continue
    # A certificate, which an agent may hold.
    with contextlib.suppress(OSError, ValueError):
        yield from (cert.public_data for cert in asyncssh.load_certificates(file))
    # OpenSSH's format has the public key in clear beside the encrypted private one (PROTOCOL.key).
    with contextlib.suppress(OSError, ValueError):
        yield _public_part(file.read_bytes()[:MAX_KEY_FILE])


def _public_part(content: bytes) -> bytes:
    """The public key in a private key file in OpenSSH's format. Raises ValueError."""
    _, found, rest = content.partition(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    packet = SSHPacket(binascii.a2b_base64(rest.partition(b"-----END")[0]) if found else b"")
    if packet.get_bytes(len(_MAGIC)) != _MAGIC:
        raise ValueError("not in OpenSSH's format")
    for _ in ("cipher", "kdf", "kdf options"):
        packet.get_string()
    packet.get_uint32()  # the number of keys
    return packet.get_string()
