"""The directives of ssh_config that matter and that we do not follow, or follow otherwise than ssh(1): for people to know.

    for sentence in ignored(hops): ...      # hops: of route.hops, or transport.read_way

Promises: pure; one sentence each, which names the directive, the host for which it holds, what we do in its place and, where
there is one, the step that leads to the same end. What has its default value, and what only concerns sessions at a terminal,
is not named.
"""

from collections.abc import Callable, Iterable

from mailrelay.ssh.hops import Hop
from mailrelay.ssh.ssh_config import Configuration


def _on(value: str) -> bool:
    return value not in ("no", "false", "off", "none", "")


def _lax(value: str) -> bool:
    return value in ("no", "off", "false", "accept-new")


def _off(value: str) -> bool:
    return value in ("no", "false")


_OTHERWISE: tuple[tuple[str, Callable[[str], bool], str], ...] = (
    ("StrictHostKeyChecking", _lax, "a host key must be known before mail goes there; `mailrelay trust` accepts one"),
    ("NoHostAuthenticationForLocalhost", _on, "the host key of localhost is verified like any other"),
    ("RevokedHostKeys", _on, "the file is not read; put @revoked lines into known_hosts"),
    ("KnownHostsCommand", _on, "it is not run; put the keys that it tells into known_hosts"),
    ("VerifyHostKeyDNS", _on, "no login rests on the DNS; `mailrelay trust` shows the SSHFP records beside the key"),
    ("PubkeyAuthentication", _off, "nothing but a key is ever used to log in, so nobody is let in; take it out"),
    ("PKCS11Provider", _on, "the token's keys serve through an agent: ssh-add -s PROVIDER"),
    ("HostbasedAuthentication", _on, "only a key is used to log in"),
    (
        "ControlPath",
        _on,
        "connections of ssh(1) are not shared: mailrelay opens its own, which must need nothing but a key",
    ),
    ("ProxyUseFdpass", _on, "not possible here; let the ProxyCommand carry the octets itself, or use ProxyJump"),
    ("BindInterface", _on, "not possible here; BindAddress is"),
    ("LocalCommand", _on, "it is not run"),
    ("Compression", _on, "mail is sent as it is"),
)


def ignored(hops: Iterable[Hop]) -> list[str]:
    """A sentence for each such directive, hop by hop."""
    return [sentence for hop in hops for sentence in _ignored(hop.place, hop.configuration)]


def _ignored(place: str, configuration: Configuration) -> list[str]:
    found = [
        f"{directive} {value} (for {place}): {instead}."
        for directive, applies, instead in _OTHERWISE
        for value in configuration.get(directive.lower(), ())[:1]
        if applies(value.lower()) and not (directive == "LocalCommand" and _off(configuration["permitlocalcommand"][0]))
    ]
    preferred = configuration.get("preferredauthentications", ("publickey",))[0]
    if "publickey" not in preferred.split(","):
        found.append(f"PreferredAuthentications {preferred} (for {place}): only a key is used to log in.")
    return found
