"""Runs all checks, and yields the findings in the order in which a message passes the checked parts.

All relayhosts and their senders are checked at the same time; their findings come in the order of the settings.
"""

import asyncio
import dataclasses
import ipaddress
import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from email.utils import getaddresses

from mailrelay import submission
from mailrelay.check import backends, connection_path, dns_reputation, machine
from mailrelay.check.dns_reputation import Sender
from mailrelay.check.finding import Finding
from mailrelay.config import Relayhost, Settings
from mailrelay.dns import reverse
from mailrelay.dns.lookup import LookUp
from mailrelay.mail.routing import choose
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.spool import listing
from mailrelay.spool.database import opened_for_reading
from mailrelay.ssh.hops import Hop

MAX_HEADER = 65536
"""Octets of a message that are searched for its From field."""
LOOKUP_TIMEOUT = 10.0
"""Seconds to look up the address of a host."""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options of a check. look_up: asks the DNS. online: False to use no network. blacklists: whether to query them.

    public: the public addresses of the server; if empty, the public addresses of its SSH host are used.
    """

    look_up: LookUp
    online: bool = True
    public: tuple[str, ...] = ()
    blacklists: bool = False


async def examine(
    settings: Settings, pid: str | None, options: CheckOptions, waits_for: Callable[[str], None] = lambda _what: None
) -> AsyncGenerator[Finding, None]:
    """The findings. pid: of the running daemon, "" if it is unknown, None if no daemon runs.

    waits_for: called with the checks, in words for people, whose findings come next.
    """
    local = asyncio.create_task(
        asyncio.to_thread(lambda: [*machine.examine(settings, pid), *_unroutable_sender(settings)])
    )
    senders = await asyncio.to_thread(_senders, settings)
    tasks = [
        local,
        asyncio.create_task(backends.examine(settings.notify)),
        *(
            asyncio.create_task(_relayhost(settings, relayhost, senders.get(relayhost.name, ()), options))
            for relayhost in settings.relayhosts
        ),
    ]
    try:
        names = ("the notice backends", *(f"the checks of {relayhost.ssh}" for relayhost in settings.relayhosts))
        for what, task in zip(("the checks of this computer", *names), tasks, strict=True):
            waits_for(what)
            for finding in await task:
                yield finding
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _relayhost(
    settings: Settings, relayhost: Relayhost, senders: Sequence[Sender], options: CheckOptions
) -> list[Finding]:
    hosts = await connection_path.read(relayhost)
    if isinstance(hosts, Finding):
        return [hosts]
    from_here = connection_path.examine(
        relayhost,
        hosts,
        settings.listen.max_message_size,
        lambda account: _default_sender(settings, relayhost.name, account),
        online=options.online,
    )
    if not options.online:
        return await from_here
    from_outside = _seen_from_outside(relayhost.name, hosts, senders, options)
    return [finding for findings in await asyncio.gather(from_here, from_outside) for finding in findings]


def _unroutable_sender(settings: Settings) -> list[Finding]:
    """Whether a relayhost takes mail of programs that give no sender; nothing if one does."""
    sender = submission.default_sender(settings.submission)
    if choose(sender, settings.relayhosts) is not None:
        return []
    shown = sender.decode("utf-8", "backslashreplace")
    what = f"no relayhost takes mail of programs that give no sender, such as cron: it is from {shown}"
    fix = "set `from` below [submission] in the settings to an address that `senders` of a relayhost names"
    return [Finding("sender", False, what, fix)]


def _default_sender(settings: Settings, name: str, account: bytes) -> bytes:
    """The sender of programs that give none, as the mail server of the relayhost `name` gets it; b"" if such mail does not
    go through it. account: the address of the account there."""
    sender = submission.default_sender(settings.submission)
    if choose(sender, settings.relayhosts) != name:
        return b""
    return dataclasses.replace(submission.completion(settings.submission), account=account).whole_sender(sender)


async def _seen_from_outside(
    name: str, hosts: Sequence[Hop], senders: Sequence[Sender], options: CheckOptions
) -> list[Finding]:
    public = options.public or await _public_addresses(hosts[-1].host)
    found = []
    if not public:
        what = f"no public address of {hosts[-1].host} is known here"
        found.append(
            Finding("public address", None, f"{what}; give one: mailrelay check --address ADDRESS", about=name)
        )
    checks = [
        dns_reputation.addresses(options.look_up, public, reverse.BLACKLISTS if options.blacklists else ()),
        *(dns_reputation.domain(options.look_up, sender, public) for sender in senders),
    ]
    for findings in await asyncio.gather(*checks):
        found += findings
    return found


async def _public_addresses(host: str) -> tuple[str, ...]:
    """The addresses of a host that are globally routable; none if it has none or the look-up fails."""
    try:
        async with asyncio.timeout(LOOKUP_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    addresses = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return tuple(address for address in addresses if ipaddress.ip_address(address).is_global)


def _senders(settings: Settings) -> dict[str, list[Sender]]:
    """The senders' domains, by relayhost: those of recent messages in the spool, and those that the settings name."""
    found: dict[tuple[str, str, str], Sender] = {}
    for sender, head in (
        *_recent_senders(settings),
        *((address, b"") for address in _configured_senders(settings.relayhosts)),
    ):
        domain = _dns_domain(sender)
        relayhost = choose(sender.encode("utf-8", "surrogateescape"), settings.relayhosts)
        if domain and relayhost is not None:
            author = _author_domain(head) or domain
            found.setdefault((relayhost, domain, author), Sender(domain, sender, author))
    by_relayhost: dict[str, list[Sender]] = {}
    for (relayhost, _, _), one in found.items():
        by_relayhost.setdefault(relayhost, []).append(one)
    return by_relayhost


def _recent_senders(settings: Settings) -> list[tuple[str, bytes]]:
    """The reverse path and the beginning of the content of recent messages."""
    try:
        with opened_for_reading(settings.queue.directory) as db:
            return [(path.decode("utf-8", "surrogateescape"), head) for path, head in listing.senders(db)]
    except (SpoolError, FileNotFoundError):
        # The check of the spool reports it.
        return []


def _configured_senders(relayhosts: Iterable[Relayhost]) -> list[str]:
    """One address for each pattern in `senders` that names a domain."""
    patterns = [pattern for relayhost in relayhosts for pattern in relayhost.senders]
    exact = [pattern for pattern in patterns if "@" in pattern and "*." not in pattern]
    return [f"postmaster{pattern[1:]}" if pattern.startswith("*@") else pattern for pattern in exact]


def _dns_domain(address: str) -> str:
    """The domain of an address, "" if the DNS can have no records for it."""
    domain = address.rpartition("@")[2].lower()
    # The DNS has no records for an address literal or a local host name.
    return domain if "." in domain and "[" not in domain and domain.isprintable() else ""


def _author_domain(head: bytes) -> str:
    """The domain of the From field, "" if there is none."""
    fields = BytesHeaderParser().parsebytes(head[:MAX_HEADER]).get_all("From", [])
    return next((_dns_domain(address) for _, address in getaddresses(map(str, fields)) if "@" in address), "")
