"""The hops to a relayhost: its jump hosts and the relayhost itself, with keys and known hosts, from the person's own files.

Promises: the same result as ssh(1) with the same files, because ssh(1) itself evaluates ssh_config: Host aliases, ProxyJump
over several hops, ProxyCommand, IdentityFile, CertificateFile, IdentityAgent, IdentitiesOnly, UserKnownHostsFile. A key with
a passphrase is used only through the agent; a key file that other users can read is not used. Every hop has its own known
hosts, so that no hop is trusted because of another one.
Never: a connection. These functions block: they read files and run ssh(1). So they must be called on a thread.
"""

import dataclasses
import getpass
import os
import re
import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs
from asyncssh.public_key import (
    get_certificate_algs,
    get_default_certificate_algs,
    get_default_public_key_algs,
    get_public_key_algs,
)

from mailrelay.config import Relayhost
from mailrelay.ssh import identities, known_hosts, revoked_keys
from mailrelay.ssh.identities import Identity
from mailrelay.ssh.revoked_keys import RevokedKeys
from mailrelay.ssh.ssh_config import Configuration, arguments, read

CONNECT_TIMEOUT = 30.0
"""Seconds to open a TCP connection if ssh_config has no ConnectTimeout."""
KEEPALIVE_INTERVAL = 15
"""Seconds without data from the server after which it gets a keepalive request."""
KEEPALIVE_COUNT = 3
"""Requests in a row without a reply after which the connection ends: after 45 seconds."""
MAX_HOPS = 8
"""Hops that may be reached through one another."""

_HOST_PORT = re.compile(r"(?P<host>[^\s:/@\[\]-][^\s:/@\[\]]*)(?::(?P<port>\d{1,5}))?")
_V6_PORT = re.compile(
    r"\[(?P<host>[^\s\[\]-][^\s\[\]]*)\](?::(?P<port>\d{1,5}))?|(?P<bare>[0-9A-Fa-f]*:[0-9A-Fa-f]*:[^\s/@\[\]]*)"
)
_SPECIAL = re.compile(r"""['"`$\\;&<>|(){}*?!,#]""")
"""Characters with a meaning for the shell of a ProxyCommand, or in patterns of known_hosts. No host name has them."""
_AGENTS = ("gcr/ssh", "keyring/ssh", "ssh-agent.socket", "openssh_agent")
"""The usual socket files of SSH agents, below XDG_RUNTIME_DIR."""
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_YES, _NO = ("yes", "true"), ("no", "false")


@dataclass(frozen=True, slots=True)
class Hop:
    """An SSH host on the path to the relayhost. place: its name in messages. login_command: the ssh(1) command line with
    which the person can log in to it.

    configuration: all ssh_config directives for the host. proxy: the ProxyCommand, for a shell; "" for none. known: the
    entries of known_hosts about it. known_hosts_file: the first UserKnownHostsFile, to which a key may be added; None if
    there is none. policy: what ssh_config wants of every host key. connect_timeout: seconds to open the TCP connection.
    agent: path of the agent's socket, "" for none. silent_agents: paths of agents that did not answer; the hops of one dial
    share it. is_agent_excluded: ssh_config has IdentityAgent none. certificates: those of CertificateFile, each with its
    file. identities_only: of the agent's keys, use only those of `identities`. key_algorithms: PubkeyAcceptedAlgorithms,
    None for any.
    """

    place: str
    login_command: str
    host: str
    port: int
    user: str
    configuration: Configuration
    proxy: str
    options: asyncssh.SSHClientConnectionOptions
    known: known_hosts.KnownHost
    known_hosts_file: Path | None
    policy: known_hosts.Policy
    connect_timeout: float
    agent: str
    silent_agents: set[str]
    identities: tuple[Identity, ...]
    certificates: tuple[tuple[Path, asyncssh.SSHCertificate], ...]
    identities_only: bool
    is_agent_excluded: bool
    key_algorithms: frozenset[str] | None


def hops_of(relayhost: Relayhost) -> list[Hop]:
    """The jump hosts in order, and the relayhost itself last.

    Raises OSError for an ssh_config that cannot be read, TimeoutError if its evaluation hangs, and ValueError for one that
    is wrong, with file and line if they are known.
    """
    silent_agents: set[str] = set()
    found = _hops(relayhost.ssh, relayhost.ssh_config, ())
    return [dataclasses.replace(hop, silent_agents=silent_agents) for hop in found]


def parse_destination(spec: str) -> tuple[str, str, int | None]:
    """User ("" if none is given), host and port of `[user@]host[:port]` or `ssh://…`. Raises ValueError."""
    user, _, place = spec.removeprefix("ssh://").removesuffix("/").rpartition("@")
    found = _HOST_PORT.fullmatch(place) or _V6_PORT.fullmatch(place)
    port = int(found["port"]) if found and found["port"] else None
    host = (found["host"] or found["bare"]) if found else ""
    # A text that begins with a dash could be taken for an option, of ssh(1) or of a ProxyCommand.
    if not host or port == 0 or (port or 0) > 65535 or user.startswith("-") or _SPECIAL.search(host):
        raise ValueError(f"{spec!r} is not [user@]host[:port]")
    return user, host, port


def _hops(spec: str, file: Path, reached_through_it: tuple[str, ...]) -> Iterator[Hop]:
    """The hops to `spec`. reached_through_it: the hosts that are reached through it, the relayhost first, to detect a
    circle."""
    if spec in reached_through_it:
        raise ValueError(f"ProxyJump goes in a circle: {' through '.join((*reached_through_it, spec))}")
    if len(reached_through_it) > MAX_HOPS:
        raise ValueError(f"ProxyJump leads through too many hosts: {' through '.join((*reached_through_it, spec))}")
    configuration = read(file, *parse_destination(spec))
    jumps = [jump.strip() for jump in _value(configuration, "proxyjump").split(",") if jump.strip()]
    if jumps:
        # As in ssh(1), the ProxyJump of the first jump host counts; the others are reached through the one before them.
        yield from _hops(jumps[0], file, (*reached_through_it, spec))
        for jump in jumps[1:]:
            yield _hop(jump, file, read(file, *parse_destination(jump)))
    yield _hop(spec, file, configuration)


def _hop(spec: str, file: Path, configuration: Configuration) -> Hop:
    _, given_host, _ = parse_destination(spec)
    host, port = _value(configuration, "hostname").strip("[]"), int(_value(configuration, "port"))
    user, alias = _value(configuration, "user"), _value(configuration, "hostkeyalias")
    own_host = socket.gethostname()
    # ssh_config(5), TOKENS.
    tokens = {
        "%": "%",
        "d": str(Path.home()),
        "h": host,
        "i": str(os.getuid()),
        "j": _value(configuration, "proxyjump"),
        "k": alias or given_host,
        "L": own_host.partition(".")[0],
        "l": own_host,
        "n": given_host,
        "p": str(port),
        "r": user,
        "u": getpass.getuser(),
    }
    own_files = _known_hosts_files(
        configuration, "userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2", tokens
    )
    global_files = _known_hosts_files(
        configuration, "globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2", tokens
    )
    known = known_hosts.look_up(known_hosts.read([*own_files, *global_files]), host, port, alias)
    proxy = _value(configuration, "proxycommand")
    certificate_files = _certificate_files(configuration, tokens)
    return Hop(
        place=spec,
        login_command=_login_command(spec, file),
        host=host,
        port=port,
        user=user,
        configuration=configuration,
        options=_options(configuration, host, port, user, known, alias),
        proxy=_expanded(proxy, tokens) if proxy else "",
        known=known,
        known_hosts_file=next(iter(own_files), None),
        policy=known_hosts.Policy(
            ca_signatures=_names(configuration, "casignaturealgorithms"),
            revoked=_revoked(configuration, tokens),
            rsa_size=_number(configuration, "requiredrsasize"),
        ),
        connect_timeout=float(_number(configuration, "connecttimeout") or CONNECT_TIMEOUT),
        agent=_agent(configuration.get("identityagent", ("SSH_AUTH_SOCK",))[0], tokens),
        silent_agents=set(),
        identities=tuple(identities.read(_identity_files(configuration, tokens), certificate_files)),
        certificates=tuple(identities.certificates(certificate_files)),
        identities_only=_value(configuration, "identitiesonly") in _YES,
        is_agent_excluded=configuration.get("identityagent", ("",))[0] == "none",
        key_algorithms=_key_algorithms(configuration),
    )


def _login_command(spec: str, file: Path) -> str:
    """The ssh(1) command line with which the person can log in. spec: as in the settings or in ProxyJump."""
    user, host, port = parse_destination(spec)
    port_option = ("-p", str(port)) if port else ()
    return shlex.join(("ssh", *arguments(file), *port_option, f"{user}@{host}" if user else host))


def _options(
    configuration: Configuration, host: str, port: int, user: str, known: known_hosts.KnownHost, alias: str
) -> asyncssh.SSHClientConnectionOptions:
    """The options for asyncssh. Options that could prompt, forward or weaken the login are set here and do not depend on
    ssh_config."""
    wanted = _common_algorithms(configuration, "hostkeyalgorithms", get_certificate_algs() + get_public_key_algs())
    bind = _value(configuration, "bindaddress")
    return asyncssh.SSHClientConnectionOptions(
        config=None,
        host=host,
        port=port,
        username=user,
        family=_FAMILIES.get(_value(configuration, "addressfamily"), socket.AF_UNSPEC),
        local_addr=(bind, 0) if bind else None,
        tcp_keepalive=_value(configuration, "tcpkeepalive") not in _NO,
        host_key_alias=alias or None,
        kex_algs=_common_algorithms(configuration, "kexalgorithms", get_kex_algs()) or (),
        encryption_algs=_common_algorithms(configuration, "ciphers", get_encryption_algs()) or (),
        mac_algs=_common_algorithms(configuration, "macs", get_mac_algs()) or (),
        public_key_auth=_value(configuration, "pubkeyauthentication") not in _NO,
        # asyncssh trusts no key by itself: `HopClient` judges each offered key.
        known_hosts=([], [], [], [], [], [], []),
        server_host_key_algs=known_hosts.algorithms(known, wanted or _host_key_algorithms()),
        # The person may choose a shorter interval. With a longer one, a dead connection would be noticed too late.
        keepalive_interval=min(_number(configuration, "serveraliveinterval") or KEEPALIVE_INTERVAL, KEEPALIVE_INTERVAL),
        # asyncssh waits for one more interval than ssh(1).
        keepalive_count_max=max(
            min(_number(configuration, "serveralivecountmax") or KEEPALIVE_COUNT, KEEPALIVE_COUNT) - 1, 1
        ),
        proxy_command=None,
        tunnel=None,
        client_keys=None,
        x509_trusted_certs=None,
        signature_algs=_signature_algorithms(configuration),
        # Only a key is ever sent. The others are here to learn whether the server wants them.
        preferred_auth=["publickey", "hostbased", "gssapi-with-mic", "keyboard-interactive", "password"],
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        client_host_keysign=None,
        gss_host=None,
        gss_kex=False,
        gss_auth=False,
        canonicalize_hostname=False,
        compression_algs=None,
        agent_forwarding=False,
        x11_forwarding=False,
        utf8_decode_errors="replace",
        connect_timeout=None,
        login_timeout=0,
        env=None,
        send_env=None,
        command=None,
        request_pty=False,
    )


def _host_key_algorithms() -> list[str]:
    """The algorithms to ask for if ssh_config names none: those of asyncssh in the order of ssh(1), so that an unknown host
    offers the same key to both."""
    plain = sorted((name.decode("ascii") for name in get_default_public_key_algs()), key=_rank)
    return [*(name.decode("ascii") for name in get_default_certificate_algs()), *plain]


def _rank(algorithm: str) -> int:
    """The place of a host key algorithm in the order of ssh(1), from 0."""
    return next((rank for rank, name in enumerate(("ssh-ed25519", "ecdsa-", "sk-")) if algorithm.startswith(name)), 3)


def _common_algorithms(configuration: Configuration, keyword: str, ours: list[bytes]) -> list[str]:
    """The algorithms of ssh_config, in its order, that asyncssh also has; [] if it names none. Raises ValueError."""
    named = _value(configuration, keyword)
    common = [name for name in named.split(",") if name.encode() in ours]
    if named and not common:
        raise ValueError(
            f"{keyword} names no algorithm that mailrelay has: {named}; add one of {b','.join(ours).decode()}"
        )
    return common


def _signature_algorithms(configuration: Configuration) -> list[str]:
    """The algorithms with which a key may sign: those of PubkeyAcceptedAlgorithms that asyncssh has."""
    ours = [name.decode("ascii") for name in get_public_key_algs()]
    accepted = _key_algorithms(configuration)
    if accepted is None:
        return [name for name in ours if name != "ssh-rsa"]
    certified = {name.replace("-cert-v01@openssh.com", "") for name in accepted}
    # An empty list would mean the defaults of asyncssh. `HopClient` offers no key then.
    return [name for name in ours if name in accepted or name.removesuffix("@openssh.com") in certified] or ours


def _key_algorithms(configuration: Configuration) -> frozenset[str] | None:
    """PubkeyAcceptedAlgorithms, which has another name before OpenSSH 8.5; None if ssh_config has no such list."""
    return _names(configuration, "pubkeyacceptedalgorithms") or _names(configuration, "pubkeyacceptedkeytypes")


def _names(configuration: Configuration, keyword: str) -> frozenset[str] | None:
    """The names in a list of algorithms; None if ssh_config, as far as it could be read, has no such list."""
    named = _value(configuration, keyword)
    return frozenset(named.split(",")) if named else None


def _value(configuration: Configuration, keyword: str) -> str:
    """The value of a keyword with a single value; "" if it is missing or `none`."""
    value = configuration.get(keyword, ("",))[0]
    return "" if value.lower() == "none" and keyword != "user" else value


def _number(configuration: Configuration, keyword: str) -> int:
    """The value of a keyword as a number; 0 if it is missing or not a number."""
    value = _value(configuration, keyword)
    return int(value) if value.isdecimal() else 0


def _expanded(value: str, tokens: Mapping[str, str]) -> str:
    """`value` with its %-tokens replaced; unknown tokens stay."""
    return re.sub("%(.)", lambda found: tokens.get(found[1], found[0]), value)


def _path(value: str, tokens: Mapping[str, str]) -> Path:
    """The path in a value of ssh_config, with tokens and variables replaced: ssh_config(5), TOKENS and ENVIRONMENT
    VARIABLES."""
    text = re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), value)
    return Path(_expanded(text, tokens)).expanduser()


def _known_hosts_files(
    configuration: Configuration, keyword: str, default: str, tokens: Mapping[str, str]
) -> list[Path]:
    """The known_hosts files that a keyword names. `ssh -G` prints the list without quotes, and a name may contain blanks, so
    only a blank before the start of a path separates two names. `none` is an empty list: then no host is known."""
    names = re.split(r" (?=[/~%$])", configuration.get(keyword, (default,))[0])
    return [_path(name, tokens) for name in names if name and name.lower() != "none"]


def _agent(value: str, tokens: Mapping[str, str]) -> str:
    """The path of the agent's socket, "" for none. value: that of IdentityAgent, a path, a variable or `none`."""
    if value == "none":
        return ""
    if value not in ("SSH_AUTH_SOCK", "$SSH_AUTH_SOCK"):
        return os.environ.get(value[1:], "") if value.startswith("$") else str(_path(value, tokens))
    socket_file = os.environ.get("SSH_AUTH_SOCK", "")
    if Path(socket_file).is_socket():
        return socket_file
    # A service keeps the environment that it was started with; agents are often started later.
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"))
    return next((str(runtime / name) for name in _AGENTS if (runtime / name).is_socket()), socket_file)


def _identity_files(configuration: Configuration, tokens: Mapping[str, str]) -> list[Path]:
    names = configuration.get("identityfile", tuple(f"~/.ssh/{name}" for name in identities.USUAL))
    return [_path(name, tokens) for name in names if name.lower() != "none"]


def _certificate_files(configuration: Configuration, tokens: Mapping[str, str]) -> list[Path]:
    names = configuration.get("certificatefile", ())
    return [_path(name, tokens) for name in names if name.lower() != "none"]


def _revoked(configuration: Configuration, tokens: Mapping[str, str]) -> RevokedKeys | None:
    """The keys of RevokedHostKeys; None if ssh_config names no such file."""
    name = _value(configuration, "revokedhostkeys")
    return revoked_keys.read(_path(name, tokens)) if name else None
