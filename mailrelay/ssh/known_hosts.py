"""Host keys: what known_hosts files say of a host, and what the key that it offers means then.

Promises: as strict as ssh(1) with StrictHostKeyChecking: a host is believed only under a name that known_hosts gives it
(plain, by pattern, hashed, `[host]:port`, HostKeyAlias), never under an address of its own or of a jump host. `@revoked`
outranks everything. A line that cannot be read is skipped, and the others still count.
Never: a key that is trusted because nothing is known, a file that is written (`offer.pin` does), a prompt. All but `read`
is pure.
"""

import base64
import binascii
import enum
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import asyncssh

from mailrelay.mail.outcome import Cause, Outcome, Stage

SSH_PORT = 22
_MARKERS = ("", "cert-authority", "revoked")


class Verdict(enum.StrEnum):
    """What a key on offer means."""

    TRUSTED = "trusted"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    """Other keys are known under the host's name: the server was set up anew, or somebody else is answering."""
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of known_hosts that concerns a host. marker: `cert-authority`, `revoked`, or "" for a plain key."""

    marker: str
    key: asyncssh.SSHKey
    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of a host. name: as known_hosts writes it.

    portless: what is known of the same host at port 22, for a host at another port. Like ssh(1), we take a key from there,
    but a key that is not there has not changed. unreadable: lines, as `file:line`, that name the host and have no key that
    can be read.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    portless: tuple[Entry, ...] = ()
    unreadable: tuple[str, ...] = ()

    def keys(self, marker: str) -> list[asyncssh.SSHKey]:
        return [entry.key for entry in (*self.entries, *self.portless) if entry.marker == marker]


def read(files: Iterable[Path]) -> list[tuple[Path, str]]:
    """The files that exist and can be read, with their text."""
    texts = []
    for file in files:
        try:
            texts.append((file, file.read_text(encoding="utf-8", errors="replace")))
        except OSError:
            # ssh(1) does not mind either: most people have one of the four.
            continue
    return texts


def known(texts: Iterable[tuple[Path, str]], host: str, port: int, alias: str | None = None) -> Known:
    """What known_hosts files (path and text) say of a host. alias: HostKeyAlias, which stands for both host and port."""
    texts = list(texts)
    name = alias.lower() if alias else host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"
    entries, unreadable = _entries(texts, name)
    portless, _ = ((), ()) if alias or port == SSH_PORT else _entries(texts, host.lower())
    return Known(name, entries, portless, unreadable)


def judge(known: Known, key: asyncssh.SSHKey, *, authority: bool = False) -> Verdict:
    """What the key on offer means; `authority`: it is the key that signed the host certificate on offer."""
    offered = key.public_data
    if any(revoked.public_data == offered for revoked in known.keys("revoked")):
        return Verdict.REVOKED
    if any(trusted.public_data == offered for trusted in known.keys("cert-authority" if authority else "")):
        return Verdict.TRUSTED
    if not authority and any(entry.marker == "" for entry in known.entries):
        return Verdict.CHANGED
    return Verdict.UNKNOWN


def replaced(text: str, name: str, key: asyncssh.SSHKey, *, salt: bytes = b"") -> tuple[str, list[int], list[int]]:
    """The text of a known_hosts file in which `key` is the plain key of a host, and no other.

    name: as in `Known.name`. salt: 20 octets if the name is to be hashed. Returns also the numbers of the lines that were
    changed or taken out, and of those that still know another key, by a pattern: it may mean other hosts too. Lines that
    cannot be read, @revoked and @cert-authority, and the other names of a changed line stay as they are.
    """
    lines = text.split("\n")
    changed, left = [], []
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
            left.append(entry.line)
    gone = [number for number in changed if not lines[number - 1]]
    kept = "\n".join(line for number, line in enumerate(lines, start=1) if number not in gone)
    if kept and not kept.endswith("\n"):
        kept += "\n"
    shown = key.export_public_key().decode("ascii").strip()
    return f"{kept}{_hashed(name, salt) if salt else name} {shown}\n", changed, left


def algorithms(known: Known, wanted: Sequence[str]) -> list[str]:
    """The host key algorithms to offer, best first; wanted: those that may be used, in the person's order.

    Algorithms of known keys come first, so that the server shows the key by which we know it; the others follow, so that a
    changed key is seen as such. Certificates are asked for only where an authority is known, and then before all.
    """
    ours = [name.decode("ascii") for key in known.keys("") for name in key.sig_algorithms]
    plain = [name for name in wanted if "-cert-v01@" not in name]
    certified = [name for name in wanted if name not in plain] if known.keys("cert-authority") else []
    return list(dict.fromkeys([*certified, *(name for name in ours if name in plain), *plain]))


def outcome(verdict: Verdict, known: Known, place: str, key: asyncssh.SSHKey | None) -> Outcome:
    """The outcome of a verdict that is not TRUSTED.

    place: how the person calls the host. key: the key on offer, None where the library did not show it.
    """
    unread = f" ({', '.join(known.unreadable)} cannot be read)" if known.unreadable else ""
    match verdict:
        case Verdict.REVOKED:
            offer = f" ({describe(key)})" if key else ""
            revoked = (entry for entry in (*known.entries, *known.portless) if entry.marker == "revoked")
            lines = ", ".join(dict.fromkeys(f"{entry.file}:{entry.line}" for entry in revoked))
            return Outcome(
                Stage.HOST_KEY,
                cause=Cause.HOST_KEY_REVOKED,
                text=f"{place} offers a host key{offer} that is marked as revoked in {lines}; nothing was sent.",
                fix=f"Ask whoever runs {place} for its new host key; do not remove the @revoked line before you know.",
            )
        case Verdict.CHANGED:
            entry = known.entries[[each.marker for each in known.entries].index("")]
            return Outcome(
                Stage.HOST_KEY,
                cause=Cause.HOST_KEY_CHANGED,
                text=f"The host key of {place} has changed: it offers {describe(key)}, but {entry.file}:{entry.line} knows "
                f"{describe(entry.key)}; nothing was sent, for somebody else may be answering, as networks of hotels and "
                "hotspots do.",
                fix="On such a network there is nothing to do: mail goes once the right host answers. Otherwise, once "
                "whoever runs the server has confirmed the new fingerprint: mailrelay trust",
            )
        case _:
            return Outcome(
                Stage.HOST_KEY,
                cause=Cause.HOST_KEY_UNKNOWN,
                text=f"The host key of {place} is not known{unread}: it offers {describe(key)}; nothing was sent.",
                fix="Compare the fingerprint with the server's own and accept it once: mailrelay trust",
            )


def describe(key: asyncssh.SSHKey | None) -> str:
    """A key in one line: its algorithm and its SHA256 fingerprint."""
    return f"{key.get_algorithm()} {key.get_fingerprint()}" if key else "no key that could be read"


def _entries(texts: Iterable[tuple[Path, str]], name: str) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """The lines about a host, and the places of those that cannot be read."""
    found, unreadable = [], []
    for file, text in texts:
        # By line feeds alone: what else calls itself a line end may stand in a comment.
        for number, line in enumerate(text.split("\n"), start=1):
            fields = line.split(maxsplit=2 if line.lstrip().startswith("@") else 1)
            marker = fields.pop(0)[1:] if line.lstrip().startswith("@") else ""
            if not fields or marker not in _MARKERS or fields[0].startswith("#") or not _matches(fields[0], name):
                continue
            try:
                found.append(Entry(marker, asyncssh.import_public_key(fields[1]), file, number))
            except (IndexError, ValueError):
                unreadable.append(f"{file}:{number}")
    return tuple(found), tuple(unreadable)


def _hashed(name: str, salt: bytes) -> str:
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode('ascii')}|{base64.b64encode(digest).decode('ascii')}"


_HASHED = re.compile(r"\|1\|([A-Za-z0-9+/=]+)\|([A-Za-z0-9+/=]+)")


def _matches(patterns: str, name: str) -> bool:
    """Whether the first field of a known_hosts line means a host: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT."""
    if patterns.startswith("|"):
        hashed = _HASHED.fullmatch(patterns)
        if hashed is None:
            return False
        try:
            salt, digest = base64.b64decode(hashed[1]), base64.b64decode(hashed[2])
        except binascii.Error:
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    found = False
    for pattern in patterns.lower().split(","):
        # fnmatch has sets in brackets, known_hosts has ports in them.
        if fnmatchcase(name, pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found
