"""Connects to a relayhost: reads the person's ssh_config, then logs in to each hop.

    connection = await dial(relayhost)      # raises Fault

Promises: every failure is a `Fault` with one sentence that says what happened and where, and the fix if the person must act.
After a host key that does not match, nothing else is tried. Every wait has a time limit; a cancelled `dial` leaves nothing
open.
Never: a prompt, a password, a log line; a process other than ssh(1), which evaluates ssh_config, and its ProxyCommand.
"""

import asyncio
import contextlib
import threading

from mailrelay.config import Relayhost
from mailrelay.ssh import errors
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.hop_connection import connect_hops
from mailrelay.ssh.hops import Hop, hops_of
from mailrelay.ssh.interface import Fault

READ_TIMEOUT = 60.0
"""Seconds to read ssh_config and the files that it names."""


async def dial(relayhost: Relayhost) -> RelayhostConnection:
    """Connects and logs in, through the jump hosts of ssh_config. Raises Fault."""
    hops = await read_hops(relayhost)
    return RelayhostConnection(relayhost, hops[-1], await connect_hops(hops))


async def read_hops(relayhost: Relayhost, within: float | None = None) -> list[Hop]:
    """The hops to a relayhost, from the person's own files. within: seconds, by default READ_TIMEOUT. Raises Fault."""
    try:
        async with asyncio.timeout(READ_TIMEOUT if within is None else within):
            return await _read_on_thread(relayhost)
    except Exception as error:
        # Any exception: the content of these files is arbitrary, and asyncssh's parsers fail on some of it.
        raise Fault(errors.reading_failed(error, relayhost)) from error


def _read_on_thread(relayhost: Relayhost) -> asyncio.Future[list[Hop]]:
    """Reads the hops on a thread of its own, not on a thread of the loop's executor.

    The command of a `Match exec` in ssh_config may hang, and the thread with it. The executor has few threads, and the
    program waits for them at its end.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[list[Hop]] = loop.create_future()

    def set_result(found: list[Hop] | Exception) -> None:
        if result.done():
            return
        if isinstance(found, Exception):
            result.set_exception(found)
        else:
            result.set_result(found)

    def read() -> None:
        found: list[Hop] | Exception
        try:
            found = hops_of(relayhost)
        except Exception as error:
            found = error
        # The loop may have been closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(set_result, found)

    threading.Thread(target=read, name="ssh-config", daemon=True).start()
    return result
