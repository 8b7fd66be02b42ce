"""The way to a relayhost, step by step, as a dial goes it: ssh_config, keys, each host, the mail server behind the last one.

Where a step does not hold, what lies behind it is not asked. Nothing is said to the mail server but EHLO and QUIT.
"""

import asyncio
import dataclasses

from mailrelay.check.finding import Finding
from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.smtp.extensions import Extensions
from mailrelay.ssh import errors, ignored_directives, keys, known_hosts, mail_path
from mailrelay.ssh.connection import AsyncsshConnection, Client, SSHConnection, close, connect, read_way
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.interface import Fault
from mailrelay.ssh.known_hosts import Verdict

PATIENCE = 20.0
"""Seconds for each step that asks somebody."""
REFUSED = "so says the mail server there: see its log; it must take mail from its own host"
HEALS = "nothing, if the network is away: mail waits, and goes by itself; otherwise look whether the server is up"

_KEYWORDS = {field.name.upper().replace("EIGHT", "8"): field.name for field in dataclasses.fields(Extensions)}
_STEPS = {
    Stage.DIAL: "connection",
    Stage.HOST_KEY: "host key",
    Stage.AUTH: "login",
    Stage.CHANNEL: "channel",
    Stage.GREETING: "greeting",
    Stage.EHLO: "EHLO",
}


async def read(relayhost: Relayhost) -> list[Hop] | Finding:
    """The hosts of the way, or what is wrong with ssh_config."""
    try:
        way = await read_way(relayhost, PATIENCE)
    except Fault as fault:
        return _broken(fault.outcome, relayhost.name)
    return [dataclasses.replace(hop, connect=min(hop.connect, PATIENCE)) for hop in way]


async def examine(relayhost: Relayhost, way: list[Hop], max_message_size: int, *, online: bool) -> list[Finding]:
    """The checks, in order. max_message_size: octets that clients may send. online: whether hosts are connected to."""
    name = relayhost.name
    names = ", through ".join(f"{hop.place} ({hop.user}@{hop.host}:{hop.port})" for hop in reversed(way))
    found = [Finding("ssh_config", True, names, about=name)]
    found += [
        Finding("ssh_config", None, f"not followed: {sentence}", about=name)
        for sentence in ignored_directives.ignored(way)
    ]
    found += [await _keys(hop, name) for hop in way]
    if online:
        return found + await _go(relayhost, way, max_message_size)
    found += [_known(hop, name) for hop in way]
    return [*found, Finding(_STEPS[Stage.DIAL], None, "not asked", about=name)]


async def _keys(hop: Hop, name: str) -> Finding:
    try:
        async with asyncio.timeout(PATIENCE):
            usable, tried = await keys.usable(hop)
    except TimeoutError:
        return Finding("key", False, f"the agent at {hop.agent} does not answer", "start it again", name)
    if usable:
        return Finding("key", True, f"for {hop.place}: {', '.join(tried)}", about=name)
    what = "; ".join((f"there is no key for {hop.place} that can be used here", *tried))
    return Finding("key", False, what, keys.fix(hop), name)


def _known(hop: Hop, name: str) -> Finding:
    """What can be said of a host key without seeing it."""
    lines = [entry for entry in (*hop.known.entries, *hop.known.portless) if entry.marker != "revoked"]
    if lines:
        return Finding("host key", True, f"{hop.place} is known: {lines[0].file}:{lines[0].line}", about=name)
    return Finding("host key", False, f"nothing is known of {hop.place}", "mailrelay trust", name)


async def _go(relayhost: Relayhost, way: list[Hop], max_message_size: int) -> list[Finding]:
    name = relayhost.name
    found: list[Finding] = []
    connections: list[AsyncsshConnection] = []
    try:
        for hop in way:
            client = Client(hop)
            try:
                connections.append(await _log_in(hop, connections[-1] if connections else None, client))
            finally:
                if client.seen.verdict is Verdict.TRUSTED:
                    key = known_hosts.describe(client.seen.offered)
                    found.append(Finding("host key", True, f"{hop.place} shows the known one: {key}", about=name))
            found.append(Finding("login", True, f"{hop.place} lets {hop.user} in", about=name))
        found += await _mail_server(SSHConnection(relayhost, way[-1], connections), relayhost, max_message_size)
    except Fault as fault:
        found.append(_broken(fault.outcome, name))
        if fault.outcome.stage is Stage.DIAL:
            found += [_known(hop, name) for hop in way[len(connections) :]]
        if fault.outcome.stage in (Stage.DIAL, Stage.HOST_KEY, Stage.AUTH):
            found.append(Finding("mail server", None, "not asked", about=name))
    finally:
        await close(connections)
    return found


async def _log_in(hop: Hop, through: AsyncsshConnection | None, client: Client) -> AsyncsshConnection:
    try:
        async with asyncio.timeout(2 * PATIENCE):
            return await connect(hop, through, client)
    except TimeoutError as error:
        raise Fault(errors.dialling(error, hop, client.seen)) from error


async def _mail_server(connection: SSHConnection, relayhost: Relayhost, max_message_size: int) -> list[Finding]:
    """What stands behind the last host. Raises Fault."""
    name = relayhost.name
    server = relayhost.command or f"{relayhost.smtp_host}:{relayhost.smtp_port}"
    way = await mail_path.greet(connection, relayhost.command)
    offered = [keyword for keyword, name in _KEYWORDS.items() if getattr(way.extensions, name)]
    return [
        Finding("channel", True, f"to {server}, as {relayhost.ssh} sees it", about=name),
        Finding("greeting", True, way.greeting, about=name),
        Finding("EHLO", True, f"offers {', '.join(offered) or 'no extension'}", about=name),
        _size(way.extensions.size, max_message_size, name),
    ]


def _size(limit: int | None, ours: int, name: str) -> Finding:
    if not limit:
        return Finding("size", True, "the mail server names no limit", about=name)
    if limit >= ours:
        return Finding("size", True, f"the mail server takes {limit} octets, clients may send {ours}", about=name)
    what = f"the mail server takes {limit} octets, and clients may send {ours}: what is larger comes back"
    return Finding("size", False, what, f'listen.max_message_size = "{limit}B" in the settings', name)


def _broken(outcome: Outcome, name: str) -> Finding:
    words = outcome.description.decode("utf-8", "backslashreplace")
    step = "ssh_config" if outcome.cause is Cause.SSH_CONFIG else _STEPS[outcome.stage]
    return Finding(step, False, words, outcome.fix or (REFUSED if outcome.reply else HEALS), name)
