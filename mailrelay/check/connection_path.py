"""Checks the path to a relayhost step by step, as a dial takes it: ssh_config, keys, each hop, and the mail server.

After a step that fails, the steps behind it are not checked. The mail server gets EHLO, MAIL with the sender of programs
that give none, RCPT to the account there, and QUIT (`ssh.mail_path`). A recorder is started and ended there, and the account
is asked what it may see of accepted messages (`following`).
"""

import asyncio
import dataclasses
import secrets
from collections.abc import Callable

from mailrelay.check import following
from mailrelay.check.finding import Finding
from mailrelay.config import Relayhost
from mailrelay.mail.completion import account_address
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.mail.reply_text import reply_text
from mailrelay.smtp.extensions import Extensions
from mailrelay.ssh import errors, ignored_directives, mail_path
from mailrelay.ssh.authentication import HopClient
from mailrelay.ssh.authorized_keys import offered_keys
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.dial import read_hops
from mailrelay.ssh.hop_connection import HopConnection, connect, connected
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.interface import Fault, NotRecorded
from mailrelay.ssh.mail_path import MailPath

PATIENCE = 20.0
"""Seconds for each step that waits for another process or host."""
REFUSED = "see the log of the mail server there; it must accept mail from its own host"
HEALS = "none, if the network is down: mail waits and goes by itself; otherwise check whether the server is up"

SENDER_FIX = "set `from` below [submission] in the settings to an address of yours that the mail server accepts"

SenderFor = Callable[[bytes], bytes]
"""Gives the sender of programs that give none, from the address of the account on the relayhost; b"" if such mail does not
go through it."""

_KEYWORDS = {field.name.upper().replace("EIGHT", "8"): field.name for field in dataclasses.fields(Extensions)}
_STEPS = {
    Stage.DIAL: "connection",
    Stage.HOST_KEY: "host key",
    Stage.AUTH: "login",
    Stage.CHANNEL: "channel",
    Stage.GREETING: "greeting",
    Stage.EHLO: "EHLO",
    Stage.MAIL: "MAIL",
    Stage.RCPT: "RCPT",
}


async def read(relayhost: Relayhost) -> list[Hop] | Finding:
    """The hops, or the fault of ssh_config."""
    try:
        hops = await read_hops(relayhost, PATIENCE)
    except Fault as fault:
        return _failed(fault.outcome, relayhost.name)
    return [dataclasses.replace(hop, connect_timeout=min(hop.connect_timeout, PATIENCE)) for hop in hops]


async def examine(
    relayhost: Relayhost, hops: list[Hop], max_message_size: int, sender_for: SenderFor, *, online: bool
) -> list[Finding]:
    """The checks, in order. max_message_size: octets that clients may send. online: whether to connect to the hops."""
    name = relayhost.name
    names = ", through ".join(f"{hop.place} ({hop.user}@{hop.host}:{hop.port})" for hop in reversed(hops))
    found = [Finding("ssh_config", True, names, about=name)]
    found += [
        Finding("ssh_config", None, f"not followed: {sentence}", about=name)
        for sentence in ignored_directives.ignored(hops)
    ]
    found += [await _keys(hop, name) for hop in hops]
    if online:
        return found + await _connect(relayhost, hops, max_message_size, sender_for)
    found += [_known(hop, name) for hop in hops]
    return [*found, Finding(_STEPS[Stage.DIAL], None, "not checked", about=name)]


async def _keys(hop: Hop, name: str) -> Finding:
    keys = await offered_keys(hop)
    if keys.lines:
        return Finding("key", True, f"for {hop.place}: {', '.join(keys.tried)}", about=name)
    what = "; ".join((f"there is no key for {hop.place} that can be used here", *keys.tried))
    return Finding("key", False, what, keys.fix, name)


def _known(hop: Hop, name: str) -> Finding:
    """Whether known_hosts has a key of the hop, without a connection to it."""
    lines = [entry for entry in hop.known.lines if entry.marker != "revoked"]
    if lines:
        return Finding("host key", True, f"{hop.place} is known: {lines[0].file}:{lines[0].line}", about=name)
    return Finding("host key", False, f"known_hosts has no key of {hop.place}", "mailrelay trust", name)


async def _connect(
    relayhost: Relayhost, hops: list[Hop], max_message_size: int, sender_for: SenderFor
) -> list[Finding]:
    name = relayhost.name
    found: list[Finding] = []
    logged_in: list[Hop] = []

    async def check_and_connect(hop: Hop, through: HopConnection | None) -> HopConnection:
        client = HopClient(hop)
        progress = client.progress
        try:
            async with asyncio.timeout(2 * PATIENCE):
                connection = await connect(hop, through, client)
        except TimeoutError as error:
            raise Fault(errors.login_failed(error, hop, progress)) from error
        finally:
            if progress.host_key is not None and progress.is_trusted:
                what = f"{hop.place} offers the known one: {progress.host_key.description}"
                found.append(Finding("host key", True, what, about=name))
        found.append(Finding("login", True, f"{hop.place} accepts the login of {hop.user}", about=name))
        logged_in.append(hop)
        return connection

    try:
        async with connected(hops, check_and_connect) as connections:
            connection = RelayhostConnection(relayhost, hops[-1], connections)
            found += await _mail_server(connection, relayhost, max_message_size, sender_for)
    except Fault as fault:
        found.append(_failed(fault.outcome, name))
        if fault.outcome.stage is Stage.DIAL:
            found += [_known(hop, name) for hop in hops[len(logged_in) :]]
        if fault.outcome.stage in (Stage.DIAL, Stage.HOST_KEY, Stage.AUTH):
            found.append(Finding("mail server", None, "not checked", about=name))
    return found


async def _mail_server(
    connection: RelayhostConnection, relayhost: Relayhost, max_message_size: int, sender_for: SenderFor
) -> list[Finding]:
    """The mail server behind the last hop. Raises Fault."""
    name = relayhost.name
    server = relayhost.command or str(relayhost.smtp)
    path = await mail_path.try_path(
        connection,
        relayhost.command,
        lambda names: sender_for(account_address(connection.account, names, connection.host)),
    )
    offered = [keyword for keyword, name in _KEYWORDS.items() if getattr(path.extensions, name)]
    return [
        Finding("channel", True, f"to {server}, as seen from {relayhost.ssh}", about=name),
        Finding("greeting", True, path.greeting, about=name),
        Finding("EHLO", True, f"offers {', '.join(offered) or 'no extension'}", about=name),
        _size(path.extensions.size, max_message_size, name),
        *_sender(path, name),
        *await _record(connection, relayhost),
        *await following.examine(connection, relayhost),
    ]


async def _record(connection: RelayhostConnection, relayhost: Relayhost) -> list[Finding]:
    """Whether the relayhost can keep records of conversations (`ssh.recorder`); nothing if the settings want none. Raises
    Fault."""
    name = relayhost.name
    if relayhost.record == "off" or relayhost.command:
        return []
    token = secrets.token_hex(16)
    try:
        channel = await connection.open_recorded(token)
        channel.close()
        await connection.remove_records([token])
    except NotRecorded as error:
        what = f"no record of conversations: {error} After a lost connection, a message may arrive twice"
        return [Finding("record", None, what, about=name)]
    what = f"conversations are recorded in ~/.cache/mailrelay of {connection.account}, until they are read"
    return [Finding("record", True, what, about=name)]


def _sender(path: MailPath, name: str) -> list[Finding]:
    """What the mail server says about the sender of programs that give none; nothing if such mail does not come here."""
    if not path.sender:
        return []
    sender, reply = path.sender.decode("utf-8", "replace"), path.sender_reply
    whose = f"{sender}, for programs that give none"
    if reply is not None and reply.code // 100 == 2:
        return [Finding("sender", True, whose, about=name)]
    if reply is None or reply.code // 100 != 5:
        return [Finding("sender", None, f"{whose}; the mail server was not asked, or asks to try later", about=name)]
    words = b"%d %b" % (reply.code, reply.text)
    what = f"{whose}: the mail server refuses it: {words.decode('utf-8', 'backslashreplace')}"
    return [Finding("sender", False, what, SENDER_FIX, name)]


def _size(limit: int | None, ours: int, name: str) -> Finding:
    if not limit:
        return Finding("size", True, "the mail server names no limit", about=name)
    if limit >= ours:
        return Finding("size", True, f"the mail server accepts {limit} octets, clients may send {ours}", about=name)
    what = f"the mail server accepts {limit} octets, but clients may send {ours}: it refuses larger messages"
    return Finding("size", False, what, f'listen.max_message_size = "{limit}B" in the settings', name)


def _failed(outcome: Outcome, name: str) -> Finding:
    words = reply_text(outcome.description)
    step = "ssh_config" if outcome.cause is Cause.SSH_CONFIG else _STEPS[outcome.stage]
    return Finding(step, False, words, outcome.fix or (REFUSED if outcome.reply else HEALS), name)
