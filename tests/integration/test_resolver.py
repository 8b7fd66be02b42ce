"""Queries to a real name server on loopback: results, failures, and which results are secure."""

from pathlib import Path

import pytest
from harness.nameserver import Nameserver

from mailrelay.dns import resolver
from mailrelay.dns.lookup import LookUpFailed, Records
from mailrelay.dns.resolver import Resolver

ZONE = {
    ("example.org", "TXT"): ["v=spf1 -all", "caf\\233"],
    ("example.org", "MX"): ["10 mx.example.org.", "5 mx2.example.org."],
    ("null.example", "MX"): ["0 ."],
    ("example.org", "A"): ["192.0.2.1"],
    ("example.org", "SSHFP"): [f"4 2 {'ab' * 32}"],
}


async def asked(server: Nameserver, name: str, kind: str) -> Records:
    return await Resolver(server.address).look_up(name, kind)


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("example.org", "TXT", {"v=spf1 -all", "caf\u00e9"}),
        ("example.org", "MX", {"10 mx.example.org", "5 mx2.example.org"}),
        ("null.example", "MX", {"0 ."}),
        ("EXAMPLE.org.", "A", {"192.0.2.1"}),
        ("example.org", "SSHFP", {f"4 2 {'ab' * 32}"}),
        ("example.org", "AAAA", set()),
        ("nowhere.example", "A", set()),
        ("a..b", "A", set()),
        (f"{'x' * 64}.example", "A", set()),
    ],
)
async def test_records_are_text_and_a_missing_name_gives_an_empty_result(
    name: str, kind: str, values: set[str]
) -> None:
    with Nameserver(ZONE) as server:
        assert set((await asked(server, name, kind)).values) == values


async def test_a_server_that_fails_or_does_not_reply_differs_from_an_empty_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolver, "TIMEOUT", 0.3)
    with Nameserver(ZONE, broken=["broken.example"], silent=["silent.example"]) as server:
        with pytest.raises(LookUpFailed, match=r"no answer for A of broken\.example"):
            await asked(server, "broken.example", "A")
        with pytest.raises(LookUpFailed, match="did not answer"):
            await asked(server, "silent.example", "A")


async def test_a_result_is_cached() -> None:
    async def twice(server: Nameserver) -> None:
        ours = Resolver(server.address)
        assert await ours.look_up("example.org", "A") == await ours.look_up("example.org", "A")

    with Nameserver(ZONE) as server:
        await twice(server)
        assert server.asked == [("example.org", "A")]


@pytest.mark.parametrize("validated", [True, False])
async def test_a_result_is_secure_if_a_resolver_on_this_machine_validated_it(validated: bool) -> None:
    with Nameserver(ZONE, validated=validated) as server:
        assert (await asked(server, "example.org", "SSHFP")).secure is validated


@pytest.mark.parametrize(
    ("text", "trusted"),
    [
        ("nameserver 192.0.2.53\noptions edns0 trust-ad\n", True),
        ("nameserver 192.0.2.53\noptions edns0\n", False),
        ("nameserver 192.0.2.53\n# options trust-ad\n", False),
        ("nameserver 127.0.0.53\n", True),
        ("nameserver 127.0.0.53\nnameserver 192.0.2.53\n", False),
    ],
)
def test_the_ad_bit_of_a_remote_resolver_counts_only_with_trust_ad(
    text: str, trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    monkeypatch.setattr(resolver, "RESOLV_CONF", file)
    assert Resolver().is_trusted is trusted


async def test_without_a_resolver_every_query_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "RESOLV_CONF", tmp_path / "missing")
    with pytest.raises(LookUpFailed, match="names no DNS resolver"):
        await Resolver().look_up("example.org", "A")


@pytest.mark.parametrize("text", ["what", "192.0.2.1:0", "192.0.2.1:99999", "192.0.2.1:x", "[::1", "mail.example:53"])
def test_an_invalid_nameserver_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Resolver(text)


@pytest.mark.parametrize("text", ["::1", "[::1]:5353", "127.0.0.1", "127.0.0.1:5353"])
def test_a_nameserver_may_have_a_port(text: str) -> None:
    assert Resolver(text).is_trusted
