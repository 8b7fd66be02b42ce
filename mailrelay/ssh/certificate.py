"""Reads OpenSSH certificates of hosts and users, and says why one is not valid.

    certificate = parse(blob)                         # the octets of a key in the SSH protocol; raises ValueError
    why = fault(certificate, kind=HOST, name="mail.example.org", now=time.time())      # "" if it is valid

The format is that of OpenSSH's PROTOCOL.certkeys. asyncssh cannot read a certificate with a critical option that it does not
know; ssh(1) reads it, rejects it, and falls back to the plain key in it.
Promises: pure. Any octets either parse or raise ValueError. A certificate that parses has a valid signature.
"""

from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncssh
from asyncssh.packet import SSHPacket, String
from asyncssh.public_key import decode_ssh_public_key

USER, HOST = 1, 2
"""The kinds of certificates."""

MAX_NAME = 80
"""Characters of a name in a certificate that are shown."""

_SUFFIX = b"-cert-v01@openssh.com"
_PARAMETERS = {
    b"ssh-rsa": 2,
    b"rsa-sha2-256": 2,
    b"rsa-sha2-512": 2,
    b"ssh-dss": 4,
    b"ssh-ed25519": 1,
    b"ecdsa-sha2-nistp256": 2,
    b"ecdsa-sha2-nistp384": 2,
    b"ecdsa-sha2-nistp521": 2,
    b"sk-ssh-ed25519": 2,
    b"sk-ecdsa-sha2-nistp256": 3,
}
"""Strings of the public key in a certificate, by algorithm."""
_PLAIN = {
    b"rsa-sha2-256": b"ssh-rsa",
    b"rsa-sha2-512": b"ssh-rsa",
    b"sk-ssh-ed25519": b"sk-ssh-ed25519@openssh.com",
    b"sk-ecdsa-sha2-nistp256": b"sk-ecdsa-sha2-nistp256@openssh.com",
}
"""The algorithm of the plain key, where it has another name."""


_CRITICAL_OF_USERS = ("force-command", "source-address", "verify-required")
"""The critical options of user certificates that sshd(8) knows."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate. key: the certified one. authority: the key that signed it, with `signature_algorithm`. kind: HOST, USER
    or another number. valid_after, valid_before: epoch seconds. critical: the names of its critical options. sources:
    the addresses from which the account may log in, as in sshd_config(5), "" for any."""

    key: asyncssh.SSHKey
    authority: asyncssh.SSHKey
    signature_algorithm: str
    kind: int
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical: tuple[str, ...]
    sources: str


def parse(blob: bytes) -> Certificate:
    """The certificate in these octets. Raises ValueError, also for a plain key and for a wrong signature."""
    packet = SSHPacket(blob)
    algorithm = packet.get_string().removesuffix(_SUFFIX)
    if algorithm not in _PARAMETERS or String(algorithm + _SUFFIX) != blob[: len(packet.get_consumed_payload())]:
        raise ValueError("not a certificate")
    packet.get_string()  # the nonce
    parameters = b"".join(String(packet.get_string()) for _ in range(_PARAMETERS[algorithm]))
    packet.get_uint64()  # the serial number
    kind = packet.get_uint32()
    packet.get_string()  # the key id
    principals = SSHPacket(packet.get_string())
    names = []
    while principals:
        names.append(principals.get_string().decode("utf-8", "replace"))
    valid_after, valid_before = packet.get_uint64(), packet.get_uint64()
    options = SSHPacket(packet.get_string())
    critical = {}
    while options:
        name = options.get_string().decode("utf-8", "replace")
        critical[name] = options.get_string()
    sources = critical.get("source-address", b"")
    packet.get_string()  # the extensions
    packet.get_string()  # reserved
    authority = decode_ssh_public_key(packet.get_string())
    signed = packet.get_consumed_payload()
    signature = packet.get_string()
    packet.check_end()
    if not authority.verify(signed, signature):
        raise ValueError("the signature of the certificate is wrong")
    return Certificate(
        key=decode_ssh_public_key(String(_PLAIN.get(algorithm, algorithm)) + parameters),
        authority=authority,
        signature_algorithm=SSHPacket(signature).get_string().decode("ascii", "replace"),
        kind=kind,
        principals=tuple(names),
        valid_after=valid_after,
        valid_before=valid_before,
        critical=tuple(critical),
        sources=SSHPacket(sources).get_string().decode("utf-8", "replace") if sources else "",
    )


def fault(  # noqa: PLR0911 - one for each cause
    certificate: Certificate, *, kind: int, name: str, now: float, signatures: Container[str] | None = None
) -> str:
    """Why a certificate is not valid, as a text after "the certificate"; "" if it is valid.

    kind: the kind that is needed. name: the name of the host, or of the account. now: epoch seconds. signatures: the
    algorithms with which an authority may sign (CASignatureAlgorithms), None for any. The names in the text come from the
    certificate and are not escaped.
    """
    if certificate.kind != kind:
        return f"is not a {'host' if kind == HOST else 'user'} certificate"
    if now < certificate.valid_after:
        return f"is not valid before {moment(certificate.valid_after)}"
    if now >= certificate.valid_before:
        return f"expired on {moment(certificate.valid_before)}"
    # A host certificate without names is valid for all hosts (ssh(1)), a user certificate for no account (sshd(8)).
    if name not in certificate.principals and (certificate.principals or kind == USER):
        listed = ", ".join(listed[:MAX_NAME] for listed in certificate.principals[:3])
        return f"is for {listed or 'no name'}, not for {name}"
    unknown = [option for option in certificate.critical if kind == HOST or option not in _CRITICAL_OF_USERS]
    if unknown:
        return f"has a critical option that is not known here: {unknown[0][:MAX_NAME]}"
    if signatures is not None and certificate.signature_algorithm not in signatures:
        return f"is signed with {certificate.signature_algorithm}, which CASignatureAlgorithms does not allow"
    return ""


def rsa_bits(public_data: bytes) -> int:
    """The size of an RSA key in the SSH protocol; 0 if it is of another type, or cannot be read."""
    packet = SSHPacket(public_data)
    try:
        if packet.get_string() != b"ssh-rsa":
            return 0
        packet.get_mpint()  # the exponent
        return packet.get_mpint().bit_length()
    except ValueError:
        return 0


def moment(seconds: int) -> str:
    """A time of a certificate, for people. seconds: epoch seconds."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):
        return "a time without end"
