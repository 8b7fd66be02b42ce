"""What `mailrelay check` asks the DNS comes to an end, and to a line that a terminal bears."""

import asyncio

import pytest

from mailrelay.check import dns_reputation
from mailrelay.check.finding import Finding
from mailrelay.cli import check
from mailrelay.dns.lookup import Records


async def test_a_dns_that_is_slow_enough_each_time_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_reputation, "CHECK_TIMEOUT", 0.02)

    async def look_up(name: str, kind: str) -> Records:
        await asyncio.sleep(3600)
        return Records()

    found = await dns_reputation.addresses(look_up, ["192.0.2.1"], ["list.example"])
    found = found + await dns_reputation.domain(
        look_up, dns_reputation.Sender("d.example", "me@d.example", "d.example"), ["192.0.2.1"]
    )
    assert [finding.check for finding in found] == ["PTR", "blacklist", "MX", "SPF"]
    assert all(finding.ok is None and "slowly" in finding.text for finding in found)


def test_what_a_domain_publishes_fills_no_screen_and_says_nothing_to_a_terminal() -> None:
    finding = Finding("SPF", False, "\x1b[2J" + "x" * 60_000, "fix it", "d.example")
    for line in (check._line(finding), check._shown(finding, plain=False)):
        assert len(line) < 2000
        assert "\x1b[2J" not in line
