"""The domains of the senders, as the rest of the world sees their mail: it comes from the remote's public address.

A domain's mail passes where its SPF record lets the address send, or where the mail server over there signs it (DKIM), of
which nothing can be known here. DMARC says what becomes of mail for which neither holds.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass

from mailrelay.check.finding import Finding
from mailrelay.dns import dmarc, reverse, spf
from mailrelay.dns.answer import LookUp, Unanswered

PATIENCE = 30.0
"""Seconds for all questions about one thing. For SPF, RFC 7208 section 4.6.4 has 20 at least."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A domain in use as a reverse path's. sender: an address of it. author: the domain of the From field beside it."""

    domain: str
    sender: str
    author: str


async def addresses(look_up: LookUp, found: Iterable[str], blacklists: Iterable[str]) -> list[Finding]:
    """What is known of the public addresses `found`."""
    checks: list[Awaitable[list[Finding]]] = []
    for address in found:
        checks.append(_asked("PTR", address, _reverse(look_up, address)))
        checks += [_asked("blacklist", address, _listed(look_up, address, blacklist)) for blacklist in blacklists]
    return [finding for findings in await asyncio.gather(*checks) for finding in findings]


async def domain(look_up: LookUp, sender: Sender, public: Iterable[str]) -> list[Finding]:
    """What is known of a domain whose mail comes from the public addresses."""
    checks = [
        _asked("MX", sender.domain, _exchangers(look_up, sender.domain)),
        _asked("SPF", sender.domain, _may_send(look_up, sender, tuple(public))),
    ]
    return [finding for findings in await asyncio.gather(*checks) for finding in findings]


async def _asked(check: str, about: str, asking: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        async with asyncio.timeout(PATIENCE):
            return await asking
    except Unanswered as error:
        return [Finding(check, None, str(error), about=about)]
    except TimeoutError:
        return [Finding(check, None, f"the DNS answers so slowly that {PATIENCE:.0f} s were not enough", about=about)]


async def _reverse(look_up: LookUp, address: str) -> list[Finding]:
    names, confirmed = await reverse.names(look_up, address)
    if confirmed:
        return [Finding("PTR", True, f"its name is {confirmed}, and that has this address", about=address)]
    fix = "whoever runs the server's network can set its PTR record to the server's name"
    if not names:
        return [Finding("PTR", False, "it has no name, and many refuse mail from such", fix, address)]
    what = f"its name is {', '.join(names)}, which does not have this address"
    return [
        Finding("PTR", False, what, f"give that name an address record of {address}, or fix the PTR record", address)
    ]


async def _listed(look_up: LookUp, address: str, blacklist: str) -> list[Finding]:
    match await reverse.is_listed(look_up, address, blacklist):
        case None:
            return [Finding("blacklist", None, f"{blacklist} does not answer this resolver", about=address)]
        case True:
            return [
                Finding(
                    "blacklist", False, f"{blacklist} lists it", f"ask {blacklist} why, and to take it out", address
                )
            ]
        case _:
            return [Finding("blacklist", True, f"{blacklist} does not list it", about=address)]


async def _exchangers(look_up: LookUp, name: str) -> list[Finding]:
    values = (await look_up(name, "MX")).values
    fix = f"publish an MX record for {name} that names its mail server"
    if "0 ." in values:
        what = "takes no mail at all (RFC 7505): no answer and no report can come back"
        return [Finding("MX", False, what, f"send with another address, or {fix}", name)]
    if values:
        best = [value.partition(" ")[2] for value in sorted(values, key=_preference)]
        return [Finding("MX", True, f"answers and reports go to {', '.join(best)}", about=name)]
    for kind in ("A", "AAAA"):
        if (await look_up(name, kind)).values:
            return [Finding("MX", True, "has no MX record; answers and reports go to its own address", about=name)]
    return [Finding("MX", False, "takes no mail: there is neither an MX record nor an address", fix, name)]


def _preference(value: str) -> int:
    number = value.partition(" ")[0]
    return int(number) if number.isdecimal() else 0


async def _may_send(look_up: LookUp, sender: Sender, public: tuple[str, ...]) -> list[Finding]:
    """SPF, for each of the addresses, and what DMARC makes of that."""
    if not public:
        return [Finding("SPF", None, "not asked, for the server's public address is not known", about=sender.domain)]
    found, passes = [], True
    for address in public:
        said = await spf.check_host(look_up, address, sender.domain, sender.sender)
        passes = passes and said.result is spf.Result.PASS
        found.append(_said(said, sender.domain, address))
    return [*found, await _policy(look_up, sender, passes=passes)]


def _said(said: spf.Found, name: str, address: str) -> Finding:
    kind = "ip6" if ":" in address else "ip4"
    asked = f"{said.lookups} of {spf.LOOKUPS} lookups"
    match said.result:
        case spf.Result.PASS:
            return Finding("SPF", True, f"lets {address} send ({said.why}; {asked})", about=name)
        case spf.Result.TEMPERROR:
            return Finding("SPF", None, said.why, about=name)
        case spf.Result.NONE:
            fix = f'publish a TXT record for {name}: "v=spf1 {kind}:{address} ~all", with all else that sends for it'
            return Finding("SPF", False, f"does not say who may send for it ({said.why})", fix, name)
        case spf.Result.PERMERROR:
            return Finding("SPF", False, f"its record is not valid: {said.why}", f"fix the TXT record of {name}", name)
        case result:
            fix = f"add {kind}:{address} before the last term of the TXT record of {name}"
            return Finding("SPF", False, f"does not let {address} send: {result} ({said.why}; {asked})", fix, name)


async def _policy(look_up: LookUp, sender: Sender, *, passes: bool) -> Finding:
    try:
        policy = await dmarc.discover(look_up, sender.author)
        aligned = await dmarc.are_aligned(look_up, sender.domain, sender.author, strict=policy.strict)
    except Unanswered as error:
        return Finding("DMARC", None, str(error), about=sender.author)
    if not policy.place:
        return Finding("DMARC", None, "has no record: each receiver decides by itself", about=sender.author)
    asks = f"{policy.place} asks for {policy.request}"
    if passes and aligned:
        return Finding("DMARC", True, f"{asks}; mail from {sender.domain} passes by SPF", about=sender.author)
    why = "SPF does not pass" if not passes else f"the sender's {sender.domain} is not of {policy.organisation}"
    what = f"{asks}, and {why}: only a DKIM signature that the mail server there adds can pass"
    if policy.request == "none":
        return Finding("DMARC", None, what, about=sender.author)
    fix = "fix SPF" if not passes else f"send with a reverse path at {sender.author}"
    return Finding("DMARC", False, what, f"{fix}, or let the mail server sign for {sender.author}", sender.author)
