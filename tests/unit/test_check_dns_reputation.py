"""The DNS checks of `mailrelay check` end in time, and their findings are safe for a terminal."""

import asyncio
import json

import pytest

from mailrelay.check import dns_reputation
from mailrelay.check.finding import Finding
from mailrelay.cli import check
from mailrelay.dns.lookup import Records


async def test_a_slow_dns_ends_each_check_after_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_reputation, "CHECK_TIMEOUT", 0.02)

    async def look_up(name: str, kind: str) -> Records:
        await asyncio.Event().wait()
        return Records()

    found = await dns_reputation.addresses(look_up, ["192.0.2.1"], ["list.example"])
    found = found + await dns_reputation.domain(
        look_up, dns_reputation.Sender("d.example", "me@d.example", "d.example"), ["192.0.2.1"]
    )
    assert [finding.check for finding in found] == ["PTR", "blacklist", "MX", "SPF"]
    assert all(finding.ok is None and "slowly" in finding.text for finding in found)


def test_a_published_text_is_shortened_and_escaped_for_the_terminal() -> None:
    finding = Finding("SPF", False, "\x1b[2J" + "x" * 60_000, "fix it", "d.example")
    line = check.json_line(finding)
    shown = json.loads(line)["text"]
    assert json.loads(line) == {"check": "SPF", "about": "d.example", "ok": False, "text": shown, "fix": "fix it"}
    assert shown.startswith("\\x1b[2Jxxx")
    assert len(shown) < 1900
    text = check.text_lines(finding, plain=True)
    assert text.endswith(f" d.example SPF: {shown}\n  -> fix it")
    assert all(len(printed) < 2000 and "\x1b[2J" not in printed for printed in (line, text))
