"""What went wrong on the way to a relayhost: an exception of the resolver, the network, the SSH library or a jump host,
as one outcome with a sentence that says what happened and, where a person must act, the step that fixes it.

Promises: total (every exception gets an outcome), and what the remote said is shown escaped and bounded. What heals by
itself (a network that is away) has the quiet causes; everything else is a setup fault, told at once.
"""

import os
import shlex
import socket
from dataclasses import dataclass, field

import asyncssh

from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.printable import printable
from mailrelay.ssh import known_hosts
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.known_hosts import Verdict

_NOT_RUN = (126, 127)
"""Exit status of a shell that could not run a command."""
_TURNED_AWAY = (b"Exceeded MaxStartups", b"Not allowed at this time")
"""What OpenSSH's sshd says in place of its version to one connection too many, and to who failed too often."""


@dataclass(slots=True)
class Seen:
    """How far a connection came. reached: a byte stream to the server was there. greeted: it said that it speaks SSH.

    first_words: of a server that does not. offered: the host key, or the authority's, that was brought to us to judge.
    tried: keys and agents, for people to read.
    proxy_status, proxy_said: how a ProxyCommand ended, None if it did not, and the end of what it said on stderr.
    """

    reached: bool = False
    greeted: bool = False
    first_words: bytes = b""
    verdict: Verdict | None = None
    offered: asyncssh.SSHKey | None = None
    tried: list[str] = field(default_factory=list)
    proxy_status: int | None = None
    proxy_said: bytes = b""


def words(error: BaseException) -> str:
    """The error's own words, one line, fit to be shown; part of them may be the remote's."""
    said = ""
    if isinstance(error, asyncssh.Error):
        said = error.reason
    elif isinstance(error, OSError):
        # Of failed connections asyncio says which, in place of why; a resolver's errors have negative numbers and words.
        said = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or ""
    return printable(said or str(error) or type(error).__name__, 300).rstrip(".")


def config(error: Exception, relayhost: Relayhost) -> Outcome:
    """The way there cannot be read from ssh_config and the files that it names."""
    file = relayhost.ssh_config
    match error:
        case TimeoutError():
            text = f"Reading {file} did not end in time; does a Match exec hang in it?"
        case OSError():
            text = f"{error.filename or file} cannot be read: {words(error)}."
        case _:
            text = f"The way to {relayhost.ssh} cannot be read from {file}: {words(error)}."
    ssh = shlex.join(("ssh", "-F", str(file), "-G", relayhost.ssh))
    return _setup(Stage.DIAL, Cause.SSH_CONFIG, text, f"Fix what it names; to see what ssh makes of it: {ssh}")


def dialling(error: Exception, hop: Hop, seen: Seen) -> Outcome:
    """A hop could not be reached, verified or logged in to."""
    place = hop.place
    by_hand = f"To see more: {hop.by_hand}"
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return _host_key(error, hop, seen)
        case asyncssh.PermissionDenied():
            return _auth(hop, seen, "")
        case asyncssh.ChannelOpenError(code=asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED):
            text = f"The jump host prohibits the way on to {place}: {words(error)}."
            fix = (
                f'In sshd_config of the jump host: "AllowTcpForwarding yes", and a PermitOpen for {hop.host}:{hop.port}'
            )
            return _setup(Stage.DIAL, Cause.FORWARDING_PROHIBITED, text, fix)
        case asyncssh.ChannelOpenError():
            return _quiet(Stage.DIAL, Cause.UNREACHABLE, f"The jump host cannot reach {place}: {words(error)}.")
        case socket.gaierror(errno=socket.EAI_NONAME):
            # Told late all the same: in many a hotel nothing has a name before one has logged in.
            text = (
                f"No host is called {hop.host} ({words(error)}); if that is misspelt, fix the settings or ssh_config."
            )
            return _quiet(Stage.DIAL, Cause.UNREACHABLE, text)
        case socket.gaierror():
            return _quiet(Stage.DIAL, Cause.UNREACHABLE, f"The name {hop.host} cannot be looked up: {words(error)}.")
        case TimeoutError() if not seen.reached:
            return _quiet(Stage.DIAL, Cause.UNREACHABLE, f"{place} did not answer within {hop.connect:g} s.")
        case asyncssh.Error() | ConnectionError() if seen.first_words.startswith(_TURNED_AWAY):
            text = f"{place} turns connections away for now: {_first_line(seen.first_words)}."
            return _quiet(Stage.DIAL, Cause.UNREACHABLE, text)
        case TimeoutError() | asyncssh.Error() | ConnectionError() if seen.first_words:
            said = _first_line(seen.first_words)
            text = f'What answers on port {hop.port} of {hop.host} does not speak SSH: it says "{said}".'
            return _setup(Stage.DIAL, Cause.SSH_REFUSED, text, f"Fix the port in ssh_config or the settings. {by_hand}")
        case TimeoutError() if not seen.greeted:
            return _quiet(Stage.DIAL, Cause.UNREACHABLE, f"{place} took the connection and said nothing.")
        case TimeoutError():
            stage = Stage.AUTH if seen.verdict is Verdict.TRUSTED else Stage.DIAL
            return _quiet(
                stage, Cause.UNREACHABLE, f"{place} took the connection but did not finish the login in time."
            )
        case ConnectionRefusedError():
            text = f"No SSH server answers on port {hop.port} of {hop.host}: {words(error)}."
            return _setup(Stage.DIAL, Cause.SSH_REFUSED, text, by_hand)
        case asyncssh.ConnectionLost() | ConnectionError() if seen.greeted:
            return _quiet(Stage.DIAL, Cause.LOST, f"The connection to {place} broke before the login was done.")
        case asyncssh.ConnectionLost() | ConnectionError() if hop.proxy and seen.proxy_status in _NOT_RUN:
            text = f"The ProxyCommand for {place} cannot be run: {_last_line(seen.proxy_said) or hop.proxy}."
            return _setup(Stage.DIAL, Cause.SSH_CONFIG, text, f"Fix the ProxyCommand line in ssh_config: {hop.proxy}")
        case asyncssh.ConnectionLost() | ConnectionError() if hop.proxy:
            said = _last_line(seen.proxy_said)
            text = f"The ProxyCommand for {place} ended before SSH answered{f': {said}' if said else ''}."
            return _quiet(Stage.DIAL, Cause.UNREACHABLE, text)
        case asyncssh.ConnectionLost() | ConnectionError():
            text = f"{place} took the connection and closed it without a word of SSH."
            return _setup(Stage.DIAL, Cause.SSH_REFUSED, text, by_hand)
        case asyncssh.DisconnectError() if seen.verdict is Verdict.TRUSTED:
            return _auth(hop, seen, words(error))
        case asyncssh.Error():
            text = f"{place} and we find no common way to speak SSH: {words(error)}."
            return _setup(Stage.DIAL, Cause.SSH_REFUSED, text, by_hand)
        case OSError():
            return _quiet(Stage.DIAL, Cause.UNREACHABLE, f"{place} cannot be reached: {words(error)}.")
        case _:
            return _setup(Stage.DIAL, Cause.SSH_REFUSED, f"Connecting to {place} failed: {words(error)}.", by_hand)


def channel(error: Exception, relayhost: Relayhost, hop: Hop, *, is_up: bool) -> Outcome:
    """The connection is there (or was, `is_up`), but no channel to the mail server could be opened in it."""
    place, command = hop.place, relayhost.command
    target = f"{relayhost.smtp_host}:{relayhost.smtp_port}"
    wish = f"to run {command!r}" if command else f"for {target}"
    match error:
        case asyncssh.ChannelOpenError() if is_up and command:
            text = f"{place} refuses to run {command!r}: {words(error)}."
            fix = f"It must be a command that this account may run; by hand: {hop.by_hand} {shlex.quote(command)}"
            return _setup(Stage.CHANNEL, Cause.FORWARDING_PROHIBITED, text, fix)
        case asyncssh.ChannelOpenError(code=asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED) if is_up:
            text = f"The SSH server of {place} prohibits forwarding to {target}: {words(error)}."
            fix = (
                f'In sshd_config there: "AllowTcpForwarding yes", and {target} in PermitOpen (or permitopen= of the key); '
                'or, without forwarding, command = "/usr/sbin/sendmail -bs" in the settings of this relayhost'
            )
            return _setup(Stage.CHANNEL, Cause.FORWARDING_PROHIBITED, text, fix)
        case asyncssh.ChannelOpenError() if is_up:
            text = f"No mail server answers on {target} of {place}: {words(error)}."
            return _setup(Stage.CHANNEL, Cause.SMTP_CLOSED, text, "Start it there, or fix smtp in the settings.")
        case _:
            return _unanswered(error, place, wish)


def stream(error: Exception, to: str, hop: Hop, *, is_up: bool) -> Outcome:
    """As `channel`, for a channel to anything but the mail server. to: "host:port" or "unix:/path"."""
    match error:
        case asyncssh.ChannelOpenError(code=asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED) if is_up:
            text = f"The SSH server of {hop.place} prohibits forwarding to {to}: {words(error)}."
            allowed = (
                '"AllowStreamLocalForwarding yes"'
                if to.startswith("unix:")
                else f'"AllowTcpForwarding yes", and {to} in PermitOpen (or permitopen= of the key)'
            )
            return _setup(Stage.CHANNEL, Cause.FORWARDING_PROHIBITED, text, f"In sshd_config there: {allowed}")
        case asyncssh.ChannelOpenError() if is_up:
            return _quiet(Stage.CHANNEL, Cause.UNREACHABLE, f"{hop.place} cannot reach {to}: {words(error)}.")
        case _:
            return _unanswered(error, hop.place, f"for {to}")


def _unanswered(error: Exception, place: str, wish: str) -> Outcome:
    if isinstance(error, TimeoutError):
        return _quiet(Stage.CHANNEL, Cause.LOST, f"{place} did not answer in time when asked {wish}.")
    return _quiet(Stage.CHANNEL, Cause.LOST, f"The connection to {place} broke when it was asked {wish}.")


def no_greeting(last_words: bytes, relayhost: Relayhost, hop: Hop) -> Outcome:
    """The relayhost's command ended, or went on about something else, before it greeted. last_words: what it said."""
    said = printable(last_words.strip(), 300) or "it said nothing"
    text = f"{relayhost.command!r} on {hop.place} showed no SMTP greeting: {said}."
    fix = f"It must greet with 220; by hand: {hop.by_hand} {shlex.quote(relayhost.command)}"
    return _setup(Stage.CHANNEL, Cause.NOT_SMTP, text, fix)


def _host_key(error: Exception, hop: Hop, seen: Seen) -> Outcome:
    match seen.verdict:
        case Verdict.TRUSTED:
            text = f"The host certificate of {hop.place} does not hold here: {words(error)}; nothing was sent."
            fix = f"Ask whoever runs the server for a certificate that is valid for {hop.known.name}."
            return _setup(Stage.HOST_KEY, Cause.HOST_KEY_UNKNOWN, text, fix)
        case None:
            # Not brought to us: the library knows by itself that it is revoked, or could not make out a key.
            verdict = Verdict.REVOKED if hop.known.keys("revoked") else Verdict.UNKNOWN
        case verdict:
            pass
    found = known_hosts.outcome(verdict, hop.known, hop.place, seen.offered)
    return _setup(found.stage, found.cause, found.text, found.fix)


def _auth(hop: Hop, seen: Seen, said: str) -> Outcome:
    usable = [identity.file for identity in hop.identities if identity.pairs]
    unusable = [identity for identity in hop.identities if identity.fix]
    none = "nothing, for it asks for no key" if usable or unusable else "nothing, for there is no key"
    text = (
        f"{hop.place} does not let {hop.user} in{f' ({said})' if said else ''}; tried: {', '.join(seen.tried) or none}."
    )
    if (usable or unusable) and not seen.tried:
        fix = f'In sshd_config there: "PubkeyAuthentication yes"; then try: {hop.by_hand}'
    elif usable:
        fix = f"Add {usable[0]}.pub to ~/.ssh/authorized_keys of {hop.user} there; then try: {hop.by_hand}"
    elif unusable:
        fix = f"{unusable[0].fix}; then try: {hop.by_hand}"
    else:
        fix = f"Make a key (ssh-keygen), add its .pub to ~/.ssh/authorized_keys of {hop.user} there, try: {hop.by_hand}"
    return _setup(Stage.AUTH, Cause.AUTH_REFUSED, text, fix)


def _first_line(said: bytes) -> str:
    return printable(said.partition(b"\n")[0].strip(), 60)


def _last_line(said: bytes) -> str:
    return printable(said.strip().rpartition(b"\n")[2], 300).rstrip(".")


def _setup(stage: Stage, cause: Cause, text: str, fix: str) -> Outcome:
    return Outcome(stage, cause=cause, text=printable(text), fix=printable(fix))


def _quiet(stage: Stage, cause: Cause, text: str) -> Outcome:
    return Outcome(stage, cause=cause, text=printable(text))
