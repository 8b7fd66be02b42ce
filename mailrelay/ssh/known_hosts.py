"""Reads known_hosts files and checks the host keys that servers offer.

Promises: as strict as ssh(1) with StrictHostKeyChecking. A key is trusted only for a name under which known_hosts lists it
(plain, by pattern, hashed, `[host]:port`, HostKeyAlias), never for the address of the host or of a jump host. `@revoked`
takes precedence over everything. Where a host certificate is not valid, the plain key in it is checked, as in ssh(1). A line
that cannot be read is skipped; the other lines count.
Never: trusts a key because none is known, writes a file (`host_key_scan.pin` does that), or prompts. All functions except
`read` are pure.
"""

import base64
import binascii
import contextlib
import enum
import hashlib
import hmac
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import asyncssh
from asyncssh.public_key import decode_ssh_public_key

from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.ssh import certificate
from mailrelay.ssh.revoked_keys import RevokedKeys, is_revoked

SSH_PORT = 22
_MARKERS = ("", "cert-authority", "revoked")


class HostKeyStatus(enum.StrEnum):
    """The result of the check of an offered host key."""

    TRUSTED = "trusted"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    """Another key is known for the host: the server was set up anew, or another server replies in its place."""
    REVOKED = "revoked"
    TOO_SHORT = "too short"
    """An RSA key with fewer bits than RequiredRSASize."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of known_hosts about a host. marker: `cert-authority`, `revoked`, or "" for a plain key."""

    marker: str
    key: asyncssh.SSHKey
    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class KnownHost:
    """What known_hosts files contain about a host. name: in the notation of known_hosts. principal: the name without
    the port, which a certificate of the host must list.

    portless: for a host at another port than 22, the lines about the same host at port 22. Like ssh(1), we accept a key from
    them, but another key there does not mean that the key has changed. unreadable: lines, as `file:line`, that name the host
    and whose key cannot be read.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    portless: tuple[Entry, ...] = ()
    unreadable: tuple[str, ...] = ()
    principal: str = ""

    @property
    def lines(self) -> tuple[Entry, ...]:
        """All lines about the host, each once: a pattern may match its name with the port and without it."""
        return tuple(dict.fromkeys((*self.entries, *self.portless)))

    def keys(self, marker: str) -> list[asyncssh.SSHKey]:
        return [entry.key for entry in (*self.entries, *self.portless) if entry.marker == marker]


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of ssh_config for every host key. ca_signatures: CASignatureAlgorithms, None for any. revoked: the keys of
    RevokedHostKeys, None for none. rsa_size: RequiredRSASize, in bits."""

    ca_signatures: Container[str] | None = None
    revoked: RevokedKeys | None = None
    rsa_size: int = 0


NO_RULES = Policy()
"""A policy that refuses no key."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """What a server offered, and the result of its check. plain: its own key, None if it cannot be read.

    authority: the key that signed its certificate, if `status` follows from it. certificate_fault: why its certificate does
    not count, as a text after "the certificate"; "" if it counts, or if there is none. revoked_by: the file of
    RevokedHostKeys, if that one revokes it. size_detail: for TOO_SHORT, its size and the needed one.
    """

    status: HostKeyStatus
    plain: asyncssh.SSHKey | None
    authority: asyncssh.SSHKey | None = None
    certificate_fault: str = ""
    revoked_by: RevokedKeys | None = None
    size_detail: str = ""

    @property
    def reason(self) -> str:
        """REVOKED: the file of RevokedHostKeys; "" if known_hosts revokes the key. TOO_SHORT: `size_detail`. Else ""."""
        if self.revoked_by is None:
            return self.size_detail
        fault = f", which {self.revoked_by.fault}: so every key counts as revoked" if self.revoked_by.fault else ""
        return f"{self.revoked_by.file} (RevokedHostKeys){fault}"

    @property
    def key(self) -> asyncssh.SSHKey | None:
        """The key that was looked up in known_hosts."""
        return self.authority or self.plain

    @property
    def description(self) -> str:
        """The key that was looked up, on one line, and why the certificate does not count."""
        return f"{describe(self.key)}{f' (its certificate {self.certificate_fault})' if self.certificate_fault else ''}"


def read(files: Iterable[Path]) -> list[tuple[Path, str]]:
    """The files that exist and can be read, each with its text."""
    texts = []
    for file in files:
        try:
            texts.append((file, file.read_text(encoding="utf-8", errors="replace")))
        except OSError:
            # As in ssh(1), which has four files by default: most people have only one of them.
            continue
    return texts


def look_up(texts: Iterable[tuple[Path, str]], host: str, port: int, alias: str | None = None) -> KnownHost:
    """What known_hosts files (path and text) contain about a host. alias: HostKeyAlias, which replaces host and port."""
    texts = list(texts)
    name = alias.lower() if alias else host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"
    entries, unreadable = _entries(texts, name)
    portless, _ = ((), ()) if alias or port == SSH_PORT else _entries(texts, host.lower())
    return KnownHost(name, entries, portless, unreadable, alias.lower() if alias else host.lower())


def judge(known: KnownHost, blob: bytes, now: float, policy: Policy = NO_RULES) -> HostKey:
    """Checks what a server offers: the octets of its host key, or of its host certificate. No other function
    decides whether a key is trusted.

    now: epoch seconds. Accepts any octets.
    """
    found = _judge(known, blob, now, policy.ca_signatures)
    if found.plain is None or found.status is HostKeyStatus.REVOKED:
        return found
    with contextlib.suppress(ValueError):
        authority = certificate.parse(blob).authority
        if policy.revoked and is_revoked(policy.revoked, authority.public_data):
            return HostKey(HostKeyStatus.REVOKED, found.plain, authority, revoked_by=policy.revoked)
    if policy.revoked and is_revoked(policy.revoked, found.plain.public_data):
        return HostKey(HostKeyStatus.REVOKED, found.plain, revoked_by=policy.revoked)
    bits = certificate.rsa_bits(found.plain.public_data)
    if bits and bits < policy.rsa_size:
        size_detail = f"{bits} bits, and ssh_config wants {policy.rsa_size} (RequiredRSASize)"
        return HostKey(HostKeyStatus.TOO_SHORT, found.plain, size_detail=size_detail)
    return found


def _judge(known: KnownHost, blob: bytes, now: float, ca_signatures: Container[str] | None) -> HostKey:
    """Checks what a server offers against known_hosts alone, without RevokedHostKeys and RequiredRSASize."""
    try:
        offered = certificate.parse(blob)
    except ValueError:
        try:
            plain = decode_ssh_public_key(blob)
        except ValueError:
            return HostKey(HostKeyStatus.UNKNOWN, None)
        return HostKey(check(known, plain), plain)
    by_authority = check(known, offered.authority, is_authority=True)
    if HostKeyStatus.REVOKED in (by_authority, check(known, offered.key)):
        authority = offered.authority if by_authority is HostKeyStatus.REVOKED else None
        return HostKey(HostKeyStatus.REVOKED, offered.key, authority)
    if by_authority is HostKeyStatus.TRUSTED:
        fault = certificate.fault(
            offered, kind=certificate.HOST, name=known.principal, now=now, signatures=ca_signatures
        )
        if not fault:
            return HostKey(HostKeyStatus.TRUSTED, offered.key, offered.authority)
    else:
        fault = f"is signed by an authority that known_hosts does not list for it, {describe(offered.authority)}"
    return HostKey(check(known, offered.key), offered.key, None, fault)


def check(known: KnownHost, key: asyncssh.SSHKey, *, is_authority: bool = False) -> HostKeyStatus:
    """The status of an offered key. is_authority: it is the key that signed the offered host certificate."""
    offered = key.public_data
    if any(revoked.public_data == offered for revoked in known.keys("revoked")):
        return HostKeyStatus.REVOKED
    if any(trusted.public_data == offered for trusted in known.keys("cert-authority" if is_authority else "")):
        return HostKeyStatus.TRUSTED
    if not is_authority and any(entry.marker == "" for entry in known.entries):
        return HostKeyStatus.CHANGED
    return HostKeyStatus.UNKNOWN


def with_key(text: str, name: str, key: asyncssh.SSHKey, *, salt: bytes = b"") -> tuple[str, list[int], list[int]]:
    """The text of a known_hosts file, changed so that `key` is the only plain key of a host.

    name: as in `KnownHost.name`. salt: 20 octets to hash the name, b"" for a plain name. Returns also the numbers of the
    lines that were changed or removed, and of the lines that still have another key for the host, because a pattern in them
    may match other hosts too. Unreadable lines, @revoked and @cert-authority lines, and the other names of a changed line
    stay as they are.
    """
    lines = text.split("\n")
    changed, conflicting = [], []
    for entry in _entries([(Path(), text)], name)[0]:
        if entry.marker:
            continue
        line = lines[entry.line - 1]
        names = line.split(maxsplit=1)[0]
        others = "" if names.startswith("|") else ",".join(each for each in names.split(",") if each.lower() != name)
        if others != names:
            changed.append(entry.line)
            lines[entry.line - 1] = line.replace(names, others, 1) if others else ""
        if others and _matches(others, name) and entry.key.public_data != key.public_data:
            conflicting.append(entry.line)
    removed = [number for number in changed if not lines[number - 1]]
    kept = "\n".join(line for number, line in enumerate(lines, start=1) if number not in removed)
    if kept and not kept.endswith("\n"):
        kept += "\n"
    shown = key.export_public_key().decode("ascii").strip()
    return f"{kept}{_hash_name(name, salt) if salt else name} {shown}\n", changed, conflicting


def algorithms(known: KnownHost, wanted: Sequence[str]) -> list[str]:
    """The host key algorithms to ask for, best first. wanted: those that may be used, in the person's order.

    The algorithms of known keys come first, so that the server offers a key that we know. The others follow, so that a
    changed key is recognised as changed. Certificates are asked for only if an authority is known, and then before all keys;
    or if `wanted` has nothing else.
    """
    ours = [name.decode("ascii") for key in known.keys("") for name in key.sig_algorithms]
    plain = [name for name in wanted if "-cert-v01@" not in name]
    certified = [name for name in wanted if name not in plain] if known.keys("cert-authority") or not plain else []
    return list(dict.fromkeys([*certified, *(name for name in ours if name in plain), *plain]))


def outcome(offered: HostKey, known: KnownHost, place: str) -> Outcome:
    """The outcome of a status other than TRUSTED. place: the name of the host in the settings or in ssh_config."""
    unread = f" ({', '.join(known.unreadable)} cannot be read)" if known.unreadable else ""
    fault = f"The host certificate of {place} {offered.certificate_fault}. " if offered.certificate_fault else ""
    renew = "Ask the administrator for a valid host certificate, or compare" if fault else "Compare"
    match offered.status:
        case HostKeyStatus.REVOKED:
            offer = f" ({describe(offered.key)})" if offered.key else ""
            what = "a certificate of an authority" if offered.authority else "a host key"
            lines = offered.reason or ", ".join(
                f"{entry.file}:{entry.line}" for entry in known.lines if entry.marker == "revoked"
            )
            return Outcome(
                Stage.HOST_KEY,
                cause=Cause.HOST_KEY_REVOKED,
                text=f"{place} offers {what}{offer} that is marked as revoked in {lines}; nothing was sent.",
                fix=_revoked_fix(offered, place),
            )
        case HostKeyStatus.TOO_SHORT:
            return Outcome(
                Stage.HOST_KEY,
                cause=Cause.HOST_KEY_REVOKED,
                text=f"{place} offers a host key ({describe(offered.key)}) that is too short: {offered.reason}; nothing was "
                "sent.",
                fix=f"Ask the administrator of {place} for a host key of another type (ssh-keygen -A on the server), or "
                "lower RequiredRSASize in ssh_config.",
            )
        case HostKeyStatus.CHANGED:
            entry = next(each for each in known.entries if each.marker == "")
            return Outcome(
                Stage.HOST_KEY,
                cause=Cause.HOST_KEY_CHANGED,
                text=f"{fault}The host key of {place} has changed: it offers {describe(offered.key)}, but "
                f"{entry.file}:{entry.line} has {describe(entry.key)}; nothing was sent, because this may be another "
                "server, as in networks of hotels and hotspots.",
                fix="In such a network, do nothing: mail is sent once the right host replies. Otherwise ask the "
                "administrator of the server to confirm the new fingerprint; then: mailrelay trust",
            )
        case _:
            return Outcome(
                Stage.HOST_KEY,
                cause=Cause.HOST_KEY_UNKNOWN,
                text=f"{fault}The host key of {place} is not known{unread}: it offers {describe(offered.key)}; nothing was "
                "sent.",
                fix=f"{renew} the fingerprint with the server's own and accept it once: mailrelay trust",
            )


def _revoked_fix(offered: HostKey, place: str) -> str:
    if offered.revoked_by and offered.revoked_by.fault:
        return "Correct the RevokedHostKeys line in ssh_config, or the file that it names."
    keep = "RevokedHostKeys" if offered.revoked_by else "the @revoked line"
    return f"Ask the administrator of {place} for its new host key; keep {keep} until you have it."


def describe(key: asyncssh.SSHKey | None) -> str:
    """A key on one line: its algorithm and its SHA256 fingerprint."""
    return f"{key.get_algorithm()} {key.get_fingerprint()}" if key else "no key that could be read"


def _entries(texts: Iterable[tuple[Path, str]], name: str) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """The lines about a host, and `file:line` of those that cannot be read."""
    found, unreadable = [], []
    for file, text in texts:
        # Only line feeds end a line: the other characters for which splitlines() splits may be part of a comment.
        for number, line in enumerate(text.split("\n"), start=1):
            fields = line.split(maxsplit=2 if line.lstrip().startswith("@") else 1)
            marker = fields.pop(0)[1:] if line.lstrip().startswith("@") else ""
            if not fields or marker not in _MARKERS or fields[0].startswith("#") or not _matches(fields[0], name):
                continue
            if marker == "cert-authority" and not _is_authority_for_ssh(line):
                unreadable.append(f"{file}:{number}")
                continue
            try:
                found.append(Entry(marker, asyncssh.import_public_key(fields[1]), file, number))
            except (IndexError, ValueError):
                unreadable.append(f"{file}:{number}")
    return tuple(found), tuple(unreadable)


def _is_authority_for_ssh(line: str) -> bool:
    """Whether ssh(1) reads this line with a marker: there, the marker ends at the first space, and only without any at a
    tab."""
    text = line.strip()
    return text.partition(" " if " " in text else "\t")[0] == "@cert-authority"


def _hash_name(name: str, salt: bytes) -> str:
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode('ascii')}|{base64.b64encode(digest).decode('ascii')}"


_HASHED_NAME = re.compile(r"\|1\|([A-Za-z0-9+/=]+)\|([A-Za-z0-9+/=]+)")


def _matches(patterns: str, name: str) -> bool:
    """Whether the first field of a known_hosts line matches a host: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT."""
    if patterns.startswith("|"):
        hashed = _HASHED_NAME.fullmatch(patterns)
        if hashed is None:
            return False
        try:
            salt, digest = base64.b64decode(hashed[1]), base64.b64decode(hashed[2])
        except binascii.Error:
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    found = False
    for pattern in patterns.lower().split(","):
        # Brackets are sets in fnmatch, but enclose the host of `[host]:port` in known_hosts.
        if fnmatchcase(name, pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found
