"""DMARC: the policy that a domain requests for mail that is not authenticated as its own. Pure.

Two domains belong together if they have the same organisational domain. It is found by the DNS tree walk of the revised
DMARC instead of a list of public suffixes: `_dmarc` is looked up at the domain and at each domain above it. A record with
psd=n marks the organisational domain. A record with psd=y marks a public suffix, and the organisational domain is one label
below it. Without either, the record with the fewest labels marks the organisational domain.
"""

from dataclasses import dataclass

from mailrelay.dns.lookup import LookUp

MAX_QUERIES = 8
"""Queries of one tree walk."""
_REQUESTS = ("none", "quarantine", "reject")


@dataclass(frozen=True, slots=True)
class Policy:
    """organisation: the organisational domain, the domain itself if no record marks one. name: that of the record that
    applies, "" if there is none. request: none, quarantine or reject. strict: the domain that passed SPF must be equal."""

    organisation: str
    name: str = ""
    request: str = ""
    strict: bool = False


async def discover(look_up: LookUp, domain: str) -> Policy:
    """The policy for mail whose From field names an address at `domain`. Raises LookUpFailed."""
    domain = domain.lower().removesuffix(".")
    records: dict[str, dict[str, str]] = {}
    organisation = ""
    for name in _walk(domain):
        tags = await _record(look_up, name)
        if tags is None:
            continue
        records[name] = tags
        if tags.get("psd") == "n":
            organisation = name
            break
        if tags.get("psd") == "y" and name != domain:
            below = domain.removesuffix(f".{name}").rpartition(".")[2]
            organisation = f"{below}.{name}"
            break
    organisation = organisation or min(records, key=lambda name: name.count("."), default=domain)
    name = next((name for name in (domain, organisation) if name in records), "")
    if not name:
        return Policy(organisation)
    tags = records[name]
    request = tags["p"] if name == domain else tags.get("sp", tags["p"])
    return Policy(organisation, f"_dmarc.{name}", request, tags.get("aspf") == "s")


async def are_aligned(look_up: LookUp, domain: str, other: str, *, strict: bool) -> bool:
    """Whether the two domains are aligned: equal, or unless `strict` of one organisation. Raises LookUpFailed."""
    domain, other = domain.lower().removesuffix("."), other.lower().removesuffix(".")
    if strict or domain == other:
        return domain == other
    return (await discover(look_up, domain)).organisation == (await discover(look_up, other)).organisation


def _walk(domain: str) -> list[str]:
    """The domain, then the domains above it; if there are more than MAX_QUERIES, the longest of these are left out."""
    labels = domain.split(".")
    first = max(1, len(labels) - MAX_QUERIES + 1)
    return [domain, *(".".join(labels[at:]) for at in range(first, len(labels)))]


async def _record(look_up: LookUp, domain: str) -> dict[str, str] | None:
    """The tags of a domain's DMARC record, None if there is none or more than one (RFC 7489 section 6.6.3)."""
    found = []
    for text in (await look_up(f"_dmarc.{domain}", "TXT")).values:
        pairs = [tag.partition("=") for tag in text.split(";") if tag.strip()]
        if pairs and pairs[0][0].strip().lower() == "v" and pairs[0][2].strip() == "DMARC1":
            found.append({name.strip().lower(): value.strip().lower() for name, _, value in pairs[1:]})
    if len(found) != 1:
        return None
    (tags,) = found
    if tags.get("p") not in _REQUESTS:
        # A record that requests reports counts as p=none (RFC 7489 section 6.6.3).
        if "rua" not in tags:
            return None
        tags["p"] = "none"
    if tags.get("sp") not in _REQUESTS:
        tags.pop("sp", None)
    return tags
