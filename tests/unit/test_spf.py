"""SPF by RFC 7208: tables of every mechanism, macro, limit and error."""

import pytest
from harness.zone import look_up_in

from mailrelay.dns.spf import Evaluation, check_host

V4, V6 = "192.0.2.1", "2001:db8::1"
ZONE = {
    ("pass.example", "TXT"): ["v=spf1 +all"],
    ("fail.example", "TXT"): ["v=spf1 -all"],
    ("soft.example", "TXT"): ["v=spf1 ~all"],
    ("empty.example", "TXT"): ["v=spf1"],
    ("none.example", "TXT"): ["v=spf10 +all", "something else"],
    ("two.example", "TXT"): ["v=spf1 +all", "v=spf1 -all"],
    ("syntax.example", "TXT"): ["v=spf1 +all nonsense"],
    ("d.example", "A"): [V4],
    ("d.example", "AAAA"): [V6],
    ("d.example", "MX"): ["10 mx.example", "20 d.example"],
    ("mx.example", "A"): ["198.51.100.1"],
    ("near.example", "A"): ["192.0.2.200"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["liar.example", "host.d.example"],
    ("liar.example", "A"): ["198.51.100.9"],
    ("host.d.example", "A"): [V4],
    ("me.d.example._x.example", "A"): ["127.0.0.2"],
    ("1.2.0.192.in-addr.example", "A"): ["127.0.0.2"],
    ("192.0.2.1.d.example", "A"): ["127.0.0.2"],
    ("many.example", "MX"): [f"10 m{number}.example" for number in range(11)],
    ("loop.example", "TXT"): ["v=spf1 include:loop.example -all"],
    **{(f"l{number}.example", "TXT"): [f"v=spf1 include:l{number + 1}.example"] for number in range(12)},
    ("l10.example", "TXT"): ["v=spf1 +all"],
}


async def said(record: str, address: str = V4, sender: str = "me@d.example") -> Evaluation:
    zone = ZONE | {("d.example", "TXT"): [f"v=spf1 {record}".rstrip()]}
    look_up = look_up_in(zone, broken=["broken.example"])
    return await check_host(look_up, address, "d.example", sender, "helo.example")


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("", "neutral"),
        ("all", "pass"),
        ("ALL", "pass"),
        ("-all", "fail"),
        ("~all", "softfail"),
        ("?all", "neutral"),
        ("-all +all", "fail"),
        ("ip4:192.0.2.1 -all", "pass"),
        ("ip4:192.0.2.2 -all", "fail"),
        ("ip4:192.0.2.0/24 -all", "pass"),
        ("ip4:0.0.0.0/0 -all", "pass"),
        ("ip6:2001:db8::/32 -all", "fail"),
        ("-ip4:192.0.2.1 +all", "fail"),
        ("a -all", "pass"),
        ("a:mx.example -all", "fail"),
        ("a:near.example/24 -all", "pass"),
        ("a:near.example/25 -all", "fail"),
        ("a:nowhere.example -all", "fail"),
        ("mx -all", "pass"),
        ("mx:nowhere.example -all", "fail"),
        ("mx/24//64 -all", "pass"),
        ("ptr -all", "pass"),
        ("ptr:d.example -all", "pass"),
        ("ptr:liar.example -all", "fail"),
        ("include:pass.example -all", "pass"),
        ("include:fail.example ?all", "neutral"),
        ("-include:soft.example +all", "pass"),
        ("include:empty.example -all", "fail"),
        ("redirect=pass.example", "pass"),
        ("redirect=fail.example ?all", "neutral"),
        ("redirect=empty.example", "neutral"),
        ("exists:%{l}.%{o}._x.example -all", "pass"),
        ("exists:%{ir}.%{v}.example -all", "pass"),
        ("exists:%{i}.%{d} -all", "pass"),
        ("exists:%{l}.nowhere.example -all", "fail"),
        ("exp=whatever.example -all", "fail"),
        ("unknown=%{d} -all", "fail"),
        ("include:l0.example -all", "permerror"),
        ("include:l2.example -all", "pass"),
    ],
)
async def test_the_result_is_that_of_the_rfc(record: str, result: str) -> None:
    assert (await said(record)).result == result


@pytest.mark.parametrize(
    "record",
    [
        *("all:x.example", "al", "ip4:192.0.2.256", "ip4:192.0.2.1/33", "ip4:192.0.2.1/01", "ip4:2001:db8::1", "ip4:"),
        *("ip6:192.0.2.1", "ip6:2001:db8::1/129", "a:", "a/33", "a//129", "a:d.example/", "mx:", "ptr:", "include:"),
        *("include", "exists", "exists:no_domain", "include:x.1", "include:%{x}.example", "exists:%{d0}.example"),
        *("exists:%{d", "exists:%d.example", "include:a%.example", "redirect=", "redirect=x", "=x", "++all", "a;all"),
        *("redirect=pass.example redirect=pass.example", "exp=a.example exp=a.example", "include:none.example"),
        *("include:two.example", "include:syntax.example", "redirect=none.example", "mx:many.example", "\x7f"),
        *("a:n1.example a:n2.example a:n3.example", "include:loop.example", "all \u00e9"),
    ],
)
async def test_an_invalid_record_is_a_permanent_error_that_names_the_term(record: str) -> None:
    found = await said(record)
    assert found.result == "permerror"
    assert found.why


async def test_a_domain_without_a_record_or_name_gives_none() -> None:
    look_up = look_up_in(ZONE)
    for domain in ("none.example", "nowhere.example", "localhost", "a..example", f"{'x' * 64}.example", ""):
        assert (await check_host(look_up, V4, domain, f"me@{domain}")).result == "none"
    assert (await check_host(look_up, V4, "two.example", "me@two.example")).result == "permerror"


async def test_a_dns_failure_is_a_temporary_error() -> None:
    assert (await said("a:broken.example -all")).result == "temperror"
    assert (await said("include:broken.example -all")).result == "temperror"
    assert (await said("ip4:192.0.2.1 a:broken.example")).result == "pass"


async def test_an_ipv6_address_is_compared_with_aaaa_records() -> None:
    assert (await said("a -all", V6)).result == "pass"
    assert (await said("ip6:2001:db8::/32 -all", V6)).result == "pass"
    assert (await said("ip4:192.0.2.1 -all", f"::ffff:{V4}")).result == "pass"
    nibbles = ".".join("20010db8000000000000000000000001")
    zone = {
        ("d.example", "TXT"): ["v=spf1 exists:%{i}.%{v}.example -all"],
        (f"{nibbles}.ip6.example", "A"): ["127.0.0.1"],
    }
    assert (await check_host(look_up_in(zone), V6, "d.example", "me@d.example")).result == "pass"


@pytest.mark.parametrize(
    ("macro", "name"),
    [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l-}", "strong.bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{h}", "helo.example"),
        ("%{p}", "unknown"),
        ("%{S}", "strong-bad%40email.example.com"),
        ("%%%_%-", "% %20"),
    ],
)
async def test_macros_expand_as_in_the_examples_of_the_rfc(macro: str, name: str) -> None:
    asked: list[tuple[str, str]] = []
    zone = {("email.example.com", "TXT"): [f"v=spf1 exists:{macro}.x.example -all"]}
    look_up = look_up_in(zone, asked=asked)
    sender = "strong-bad@email.example.com"
    await check_host(look_up, "192.0.2.3", "email.example.com", sender, "helo.example")
    assert asked[-1] == (f"{name}.x.example", "A")


@pytest.mark.parametrize(
    ("spec", "sender", "name"),
    [
        (f"%{{d{'0' * 5000}1}}.x.example", "me@d.example", "example.x.example"),
        ("%{S}.x.example", "\udcff@d.example", "%FF%40d.example.x.example"),
        ("%{i}." * 12000 + "x.example", "me@d.example", "2.1." + "192.0.2.1." * 24 + "x.example"),
        ("a" * 254 + ".example", "me@d.example", "example"),
        (f"x.{'a' * 253}.example"[:255] + "%{o}", "me@d.example", "example"),
    ],
)
async def test_a_hostile_macro_is_expanded_without_an_error(spec: str, sender: str, name: str) -> None:
    asked: list[tuple[str, str]] = []
    zone = {("d.example", "TXT"): [f"v=spf1 exists:{spec} -all"]}
    found = await check_host(look_up_in(zone, asked=asked), V4, "d.example", sender)
    assert found.result == "fail"
    assert asked[-1] == (name, "A")


async def test_the_eleventh_lookup_is_a_permanent_error() -> None:
    assert (await said(f"{' '.join(['a:mx.example'] * 9)} a")).lookups == 10
    assert (await said(f"{' '.join(['a:mx.example'] * 10)} a")).result == "permerror"
    assert (await said("ip4:192.0.2.1 a")).lookups == 0


async def test_no_record_causes_more_queries_than_the_limits_allow() -> None:
    asked: list[tuple[str, str]] = []
    names = [f"10 m{number}.example" for number in range(10)]
    zone = {("d.example", "TXT"): ["v=spf1 " + " ".join(["mx"] * 30)], ("d.example", "MX"): names}
    zone |= {(f"m{number}.example", "A"): ["198.51.100.1"] for number in range(10)}
    found = await check_host(look_up_in(zone, asked=asked), V4, "d.example", "me@d.example")
    assert found.result == "permerror"
    assert len(asked) == 1 + 10 * 11
