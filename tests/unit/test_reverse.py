"""PTR records and blacklists for an address, and SSHFP records for a key."""

import pytest
from harness.zone import look_up_in

from mailrelay.dns import reverse, sshfp
from mailrelay.dns.lookup import is_address

V4, V6 = "192.0.2.1", "2001:db8::1"
ZONE = {
    ("1.2.0.192.in-addr.arpa", "PTR"): ["liar.example", "mail.example"],
    ("liar.example", "A"): ["198.51.100.1"],
    ("mail.example", "A"): [V4],
    (f"{'.'.join(reversed('20010db8000000000000000000000001'))}.ip6.arpa", "PTR"): ["mail.example"],
    ("mail.example", "AAAA"): ["2001:0db8::0001"],
    ("2.2.0.192.in-addr.arpa", "PTR"): ["liar.example"],
}


@pytest.mark.parametrize(
    ("address", "names", "confirmed"),
    [
        (V4, ("liar.example", "mail.example"), "mail.example"),
        (V6, ("mail.example",), "mail.example"),
        ("192.0.2.2", ("liar.example",), ""),
        ("192.0.2.3", (), ""),
    ],
)
async def test_a_name_is_confirmed_if_it_resolves_to_the_address(
    address: str, names: tuple[str, ...], confirmed: str
) -> None:
    assert await reverse.names(look_up_in(ZONE), address) == (names, confirmed)


@pytest.mark.parametrize(
    ("address", "answers", "listed"),
    [
        (V4, ["127.0.0.2"], True),
        (V4, [], False),
        (V4, ["127.255.255.254"], None),
        (V4, ["203.0.113.1"], False),
        (V6, ["127.0.0.4"], True),
    ],
)
async def test_a_blacklist_lists_an_address_or_refuses_the_resolver(
    address: str, answers: list[str], listed: bool | None
) -> None:
    name = "1.2.0.192" if address == V4 else ".".join(reversed("20010db8000000000000000000000001"))
    zone = {(f"{name}.list.example", "A"): answers}
    assert await reverse.is_listed(look_up_in(zone), address, "list.example") is listed


SHA1, SHA256 = b"\x01" * 20, b"\x02" * 32


@pytest.mark.parametrize(
    ("records", "secure", "word"),
    [
        ([], True, "none"),
        ([f"4 2 {SHA256.hex()}"], True, "same"),
        ([f"4 2 {SHA256.hex().upper()}"], True, "same"),
        ([f"4 2 {SHA256.hex()[:30]} {SHA256.hex()[30:]}"], True, "same"),
        ([f"4 2 {'ff' * 32}"], True, "other"),
        ([f"4 2 {'ff' * 32}", f"4 2 {SHA256.hex()}"], True, "same"),
        ([f"4 1 {SHA1.hex()}"], True, "same"),
        ([f"4 1 {SHA1.hex()}", f"4 2 {'ff' * 32}"], True, "other"),
        ([f"1 2 {SHA256.hex()}"], True, "none"),
        ([f"4 9 {SHA256.hex()}", "nonsense", "4 2 xyz"], True, "none"),
        (["4 2 abc"], True, "other"),
        ([f"4 2 {SHA256.hex()}"], False, "unsecured"),
        ([f"4 2 {'ff' * 32}"], False, "unsecured"),
    ],
)
async def test_sshfp_records_count_only_if_they_were_validated(records: list[str], secure: bool, word: str) -> None:
    look_up = look_up_in({("mail.example", "SSHFP"): records}, secure=secure)
    assert await sshfp.compare(look_up, "mail.example", 4, {1: SHA1, 2: SHA256}) == word


@pytest.mark.parametrize("host", [V4, V6, "::1", "fe80::1%eth0", "127.0.0.1"])
def test_an_address_is_not_looked_up_as_a_name(host: str) -> None:
    assert is_address(host)


@pytest.mark.parametrize(
    "host", ["mail.example", "", "192.0.2", "192.0.2.256", "[::1]", "1.2.0.192.in-addr.arpa", "%eth0"]
)
def test_a_name_is_no_address(host: str) -> None:
    assert not is_address(host)
