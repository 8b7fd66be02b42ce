"""Completes bare addresses: local parts without a domain, such as `root`, which cron and other local programs use.

The settings decide (`[submission]`: from, domain, local). What they leave open is completed with the account on the
relayhost: the account's name, at the name of the mail server in its greeting. That is a mailbox that exists.

    address       becomes the first of these that is known
    sender        from; the name at `domain`; the account on the relayhost
    recipient     of a local account: local; from; the account on the relayhost
                  of any other name: the name at `domain`, at the domain of from, at the domain of the account
    in a header   the name at `domain`, at the domain of from, at the domain of the account

The name of a local account may be in capitals, in quotes, or have a detail (`ROOT`, `"root"`, `root+cron`), as in sendmail.

The null reverse path stays, and so does the recipient `postmaster`, which every mail server accepts without a domain (RFC
5321 section 4.1.1.3). In a header, `postmaster` is completed like any other name.

Promises: pure; a whole address stays as it is, so completing twice is the same as completing once. What is not known yet
leaves the address bare.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mailrelay.mail.address import ATEXT, MAX_DOMAIN
from mailrelay.mail.envelope import Envelope, Recipient

_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# The last label is not a number: an IPv4 address is no domain.
_DOMAIN = re.compile(rb"(?:%b\.)*(?![0-9]+\Z)%b" % (_LABEL, _LABEL))
_DOT_STRING = re.compile(rf"{ATEXT}+(?:\.{ATEXT}+)*")
_LOCALHOST = re.compile(rb"localhost(?:\..*)?", re.IGNORECASE)
_QUOTED_PAIR = re.compile(rb"\\(.)")


def _is_never_local(_name: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Completion:
    """What bare addresses are completed with; b"" where it is not known.

    sender, domain, local: the settings `from`, `domain` and `local`. account: the address of the account on the relayhost.
    is_local_account: whether a name is an account of this computer.
    """

    sender: bytes = b""
    domain: bytes = b""
    local: bytes = b""
    account: bytes = b""
    is_local_account: Callable[[bytes], bool] = _is_never_local

    @property
    def domain_of_names(self) -> bytes:
        """The domain for bare names that are not the sender or a local account; b"" if none is known."""
        return self.domain or domain_of(self.sender) or domain_of(self.account)

    def whole_sender(self, address: bytes) -> bytes:
        """The reverse path that replaces `address`; a bare address stays bare if nothing is known."""
        if not is_bare(address):
            return address
        return self.sender or (_at(address, self.domain) if self.domain else self.account) or address

    def whole_recipient(self, address: bytes) -> bytes:
        """The recipient that replaces `address`; a bare address stays bare if nothing is known."""
        if not is_bare(address) or _is_postmaster(address):
            return address
        if any(map(self.is_local_account, _account_names(address))):
            return self.local or self.sender or self.account or address
        return _at(address, self.domain_of_names) if self.domain_of_names else address


NOTHING_KNOWN = Completion()


def is_bare(address: bytes) -> bool:
    """Whether an address is a local part without a domain. The null reverse path, b"", is not."""
    # A quoted local part may hold an @: `"a@b"`.
    return bool(address) and (b"@" not in address or address.endswith(b'"'))


def has_bare(envelope: Envelope) -> bool:
    """Whether `completed` may change the envelope."""
    return is_bare(envelope.sender) or any(
        is_bare(to.address) and not _is_postmaster(to.address) for to in envelope.recipients
    )


def completed(envelope: Envelope, completion: Completion) -> Envelope:
    """The envelope with whole addresses, its recipients in the same order."""
    if not has_bare(envelope):
        return envelope
    recipients = tuple(
        to if to.is_damaged else Recipient(completion.whole_recipient(to.address), to.notify, to.orcpt)
        for to in envelope.recipients
    )
    return dataclasses.replace(envelope, sender=completion.whole_sender(envelope.sender), recipients=recipients)


def domain_of(address: bytes) -> bytes:
    """The domain of a whole address; b"" for a bare one and for the null reverse path."""
    return b"" if is_bare(address) else address.rpartition(b"@")[2]


def is_domain(name: bytes) -> bool:
    """Whether `name` is a domain name of letters, digits and hyphens, and neither an IP address nor a literal."""
    return len(name) <= MAX_DOMAIN and _DOMAIN.fullmatch(name) is not None


def account_address(account: str, server_names: Sequence[bytes], host: str) -> bytes:
    """The address of an account on a relayhost; b"" if its name cannot be a local part.

    server_names: the mail server's names for itself, in the greeting and in the reply to EHLO. host: the SSH host. Of
    those that are domain names, the first with a dot is used, else the first without one. `localhost` and `localhost.*` are
    used only if there is no other.
    """
    if not account or not account.isprintable():
        return b""
    names = [name for name in (*server_names, host.encode("utf-8", "surrogateescape")) if is_domain(name)]
    others = [name for name in names if not _LOCALHOST.fullmatch(name)]
    name = next((name for name in others if b"." in name), next(iter((*others, *names)), b"localhost"))
    if _DOT_STRING.fullmatch(account):
        return _at(account.encode(), name)
    quoted = account.replace("\\", "\\\\").replace('"', '\\"')
    return _at(b'"%b"' % quoted.encode(), name)


def _at(name: bytes, domain: bytes) -> bytes:
    return b"%b@%b" % (name, domain)


def _account_names(address: bytes) -> Iterator[bytes]:
    """The names of the account that a bare address may mean."""
    name = _QUOTED_PAIR.sub(rb"\1", address[1:-1] if address.startswith(b'"') else address)
    yield name
    yield name.lower()
    yield name.lower().partition(b"+")[0]


def _is_postmaster(address: bytes) -> bool:
    return address.lower() == b"postmaster"
