"""Says why a server refused a login, and what the person can do: from the facts of the login to a sentence and a fix.

Promises: pure, but for the clock. Each cause that the facts show has a sentence and a fix of its own. Texts from the server
are not escaped here.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailrelay.ssh import certificate
from mailrelay.ssh.agent import AgentState
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.identities import Identity, Obstacle
from mailrelay.ssh.progress import HopProgress

_METHODS = {
    "password": "a password",
    "keyboard-interactive": "a typed answer (keyboard-interactive: a password or a code, often by PAM)",
    "publickey": "a second key",
    "hostbased": "a key of this computer (hostbased)",
    "gssapi-with-mic": "Kerberos (GSSAPI)",
}
_KINDS = (
    ("key exchange", "KexAlgorithms"),
    ("host key algorithm", "HostKeyAlgorithms"),
    ("cipher", "Ciphers"),
    ("cipher", "Ciphers"),
    ("MAC", "MACs"),
    ("MAC", "MACs"),
)
"""What is agreed on, and its directive of ssh_config, in the order of RFC 4253 section 7.1."""
_NEEDS_NO_MAC = ("-gcm", "chacha20-poly1305")
_MAX_SHOWN = 4
"""Algorithms of a list that are named in a sentence."""
_MAX_NAME = 64
"""Characters of the name of an algorithm: the lists come from the server."""
_NEED_AN_AGENT = (Obstacle.PUBLIC_HALF, Obstacle.PROTECTED, Obstacle.SECURITY_KEY)
_SSH_ADD = "ssh-add"
_NEW_AGENT = "~/.ssh/agent"
"""The socket of an agent that the person starts."""
_START_AGAIN = "Start the agent again, or name another one (IdentityAgent in ssh_config)"
_ALLOW_TYPE = "Add the type of the key to PubkeyAcceptedAlgorithms in ssh_config, or use another key"
_USE_ANOTHER = "Use a key of another type (ssh-keygen -t ed25519), or lower RequiredRSASize in ssh_config"

Advice = tuple[str, str]
"""A sentence, and the fix."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login that a hop refused. reason: the server's message, "" if there is none. now: epoch seconds."""

    hop: Hop
    progress: HopProgress
    reason: str
    now: float

    @property
    def refusal(self) -> str:
        """The refusal and the keys that were tried, as a sentence without its full stop."""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.hop.place} refused the login of {self.hop.user}{reason}; tried: {self.tried}"

    @property
    def nothing_offered(self) -> str:
        """As `refusal`, where a key that was found was not offered to the server."""
        return self.refusal.replace("; tried:", "; found:")

    @property
    def tried(self) -> str:
        return ", ".join(self.progress.tried) or "nothing, because there is no key"

    @property
    def usable(self) -> list[Identity]:
        """The key files of which a key could be used, by itself or through the agent."""
        return [identity for identity in self.hop.identities if identity not in self.progress.unused]

    @property
    def authorized_keys(self) -> str:
        return f"~/.ssh/authorized_keys of {self.hop.user} there"


def refused(hop: Hop, progress: HopProgress, reason: str) -> Advice:
    """Why a hop refused the login. reason: the server's message, "" if there is none."""
    login = Login(hop, progress, reason, time.time())
    text, fix = next(advice for cause in _CAUSES if (advice := cause(login)))
    return f"{text}.", f"{fix}; then try: {hop.login_command}"


def no_key_fix(hop: Hop, progress: HopProgress) -> str:
    """How to get a usable key for a hop, if there is none."""
    if progress.agent is AgentState.SILENT:
        return _START_AGAIN
    if progress.excluded:
        return _ALLOW_TYPE
    if progress.too_short:
        return _USE_ANOTHER
    if progress.unused:
        return identity_fix(hop, progress, progress.unused[0])
    host = hop.place.rpartition("@")[2]
    make = f"Make a key (ssh-keygen -t ed25519), and add its .pub to ~/.ssh/authorized_keys of {hop.user} at {host}"
    return f"{make}; or start the agent at {hop.agent}" if progress.agent is AgentState.ABSENT else make


def identity_fix(hop: Hop, progress: HopProgress, identity: Identity) -> str:
    """How to make a key file usable. If the key must be loaded into an agent, the fix names the socket of the agent:
    without it, ssh-add uses the agent of the terminal, not the one in ssh_config."""
    if identity.obstacle is Obstacle.NAMED_BY_PUBLIC_HALF and hop.agent:
        private, socket = str(identity.file).removesuffix(".pub"), shlex.quote(hop.agent)
        return f"{identity.fix}; or load it into the agent: {_to_agent(f'ssh-add {shlex.quote(private)}', socket)}"
    if _SSH_ADD not in identity.fix:
        return identity.fix
    if hop.is_agent_excluded:
        return f"Remove IdentityAgent none for {hop.place} from ssh_config. {identity.fix}"
    if not hop.agent:
        start = f"Start an agent: ssh-agent -a {_NEW_AGENT}. Name it in ssh_config: IdentityAgent {_NEW_AGENT}. "
        return f"{start}{_to_agent(identity.fix, _NEW_AGENT)}"
    socket = shlex.quote(hop.agent)
    fix = _to_agent(identity.fix, socket)
    if progress.agent is not AgentState.ANSWERED:
        return f"Start an agent: ssh-agent -a {socket}. {fix}"
    return (
        fix if progress.agent_keys else f"{fix}; if the agent is locked, unlock it: {_to_agent('ssh-add -X', socket)}"
    )


def _to_agent(fix: str, socket: str) -> str:
    """The fix, with ssh-add for the agent at `socket`, which is quoted for the shell."""
    return fix.replace(_SSH_ADD, f"SSH_AUTH_SOCK={socket} {_SSH_ADD}")


def _before_any_key(login: Login) -> Advice | None:
    if login.progress.tried or login.progress.methods is not None or not login.reason:
        return None
    return (
        f"{login.hop.place} ended the login of {login.hop.user} before it asked for a key: {login.reason}",
        "Ask the administrator of the server",
    )


def _keys_switched_off(login: Login) -> Advice | None:
    if login.hop.options.public_key_auth:
        return None
    return (
        f"ssh_config has PubkeyAuthentication no for {login.hop.place}, and mailrelay logs in only with a key",
        "Remove that line",
    )


def _second_step(login: Login) -> Advice | None:
    hop, progress = login.hop, login.progress
    if not progress.accepted:
        return None
    wanted = " or ".join(_METHODS.get(method, method) for method in progress.methods or ()) or "another step"
    key = ", ".join(progress.accepted)
    second_key = "Give a second key as IdentityFile, or exempt" if progress.methods == ("publickey",) else "Exempt"
    return (
        f"{hop.place} accepts the key of {hop.user} ({key}), but wants {wanted} too, which mailrelay cannot give",
        f'{second_key} this account or your address in sshd_config there: "Match User {hop.user}" or "Match Address …", '
        'and below it "AuthenticationMethods publickey"',
    )


def _not_signed(login: Login) -> Advice | None:
    hop, progress = login.hop, login.progress
    if not progress.unsigned:
        return None
    key = ", ".join(progress.unsigned)
    accepted = f"which {hop.place} accepts for {hop.user}"
    if progress.refused_by_agent:
        return (
            f"The agent refused to sign with {key}, {accepted} (the agent at {hop.agent})",
            "Confirm it when the agent asks, or unlock the agent or the token",
        )
    if progress.agent is AgentState.SILENT:
        return (
            f"The agent at {hop.agent} does not answer: it did not sign with {key}, {accepted}",
            "Confirm it when the agent asks, or start the agent again",
        )
    return (
        f"No signature could be made with {key}, {accepted}",
        _to_agent(f"Load the key into an agent: ssh-add {shlex.quote(progress.unsigned[0])}", hop.agent or _NEW_AGENT),
    )


def _no_key_wanted(login: Login) -> Advice | None:
    hop, methods = login.hop, login.progress.methods
    if methods is None or "publickey" in methods:
        return None
    wanted = " or ".join(_METHODS.get(method, method) for method in methods) or "something that mailrelay does not know"
    return (
        f"{hop.place} takes no key for the login of {hop.user}; it wants {wanted}",
        'In sshd_config there: "PubkeyAuthentication yes", and no AuthenticationMethods that lacks publickey',
    )


def _too_many(login: Login) -> Advice | None:
    if "too many authentication failures" not in login.reason.lower() or login.progress.offered == 1:
        # A server may end the login after a single key that it does not know.
        return None
    return (
        f"{login.hop.place} ended the login of {login.hop.user} because too many keys were tried: {login.tried}",
        f"In ssh_config for {login.hop.place}: IdentitiesOnly yes, and only the right key as IdentityFile",
    )


def _silent_agent(login: Login) -> Advice | None:
    hop, files = login.hop, [str(one.file) for one in login.usable]
    if login.progress.agent is not AgentState.SILENT:
        return None
    what, start = f"The agent at {hop.agent} accepts connections and does not answer", _START_AGAIN
    if files:
        return (
            f"{what}, and {hop.place} refused the login of {hop.user} with {', '.join(files)}",
            f"{start}, or add {_public(login.usable[0])} to {login.authorized_keys}",
        )
    return f"{what}, and without it there is no key for {hop.user} on {hop.place}", start


def _excluded_key(login: Login) -> Advice | None:
    excluded = ", ".join(login.progress.excluded)
    if not excluded:
        return None
    return (
        f"{login.nothing_offered}; PubkeyAcceptedAlgorithms in ssh_config (or ssh's default) does not allow {excluded}",
        _ALLOW_TYPE,
    )


def _too_short(login: Login) -> Advice | None:
    too_short = ", ".join(login.progress.too_short)
    if not too_short:
        return None
    return (
        f"{login.nothing_offered}; RequiredRSASize {login.hop.policy.rsa_size} in ssh_config does not allow {too_short}",
        _USE_ANOTHER,
    )


def _no_common_signature(login: Login) -> Advice | None:
    """Keys that were not even offered, because of what the server supports: RSA with a server that knows only SHA-1."""
    skipped = ", ".join(login.progress.skipped)
    if not skipped:
        return None
    return (
        f"{login.nothing_offered}; it supports no signature with {skipped} that ssh_config allows",
        "Use a key of another type (ssh-keygen -t ed25519), or for an old server PubkeyAcceptedAlgorithms +ssh-rsa in "
        "ssh_config",
    )


def _certificate(login: Login) -> Advice | None:
    for name, cert in login.progress.certificates:
        why = certificate.fault(cert, kind=certificate.USER, name=login.hop.user, now=login.now)
        if why:
            validity = f"valid from {certificate.moment(cert.valid_after)} to {certificate.moment(cert.valid_before)}"
            is_mine = cert.kind == certificate.USER
            return (
                f"{login.refusal}. The certificate {name} {why} ({validity})",
                f"{'Renew the certificate' if is_mine else 'Get a user certificate'}, for the principal {login.hop.user}",
            )
    return None


def _refused_type(login: Login) -> Advice | None:
    """The server has said which signatures it accepts, and none of them can be made with our keys."""
    pairs = [pair for one in login.usable for pair in one.pairs]
    ours = {name.decode("ascii") for pair in pairs for name in pair.sig_algorithms}
    accepted = login.progress.signatures
    if not pairs or not accepted or ours & accepted:
        return None
    kind = pairs[-1].get_algorithm()
    return (
        f"{login.refusal}. The server accepts only {_some(sorted(accepted))}, and the key is of the type {kind}",
        f'Make a key of a type that it accepts, or allow {kind} in sshd_config there ("PubkeyAcceptedAlgorithms")',
    )


def _refused_key(login: Login) -> Advice | None:
    if not login.usable:
        return None
    add = f"Add {_public(login.usable[0])} to {login.authorized_keys}"
    text = login.refusal
    for name, cert in login.progress.certificates[:1]:
        add += f", or let the server trust the authority of {name} (TrustedUserCAKeys)"
        if cert.sources:
            text += f". The certificate {name} counts only for logins from {cert.sources}"
            add = f"Log in from such an address, get a certificate for others, or {add[0].lower()}{add[1:]}"
    return text, f"{add}; if that is so already, the log of the SSH server says why the key does not count"


def _unusable_key(login: Login) -> Advice | None:
    if not login.progress.unused:
        return None
    identity = login.progress.unused[0]
    match login.progress.agent:
        case AgentState.ANSWERED:
            held = f"{login.progress.agent_keys} other keys" if login.progress.agent_keys else "no keys, or is locked"
            agent = f"the agent at {login.hop.agent} holds {held}"
        case AgentState.ABSENT:
            agent = f"no agent answers at {login.hop.agent}"
        case _ if login.hop.is_agent_excluded:
            agent = "ssh_config has IdentityAgent none"
        case _:
            agent = "no agent runs"
    halves = {
        Obstacle.PUBLIC_HALF: "only its public half is here",
        Obstacle.NAMED_BY_PUBLIC_HALF: "ssh_config names only its public half",
    }
    if identity.obstacle in halves:
        text = f"The private key of {identity.file} is in no agent ({agent}), and {halves[identity.obstacle]}; "
        return f"{text}{login.hop.place} refused the login of {login.hop.user}", no_key_fix(login.hop, login.progress)
    if identity.obstacle in _NEED_AN_AGENT:
        return f"{login.refusal}; {agent}", no_key_fix(login.hop, login.progress)
    return login.refusal, no_key_fix(login.hop, login.progress)


def _no_key(login: Login) -> Advice:
    if login.progress.agent_keys:
        return login.refusal, f"Add the right key of the agent (ssh-add -L) to {login.authorized_keys}"
    return login.refusal, no_key_fix(login.hop, login.progress)


_CAUSES: tuple[Callable[[Login], Advice | None], ...] = (
    _before_any_key,
    _keys_switched_off,
    _second_step,
    _not_signed,
    _no_key_wanted,
    _too_many,
    _silent_agent,
    _excluded_key,
    _too_short,
    _no_common_signature,
    _certificate,
    _refused_type,
    _refused_key,
    _unusable_key,
    _no_key,
)
"""The possible causes. The first one that fits counts; the last one always fits."""


def no_common_algorithm(
    ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], have: Sequence[Sequence[str]]
) -> Advice | None:
    """The first kind of algorithm of which both sides have none in common, as a text after the name of the server, and the
    fix; None if there is no such kind.

    ours, theirs: the lists of both sides, in the order of RFC 4253 section 7.1. have: those that ssh_config could add.
    """
    for (kind, directive), our, their, possible in zip(_KINDS, ours, theirs, have, strict=False):
        if not set(our) & set(their):
            cipher = next((name for name in ours[2] if name in theirs[2]), "")
            if kind == "MAC" and any(word in cipher for word in _NEEDS_NO_MAC):
                continue
            known = [name for name in their if name in possible]
            text = f"has no {kind} in common with mailrelay: it offers {_some(their)}; mailrelay offers {_some(our)}"
            fix = (
                f"In ssh_config: {directive} +{known[0]}, if that is safe enough; or set up a newer {kind} on the server"
                if known
                else f"Allow one of these on the server ({directive} in sshd_config): {_some(our)}"
            )
            return text, fix
    return None


def _public(identity: Identity) -> str:
    return f"{str(identity.file).removesuffix('.pub')}.pub"


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    shown = [name[:_MAX_NAME] for name in names if not name.startswith(("kex-strict-", "ext-info-"))]
    more = f" and {len(shown) - _MAX_SHOWN} more" if len(shown) > _MAX_SHOWN else ""
    return (", ".join(shown[:_MAX_SHOWN]) or "none") + more
