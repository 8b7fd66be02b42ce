"""The only module that uses names of asyncssh which are not its public interface: for faster logins, flow control, quick TCP
acknowledgements, and requests that the library does not offer.

A login by asyncssh has two needless round trips, which over a satellite take longer than the mail; no option saves them.
asyncssh first asks the server for its authentication methods, although we have only keys. Then it asks for each key whether
the server would accept a signature. RFC 4252 section 7 makes that question optional, and a signature by a local key costs
nothing.

Promises: with a version of asyncssh that lacks one of these names, logins and channels still work, only slower; the one
exception is `request_agent_forwarding`. A test notices names that are gone.
Never: a signature that needs the person (a confirmation, a touch) before the server has said that it accepts the key. The
exception is the last key to try.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from asyncssh import SSHClientChannel, SSHClientConnection, SSHKeyPair, auth


def skip_methods_query(connection: SSHClientConnection) -> None:
    """Makes the login start with a key, without a request for the methods ("none", RFC 4252 section 5.2). To be called in
    `asyncssh.SSHClient.begin_auth`."""
    connection._auth_methods = [b"publickey"]


with contextlib.suppress(AttributeError):
    _QueryFirst = auth._ClientPublicKeyAuth

    class _SignAtOnce(_QueryFirst):
        # Looked up here, so that this class is not installed if asyncssh has no such method.
        _sign = _QueryFirst._send_signed_request

        async def send_request(self, *args: bytes, key: Any = None, trivial: bool = True) -> None:
            pair = getattr(self, "_keypair", None)
            # Other keys to try, and an RSA certificate that asyncssh will try again under the name of a SHA-2 algorithm.
            is_last = not (getattr(self._conn, "_client_keys", True) or getattr(self._conn, "_saved_rsa_key", None))
            if key is None and pair is not None and (is_last or _signs_at_no_cost(pair)):
                # If signing fails, ask first as usual: the server may not accept the key anyway.
                with contextlib.suppress(Exception):
                    await self._sign()
                    return
            await super().send_request(*args, key=key, trivial=trivial)

    auth._client_auth_handlers[b"publickey"] = _SignAtOnce


def _signs_at_no_cost(pair: SSHKeyPair) -> bool:
    """Whether a signature needs no action of the person. With a key of an agent or of a token, it may need one."""
    return pair.get_key_type() == "local" and not pair.use_executor


def watch_transport(connection: SSHClientConnection, on_full: Callable[[], None], on_room: Callable[[], None]) -> None:
    """Calls back when the transport's write buffer is full, and when it has room again. The library ignores both events."""
    for name, call in (("pause_writing", on_full), ("resume_writing", on_room)):
        setattr(connection, name, call)


def call_after_receive(connection: SSHClientConnection, callback: Callable[[], None]) -> bool:
    """Calls `callback` after the library has processed received data. Returns False, and never calls it, if the library has
    no such method."""
    process: Callable[[], None] | None = getattr(connection, "_recv_data", None)
    if process is None:
        return False

    def process_and_call() -> None:
        process()
        callback()

    connection._recv_data = process_and_call  # type: ignore[method-assign]
    return True


def request_reply(connection: SSHClientConnection) -> bool:
    """Sends a keepalive request, to which every server must reply (RFC 4254 section 4), and does not wait. Returns False if
    the library has no such method."""
    request: Callable[[], Coroutine[Any, Any, None]] | None = getattr(connection, "_make_keepalive_request", None)
    if request is None:
        return False
    connection.create_task(request())
    return True


async def request_agent_forwarding(connection: SSHClientConnection) -> bool:
    """Asks for agent forwarding, on a session that runs nothing; whether the server granted it. The library's own request
    does not wait for the reply. Raises asyncssh.ChannelOpenError."""
    channel = SSHClientChannel[bytes](
        connection, asyncio.get_running_loop(), "strict", None, "strict", 1 << 16, 1 << 15
    )
    await channel._open(b"session")
    try:
        return bool(await channel._make_request(b"auth-agent-req@openssh.com"))
    finally:
        channel.abort()
