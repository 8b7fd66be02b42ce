"""Every published record gives an SPF result within the limits of RFC 7208, and a DMARC policy."""

from harness.zone import look_up_in
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.dns import dmarc
from mailrelay.dns.spf import MAX_LOOKUPS, Result, check_host

DOMAINS = ("a.example", "b.example", "c.a.example")
ADDRESSES = ("192.0.2.1", "198.51.100.7", "2001:db8::1")

MECHANISMS = (
    *("a", "mx", "ptr", "all", "a:b.example", "mx:c.a.example/24", "include:a.example", "include:b.example", "a//64"),
    *(
        "exists:%{ir}.%{d}",
        "exists:%{l}._%{o2r}.b.example",
        "redirect=c.a.example",
        "redirect=%{d}",
        "ip4:192.0.2.0/24",
    ),
    *("ip6:2001:db8::/32", "exp=a.example", "include:%{p}", "a:%{d9}"),
)
NOISE = "v=spf1 ainclude:.%{}dlr+-~?/0123456789=xé\x00"
terms = st.builds(
    lambda sign, mechanism: sign + mechanism, st.sampled_from(["", "-", "~", "?", "+"]), st.sampled_from(MECHANISMS)
)
records = st.one_of(
    st.lists(terms, max_size=6).map(lambda found: " ".join(("v=spf1", *found))),
    st.text(st.sampled_from(NOISE), max_size=40).map(lambda text: f"v=spf1 {text}"),
    st.text(max_size=60),
)
zones = st.fixed_dictionaries(
    {("a.example", "TXT"): st.lists(records, max_size=2)},
    optional={
        ("b.example", "TXT"): st.lists(records, max_size=1),
        ("c.a.example", "TXT"): st.lists(records, max_size=1),
        ("a.example", "A"): st.lists(st.sampled_from(ADDRESSES[:2]), max_size=2),
        ("b.example", "AAAA"): st.just([ADDRESSES[2]]),
        ("a.example", "MX"): st.lists(st.sampled_from(["10 b.example", "5 a.example", "nonsense"]), max_size=3),
        ("1.2.0.192.in-addr.arpa", "PTR"): st.just(["a.example", "x..y"]),
        ("_dmarc.a.example", "TXT"): st.lists(st.text(max_size=40), max_size=2),
    },
)


@given(zones, st.sampled_from(ADDRESSES), st.sampled_from(["me@a.example", "@a.example", "x", "é%{d}@a.example"]))
async def test_every_record_gives_a_result_within_the_limits(
    zone: dict[tuple[str, str], list[str]], address: str, sender: str
) -> None:
    asked: list[tuple[str, str]] = []
    look_up = look_up_in(zone, broken=["broken.example"], asked=asked)
    found = await check_host(look_up, address, "a.example", sender)
    assert found.result in Result
    assert found.lookups <= MAX_LOOKUPS + 1
    # One query for each term, and at most ten more for the names of an MX or PTR.
    assert len(asked) <= 2 + MAX_LOOKUPS * 22
    assert bool(found.record) or found.result in (Result.NONE, Result.PERMERROR)


@given(st.text(max_size=60), st.text(max_size=80))
async def test_every_dmarc_record_gives_a_policy(domain: str, record: str) -> None:
    look_up = look_up_in({(f"_dmarc.{domain.lower().removesuffix('.')}", "TXT"): [f"v=DMARC1;{record}"]})
    policy = await dmarc.discover(look_up, domain)
    assert policy.request in ("", "none", "quarantine", "reject")
    assert bool(policy.name) == bool(policy.request)
