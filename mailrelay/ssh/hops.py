"""The way to a relayhost: the person's own ssh_config, keys and known hosts, read anew for every dial, as a list of hops.

Promises: what ssh(1) would do with the same files (`configuration` has it from ssh(1) itself): Host aliases, ProxyJump over
several hops, ProxyCommand, IdentityFile, CertificateFile, IdentityAgent, IdentitiesOnly, UserKnownHostsFile. Where ssh(1)
would ask for a passphrase, the key is left to the agent; a key that others can read is left alone.
Every hop carries its own known hosts, so that none is ever believed on another's word.
Never: a connection; it reads files and the environment, blocks while it does, and so belongs on a thread.
"""

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
from mailrelay.ssh import known_hosts
from mailrelay.ssh.ssh_config import Configuration, arguments, read

CONNECT = 30.0
"""Seconds for a TCP connection, where ssh_config has no ConnectTimeout."""
KEEPALIVE = 15
"""Seconds of silence after which the remote is asked whether it is there."""
KEEPALIVES = 3
"""After how many of these silences, one after the other, it is not: 45 seconds."""
MAX_HOPS = 8

_HOST_PORT = re.compile(r"(?P<host>[^\s:/@\[\]-][^\s:/@\[\]]*)(?::(?P<port>\d{1,5}))?")
_V6_PORT = re.compile(
    r"\[(?P<host>[^\s\[\]-][^\s\[\]]*)\](?::(?P<port>\d{1,5}))?|(?P<bare>[0-9A-Fa-f]*:[0-9A-Fa-f]*:[^\s/@\[\]]*)"
)
_MEANS_MORE = re.compile(r"""['"`$\\;&<>|(){}*?!,#]""")
"""What a ProxyCommand's shell acts on, and what stands for other hosts in known_hosts. No host has it in its name."""
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
_AGENTS = ("gcr/ssh", "keyring/ssh", "ssh-agent.socket", "openssh_agent")
"""Where desktops put the agent's socket, below XDG_RUNTIME_DIR."""
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_YES, _NO = ("yes", "true"), ("no", "false")


@dataclass(frozen=True, slots=True)
class Identity:
    """A key file: what can be signed with it here, and the public keys by which an agent may know it, with the certificates
    for them. note: why the file cannot be used here, or ""; fix: the step that makes it usable."""

    file: Path
    pairs: tuple[asyncssh.SSHKeyPair, ...]
    public: frozenset[bytes]
    certificates: tuple[asyncssh.SSHCertificate, ...] = ()
    note: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """One SSH connection of the way. place: how messages call it. by_hand: the ssh(1) command that goes there.

    connect: seconds for the TCP connection. agent: path of the agent's socket, "" for none. identities_only: ask the agent
    only for the keys of `identities`. known_hosts: the first UserKnownHostsFile, to which a key may be added; None where
    ssh_config names none. proxy: the ProxyCommand, for a shell; "" where there is none. configuration: all that ssh_config
    says of the host.
    """

    place: str
    by_hand: str
    host: str
    port: int
    user: str
    configuration: Configuration
    proxy: str
    options: asyncssh.SSHClientConnectionOptions
    known: known_hosts.Known
    known_hosts: Path | None
    connect: float
    agent: str
    identities: tuple[Identity, ...]
    identities_only: bool


def hops(relayhost: Relayhost) -> list[Hop]:
    """The way there, jump hosts first, the relayhost itself last. Raises OSError for an ssh_config that cannot be read,
    TimeoutError for one that hangs, and ValueError, with a sentence that names file and line where they are known, for what
    cannot be understood."""
    return list(_way(relayhost.ssh, relayhost.ssh_config, ()))


def destination(spec: str) -> tuple[str, str, int | None]:
    """User ("" where none is named), host and port of `[user@]host[:port]` or `ssh://…`. Raises ValueError."""
    user, _, place = spec.removeprefix("ssh://").removesuffix("/").rpartition("@")
    found = _HOST_PORT.fullmatch(place) or _V6_PORT.fullmatch(place)
    port = int(found["port"]) if found and found["port"] else None
    host = (found["host"] or found["bare"]) if found else ""
    # What begins with a dash could become an option, of ssh(1) or of a ProxyCommand.
    if not host or port == 0 or (port or 0) > 65535 or user.startswith("-") or _MEANS_MORE.search(host):
        raise ValueError(f"{spec!r} is not [user@]host[:port]")
    return user, host, port


def _way(spec: str, file: Path, through: tuple[str, ...]) -> Iterator[Hop]:
    """The hops to `spec`. through: the hosts on whose behalf we ask, so that a circle is seen."""
    if spec in through or len(through) > MAX_HOPS:
        raise ValueError(f"ProxyJump goes in a circle: {' through '.join((*through, spec))}")
    configuration = read(file, *destination(spec))
    jumps = [jump.strip() for jump in _one(configuration, "proxyjump").split(",") if jump.strip()]
    if jumps:
        # Like ssh(1): only the first jump is reached by its own ProxyJump, the others through the one before them.
        yield from _way(jumps[0], file, (*through, spec))
        for jump in jumps[1:]:
            yield _hop(jump, file, read(file, *destination(jump)))
    yield _hop(spec, file, configuration)


def _hop(spec: str, file: Path, configuration: Configuration) -> Hop:
    user, named, port = destination(spec)
    host, number = _one(configuration, "hostname").strip("[]"), int(_one(configuration, "port"))
    login, alias = _one(configuration, "user"), _one(configuration, "hostkeyalias")
    machine = socket.gethostname()
    tokens = {
        "%": "%",
        "d": str(Path.home()),
        "h": host,
        "i": str(os.getuid()),
        "j": _one(configuration, "proxyjump"),
        "k": alias or named,
        "L": machine.partition(".")[0],
        "l": machine,
        "n": named,
        "p": str(number),
        "r": login,
        "u": getpass.getuser(),
    }
    mine = _known_hosts(configuration, "userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2", tokens)
    everybody = _known_hosts(
        configuration, "globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2", tokens
    )
    known = known_hosts.known(known_hosts.read([*mine, *everybody]), host, number, alias)
    proxy = _one(configuration, "proxycommand")
    return Hop(
        place=spec,
        by_hand=shlex.join(
            ("ssh", *arguments(file), *(("-p", str(port)) if port else ()), f"{user}@{named}" if user else named)
        ),
        host=host,
        port=number,
        user=login,
        configuration=configuration,
        options=_options(configuration, host, number, login, known, alias),
        proxy=_expanded(proxy, tokens) if proxy else "",
        known=known,
        known_hosts=next(iter(mine), None),
        connect=float(_number(configuration, "connecttimeout") or CONNECT),
        agent=_agent(configuration.get("identityagent", ("SSH_AUTH_SOCK",))[0], tokens),
        identities=tuple(_identities(configuration, tokens)),
        identities_only=_one(configuration, "identitiesonly") in _YES,
    )


def _options(
    configuration: Configuration, host: str, port: int, user: str, known: known_hosts.Known, alias: str
) -> asyncssh.SSHClientConnectionOptions:
    """What the library is told; all that could ask, forward or weaken is set here, whatever ssh_config says."""
    wanted = _common(configuration, "hostkeyalgorithms", get_certificate_algs() + get_public_key_algs())
    bind = _one(configuration, "bindaddress")
    return asyncssh.SSHClientConnectionOptions(
        config=None,
        host=host,
        port=port,
        username=user,
        family=_FAMILIES.get(_one(configuration, "addressfamily"), socket.AF_UNSPEC),
        local_addr=(bind, 0) if bind else None,
        tcp_keepalive=_one(configuration, "tcpkeepalive") not in _NO,
        host_key_alias=alias or None,
        kex_algs=_common(configuration, "kexalgorithms", get_kex_algs()) or (),
        encryption_algs=_common(configuration, "ciphers", get_encryption_algs()) or (),
        mac_algs=_common(configuration, "macs", get_mac_algs()) or (),
        public_key_auth=_one(configuration, "pubkeyauthentication") not in _NO,
        # No key is trusted by the library: each one on offer comes to us to be judged.
        known_hosts=([], [], known.keys("revoked"), [], [], [], []),
        server_host_key_algs=known_hosts.algorithms(known, wanted or _host_key_algorithms()),
        # Shorter than ours is the person's choice; longer, or never, would let a dead connection pass for a slow one.
        keepalive_interval=min(_number(configuration, "serveraliveinterval") or KEEPALIVE, KEEPALIVE),
        # The library waits once more than ssh(1) does.
        keepalive_count_max=max(min(_number(configuration, "serveralivecountmax") or KEEPALIVES, KEEPALIVES) - 1, 1),
        proxy_command=None,
        tunnel=None,
        client_keys=None,
        x509_trusted_certs=None,
        preferred_auth=["publickey"],
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
    """What we ask for where nobody names any: the library's own, in the order of ssh(1), so that an unknown host shows the
    same fingerprint here and there."""
    plain = sorted((name.decode("ascii") for name in get_default_public_key_algs()), key=_rank)
    return [*(name.decode("ascii") for name in get_default_certificate_algs()), *plain]


def _rank(algorithm: str) -> int:
    return next((rank for rank, name in enumerate(("ssh-ed25519", "ecdsa-", "sk-")) if algorithm.startswith(name)), 3)


def _common(configuration: Configuration, keyword: str, ours: list[bytes]) -> list[str]:
    """The algorithms of ssh_config, in its order, that the library has too; [] where none are named. Raises ValueError."""
    named = _one(configuration, keyword)
    common = [name for name in named.split(",") if name.encode() in ours]
    if named and not common:
        raise ValueError(
            f"{keyword} names nothing that mailrelay can do: {named}; add one of {b','.join(ours).decode()}"
        )
    return common


def _one(configuration: Configuration, keyword: str) -> str:
    """The value of a keyword that has one, "" where it is not there or `none`."""
    value = configuration.get(keyword, ("",))[0]
    return "" if value.lower() == "none" and keyword != "user" else value


def _number(configuration: Configuration, keyword: str) -> int:
    value = _one(configuration, keyword)
    return int(value) if value.isdecimal() else 0


def _expanded(value: str, tokens: Mapping[str, str]) -> str:
    return re.sub("%(.)", lambda found: tokens.get(found[1], found[0]), value)


def _path(value: str, tokens: Mapping[str, str]) -> Path:
    """A file name of ssh_config: ssh_config(5), TOKENS and ENVIRONMENT VARIABLES."""
    named = re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), value)
    return Path(_expanded(named, tokens)).expanduser()


def _known_hosts(configuration: Configuration, keyword: str, default: str, tokens: Mapping[str, str]) -> list[Path]:
    """The files of a list, which is printed without quotes: a name with a blank in it goes on where no path begins. `none`
    is an empty list: nobody is known then, it does not mean that everybody is."""
    names = re.split(r" (?=[/~%$])", configuration.get(keyword, (default,))[0])
    return [_path(name, tokens) for name in names if name and name.lower() != "none"]


def _agent(named: str, tokens: Mapping[str, str]) -> str:
    """The agent's socket. named: IdentityAgent, a path or the variable that has it, or `none`."""
    if named == "none":
        return ""
    if named not in ("SSH_AUTH_SOCK", "$SSH_AUTH_SOCK"):
        return os.environ.get(named[1:], "") if named.startswith("$") else str(_path(named, tokens))
    socket_file = os.environ.get("SSH_AUTH_SOCK", "")
    if Path(socket_file).is_socket():
        return socket_file
    # A service's environment is from when it was started; agents are often started later.
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"))
    return next((str(runtime / name) for name in _AGENTS if (runtime / name).is_socket()), socket_file)


def _identities(configuration: Configuration, tokens: Mapping[str, str]) -> Iterator[Identity]:
    """The key files that exist."""
    names = configuration.get("identityfile", tuple(f"~/.ssh/{name}" for name in _DEFAULT_KEYS))
    certs = [_path(name, tokens) for name in configuration.get("certificatefile", ()) if name.lower() != "none"]
    for file in (_path(name, tokens) for name in names if name.lower() != "none"):
        public = frozenset(_public(file))
        if not file.is_file() and not public:
            continue
        pairs, note, fix = _signing(file, certs)
        public = public.union(pair.public_data for pair in pairs)
        yield Identity(file, pairs, public, tuple(_certificates([*certs, Path(f"{file}-cert.pub")], public)), note, fix)


def _signing(file: Path, certs: list[Path]) -> tuple[tuple[asyncssh.SSHKeyPair, ...], str, str]:
    """What can be signed with a key file, or why it cannot be used and the step that fixes it."""
    if not file.is_file():
        return (), "only its public half is here", ""
    status = file.stat()
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        # ssh(1) leaves it alone too.
        return (), "others can read it", f"Make it yours alone: chmod 600 {shlex.quote(str(file))}"
    try:
        there = [path for path in certs if path.is_file()]
        pairs = tuple(asyncssh.load_keypairs([file], None, there, skip_public=True, ignore_encrypted=True))
    except (OSError, ValueError) as error:
        return (), f"cannot be read: {error}", ""
    if pairs:
        return pairs, "", ""
    return (), "needs a passphrase, and so the agent", f"Bring the key into the agent: ssh-add {shlex.quote(str(file))}"


def _certificates(files: list[Path], public: frozenset[bytes]) -> Iterator[asyncssh.SSHCertificate]:
    """The user certificates for these public keys."""
    for file in files:
        try:
            found = asyncssh.load_certificates(file)
        except (OSError, ValueError):
            continue
        yield from (cert for cert in found if cert.key.public_data in public)


def _public(file: Path) -> Iterator[bytes]:
    for candidate in (file, Path(f"{file}.pub")):
        try:
            yield asyncssh.read_public_key(candidate).public_data
        except (OSError, ValueError):
            continue
