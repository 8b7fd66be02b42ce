"""`mailrelay check`: checks everything that the delivery of mail needs, in the environment of the daemon. One line a check.

    ✓ it is fine     ✗ it failed, and the line below is the fix     – it was not checked, or cannot be known here

`--json` prints JSON Lines, one finding a line, with the keys check, about (a relayhost, a domain or an address; "" for this
computer), ok (true, false or null), text and fix. Exit status: 0 if no check failed, 1 otherwise, 78 the settings are wrong.
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
from mailrelay.check.examination import CheckOptions, examine
from mailrelay.check.finding import Finding
from mailrelay.cli.base import load_settings
from mailrelay.cli.terminal import colour, put
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Settings
from mailrelay.control.daemon import daemon_pid
from mailrelay.dns.resolver import Resolver
from mailrelay.mail.printable import printable

MAX_TEXT = 1000
"""Characters of a finding that are shown: a DNS record may have sixty thousand."""

_SIGNS = {True: ("✓", "ok", "green"), False: ("✗", "NO", "red"), None: ("–", "--", "yellow")}


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines, for programs.")
@click.option("--offline", is_flag=True, help="Check this computer only; use no network.")
@click.option(
    "--address", "addresses", metavar="ADDRESS", multiple=True, help="A public address of the server; may be repeated."
)
@click.option("--blacklists", is_flag=True, help="Look the address up in well-known blacklists too.")
@click.option("--nameserver", metavar="ADDRESS[:PORT]", default="", help="Use this DNS server instead of the system's.")
def command(as_json: bool, offline: bool, addresses: Sequence[str], blacklists: bool, nameserver: str) -> int:
    """Check everything that the delivery of mail needs. Each fault comes with its fix."""
    context = click.get_current_context()
    try:
        public = tuple(str(ipaddress.ip_address(address)) for address in addresses)
        resolver = Resolver(nameserver)
    except ValueError as error:
        raise click.UsageError(str(error), context) from None
    settings = load_settings()
    pid = daemon_pid(settings.queue.directory)
    adopted = environment.adopt(pid)
    # Again, in the environment of the daemon: paths with variables may differ.
    settings = load_settings()
    options = CheckOptions(resolver.look_up, online=not offline, public=public, blacklists=blacklists)
    return asyncio.run(_print_findings(settings, pid, adopted, options, as_json=as_json))


async def _print_findings(
    settings: Settings, pid: str | None, adopted: Finding, options: CheckOptions, *, as_json: bool
) -> int:
    failed = 0
    plain = not _can_show("✓✗–")

    def show(finding: Finding) -> None:
        nonlocal failed
        wait.pause()
        failed += finding.ok is False
        if as_json:
            print(json_line(finding), flush=True)
        else:
            put(*text_lines(finding, plain=plain).splitlines())

    with waiting_for("the checks of this computer", quiet=as_json) as wait:
        show(Finding("settings", True, "can be read, and others cannot write them"))
        show(adopted)
        async with contextlib.aclosing(examine(settings, pid, options, wait.goes_on)) as findings:
            async for finding in findings:
                show(finding)
    return 1 if failed else 0


def json_line(finding: Finding) -> str:
    """A finding as one line of JSON."""
    return json.dumps(
        {
            "check": finding.check,
            "about": printable(finding.about),
            "ok": finding.ok,
            "text": printable(finding.text, MAX_TEXT),
            "fix": printable(finding.fix),
        }
    )


def text_lines(finding: Finding, *, plain: bool) -> str:
    """A finding as text. plain: without characters that are not ASCII."""
    sign, word, colour_name = _SIGNS[finding.ok]
    about = f"{printable(finding.about)} " if finding.about else ""
    shown_sign = colour(word if plain else sign, colour_name, sys.stdout)
    line = f"{shown_sign} {about}{finding.check}: {printable(finding.text, MAX_TEXT)}"
    return f"{line}\n  {'->' if plain else '→'} {printable(finding.fix)}" if finding.fix else line


def _can_show(signs: str) -> bool:
    try:
        for encoding in (locale.getencoding(), sys.stdout.encoding if sys.stdout else "ascii"):
            signs.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
