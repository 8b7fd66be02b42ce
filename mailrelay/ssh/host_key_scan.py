"""Gets the host keys of the hops to a relayhost without a login, and accepts one of them.

    found, fault = await scan(relayhost)       # jump hosts first, up to the first hop that is not trusted
    offer.status, offer.fingerprint, offer.art, offer.known
    pin(offer)                                 # when the person has accepted it; then scan again for the hops behind it

Promises: a host gets only the data that is needed to see its key: no user name, no authentication. The only logins are to
trusted jump hosts with another hop behind them. There is one connection for each host, which gets the key that a dial would
get: many servers lock out clients that connect too often.
Never: writes a key without a request, writes a revoked key, or changes a line of another host.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from mailrelay.atomic_file import replace_file
from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Outcome
from mailrelay.ssh import known_hosts, randomart
from mailrelay.ssh.authentication import HopClient
from mailrelay.ssh.dial import read_hops
from mailrelay.ssh.hop_connection import HopConnection, connect, connected
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.interface import Fault
from mailrelay.ssh.known_hosts import HostKey, HostKeyStatus

SALT = 20
"""Octets of a salt for a hashed host name."""
_SSHFP_ALGORITHMS = {"ssh-rsa": 1, "ssh-dss": 2, "ecdsa": 3, "ssh-ed25519": 4, "ssh-ed448": 6}


class Unpinnable(Exception):
    """The offered key cannot be accepted. The text is one sentence for the person: the reason; what to do."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The key that a hop offers, judged as a dial judges it. key: that of the host, or of the authority that signed its host
    certificate, if the status follows from that one.
    """

    hop: Hop
    host_key: HostKey
    key: asyncssh.SSHKey

    @property
    def status(self) -> HostKeyStatus:
        return self.host_key.status

    @property
    def is_authority(self) -> bool:
        """Whether `key` is that of an authority."""
        return self.host_key.authority is not None

    @property
    def certificate_fault(self) -> str:
        """Why the host's certificate does not count, as a text after "the certificate"; "" if it counts or there is none."""
        return self.host_key.certificate_fault

    @property
    def reason(self) -> str:
        """As in `HostKey`."""
        return self.host_key.reason

    @property
    def place(self) -> str:
        """The name of the host in texts for the person: its name in the settings or in ssh_config."""
        return self.hop.place

    @property
    def name(self) -> str:
        """Its name in known_hosts: `mail.example.org`, `[mail.example.org]:2222`, or its HostKeyAlias."""
        return self.hop.known.name

    @property
    def host(self) -> str:
        """Its name in the DNS, or its address."""
        return self.hop.host

    @property
    def fingerprint(self) -> str:
        """`ssh-ed25519 SHA256:…`, as ssh(1) shows it."""
        return known_hosts.describe(self.key)

    @property
    def art(self) -> str:
        """OpenSSH's picture of the fingerprint, eleven lines."""
        return art(self.key)

    @property
    def known(self) -> tuple[known_hosts.Entry, ...]:
        """The lines of known_hosts about the host; `fingerprint_of(entry)` shows their keys."""
        return self.hop.known.lines

    @property
    def sshfp(self) -> tuple[int, dict[int, bytes]]:
        """The key as in SSHFP records (RFC 4255): the number of its algorithm, 0 if it has none; digests by type."""
        name = self.key.get_algorithm()
        found = next((number for prefix, number in _SSHFP_ALGORITHMS.items() if name.startswith(prefix)), 0)
        data = self.key.public_data
        return found, {1: hashlib.sha1(data).digest(), 2: hashlib.sha256(data).digest()}  # noqa: S324 - SSHFP type 1


@dataclass(frozen=True, slots=True)
class Pinned:
    """The result of `pin`. file: the changed file. old: a copy of the file before the change, None if
    no line was changed or removed.

    stale: `file:line` of lines that still have another key for the host and that `pin` does not change: lines with patterns,
    lines of other files.
    """

    file: Path
    old: Path | None
    stale: tuple[str, ...]


def fingerprint_of(entry: known_hosts.Entry) -> str:
    """The key of a line of known_hosts, as `Offer.fingerprint`."""
    return known_hosts.describe(entry.key)


def art(key: asyncssh.SSHKey) -> str:
    """OpenSSH's picture of a key's SHA256 fingerprint, eleven lines."""
    kind = key.get_algorithm().removeprefix("ssh-").partition("-")[0].upper()
    size = getattr(key.pyca_key, "key_size", 256)
    return randomart.draw(hashlib.sha256(key.public_data).digest(), f"{kind} {size}", "SHA256")


async def scan(relayhost: Relayhost) -> tuple[list[Offer], Outcome | None]:
    """The keys that the hops offer, jump hosts first, and the fault that ended the scan, None if there was none.

    Without a fault, the last offer is that of the relayhost, or of the first hop that is not trusted: no login is possible
    beyond that one. The fault has a sentence and a fix, as for a dial.
    """
    found: list[Offer] = []

    async def scan_and_connect(hop: Hop, through: HopConnection | None) -> HopConnection | None:
        found.append(await _scan_hop(hop, through))
        if found[-1].status is not HostKeyStatus.TRUSTED or hop is hops[-1]:
            return None
        return await connect(hop, through)

    try:
        hops = await read_hops(relayhost)
        async with connected(hops, scan_and_connect):
            return found, None
    except Fault as fault:
        return found, fault.outcome


def pin(offer: Offer) -> Pinned:
    """Writes the offered key into the person's known_hosts, the first UserKnownHostsFile of the host. It replaces the keys
    that the file has for the same name.

    The name is hashed if ssh(1) would hash it (HashKnownHosts). The file changes in one step and is on disk when this
    returns; the old content stays in `FILE.old`. Raises Unpinnable, and OSError for a file that cannot be read or written.
    """
    place, named = offer.place, offer.hop.known_hosts_file
    if offer.status is HostKeyStatus.REVOKED:
        raise Unpinnable(
            f"the key of {place} is marked as revoked and is not accepted; ask the administrator of {place}"
        )
    if offer.status is HostKeyStatus.TOO_SHORT:
        raise Unpinnable(
            f"the key of {place} has {offer.reason}; ask the administrator of {place} for one of another type"
        )
    if offer.is_authority:
        raise Unpinnable(f"{place} offers a certificate of an authority that is known; no line is needed for it")
    if named is None or (named.exists() and not named.is_file()):
        raise Unpinnable(
            f"ssh_config has no regular file for the key of {place} (UserKnownHostsFile {named or 'none'}); set one there"
        )
    # A symbolic link stays a link: some people keep the file in another place.
    file = named.resolve()
    text = file.read_bytes().decode("utf-8", "surrogateescape") if file.exists() else ""
    salt = os.urandom(SALT) if offer.hop.configuration.get("hashknownhosts") == ("yes",) else b""
    new, changed, conflicting = known_hosts.with_key(text, offer.name, offer.key, salt=salt)
    old = Path(f"{file}.old") if changed else None
    if old is not None:
        shutil.copy2(file, old)
    replace_file(file, new.encode("utf-8", "surrogateescape"))
    elsewhere = (entry for entry in offer.hop.known.entries if entry.marker == "" and entry.file.resolve() != file)
    stale = (
        *(f"{named}:{number}" for number in conflicting),
        *(f"{entry.file}:{entry.line}" for entry in elsewhere if entry.key.public_data != offer.key.public_data),
    )
    return Pinned(named, old, stale)


class _ScanClient(HopClient):
    """Rejects every host key, after its check, so that asyncssh ends the connection before the login."""

    def judge_host_key(self, blob: bytes) -> asyncssh.SSHKey:
        super().judge_host_key(blob)
        raise asyncssh.HostKeyNotVerifiable("the host key is only shown")


async def _scan_hop(hop: Hop, through: HopConnection | None) -> Offer:
    """The key that a hop offers. Raises Fault."""
    client = _ScanClient(hop)
    try:
        (await connect(hop, through, client)).abort()
    except Fault:
        offered = client.progress.host_key
        if offered is not None and offered.key is not None:
            return Offer(hop, offered, offered.key)
        raise
    raise AssertionError("a login without a host key")
