"""The host keys that the hosts on the way to a relayhost show, asked for before anybody logs in there; and accepting one.

    found, fault = await offers(relayhost)     # jump hosts first, up to the first host that is not trusted
    offer.verdict, offer.fingerprint, offer.art, offer.known
    pin(offer)                                 # once the person has said yes; then ask again, for what lies behind it

Promises: nothing is said to a host but what it takes to see its key: no user name, no authentication. A jump host is logged
in to only if its own key is trusted and something lies behind it. One connection for each host, for one key, the one that a
dial would see: servers lock out who knocks too often.
Never: a key that is written unasked, a revoked key that is written at all, another host's line that is changed.
"""

import dataclasses
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
from mailrelay.ssh.connection import Client, close, connect, read_way
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.interface import Fault
from mailrelay.ssh.known_hosts import Verdict

SALT = 20
_SSHFP_ALGORITHMS = {"ssh-rsa": 1, "ssh-dss": 2, "ecdsa": 3, "ssh-ed25519": 4, "ssh-ed448": 6}


class Unpinnable(Exception):
    """The key on offer cannot be accepted. The text is one sentence for the person: why; what to do."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a host shows. authority: `key` is that of the authority which signed its certificate."""

    hop: Hop
    key: asyncssh.SSHKey
    verdict: Verdict
    authority: bool = False

    @property
    def place(self) -> str:
        """How messages call the host: as the settings or ssh_config name it."""
        return self.hop.place

    @property
    def name(self) -> str:
        """How known_hosts calls it: `mail.example.org`, `[mail.example.org]:2222`, or its HostKeyAlias."""
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
        """The lines of known_hosts that give the host a key, or revoke one; `fingerprint_of(entry)` is for showing them."""
        return (*self.hop.known.entries, *self.hop.known.portless)

    @property
    def sshfp(self) -> tuple[int, dict[int, bytes]]:
        """The key as SSHFP records name it (RFC 4255): the number of its algorithm, 0 if it has none; digests by type."""
        name = self.key.get_algorithm()
        found = next((number for prefix, number in _SSHFP_ALGORITHMS.items() if name.startswith(prefix)), 0)
        data = self.key.public_data
        return found, {1: hashlib.sha1(data).digest(), 2: hashlib.sha256(data).digest()}  # noqa: S324 - as the record says


@dataclass(frozen=True, slots=True)
class Pinned:
    """What `pin` wrote. old: the file as it was before, None if no line of it was taken out or changed.

    stale: `file:line` of lines that still give the host another key, and are not ours to change: patterns, other files.
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


async def offers(relayhost: Relayhost) -> tuple[list[Offer], Outcome | None]:
    """What the hosts on the way show, jump hosts first, and what kept us from the next one, None if nothing did.

    Without a fault the last offer is the relayhost's own, or that of the first host that is not trusted: nobody can go
    beyond that one. A fault is an `Outcome` with a sentence and a fixing step, as for a dial.
    """
    found: list[Offer] = []
    connections: list[asyncssh.SSHClientConnection] = []
    try:
        way = await read_way(relayhost)
        for hop in way:
            through = connections[-1] if connections else None
            found.append(await _look(hop, through))
            if found[-1].verdict is not Verdict.TRUSTED:
                break
            if hop is not way[-1]:
                connections.append(await connect(hop, through))
    except Fault as fault:
        return found, fault.outcome
    finally:
        await close(connections)
    return found, None


def pin(offer: Offer) -> Pinned:
    """Writes the key on offer into the person's known_hosts, the first UserKnownHostsFile of the host, in place of the keys
    that the file gives to this very name.

    The name is hashed where ssh(1) would (HashKnownHosts). The file changes in one step, and is on disk when this returns;
    what was replaced stays in `FILE.old`. Raises Unpinnable, and OSError for a file that cannot be read or written.
    """
    place, named = offer.place, offer.hop.known_hosts
    if offer.verdict is Verdict.REVOKED:
        raise Unpinnable(f"the key of {place} is marked as revoked, and is not accepted; ask whoever runs {place}")
    if offer.authority:
        raise Unpinnable(
            f"{place} shows a certificate of an authority; if you trust that, add a @cert-authority line yourself"
        )
    if named is None or (named.exists() and not named.is_file()):
        raise Unpinnable(
            f"ssh_config gives {place} no file to remember its key in (UserKnownHostsFile {named or 'none'}); name one there"
        )
    # A connection stays one: people keep these files elsewhere.
    file = named.resolve()
    text = file.read_bytes().decode("utf-8", "surrogateescape") if file.exists() else ""
    salt = os.urandom(SALT) if offer.hop.configuration.get("hashknownhosts") == ("yes",) else b""
    new, changed, left = known_hosts.replaced(text, offer.name, offer.key, salt=salt)
    old = Path(f"{file}.old") if changed else None
    if old is not None:
        shutil.copy2(file, old)
    replace_file(file, new.encode("utf-8", "surrogateescape"))
    elsewhere = (entry for entry in offer.hop.known.entries if entry.marker == "" and entry.file.resolve() != file)
    stale = (
        *(f"{named}:{number}" for number in left),
        *(f"{entry.file}:{entry.line}" for entry in elsewhere if entry.key.public_data != offer.key.public_data),
    )
    return Pinned(named, old, stale)


class _Onlooker(Client):
    """Looks at the key and says no: so the library neither goes on nor logs in."""

    authority = False

    def _judge(self, key: asyncssh.SSHKey, *, authority: bool) -> bool:
        super()._judge(key, authority=authority)
        self.authority = authority
        return False


async def _look(hop: Hop, through: asyncssh.SSHClientConnection | None) -> Offer:
    """The key that a host shows. Raises Fault."""
    # Without the keys that are revoked, which the library would keep to itself.
    options = asyncssh.SSHClientConnectionOptions(
        options=hop.options, config=None, known_hosts=([], [], [], [], [], [], [])
    )
    onlooker = _Onlooker(dataclasses.replace(hop, options=options))
    try:
        (await connect(onlooker.hop, through, onlooker)).abort()
    except Fault:
        if onlooker.seen.offered is None or onlooker.seen.verdict is None:
            raise
    assert onlooker.seen.offered is not None and onlooker.seen.verdict is not None  # noqa: S101 - it was asked
    return Offer(hop, onlooker.seen.offered, onlooker.seen.verdict, onlooker.authority)
