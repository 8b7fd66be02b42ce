"""`mailrelay trust [HOST]`: the host key on offer beside the known one, for each host of the way; accepted when told to.

HOST is the name of a relayhost in the settings, or a host as ssh(1) takes it; without it all relayhosts are looked at.
What is shown of a key: its SHA256 fingerprint and OpenSSH's picture of it, old and new, and what the domain itself
publishes (SSHFP), which counts only if it was validated by DNSSEC (see `dns.resolver`).

A question on a terminal, or `--yes`, writes the new key into the person's known_hosts. But `--yes` alone does not take a
key of which the domain's validated records say that it is another. Then mail that has waited for it goes at once.
Exit status: 0 if all keys are the known ones, or were accepted, 1 otherwise.
"""

import asyncio
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import click

from mailrelay.cli import Failed, load_settings, say
from mailrelay.cli.change import changing
from mailrelay.cli.terminal import colour, is_terminal
from mailrelay.config import Relayhost, Settings
from mailrelay.dns import sshfp
from mailrelay.dns.lookup import LookUpFailed, is_address
from mailrelay.dns.resolver import Resolver
from mailrelay.grammar import SettingsError, destination
from mailrelay.mail.printable import printable
from mailrelay.spool import actions, trigger
from mailrelay.ssh.host_key_scan import Offer, Unpinnable, art, fingerprint_of, pin, scan
from mailrelay.ssh.known_hosts import HostKeyStatus

_SAID = {
    HostKeyStatus.UNKNOWN: "Nothing is known of this host yet. Compare the fingerprint with what whoever runs it"
    " tells you.",
    HostKeyStatus.CHANGED: "THE KEY HAS CHANGED. The server was set up anew, or somebody else answers in its place, as"
    " networks of hotels and hotspots do. Ask whoever runs it before you accept.",
    HostKeyStatus.REVOKED: "THIS KEY IS REVOKED: whoever has it is not to be trusted. It is not accepted.",
}
_PUBLISHED = {
    sshfp.Match.NONE: "publishes no key of this kind",
    sshfp.Match.SAME: "publishes this very key, validated by DNSSEC",
    sshfp.Match.OTHER: "publishes ANOTHER key, validated by DNSSEC: this one is not the server's",
    sshfp.Match.UNSECURED: "publishes keys, but nobody has validated that with DNSSEC: it says nothing",
}


@click.command()
@click.argument("host", required=False)
@click.option("--yes", is_flag=True, help="Accept what is on offer without a question.")
@click.option("--nameserver", metavar="ADDRESS[:PORT]", default="", help="Ask this DNS server, not the system's.")
def command(host: str | None, yes: bool, nameserver: str) -> int:
    """Show the host keys on offer beside the known ones, and accept a new one."""
    settings = load_settings()
    try:
        resolver = Resolver(nameserver)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--nameserver") from None
    chosen = _chosen(settings, host)
    settled = [relayhost.name for relayhost in chosen if settle(relayhost, resolver, yes=yes)]
    # A host that is no relayhost may be one that relayhosts are reached through.
    everybody = [relayhost.name for relayhost in settings.relayhosts]
    _go_on(settings.queue.directory, everybody if settled == [""] else settled)
    return 0 if len(settled) == len(chosen) else 1


def _chosen(settings: Settings, host: str | None) -> Sequence[Relayhost]:
    if host is None:
        return settings.relayhosts
    named = [relayhost for relayhost in settings.relayhosts if host in (relayhost.name, relayhost.ssh)]
    if named:
        return named
    try:
        ssh = destination(host)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="HOST") from None
    return [Relayhost(name="", ssh=ssh, ssh_config=settings.relayhosts[0].ssh_config)]


def settle(relayhost: Relayhost, resolver: Resolver, *, yes: bool) -> bool:
    """Goes the way to a relayhost, as far as its hosts are trusted or become so. Returns whether that is all of it."""
    accepted: list[str] = []
    shown = 0
    while True:
        found, fault = asyncio.run(scan(relayhost))
        for offer in found[shown:]:
            print("\n".join(_account(offer)))
        if fault is not None:
            say(f"{fault.text} {fault.fix}".rstrip())
            return False
        shown, offer = len(found), found[-1]
        if offer.status is HostKeyStatus.TRUSTED:
            return True
        if offer.name in accepted:
            say(f"{offer.place} shows yet another key than the one that was accepted; ask whoever runs it")
            return False
        if not _accept(offer, asyncio.run(_published(offer, resolver)), yes=yes):
            return False
        accepted.append(offer.name)


def _account(offer: Offer) -> Iterator[str]:
    whose = "authority" if offer.is_authority else "offered"
    name = "" if offer.name == offer.place else f" ({printable(offer.name)})"
    status = colour(offer.status, "green" if offer.status is HostKeyStatus.TRUSTED else "red", sys.stdout)
    yield f"{printable(offer.place)}{name}: {status}"
    for entry in offer.known:
        yield f"  {entry.marker or 'known':10}{fingerprint_of(entry)}  {printable(str(entry.file))}:{entry.line}"
    yield f"  {whose:10}{offer.fingerprint}"
    if offer.status is HostKeyStatus.TRUSTED:
        return
    old = next((art(entry.key) for entry in offer.known if not entry.marker), "")
    if old:
        yield f"  {'known':22}offered"
    for before, now in zip_longest(old.splitlines(), offer.art.splitlines()):
        yield f"  {f'{before}   ' if before else ''}{now}"
    yield _SAID[offer.status]


async def _published(offer: Offer, resolver: Resolver) -> sshfp.Match | None:
    """What the domain says of the key, printed too. None where it could not be asked."""
    if is_address(offer.host):
        return None
    algorithm, digests = offer.sshfp
    try:
        word = await sshfp.compare(resolver.look_up, offer.host, algorithm, digests)
    except LookUpFailed as error:
        print(f"DNS: {printable(str(error))}")
        return None
    print(f"DNS: {printable(offer.host)} {_PUBLISHED[word]}.")
    return word


def _accept(offer: Offer, published: sshfp.Match | None, *, yes: bool) -> bool:
    """Asks, if it must, and writes. Returns whether the key is trusted from now on."""
    place = printable(offer.place)
    can_be_pinned = offer.status is not HostKeyStatus.REVOKED and not offer.is_authority
    if can_be_pinned and not (yes and published is not sshfp.Match.OTHER):
        if not is_terminal(sys.stdin):
            why = "its domain publishes another one" if yes else "say --yes once you have compared the fingerprint"
            say(f"the host key of {place} is not accepted; {why}")
            return False
        if not click.confirm("Trust this key from now on?", default=False):
            say(f"the host key of {place} is not accepted; its mail waits")
            return False
    try:
        pinned = pin(offer)
    except Unpinnable as error:
        say(str(error))
        return False
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}; the key is not written") from None
    undo = shlex.join(("ssh-keygen", "-R", offer.name, "-f", str(pinned.file)))
    before = f"The file as it was: {pinned.old}." if pinned.old else f"Undo: {undo}"
    print(printable(f"Written to {pinned.file}. {before}"))
    for where in pinned.stale:
        say(f"{where} still gives {place} another key; take it out by hand if it is no longer right")
    return True


def _go_on(directory: Path, relayhosts: Iterable[str]) -> None:
    """Lets mail that has waited for these relayhosts go now."""
    with suppress(FileNotFoundError), changing(directory) as db:
        for relayhost in relayhosts:
            actions.dial_now(db, relayhost, time.time())
    trigger.fire(directory)
