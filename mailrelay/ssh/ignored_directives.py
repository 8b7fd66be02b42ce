"""Lists the directives of ssh_config that mailrelay does not follow, or follows in another way than ssh(1), for the person.

    for sentence in ignored(hops): ...      # hops: of `dial.read_hops`

Promises: pure. One sentence for each directive: the directive, the host for which it holds, what mailrelay does instead, and
how to get the same effect, if there is a way. Directives with their default value, and those that only concern interactive
sessions, are not listed.
"""

from collections.abc import Callable, Iterable

from mailrelay.ssh.hops import Hop
from mailrelay.ssh.ssh_config import Configuration


def _is_on(value: str) -> bool:
    return value not in ("no", "false", "off", "none", "")


def _is_lax(value: str) -> bool:
    return value in ("no", "off", "false", "accept-new")


def _is_off(value: str) -> bool:
    return value in ("no", "false")


_IGNORED: tuple[tuple[str, Callable[[str], bool], str], ...] = (
    (
        "StrictHostKeyChecking",
        _is_lax,
        "a host key must be known before mail is sent; `mailrelay trust` accepts one",
    ),
    ("NoHostAuthenticationForLocalhost", _is_on, "the host key of localhost is verified like any other"),
    ("KnownHostsCommand", _is_on, "it is not run; put the keys that it prints into known_hosts"),
    (
        "VerifyHostKeyDNS",
        _is_on,
        "the DNS is not used to accept a host key; `mailrelay trust` shows the SSHFP records beside the key",
    ),
    ("PubkeyAuthentication", _is_off, "mailrelay logs in only with a key, so no login is possible; remove the line"),
    ("PKCS11Provider", _is_on, "the keys of a token are used through an agent: ssh-add -s PROVIDER"),
    ("HostbasedAuthentication", _is_on, "mailrelay logs in only with a key"),
    (
        "ControlPath",
        _is_on,
        "connections of ssh(1) are not shared; mailrelay opens its own, for which a key must be enough",
    ),
    ("ProxyUseFdpass", _is_on, "not supported; let the ProxyCommand carry the octets itself, or use ProxyJump"),
    ("BindInterface", _is_on, "not supported; use BindAddress"),
    ("LocalCommand", _is_on, "it is not run"),
    ("Compression", _is_on, "mail is sent without compression"),
)


def ignored(hops: Iterable[Hop]) -> list[str]:
    """A sentence for each such directive, hop by hop."""
    return [sentence for hop in hops for sentence in _ignored(hop.place, hop.configuration)]


def _ignored(place: str, configuration: Configuration) -> list[str]:
    found = [
        f"{directive} {value} (for {place}): {instead}."
        for directive, applies, instead in _IGNORED
        for value in configuration.get(directive.lower(), ())[:1]
        if applies(value.lower())
        and not (directive == "LocalCommand" and _is_off(configuration["permitlocalcommand"][0]))
    ]
    preferred = configuration.get("preferredauthentications", ("publickey",))[0]
    if "publickey" not in preferred.split(","):
        found.append(f"PreferredAuthentications {preferred} (for {place}): mailrelay logs in only with a key.")
    return found
