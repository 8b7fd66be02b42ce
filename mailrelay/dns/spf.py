"""SPF: whether an IP address may send mail for a domain. `check_host` (RFC 7208 section 4) evaluates as a receiver does.
Section numbers are those of RFC 7208.

Promises: every record, DNS result and name leads to a `Result`. An evaluation allows at most `MAX_LOOKUPS` terms that need a
DNS query, `MAX_VOIDS` queries without a record, and `MAX_NAMES` names for each MX or PTR. Pure except for the `LookUp`.
Never: evaluate the `exp` explanation, which is text for people whose mail is refused.
"""

import enum
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from mailrelay.dns.lookup import LookUp, LookUpFailed, Records, reverse_name

MAX_LOOKUPS = 10
"""Terms that need a DNS query; one more is a permerror (section 4.6.4)."""
MAX_VOIDS = 2
"""DNS queries without a record; one more is a permerror (section 4.6.4)."""
MAX_NAMES = 10
"""Names in the MX records of a domain; one more is a permerror. Names in PTR records; more are ignored (section 4.6.4)."""
MAX_DOMAIN = 253
"""Characters of a domain name."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Result(enum.StrEnum):
    """The results of check_host (section 2.6)."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 - the word of the RFC
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of check_host. why: the term that gave the result, or what is wrong. lookups: terms that needed a DNS
    query. record: the SPF record of the domain itself, "" if it has none."""

    result: Result
    why: str
    lookups: int
    record: str = ""


async def check_host(look_up: LookUp, address: str, domain: str, sender: str, helo: str = "") -> Evaluation:
    """Evaluates the SPF record of `domain` for mail with the reverse path `sender` from the IP address `address`. helo: the
    name in HELO, "" if it is not known. Raises ValueError for an invalid address."""
    evaluator = _Evaluator(look_up, ipaddress.ip_address(address), sender, helo)
    try:
        result, why = await evaluator.check(domain)
    except _Ended as ended:
        result, why = ended.result, str(ended)
    return Evaluation(result, why, evaluator.lookups, evaluator.record)


class _Ended(Exception):
    """Ends the whole evaluation with a result, also from within an include. why: as in `Evaluation`."""

    def __init__(self, result: Result, why: str) -> None:
        super().__init__(why)
        self.result = result


def _permerror(why: str) -> _Ended:
    return _Ended(Result.PERMERROR, why)


@dataclass(frozen=True, slots=True)
class _Term:
    """A mechanism with its qualifier. text: as in the record. result: if the mechanism matches. domain: its domain-spec, not
    expanded, "" for the current domain. prefixes: lengths for IPv4 and for IPv6. network: of ip4 and ip6, else None."""

    text: str
    result: Result
    name: str
    domain: str = ""
    prefixes: tuple[int, int] = (32, 128)
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None


_QUALIFIERS = {"": Result.PASS, "+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)")
_MECHANISM = re.compile(r"([+?~-]?)([A-Za-z][A-Za-z0-9_.-]*)(.*)")
_WITH_PREFIXES = re.compile(r"(?::(.+?))?(?:/(0|[1-9]\d?))?(?://(0|[1-9]\d{0,2}))?")
_NETWORK = re.compile(r":([0-9A-Fa-f.:]+?)(?:/(0|[1-9]\d{0,2}))?")
_MACRO = r"%\{[slodiphvSLODIPHV](?:0*[1-9]\d{0,2})?[rR]?[.+,/_=-]*\}|%%|%_|%-"
_MACRO_STRING = re.compile(rf"(?:{_MACRO}|[!-$&-~])*")
_DOMAIN_END = re.compile(
    r".*(?:%\{[^}]*\}|\.(?=[A-Za-z0-9-]*[A-Za-z-])[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?)", re.DOTALL
)
_MACRO_PARTS = re.compile(r"%\{([A-Za-z])(\d*)([rR]?)([.+,/_=-]*)\}")


def _parse(record: str) -> tuple[list[_Term], str]:
    """The mechanisms of a record, and the domain-spec of its redirect, "" for none. Raises _Ended with a permerror for any
    syntax error (section 4.6)."""
    terms: list[_Term] = []
    modifiers: dict[str, str] = {}
    for text in record.split(" ")[1:]:
        if not text:
            continue
        if modifier := _MODIFIER.fullmatch(text):
            name = modifier[1].lower()
            if name in ("redirect", "exp"):
                if name in modifiers:
                    raise _permerror(f"{name} occurs twice")
                modifiers[name] = _domain_spec(modifier[2], text)
            elif not _MACRO_STRING.fullmatch(modifier[2]):
                raise _permerror(f"{text} is not a modifier")
        else:
            terms.append(_mechanism(text))
    return terms, modifiers.get("redirect", "")


def _mechanism(text: str) -> _Term:
    found = _MECHANISM.fullmatch(text)
    if not found:
        raise _permerror(f"{text} is not a mechanism")
    result, name, rest = _QUALIFIERS[found[1]], found[2].lower(), found[3]
    match name:
        case "all" if not rest:
            return _Term(text, result, name)
        case "include" | "exists" if rest.startswith(":"):
            return _Term(text, result, name, _domain_spec(rest[1:], text))
        case "ptr" if not rest or rest.startswith(":"):
            return _Term(text, result, name, _domain_spec(rest[1:], text) if rest else "")
        case "a" | "mx" if given := _WITH_PREFIXES.fullmatch(rest):
            prefixes = int(given[2] or 32), int(given[3] or 128)
            if prefixes[0] <= 32 and prefixes[1] <= 128:
                return _Term(text, result, name, _domain_spec(given[1], text) if given[1] else "", prefixes)
        case "ip4" | "ip6" if given := _NETWORK.fullmatch(rest):
            kind: Callable[[tuple[str, int]], ipaddress.IPv4Network | ipaddress.IPv6Network]
            kind, bits = (_ip4, 32) if name == "ip4" else (_ip6, 128)
            prefix = int(given[2]) if given[2] else bits
            try:
                return _Term(text, result, name, network=kind((given[1], prefix)))
            except ValueError:
                pass
    raise _permerror(f"{text} is not a mechanism")


def _ip4(given: tuple[str, int]) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(given, strict=False)


def _ip6(given: tuple[str, int]) -> ipaddress.IPv6Network:
    return ipaddress.IPv6Network(given, strict=False)


def _domain_spec(spec: str, text: str) -> str:
    if not _MACRO_STRING.fullmatch(spec) or not _DOMAIN_END.fullmatch(spec):
        raise _permerror(f"{text} names no domain")
    return spec


class _Evaluator:
    """One evaluation: its parameters, and its counts for the limits of section 4.6.4."""

    def __init__(self, look_up: LookUp, address: Address, sender: str, helo: str) -> None:
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        self._look_up = look_up
        self._address: Address = mapped or address
        local, at, self._domain = sender.rpartition("@")
        self._local = local if at and local else "postmaster"
        self._helo = helo
        self._voids = 0
        # The result of `_validated_names`, None before its first call.
        self._names: list[str] | None = None
        self.lookups = 0
        self.record = ""

    async def check(self, domain: str) -> tuple[Result, str]:
        """check_host (section 4). Raises _Ended."""
        domain = domain.removesuffix(".")
        labels = domain.split(".")
        if len(labels) < 2 or len(domain) > MAX_DOMAIN or not all(0 < len(label) < 64 for label in labels):
            return Result.NONE, f"{domain} is not a domain name"
        texts = (await self._query(domain, "TXT", counts=False)).values
        records = [text for text in texts if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")]
        if not records:
            return Result.NONE, f"{domain} has no SPF record"
        if len(records) > 1:
            raise _permerror(f"{domain} has {len(records)} SPF records")
        self.record = self.record or records[0]
        if not records[0].isascii():
            raise _permerror(f"the record of {domain} is not ASCII")
        terms, redirect = _parse(records[0])
        for term in terms:
            if await self._matches(term, domain):
                return term.result, f"{term.text} of {domain}"
        if redirect and not any(term.name == "all" for term in terms):
            self._count_lookup(f"redirect={redirect}")
            target = await self._expand(redirect, domain)
            result, why = await self.check(target)
            if result is Result.NONE:
                raise _permerror(f"redirect={redirect}: {why}")
            return result, why
        return Result.NEUTRAL, f"no term of {domain} matches"

    async def _matches(self, term: _Term, domain: str) -> bool:
        if term.network is not None:
            return self._address in term.network
        if term.name == "all":
            return True
        self._count_lookup(term.text)
        target = await self._expand(term.domain, domain) if term.domain else domain
        match term.name:
            case "include":
                result, why = await self.check(target)
                if result is Result.NONE:
                    raise _permerror(f"{term.text}: {why}")
                return result is Result.PASS
            case "exists":
                return bool((await self._query(target, "A")).values)
            case "ptr":
                return any(_is_same_or_below(name, target) for name in await self._validated_names())
            case "a":
                hosts = [target]
            case _:
                hosts = await self._exchangers(target)
        return await self._any_has_address(hosts, term.prefixes)

    async def _exchangers(self, domain: str) -> list[str]:
        exchangers = [value.partition(" ")[2] for value in (await self._query(domain, "MX")).values]
        if len(exchangers) > MAX_NAMES:
            raise _permerror(f"{domain} has more than {MAX_NAMES} MX")
        return exchangers

    async def _any_has_address(self, hosts: list[str], prefixes: tuple[int, int]) -> bool:
        """Whether one of the hosts has the address. The hosts after it are not looked up, because queries without a record
        count."""
        for host in hosts:
            if self._is_in_networks((await self._query(host, self._address_type)).values, prefixes):
                return True
        return False

    @property
    def _address_type(self) -> str:
        return "A" if self._address.version == 4 else "AAAA"

    def _is_in_networks(self, addresses: tuple[str, ...], prefixes: tuple[int, int]) -> bool:
        prefix = prefixes[0] if self._address.version == 4 else prefixes[1]
        return any(self._address in ipaddress.ip_network((address, prefix), strict=False) for address in addresses)

    def _count_lookup(self, text: str) -> None:
        """Counts a term that needs a DNS query. Raises _Ended if there are too many."""
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise _permerror(f"more than {MAX_LOOKUPS} terms need a DNS query; {text} is one too many")

    async def _query(self, name: str, kind: str, *, counts: bool = True) -> Records:
        """The records of type `kind`. counts: whether none of them counts for MAX_VOIDS. Raises _Ended."""
        try:
            records = await self._look_up(name, kind)
        except LookUpFailed as error:
            raise _Ended(Result.TEMPERROR, str(error)) from None
        if counts and not records.values:
            self._voids += 1
            if self._voids > MAX_VOIDS:
                raise _permerror(f"more than {MAX_VOIDS} DNS queries give no record; {kind} of {name} is one too many")
        return records

    async def _validated_names(self) -> list[str]:
        """The names of the address that resolve to it (section 5.5). Failed queries are ignored."""
        if self._names is None:
            self._names = []
            try:
                names = (await self._look_up(reverse_name(str(self._address)), "PTR")).values
            except LookUpFailed:
                names = ()
            for name in names[:MAX_NAMES]:
                try:
                    addresses = (await self._look_up(name, self._address_type)).values
                except LookUpFailed:
                    continue
                if self._is_in_networks(addresses, (32, 128)):
                    self._names.append(name)
        return self._names

    async def _expand(self, spec: str, domain: str) -> str:
        """A domain-spec with its macros expanded (section 7). If the result is too long, labels on the left are removed, all
        of them if necessary."""
        names = await self._validated_names() if re.search(r"%\{[pP]", spec) else []
        best = sorted(names, key=lambda name: (not _is_same(name, domain), not _is_same_or_below(name, domain)))
        values = {
            "s": f"{self._local}@{self._domain}",
            "l": self._local,
            "o": self._domain,
            "d": domain,
            "i": _dotted(self._address),
            "p": best[0] if best else "unknown",
            "v": "in-addr" if self._address.version == 4 else "ip6",
            "h": self._helo or "unknown",
        }

        def value(found: re.Match[str]) -> str:
            letter, digits, reverse, delimiters = found.groups()
            parts = re.split(f"[{re.escape(delimiters or '.')}]", values[letter.lower()])
            if reverse:
                parts.reverse()
            # Any number of leading zeros is valid, but int() raises for more than 4300 digits.
            wanted = digits.lstrip("0")
            shown = ".".join(parts[-int(wanted) :] if wanted else parts)
            return quote(shown, safe="-._~", errors="surrogateescape") if letter.isupper() else shown

        plain = {"%%": "%", "%_": " ", "%-": "%20"}
        expanded = re.sub(r"%\{[^}]*\}|%.", lambda at: plain.get(at[0]) or _MACRO_PARTS.sub(value, at[0]), spec)
        expanded = expanded.removesuffix(".")
        if len(expanded) <= MAX_DOMAIN:
            return expanded
        # Cuts at the first label boundary that leaves at most MAX_DOMAIN characters.
        before = expanded.find(".", len(expanded) - MAX_DOMAIN - 1)
        return expanded[before + 1 :] if before >= 0 else ""


def _dotted(address: Address) -> str:
    """The macro letter `i`: an IPv6 address as 32 hexadecimal digits with dots between them."""
    return str(address) if address.version == 4 else ".".join(address.exploded.replace(":", ""))


def _is_same(name: str, domain: str) -> bool:
    return name.lower() == domain.lower()


def _is_same_or_below(name: str, domain: str) -> bool:
    return _is_same(name, domain) or name.lower().endswith(f".{domain.lower()}")
