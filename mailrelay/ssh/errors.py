"""Turns an exception of the resolver, the network, asyncssh or a jump host into an outcome: one sentence that says what
happened, and the fix if the person must act.

Promises: every exception gets an outcome. Text from the server is shown escaped and bounded. A failure that may end without
the person (the network is down) has a cause that is reported after a delay; every other failure is a setup fault, reported
at once.
"""

import os
import shlex
import socket
from collections.abc import Sequence

import asyncssh
from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs
from asyncssh.public_key import get_public_key_algs

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint, Unix
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.printable import printable
from mailrelay.ssh import known_hosts, login_advice
from mailrelay.ssh.asyncssh_patches import ServerFault
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.progress import HopProgress

Names = Sequence[str] | Sequence[bytes]
"""Names of algorithms, as the library has them."""

_CANNOT_RUN = (126, 127)
"""Exit statuses of a shell that could not run a command."""
_REFUSED_FOR_NOW = (b"Exceeded MaxStartups", b"Not allowed at this time")
"""What OpenSSH's sshd sends in place of its version: if there are too many connections, or if a client failed too often."""


def message(error: BaseException) -> str:
    """The message of an error on one line, escaped, without a full stop. Part of it may come from the server."""
    text = ""
    if isinstance(error, asyncssh.Error):
        text = error.reason
    elif isinstance(error, OSError):
        # In asyncio's connection errors, strerror names the address instead of the reason. The resolver's errors have
        # negative numbers, and a strerror with the reason.
        text = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or ""
    return printable(text or str(error) or type(error).__name__, 300).rstrip(".")


def reading_failed(error: Exception, relayhost: Relayhost) -> Outcome:
    """The outcome if ssh_config, or a file that it names, could not be read."""
    file = relayhost.ssh_config
    match error:
        case TimeoutError():
            text = f"Reading {file} took too long; perhaps a Match exec in it hangs."
        case OSError():
            text = f"{error.filename or file} cannot be read: {message(error)}."
        case _:
            text = f"The SSH settings for {relayhost.ssh} cannot be read from {file}: {message(error)}."
    ssh = shlex.join(("ssh", "-F", str(file), "-G", relayhost.ssh))
    return _setup_fault(Stage.DIAL, Cause.SSH_CONFIG, text, f"Correct it; to see how ssh reads it: {ssh}")


def login_failed(error: Exception, hop: Hop, progress: HopProgress) -> Outcome:  # noqa: PLR0911 - one for each error
    """The outcome if a hop could not be reached, its host key was not accepted, or it refused the login."""
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return _host_key_failed(error, hop, progress)
        case asyncssh.PermissionDenied():
            return _login_refused(hop, progress, "")
        case asyncssh.ChannelOpenError():
            return _jump_host_failed(error, hop)
        case socket.gaierror():
            return _lookup_failed(error, hop)
        case TimeoutError() if not progress.is_connected:
            return _temporary(
                Stage.DIAL, Cause.UNREACHABLE, f"{hop.place} did not answer within {hop.connect_timeout:g} s."
            )
        case TimeoutError() | asyncssh.Error() | ConnectionError() if progress.first_data:
            return _not_ssh(error, hop, progress)
        case TimeoutError():
            return _login_timeout(hop, progress)
        case asyncssh.ConnectionLost() | ConnectionError():
            return _connection_lost(error, hop, progress)
        case asyncssh.DisconnectError() if progress.is_trusted and not isinstance(error, ServerFault):
            return _login_refused(hop, progress, message(error))
        case _:
            return _other_failure(error, hop, progress)


def server_fault(error: ServerFault, hop: Hop) -> Outcome:
    """The outcome if the server does not keep to a bound of ours, or to SSH."""
    text = f"The SSH server of {hop.place} does not work correctly: {error.reason}."
    return _setup_fault(Stage.DIAL, Cause.SSH_REFUSED, text, _see_more(hop))


def channel_failed(error: Exception, relayhost: Relayhost, hop: Hop, *, is_up: bool) -> Outcome:
    """The outcome if no channel to the mail server could be opened. is_up: whether the connection still exists."""
    place, command, target = hop.place, relayhost.command, relayhost.smtp
    match error:
        case asyncssh.ChannelOpenError() if is_up and command:
            text = f"{place} refuses to run {command!r}: {message(error)}."
            fix = f"The account must be allowed to run it; try by hand: {hop.login_command} {shlex.quote(command)}"
            return _setup_fault(Stage.CHANNEL, Cause.FORWARDING_PROHIBITED, text, fix)
        case asyncssh.ChannelOpenError(code=asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED) if is_up:
            text = f"The SSH server of {place} prohibits forwarding to {target}: {message(error)}."
            fix = (
                f'In sshd_config there: "AllowTcpForwarding yes", and {target} in PermitOpen (or permitopen= of the key); '
                'or, without forwarding, command = "/usr/sbin/sendmail -bs" in the settings of this relayhost'
            )
            return _setup_fault(Stage.CHANNEL, Cause.FORWARDING_PROHIBITED, text, fix)
        case asyncssh.ChannelOpenError() if is_up:
            text = f"No mail server answers on {target} of {place}: {message(error)}."
            return _setup_fault(
                Stage.CHANNEL, Cause.SMTP_CLOSED, text, "Start it there, or correct smtp in the settings."
            )
        case _:
            return _request_failed(error, place, f"run {command!r}" if command else f"open a channel to {target}")


def stream_failed(error: Exception, to: Endpoint, hop: Hop, *, is_up: bool) -> Outcome:
    """As `channel_failed`, for a channel to an endpoint other than the mail server."""
    match error:
        case asyncssh.ChannelOpenError(code=asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED) if is_up:
            text = f"The SSH server of {hop.place} prohibits forwarding to {to}: {message(error)}."
            allowed = (
                '"AllowStreamLocalForwarding yes"'
                if isinstance(to, Unix)
                else f'"AllowTcpForwarding yes", and {to} in PermitOpen (or permitopen= of the key)'
            )
            return _setup_fault(Stage.CHANNEL, Cause.FORWARDING_PROHIBITED, text, f"In sshd_config there: {allowed}")
        case asyncssh.ChannelOpenError() if is_up:
            return _temporary(Stage.CHANNEL, Cause.UNREACHABLE, f"{hop.place} cannot reach {to}: {message(error)}.")
        case _:
            return _request_failed(error, hop.place, f"open a channel to {to}")


def no_greeting(output: bytes, relayhost: Relayhost, hop: Hop) -> Outcome:
    """The outcome if the relayhost's command ended, or sent too much other output, before an SMTP greeting. output: its last
    output."""
    shown = printable(output.strip(), 300).rstrip(".") or "it sent nothing"
    text = f"{relayhost.command!r} on {hop.place} sent no SMTP greeting: {shown}."
    fix = f"It must send a greeting with 220; try by hand: {hop.login_command} {shlex.quote(relayhost.command)}"
    return _setup_fault(Stage.CHANNEL, Cause.NOT_SMTP, text, fix)


def _request_failed(error: Exception, place: str, request: str) -> Outcome:
    """A request on an open connection had no reply. request: what was asked for, as a text after "asked to"."""
    if isinstance(error, TimeoutError):
        return _temporary(Stage.CHANNEL, Cause.LOST, f"{place} did not answer in time when asked to {request}.")
    return _temporary(Stage.CHANNEL, Cause.LOST, f"The connection to {place} was lost when it was asked to {request}.")


def _jump_host_failed(error: asyncssh.ChannelOpenError, hop: Hop) -> Outcome:
    if error.code != asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        text = f"The jump host cannot reach {hop.place}: {message(error)}."
        return _temporary(Stage.DIAL, Cause.UNREACHABLE, text)
    text = f"The jump host prohibits forwarding to {hop.place}: {message(error)}."
    fix = f'In sshd_config of the jump host: "AllowTcpForwarding yes", and a PermitOpen for {hop.host}:{hop.port}'
    return _setup_fault(Stage.DIAL, Cause.FORWARDING_PROHIBITED, text, fix)


def _lookup_failed(error: socket.gaierror, hop: Hop) -> Outcome:
    if error.errno != socket.EAI_NONAME:
        text = f"The name {hop.host} cannot be looked up: {message(error)}."
    else:
        # Not a setup fault: the networks of many hotels resolve no name before a login on their web page.
        text = (
            f"There is no host with the name {hop.host} ({message(error)}); "
            "if the name is wrong, correct it in the settings or in ssh_config."
        )
    return _temporary(Stage.DIAL, Cause.UNREACHABLE, text)


def _not_ssh(error: Exception, hop: Hop, progress: HopProgress) -> Outcome:
    first_line = _first_line(progress.first_data)
    if progress.first_data.startswith(_REFUSED_FOR_NOW) and not isinstance(error, TimeoutError):
        text = f"{hop.place} refuses connections for now: {first_line}."
        return _temporary(Stage.DIAL, Cause.UNREACHABLE, text)
    text = f'The server on port {hop.port} of {hop.host} does not speak SSH: it sent "{first_line}".'
    fix = f"Correct the port in ssh_config or the settings. {_see_more(hop)}"
    return _setup_fault(Stage.DIAL, Cause.SSH_REFUSED, text, fix)


def _login_timeout(hop: Hop, progress: HopProgress) -> Outcome:
    if not progress.has_greeted:
        return _temporary(Stage.DIAL, Cause.UNREACHABLE, f"{hop.place} accepted the connection and sent nothing.")
    stage = Stage.AUTH if progress.is_trusted else Stage.DIAL
    text = f"{hop.place} accepted the connection but did not complete the login in time."
    return _temporary(stage, Cause.UNREACHABLE, text)


def _connection_lost(error: Exception, hop: Hop, progress: HopProgress) -> Outcome:
    if isinstance(error, ConnectionRefusedError):
        text = f"No SSH server answers on port {hop.port} of {hop.host}: {message(error)}."
        return _setup_fault(Stage.DIAL, Cause.SSH_REFUSED, text, _see_more(hop))
    if progress.has_greeted:
        outcome = _negotiation_failed(hop, progress)
        if outcome is not None:
            return outcome
        said = _last_line(progress.banner.encode())
        text = f"The connection to {hop.place} was lost before the login was complete{f'; it said: {said}' if said else ''}."
        return _temporary(Stage.DIAL, Cause.LOST, text)
    if not hop.proxy:
        text = f"{hop.place} accepted the connection and closed it before the SSH protocol began."
        return _setup_fault(Stage.DIAL, Cause.SSH_REFUSED, text, _see_more(hop))
    stderr = _last_line(progress.proxy_stderr)
    if progress.proxy_status in _CANNOT_RUN:
        text = f"The ProxyCommand for {hop.place} cannot be run: {stderr or hop.proxy}."
        return _setup_fault(
            Stage.DIAL, Cause.SSH_CONFIG, text, f"Correct the ProxyCommand line in ssh_config: {hop.proxy}"
        )
    text = f"The ProxyCommand for {hop.place} ended before the SSH server answered{f': {stderr}' if stderr else ''}."
    return _temporary(Stage.DIAL, Cause.UNREACHABLE, text)


def _other_failure(error: Exception, hop: Hop, progress: HopProgress) -> Outcome:
    match error:
        case ServerFault():
            return server_fault(error, hop)
        case asyncssh.Error() if outcome := _negotiation_failed(hop, progress):
            return outcome
        case asyncssh.Error() | UnicodeError():
            text = f"The SSH protocol with {hop.place} failed: {message(error)}."
            return _setup_fault(Stage.DIAL, Cause.SSH_REFUSED, text, _see_more(hop))
        case OSError():
            return _temporary(Stage.DIAL, Cause.UNREACHABLE, f"{hop.place} cannot be reached: {message(error)}.")
        case _:
            text = f"Connecting to {hop.place} failed: {message(error)}."
            return _setup_fault(Stage.DIAL, Cause.SSH_REFUSED, text, _see_more(hop))


def _host_key_failed(error: Exception, hop: Hop, progress: HopProgress) -> Outcome:
    if progress.host_key is None or progress.is_trusted:
        return _other_failure(error, hop, progress)
    found = known_hosts.outcome(progress.host_key, hop.known, hop.place)
    # Made again to escape the texts, which describe the server's key.
    return _setup_fault(found.stage, found.cause, found.text, found.fix)


def _negotiation_failed(hop: Hop, progress: HopProgress) -> Outcome | None:
    """The outcome if both sides have no algorithm in common, None if they have, or if the server has not sent its lists."""
    options = hop.options
    ours = _lists(options.kex_algs, options.server_host_key_algs, options.encryption_algs, options.mac_algs)
    have = _lists(get_kex_algs(), get_public_key_algs(), get_encryption_algs(), get_mac_algs())
    advice = login_advice.no_common_algorithm(ours, progress.server_algorithms, have)
    if advice is None:
        return None
    text, fix = advice
    return _setup_fault(Stage.DIAL, Cause.SSH_REFUSED, f"{hop.place} {text}.", f"{fix}. {_see_more(hop)}")


def _lists(kex: Names, host_key: Names, ciphers: Names, macs: Names) -> list[list[str]]:
    """Lists of algorithms in the order of RFC 4253 section 7.1."""
    lists = (kex, host_key, ciphers, ciphers, macs, macs)
    return [[name if isinstance(name, str) else name.decode("ascii") for name in names] for names in lists]


def _login_refused(hop: Hop, progress: HopProgress, reason: str) -> Outcome:
    """A hop refused the login. reason: the server's message, "" if there is none."""
    text, fix = login_advice.refused(hop, progress, reason)
    return _setup_fault(Stage.AUTH, Cause.AUTH_REFUSED, text, fix)


def _see_more(hop: Hop) -> str:
    """The fix if only a login by hand shows more."""
    return f"To see more: {hop.login_command}"


def _first_line(octets: bytes) -> str:
    return printable(octets.partition(b"\n")[0].strip(), 60)


def _last_line(octets: bytes) -> str:
    return printable(octets.strip().rpartition(b"\n")[2], 300).rstrip(".")


def _setup_fault(stage: Stage, cause: Cause, text: str, fix: str) -> Outcome:
    """The outcome of a setup fault, which only the person can fix. Escapes both texts."""
    return Outcome(stage, cause=cause, text=printable(text), fix=printable(fix))


def _temporary(stage: Stage, cause: Cause, text: str) -> Outcome:
    """The outcome of a failure that may end without the person. Escapes the text."""
    return Outcome(stage, cause=cause, text=printable(text))
