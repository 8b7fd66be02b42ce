"""What a domain asks receivers to do with mail that fails to show that it is the domain's own (DMARC). Pure.

The organisational domain, by which two domains belong together, is found by the DNS tree walk of the revised DMARC, not by
a list of public suffixes: `_dmarc` is asked for at the domain and at each one above it. The record with the fewest labels
marks the organisation, unless a record says that it does (psd=n), or that its domain is a public suffix (psd=y) and the
organisation the label below.
"""

from dataclasses import dataclass

from mailrelay.dns.answer import LookUp

STEPS = 8
"""Questions of a walk."""
_REQUESTS = ("none", "quarantine", "reject")


@dataclass(frozen=True, slots=True)
class Policy:
    """organisation: the organisational domain, the domain itself if no record marks one. place: the name of the record that
    applies, "" if there is none. request: none, quarantine or reject. strict: SPF must have passed for the very domain."""

    organisation: str
    place: str = ""
    request: str = ""
    strict: bool = False


async def discover(look_up: LookUp, domain: str) -> Policy:
    """The policy for mail whose From field names an address at `domain`. Raises Unanswered."""
    domain = domain.lower().removesuffix(".")
    records: dict[str, dict[str, str]] = {}
    organisation = ""
    for place in _walk(domain):
        tags = await _record(look_up, place)
        if tags is None:
            continue
        records[place] = tags
        if tags.get("psd") == "n":
            organisation = place
            break
        if tags.get("psd") == "y" and place != domain:
            below = domain.removesuffix(f".{place}").rpartition(".")[2]
            organisation = f"{below}.{place}"
            break
    organisation = organisation or min(records, key=lambda place: place.count("."), default=domain)
    place = next((place for place in (domain, organisation) if place in records), "")
    if not place:
        return Policy(organisation)
    tags = records[place]
    request = tags["p"] if place == domain else tags.get("sp", tags["p"])
    return Policy(organisation, f"_dmarc.{place}", request, tags.get("aspf") == "s")


async def are_aligned(look_up: LookUp, domain: str, other: str, *, strict: bool) -> bool:
    """Whether a domain counts as the other one. Raises Unanswered."""
    domain, other = domain.lower().removesuffix("."), other.lower().removesuffix(".")
    if strict or domain == other:
        return domain == other
    return (await discover(look_up, domain)).organisation == (await discover(look_up, other)).organisation


def _walk(domain: str) -> list[str]:
    """The domain, then those above it, the longest ones left out where there are many."""
    labels = domain.split(".")
    first = max(1, len(labels) - STEPS + 1)
    return [domain, *(".".join(labels[at:]) for at in range(first, len(labels)))]


async def _record(look_up: LookUp, place: str) -> dict[str, str] | None:
    """The tags of the one DMARC record of a domain, None where there is none, or more than one (RFC 7489 section 6.6.3)."""
    found = []
    for text in (await look_up(f"_dmarc.{place}", "TXT")).values:
        pairs = [tag.partition("=") for tag in text.split(";") if tag.strip()]
        if pairs and pairs[0][0].strip().lower() == "v" and pairs[0][2].strip() == "DMARC1":
            found.append({name.strip().lower(): value.strip().lower() for name, _, value in pairs[1:]})
    if len(found) != 1:
        return None
    (tags,) = found
    if tags.get("p") not in _REQUESTS:
        # Where reports are asked for, the rest is meant as well.
        if "rua" not in tags:
            return None
        tags["p"] = "none"
    if tags.get("sp") not in _REQUESTS:
        tags.pop("sp", None)
    return tags
