"""DNS records of the senders' domains and of the server's public address, from which receivers judge the mail.

Mail of a domain passes if the domain's SPF record allows the server's address, or if the mail server signs it (DKIM).
Whether it signs cannot be known here. DMARC says what receivers are to do with mail for which neither is true.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass

from mailrelay.check.finding import Finding
from mailrelay.dns import dmarc, reverse, spf
from mailrelay.dns.lookup import LookUp, LookUpFailed

CHECK_TIMEOUT = 30.0
"""Seconds for all DNS queries of one check. For SPF, RFC 7208 section 4.6.4 demands 20 at least."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A domain that reverse paths use. sender: one of these. author: the domain of the From field in the same message."""

    domain: str
    sender: str
    author: str


async def addresses(look_up: LookUp, found: Iterable[str], blacklists: Iterable[str]) -> list[Finding]:
    """The findings on the public addresses `found`. blacklists: their domains, as in `reverse.BLACKLISTS`."""
    checks: list[Awaitable[list[Finding]]] = []
    for address in found:
        checks.append(_limited("PTR", address, _ptr(look_up, address)))
        checks += [_limited("blacklist", address, _blacklist(look_up, address, blacklist)) for blacklist in blacklists]
    return [finding for findings in await asyncio.gather(*checks) for finding in findings]


async def domain(look_up: LookUp, sender: Sender, public: Iterable[str]) -> list[Finding]:
    """The findings on a domain whose mail comes from the addresses `public`."""
    checks = [
        _limited("MX", sender.domain, _mx(look_up, sender.domain)),
        _limited("SPF", sender.domain, _spf(look_up, sender, tuple(public))),
    ]
    return [finding for findings in await asyncio.gather(*checks) for finding in findings]


async def _limited(check: str, about: str, findings: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            return await findings
    except LookUpFailed as error:
        return [Finding(check, None, str(error), about=about)]
    except TimeoutError:
        return [
            Finding(check, None, f"the DNS replies too slowly: no result within {CHECK_TIMEOUT:.0f} s", about=about)
        ]


async def _ptr(look_up: LookUp, address: str) -> list[Finding]:
    names, confirmed = await reverse.names(look_up, address)
    if confirmed:
        return [Finding("PTR", True, f"names {confirmed}, which resolves to this address", about=address)]
    fix = "ask the provider of the server's network to set the PTR record to the server's name"
    if not names:
        return [
            Finding(
                "PTR", False, "there is no PTR record; many mail servers refuse mail from such an address", fix, address
            )
        ]
    what = f"names {', '.join(names)}, which does not resolve to this address"
    return [
        Finding(
            "PTR", False, what, f"add an address record {address} for that name, or correct the PTR record", address
        )
    ]


async def _blacklist(look_up: LookUp, address: str, blacklist: str) -> list[Finding]:
    match await reverse.is_listed(look_up, address, blacklist):
        case None:
            return [Finding("blacklist", None, f"{blacklist} does not answer this resolver", about=address)]
        case True:
            return [
                Finding(
                    "blacklist",
                    False,
                    f"{blacklist} lists this address",
                    f"ask {blacklist} for the reason and for removal",
                    address,
                )
            ]
        case _:
            return [Finding("blacklist", True, f"{blacklist} does not list this address", about=address)]


async def _mx(look_up: LookUp, name: str) -> list[Finding]:
    values = (await look_up(name, "MX")).values
    fix = f"publish an MX record for {name} that names its mail server"
    if "0 ." in values:
        what = "the domain accepts no mail (RFC 7505): replies and reports cannot come back"
        return [Finding("MX", False, what, f"use another sender address, or {fix}", name)]
    if values:
        best = [value.partition(" ")[2] for value in sorted(values, key=_preference)]
        return [Finding("MX", True, f"replies and reports go to {', '.join(best)}", about=name)]
    for kind in ("A", "AAAA"):
        if (await look_up(name, kind)).values:
            return [
                Finding(
                    "MX", True, "there is no MX record; replies and reports go to the domain's own address", about=name
                )
            ]
    return [Finding("MX", False, "the domain accepts no mail: it has neither an MX record nor an address", fix, name)]


def _preference(value: str) -> int:
    number = value.partition(" ")[0]
    return int(number) if number.isdecimal() else 0


async def _spf(look_up: LookUp, sender: Sender, public: tuple[str, ...]) -> list[Finding]:
    """SPF for each address in `public`, and the DMARC policy that applies to the result."""
    if not public:
        return [Finding("SPF", None, "not checked: the server's public address is not known", about=sender.domain)]
    found, passes = [], True
    for address in public:
        evaluation = await spf.check_host(look_up, address, sender.domain, sender.sender)
        passes = passes and evaluation.result is spf.Result.PASS
        found.append(_spf_finding(evaluation, sender.domain, address))
    return [*found, await _dmarc(look_up, sender, passes=passes)]


def _spf_finding(evaluation: spf.Evaluation, name: str, address: str) -> Finding:
    kind = "ip6" if ":" in address else "ip4"
    why = f"{evaluation.why}; {evaluation.lookups} of {spf.MAX_LOOKUPS} lookups"
    match evaluation.result:
        case spf.Result.PASS:
            return Finding("SPF", True, f"allows {address} to send ({why})", about=name)
        case spf.Result.TEMPERROR:
            return Finding("SPF", None, evaluation.why, about=name)
        case spf.Result.NONE:
            fix = f'publish a TXT record for {name}: "v=spf1 {kind}:{address} ~all", and add its other servers to it'
            return Finding("SPF", False, f"{evaluation.why}: nothing shows which servers may send its mail", fix, name)
        case spf.Result.PERMERROR:
            return Finding(
                "SPF", False, f"the record is invalid: {evaluation.why}", f"correct the TXT record of {name}", name
            )
        case result:
            fix = f"add {kind}:{address} before the last term of the TXT record of {name}"
            return Finding("SPF", False, f"does not allow {address} to send: {result} ({why})", fix, name)


async def _dmarc(look_up: LookUp, sender: Sender, *, passes: bool) -> Finding:
    try:
        policy = await dmarc.discover(look_up, sender.author)
        aligned = await dmarc.are_aligned(look_up, sender.domain, sender.author, strict=policy.strict)
    except LookUpFailed as error:
        return Finding("DMARC", None, str(error), about=sender.author)
    if not policy.name:
        return Finding("DMARC", None, "there is no record: each receiver decides for itself", about=sender.author)
    request = f"{policy.name} requests {policy.request}"
    if passes and aligned:
        return Finding("DMARC", True, f"{request}; mail from {sender.domain} passes through SPF", about=sender.author)
    why = "SPF does not pass" if not passes else f"{sender.domain} is not part of {policy.organisation}"
    what = f"{request}, and {why}: mail passes only if the mail server signs it (DKIM)"
    if policy.request == "none":
        return Finding("DMARC", None, what, about=sender.author)
    fix = "correct the SPF record" if not passes else f"send with a reverse path at {sender.author}"
    return Finding("DMARC", False, what, f"{fix}, or let the mail server sign for {sender.author}", sender.author)
