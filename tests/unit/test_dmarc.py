"""DMARC: the record that applies, the organisational domain, and alignment."""

import pytest
from harness.zone import look_up_in

from mailrelay.dns.dmarc import Policy, are_aligned, discover


async def found(domain: str, **records: str) -> Policy:
    zone = {(f"_dmarc.{name.replace('_', '.')}", "TXT"): [text] for name, text in records.items()}
    return await discover(look_up_in(zone), domain)


@pytest.mark.parametrize(
    ("domain", "records", "policy"),
    [
        ("a.example", {}, Policy("a.example")),
        ("a.example", {"a_example": "v=DMARC1; p=reject"}, Policy("a.example", "_dmarc.a.example", "reject")),
        ("A.Example.", {"a_example": "v=DMARC1;p=Reject;"}, Policy("a.example", "_dmarc.a.example", "reject")),
        ("x.a.example", {"a_example": "v=DMARC1; p=reject"}, Policy("a.example", "_dmarc.a.example", "reject")),
        (
            "x.a.example",
            {"a_example": "v=DMARC1; p=reject; sp=none; aspf=s"},
            Policy("a.example", "_dmarc.a.example", "none", True),
        ),
        (
            "x.a.example",
            {"a_example": "v=DMARC1; p=reject", "x_a_example": "v=DMARC1; p=none"},
            Policy("a.example", "_dmarc.x.a.example", "none"),
        ),
        (
            "x.a.example",
            {"a_example": "v=DMARC1; p=reject", "x_a_example": "v=DMARC1; p=none; psd=n"},
            Policy("x.a.example", "_dmarc.x.a.example", "none"),
        ),
        ("x.a.example", {"example": "v=DMARC1; p=reject; psd=y"}, Policy("a.example")),
        ("a.example", {"a_example": "v=DMARC1; p=what"}, Policy("a.example")),
        (
            "a.example",
            {"a_example": "v=DMARC1; rua=mailto:x@a.example"},
            Policy("a.example", "_dmarc.a.example", "none"),
        ),
        ("a.example", {"a_example": "p=reject; v=DMARC1"}, Policy("a.example")),
        ("a.example", {"a_example": "v=DMARC12; p=reject"}, Policy("a.example")),
    ],
)
async def test_the_record_that_applies(domain: str, records: dict[str, str], policy: Policy) -> None:
    assert await found(domain, **records) == policy


async def test_two_records_at_one_name_count_as_none() -> None:
    zone = {("_dmarc.a.example", "TXT"): ["v=DMARC1; p=reject", "v=DMARC1; p=none"]}
    assert await discover(look_up_in(zone), "a.example") == Policy("a.example")


async def test_a_long_name_needs_eight_queries() -> None:
    asked: list[tuple[str, str]] = []
    await discover(look_up_in({}, asked=asked), ".".join("abcdefghijklmnop"))
    assert len(asked) == 8
    assert asked[1] == ("_dmarc.j.k.l.m.n.o.p", "TXT")


@pytest.mark.parametrize(
    ("one", "other", "strict", "aligned"),
    [
        ("a.example", "A.example.", True, True),
        ("x.a.example", "a.example", True, False),
        ("x.a.example", "a.example", False, True),
        ("x.a.example", "y.a.example", False, True),
        ("a.example", "b.example", False, False),
    ],
)
async def test_domains_of_one_organisation_are_aligned_unless_alignment_is_strict(
    one: str, other: str, strict: bool, aligned: bool
) -> None:
    zone = {(f"_dmarc.{name}.example", "TXT"): ["v=DMARC1; p=none"] for name in ("a", "b")}
    assert await are_aligned(look_up_in(zone), one, other, strict=strict) is aligned
