"""`mailrelay check`: everything that mail needs on its way, looked at as the service sees it; one line per check.

    ✓ it holds     ✗ it does not, and the line below says what fixes it     – it was not asked, or cannot be known here

`--json` prints JSON Lines, one finding a line, with the keys check, about (a relayhost, a domain or an address; "" for this
machine), ok (true, false or null), text and fix. Exit status: 0 if no check has failed, 1 otherwise, 78 for wrong settings.
"""

import asyncio
import contextlib
import ipaddress
import json
import locale
import sys
from collections.abc import Sequence

import click

from mailrelay.check import environment
from mailrelay.check.examination import Questions, examine
from mailrelay.check.finding import Finding
from mailrelay.cli import load_settings
from mailrelay.cli.terminal import colour
from mailrelay.config import Settings
from mailrelay.dns.resolver import Resolver
from mailrelay.mail.printable import printable
from mailrelay.spool import lock

TEXT = 1000
"""Characters of a finding: what a domain publishes may have sixty thousand."""

_SIGNS = {True: ("✓", "ok", "green"), False: ("✗", "NO", "red"), None: ("–", "--", "yellow")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, for programs.")
@click.option("--offline", is_flag=True, help="Ask nobody but this machine.")
@click.option("--address", "addresses", metavar="ADDRESS", multiple=True, help="The server's public address.")
@click.option("--blacklists", is_flag=True, help="Ask well-known blacklists for it, too.")
@click.option("--nameserver", metavar="ADDRESS[:PORT]", default="", help="Ask this DNS server, not the system's.")
def command(as_json: bool, offline: bool, addresses: Sequence[str], blacklists: bool, nameserver: str) -> int:
    """Look at everything that mail needs on its way. Each ✗ comes with the step that fixes it."""
    context = click.get_current_context()
    try:
        public = tuple(str(ipaddress.ip_address(address)) for address in addresses)
        resolver = Resolver(nameserver)
    except ValueError as error:
        raise click.UsageError(str(error), context) from None
    settings = load_settings()
    pid = lock.holder(settings.queue.directory)
    adopted = environment.adopt(pid)
    # The same words in the service's environment, where paths may stand for something else.
    settings = load_settings()
    questions = Questions(resolver.look_up, online=not offline, public=public, blacklists=blacklists)
    return asyncio.run(_tell(settings, pid, adopted, questions, as_json=as_json))


async def _tell(settings: Settings, pid: str | None, adopted: Finding, questions: Questions, *, as_json: bool) -> int:
    failed = 0
    plain = not _can_show("✓✗–")

    def tell(finding: Finding) -> None:
        nonlocal failed
        failed += finding.ok is False
        print(_line(finding) if as_json else _shown(finding, plain=plain), flush=True)

    tell(Finding("settings", True, "can be read, and nobody else can write them"))
    tell(adopted)
    async with contextlib.aclosing(examine(settings, pid, questions)) as findings:
        async for finding in findings:
            tell(finding)
    return 1 if failed else 0


def _line(finding: Finding) -> str:
    return json.dumps(
        {
            "check": finding.check,
            "about": printable(finding.about),
            "ok": finding.ok,
            "text": printable(finding.text, TEXT),
            "fix": printable(finding.fix),
        }
    )


def _shown(finding: Finding, *, plain: bool) -> str:
    sign, word, name = _SIGNS[finding.ok]
    about = f"{printable(finding.about)} " if finding.about else ""
    line = (
        f"{colour(word if plain else sign, name, sys.stdout)} {about}{finding.check}: {printable(finding.text, TEXT)}"
    )
    return f"{line}\n  {'->' if plain else '→'} {printable(finding.fix)}" if finding.fix else line


def _can_show(signs: str) -> bool:
    try:
        for encoding in (locale.getencoding(), sys.stdout.encoding if sys.stdout else "ascii"):
            signs.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
