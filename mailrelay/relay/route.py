"""The way to a relayhost: the person's own ssh_config, keys and known hosts, read anew for every dial, as a list of hops.

Promises: what ssh(1) would do with the same files: Host aliases, ProxyJump over several hops, ProxyCommand, IdentityFile,
IdentityAgent, IdentitiesOnly, UserKnownHostsFile. Where ssh(1) would ask for a passphrase, the key is left to the agent.
Every hop carries its own known hosts, so that none is ever believed on another's word.
Never: a connection; it reads files and the environment, blocks while it does, and so belongs on a thread.
"""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.public_key import (
    get_certificate_algs,
    get_default_certificate_algs,
    get_default_public_key_algs,
    get_public_key_algs,
)

from mailrelay.config import Relayhost
from mailrelay.relay import hostkeys

CONNECT = 30.0
"""Seconds for a TCP connection, where ssh_config has no ConnectTimeout."""
KEEPALIVE = 15
"""Seconds of silence after which the remote is asked whether it is there."""
KEEPALIVES = 3
"""How many of these questions may stay unanswered."""
MAX_HOPS = 8

_HOST_PORT = re.compile(r"(?P<host>[^\s:/@\[\]-][^\s:/@\[\]]*)(?::(?P<port>\d{1,5}))?")
_V6_PORT = re.compile(
    r"\[(?P<host>[^\s\[\]]+)\](?::(?P<port>\d{1,5}))?|(?P<bare>[0-9A-Fa-f]*:[0-9A-Fa-f]*:[^\s/@\[\]]*)"
)
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
_AGENTS = ("gcr/ssh", "keyring/ssh", "ssh-agent.socket", "openssh_agent")
"""Where desktops put the agent's socket, below XDG_RUNTIME_DIR."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key file: what can be signed with it here, and the public keys by which an agent may know it. note: why it cannot
    be used without an agent, or ""."""

    file: Path
    pairs: tuple[asyncssh.SSHKeyPair, ...]
    public: frozenset[bytes]
    note: str


@dataclass(frozen=True, slots=True)
class Hop:
    """One SSH connection of the way. place: how messages call it. by_hand: the ssh(1) command that goes there.

    connect: seconds for the TCP connection. agent: path of the agent's socket, "" for none. identities_only: ask the agent
    only for the keys of `identities`. known_hosts: the first UserKnownHostsFile, to which a key may be added; None where
    ssh_config names none.
    """

    place: str
    by_hand: str
    host: str
    port: int
    user: str
    options: asyncssh.SSHClientConnectionOptions
    known: hostkeys.Known
    known_hosts: Path | None
    connect: float
    agent: str
    identities: tuple[Identity, ...]
    identities_only: bool


def hops(relayhost: Relayhost) -> list[Hop]:
    """The way there, jump hosts first, the relayhost itself last. Raises OSError for an ssh_config that cannot be read, and
    ValueError, with a sentence that names file and line where they are known, for what cannot be understood."""
    config = relayhost.ssh_config.expanduser()
    own = Path("~/.ssh/config").expanduser()
    files = [str(config)] if config != own or config.exists() else []
    for file in files:
        # For the operating system's own words: the library would name no file.
        with Path(file).open("rb"):
            pass
    return list(_way(relayhost.ssh, files, ("ssh", *(("-F", str(config)) if config != own else ())), ()))


def destination(spec: str) -> tuple[str, str, int | None]:
    """User ("" where none is named), host and port of `[user@]host[:port]` or `ssh://…`. Raises ValueError."""
    user, _, place = spec.removeprefix("ssh://").removesuffix("/").rpartition("@")
    found = _HOST_PORT.fullmatch(place) or _V6_PORT.fullmatch(place)
    port = int(found["port"]) if found and found["port"] else None
    # What begins with a dash could become an option of a ProxyCommand.
    if found is None or port == 0 or (port or 0) > 65535 or user.startswith("-"):
        raise ValueError(f"{spec!r} is not [user@]host[:port]")
    return user, found["host"] or found["bare"], port


def _way(spec: str, files: list[str], ssh: tuple[str, ...], through: tuple[str, ...]) -> Iterator[Hop]:
    """The hops to `spec`. through: the hosts on whose behalf we ask, so that a circle is seen."""
    if spec in through or len(through) > MAX_HOPS:
        raise ValueError(f"ProxyJump goes in a circle: {' through '.join((*through, spec))}")
    user, host, port = destination(spec)
    base = _options(files, user, host, port, final=False)
    if base.config.has_match_final():
        base = _options(files, user, host, port, final=True)
    jumps = [jump.strip() for jump in str(base.config.get("ProxyJump") or "").split(",") if jump.strip()]
    if jumps:
        # Like ssh(1): only the first jump is reached by its own ProxyJump, the others through the one before them.
        yield from _way(jumps[0], files, ssh, (*through, spec))
        for jump in jumps[1:]:
            yield _hop(jump, files, ssh, _options(files, *destination(jump), final=False))
    yield _hop(spec, files, ssh, base)


def _options(
    files: list[str], user: str, host: str, port: int | None, *, final: bool
) -> asyncssh.SSHClientConnectionOptions:
    """What ssh_config says of a host; all that could ask, forward or weaken is set here, whatever it says there."""
    return asyncssh.SSHClientConnectionOptions(
        config=files or None,
        final=final,
        host=host,
        port=port or (),
        username=user or (),
        tunnel=None,
        client_keys=None,
        known_hosts=([], [], [], [], [], [], []),
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


def _hop(spec: str, files: list[str], ssh: tuple[str, ...], base: asyncssh.SSHClientConnectionOptions) -> Hop:
    config = base.config
    mine, everybody = _known_hosts_files(base)
    texts = hostkeys.read([*mine, *everybody])
    known = hostkeys.known(texts, base.host, base.port, base.host_key_alias)
    revoked = known.keys("revoked")
    options = asyncssh.SSHClientConnectionOptions(
        options=base,
        config=None,
        # No key is trusted by the library: each one on offer comes to us to be judged.
        known_hosts=([], [], revoked, [], [], [], []),
        server_host_key_algs=hostkeys.algorithms(
            known,
            str(config.get("HostKeyAlgorithms") or ""),
            # In the order of ssh(1), so that an unknown host shows the same fingerprint here and there.
            plain=sorted(_names(get_default_public_key_algs()), key=_rank),
            certified=_names(get_default_certificate_algs()),
            more=_names(get_certificate_algs() + get_public_key_algs()),
        ),
        # Shorter than ours is the person's choice; longer, or never, would let a dead connection pass for a slow one.
        keepalive_interval=min(_number(config.get("ServerAliveInterval")) or KEEPALIVE, KEEPALIVE),
        keepalive_count_max=min(_number(config.get("ServerAliveCountMax")) or KEEPALIVES, KEEPALIVES),
    )
    user, host, port = destination(spec)
    port_named = ("-p", str(port)) if port else ()
    return Hop(
        place=spec,
        by_hand=shlex.join((*ssh, *port_named, f"{user}@{host}" if user else host)),
        host=base.host,
        port=base.port,
        user=base.username,
        options=options,
        known=known,
        known_hosts=next(iter(mine), None),
        connect=float(_number(config.get("ConnectTimeout")) or CONNECT),
        agent=_agent(config.get("IdentityAgent", ())),
        identities=tuple(_identities(config.get("IdentityFile"), config.get("CertificateFile"))),
        identities_only=bool(config.get("IdentitiesOnly")),
    )


def _names(algorithms: list[bytes]) -> list[str]:
    return [name.decode("ascii") for name in algorithms]


def _rank(algorithm: str) -> int:
    return next((rank for rank, name in enumerate(("ssh-ed25519", "ecdsa-", "sk-")) if algorithm.startswith(name)), 3)


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _strings(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else []


def _known_hosts_files(base: asyncssh.SSHClientConnectionOptions) -> tuple[list[Path], list[Path]]:
    """The person's and everybody's. `none` is an empty list: nobody is known then, it does not mean that everybody is."""
    tokens = {"%%": "%", "%d": str(Path.home()), "%h": base.host, "%p": str(base.port), "%r": base.username}

    def files(option: str, default: list[str]) -> list[Path]:
        named = base.config.get(option)
        names = default if named is None else _strings(named)
        return [Path(re.sub("%.", lambda found: tokens.get(found[0], found[0]), name)).expanduser() for name in names]

    return (
        files("UserKnownHostsFile", ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]),
        files("GlobalKnownHostsFile", ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]),
    )


def _agent(identity_agent: object) -> str:
    """The agent's socket. IdentityAgent is () where ssh_config has none, None for `none`, or a path or variable."""
    if identity_agent is None:
        return ""
    name = str(identity_agent) if identity_agent else "SSH_AUTH_SOCK"
    if name not in ("SSH_AUTH_SOCK", "$SSH_AUTH_SOCK"):
        return str(Path(os.path.expandvars(name)).expanduser())
    socket = os.environ.get("SSH_AUTH_SOCK", "")
    if Path(socket).is_socket():
        return socket
    # A service's environment is from when it was started; agents are often started later.
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"))
    return next((str(runtime / name) for name in _AGENTS if (runtime / name).is_socket()), socket)


def _identities(files: object, certificates: object) -> Iterator[Identity]:
    """The key files that exist. files, certificates: IdentityFile and CertificateFile, None where ssh_config has none."""
    names = [f"~/.ssh/{name}" for name in _DEFAULT_KEYS] if files is None else _strings(files)
    certs = [path for name in _strings(certificates) if (path := Path(name).expanduser()).is_file()]
    for name in names:
        file = Path(name).expanduser()
        public = frozenset(_public(file))
        if not file.is_file():
            if public:
                yield Identity(file, (), public, "only its public half is here")
            continue
        try:
            pairs = tuple(asyncssh.load_keypairs([file], None, certs, skip_public=True, ignore_encrypted=True))
            note = "" if pairs else "needs a passphrase, and so the agent"
        except (OSError, ValueError) as error:
            pairs, note = (), f"cannot be read: {error}"
        yield Identity(file, pairs, public.union(pair.public_data for pair in pairs), note)


def _public(file: Path) -> Iterator[bytes]:
    for candidate in (file, Path(f"{file}.pub")):
        try:
            yield asyncssh.read_public_key(candidate).public_data
        except (OSError, ValueError):
            continue
