"""`mailrelay trust [HOST]`: shows the offered host key beside the known one, for each hop; accepts it after a yes.

HOST is the name of a relayhost in the settings, or a host as ssh(1) takes it; without it all relayhosts are shown.
Of each key it shows the SHA256 fingerprint and OpenSSH's picture, old and new, and whether the domain publishes it (SSHFP),
which counts only if DNSSEC validated it (`dns.resolver`).

After a yes on a terminal, or with `--yes`, the new key is written into the person's known_hosts, and mail that waited for it
is sent at once. `--yes` alone does not accept a key if validated records of the domain name another one.
Exit status: 0 if all keys are known or were accepted, 1 otherwise.
"""

import asyncio
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import click

from mailrelay.cli.base import Failed, become_account, load_settings, say
from mailrelay.cli.questions import confirm
from mailrelay.cli.terminal import colour, is_terminal, line_width, put
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Relayhost, Settings
from mailrelay.control.acts import dial_now
from mailrelay.dns import sshfp
from mailrelay.dns.lookup import LookUpFailed, is_address
from mailrelay.dns.resolver import Resolver
from mailrelay.grammar import SettingsError, destination
from mailrelay.mail.printable import printable
from mailrelay.ssh.host_key_scan import Offer, Unpinnable, art, fingerprint_of, pin, scan
from mailrelay.ssh.known_hosts import HostKeyStatus

_MEANING = {
    HostKeyStatus.UNKNOWN: "No key of this host is known yet. Ask its administrator for the fingerprint, and compare.",
    HostKeyStatus.CHANGED: "THE KEY HAS CHANGED. The server was installed again, or another machine answers in its place,"
    " as in networks of hotels and hotspots. Ask the server's administrator before you accept it.",
    HostKeyStatus.REVOKED: "THIS KEY IS REVOKED: a server that has it must not be trusted. It is not accepted.",
    HostKeyStatus.TOO_SHORT: "This key is too short to be trusted. It is not accepted.",
}
_PUBLISHED = {
    sshfp.Match.NONE: "publishes no key of this kind",
    sshfp.Match.SAME: "publishes this key, validated by DNSSEC",
    sshfp.Match.OTHER: "publishes ANOTHER key, validated by DNSSEC: this one is not the server's",
    sshfp.Match.UNSECURED: "publishes keys, but without validation by DNSSEC: they prove nothing",
}

PICTURES_WIDTH = 43
"""Columns that two pictures of keys need side by side."""


@click.command("trust")
@click.argument("host", required=False)
@click.option("--yes", is_flag=True, help="Accept the offered keys without a question.")
@click.option("--nameserver", metavar="ADDRESS[:PORT]", default="", help="Use this DNS server instead of the system's.")
def command(host: str | None, yes: bool, nameserver: str) -> int:
    """Show the host keys that servers offer beside the known ones, and accept new ones."""
    # The known hosts of the system's mailrelay are root's to write.
    settings = load_settings(stays_root=True)
    try:
        resolver = Resolver(nameserver)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--nameserver") from None
    chosen = _chosen(settings, host)
    trusted = [relayhost.name for relayhost in chosen if trust_hops(relayhost, resolver, yes=yes)]
    # A host that is not a relayhost may be a jump host of any of them.
    become_account()
    all_names = [relayhost.name for relayhost in settings.relayhosts]
    dial_now(settings.queue.directory, all_names if trusted == [""] else trusted)
    return 0 if len(trusted) == len(chosen) else 1


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


def trust_hops(relayhost: Relayhost, resolver: Resolver, *, yes: bool) -> bool:
    """Shows the host keys of a relayhost's hops, and asks for each that is not trusted. Whether all are trusted now."""
    accepted: list[str] = []
    shown = 0
    while True:
        with waiting_for(f"the host keys of {relayhost.ssh}"):
            found, fault = asyncio.run(scan(relayhost))
        for offer in found[shown:]:
            put(*_described(offer))
        if fault is not None:
            say(f"{fault.text} {fault.fix}".rstrip())
            return False
        shown, offer = len(found), found[-1]
        if offer.status is HostKeyStatus.TRUSTED:
            return True
        if offer.name in accepted:
            say(f"{offer.place} now offers yet another key than the accepted one; ask its administrator")
            return False
        if not _accept(offer, asyncio.run(_check_published(offer, resolver)), yes=yes):
            return False
        accepted.append(offer.name)


def _described(offer: Offer) -> Iterator[str]:
    label = "authority" if offer.is_authority else "offered"
    name = "" if offer.name == offer.place else f" ({printable(offer.name)})"
    status = colour(offer.status, "green" if offer.status is HostKeyStatus.TRUSTED else "red", sys.stdout)
    yield f"{printable(offer.place)}{name}: {status}"
    for entry in offer.known:
        yield f"  {entry.marker or 'known':9} {fingerprint_of(entry)}  {printable(str(entry.file))}:{entry.line}"
    yield f"  {label:9} {offer.fingerprint}"
    if offer.reason:
        yield f"  {'In' if offer.status is HostKeyStatus.REVOKED else 'It has'} {printable(offer.reason)}."
    if offer.certificate_fault:
        yield f"  Its host certificate {printable(offer.certificate_fault)}; so its own key counts."
    if offer.status is HostKeyStatus.TRUSTED:
        return
    old = next((art(entry.key) for entry in offer.known if not entry.marker), "")
    pictures = {"known": old.splitlines(), "offered": offer.art.splitlines()}
    if not old:
        yield from (f"  {line}" for line in pictures["offered"])
    elif 0 < line_width(sys.stdout) < PICTURES_WIDTH:
        for title, picture in pictures.items():
            yield from (f"  {line}" for line in (title, *picture))
    else:
        yield f"  {'known':22}offered"
        yield from (f"  {before}   {now}" for before, now in zip_longest(*pictures.values(), fillvalue=""))
    yield _MEANING[offer.status]


async def _check_published(offer: Offer, resolver: Resolver) -> sshfp.Match | None:
    """Asks the DNS whether the domain publishes the key, prints the result and returns it. None if the host is given as an
    address, or the DNS gives no answer."""
    if is_address(offer.host):
        return None
    algorithm, digests = offer.sshfp
    try:
        with waiting_for(f"the DNS: does {offer.host} publish its key"):
            match = await sshfp.compare(resolver.look_up, offer.host, algorithm, digests)
    except LookUpFailed as error:
        put(f"DNS: {printable(str(error))}")
        return None
    put(f"DNS: {printable(offer.host)} {_PUBLISHED[match]}.")
    return match


def _accept(offer: Offer, published: sshfp.Match | None, *, yes: bool) -> bool:
    """Asks, unless `yes` is enough, and writes the key into known_hosts. Whether the key is trusted now."""
    place = printable(offer.place)
    can_be_pinned = offer.status in (HostKeyStatus.UNKNOWN, HostKeyStatus.CHANGED) and not offer.is_authority
    if can_be_pinned and not (yes and published is not sshfp.Match.OTHER):
        if not is_terminal(sys.stdin):
            why = "its domain publishes another one" if yes else "compare the fingerprint, then use --yes"
            say(f"the host key of {place} is not accepted; {why}")
            return False
        if not confirm("Trust this key from now on?", default=False):
            say(f"the host key of {place} is not accepted; its mail waits")
            return False
    try:
        pinned = pin(offer)
    except Unpinnable as error:
        say(str(error))
        return False
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}; the key was not written") from None
    undo = shlex.join(("ssh-keygen", "-R", offer.name, "-f", str(pinned.file)))
    way_back = f"The file as it was: {pinned.old}." if pinned.old else f"Undo: {undo}"
    put(printable(f"Written to {pinned.file}. {way_back}"))
    for where in pinned.stale:
        say(f"{where} still has another key for {place}; remove it by hand if it is no longer right")
    return True
