"""The only module that uses names of asyncssh which are not its public interface: for faster logins, for what a server says
when it refuses one, for host keys, flow control, quick TCP acknowledgements, bounds for what a server sends, and requests
that the library does not offer.

A login by asyncssh has three needless round trips, which over a satellite take longer than the mail; no option saves them.
asyncssh waits for the reply to its service request before it begins the authentication. Then it asks the server for its
authentication methods, although we have only keys. Then it asks for each key whether the server would accept a signature.
RFC 4252 section 7 makes that question optional, and a signature by a local key costs nothing.

Promises: with a version of asyncssh that lacks one of these names, logins and channels still work, only slower and with less
to say about a failure; the one exception is `request_agent_forwarding`. A test notices names that are gone.
Never: a signature that needs the person (a confirmation, a touch) before the server has said that it accepts the key. The
exception is the last key to try.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Container, Coroutine, Sequence
from typing import Any

from asyncssh import (
    ProtocolError,
    SSHClientChannel,
    SSHClientConnection,
    SSHKey,
    SSHKeyPair,
    auth,
    public_key,
)
from asyncssh.channel import SSHChannel
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_EXT_INFO, MSG_SERVICE_ACCEPT
from asyncssh.packet import Boolean, SSHPacket, String

from mailrelay.ssh.flood import MAX_FIRST_DATA, FloodGuard


class LoginObserver:
    """Methods that the owner of a connection may override, to hear about its login."""

    def login_refused(self, methods: Sequence[str], key: SSHKeyPair | None, *, partial: bool) -> None:
        """The server refused a request, or accepted it and wants another one: `partial` (RFC 4252 section 5.1).

        methods: those with which the login can continue, as far as asyncssh knows them. key: None for the method "none".
        """

    def key_not_signed(self, key: SSHKeyPair) -> None:
        """The server accepts a key, and no signature by the key could be made."""


def skip_methods_query(connection: SSHClientConnection) -> None:
    """Makes the login start with a key, without a request for the methods ("none", RFC 4252 section 5.2), which follows if
    there is no key. To be called in `asyncssh.SSHClient.begin_auth`."""
    connection._auth_methods = [b"publickey", b"none"]


def _observer(connection: Any) -> LoginObserver:
    owner = connection.get_owner()
    return owner if isinstance(owner, LoginObserver) else LoginObserver()


def _no_options(_options: bytes, _decoders: object, _critical: bool = True) -> dict[str, Any]:
    return {}


_ASKED_FOR_NONE = "mailrelay_asked_for_none"
"""An attribute of ours on a connection: whether the method "none" has been tried."""

with contextlib.suppress(AttributeError):
    _NoneFirst = auth._ClientNullAuth
    _QueryFirst = auth._ClientPublicKeyAuth

    class _ObservedNone(_NoneFirst):
        async def _start(self) -> None:
            setattr(self._conn, _ASKED_FOR_NONE, True)
            await super()._start()

        def auth_failed(self) -> None:
            _observer(self._conn).login_refused(self._conn.get_server_auth_methods(), None, partial=False)

    class _SignAtOnce(_QueryFirst):
        async def send_request(self, *args: bytes, key: Any = None, trivial: bool = True) -> None:
            pair = getattr(self, "_keypair", None)
            # Other keys to try, and an RSA certificate that asyncssh will try again under the name of a SHA-2 algorithm.
            is_last = not (getattr(self._conn, "_client_keys", True) or getattr(self._conn, "_saved_rsa_key", None))
            if key is None and pair is not None and (is_last or signs_at_no_cost(pair)):
                # If signing fails, ask first as usual: the server may not accept the key anyway.
                with contextlib.suppress(Exception):
                    await self._send_signature()
                    return
            await super().send_request(*args, key=key, trivial=trivial)

        async def _send_signed_request(self) -> None:
            # The server has said that it accepts the key.
            try:
                await self._send_signature()
            except Exception:
                if self._keypair is not None:
                    _observer(self._conn).key_not_signed(self._keypair)
                self._conn.try_next_auth()

        async def _send_signature(self) -> None:
            pair = self._keypair
            if pair is None:
                raise ValueError("no key to sign with")
            words = (Boolean(True), String(pair.algorithm), String(pair.public_data))
            await super().send_request(*words, key=pair, trivial=False)

        def auth_failed(self) -> None:
            methods = self._conn.get_server_auth_methods()
            _observer(self._conn).login_refused(methods, self._pair, partial=False)
            if "publickey" not in methods and not getattr(self._conn, _ASKED_FOR_NONE, False):
                # A server that takes no keys may ask for nothing.
                self._conn._auth_methods.append(b"none")

        def auth_succeeded(self) -> None:
            # Also called after the first of several steps.
            methods = self._conn.get_server_auth_methods()
            _observer(self._conn).login_refused(methods, self._pair, partial=True)

        @property
        def _pair(self) -> Any:
            # A server may reply before it was asked.
            return getattr(self, "_keypair", None)

    # The options of a certificate are for the server. asyncssh reads no certificate with one that it does not know.
    public_key.SSHOpenSSHCertificate._decode_options = staticmethod(_no_options)  # type: ignore[method-assign,assignment]

    auth._client_auth_handlers[b"none"] = _ObservedNone
    auth._client_auth_handlers[b"publickey"] = _SignAtOnce


_USERAUTH = b"ssh-userauth"
_HAS_BEGUN = "mailrelay_has_begun"
"""An attribute of ours on a connection: the authentication has begun before the reply to the service request."""

with contextlib.suppress(AttributeError, KeyError):
    _handlers: Any = SSHConnection._packet_handlers
    _extensions_received, _service_accepted = _handlers[MSG_EXT_INFO], _handlers[MSG_SERVICE_ACCEPT]

    def _begin_after_extensions(connection: Any, kind: int, sequence: int, packet: SSHPacket) -> None:
        """The server names its signature algorithms in the flight that ends the key exchange (RFC 8308 section 2.4): the
        authentication can begin. Without them the choice for an RSA key would be a guess."""
        _extensions_received(connection, kind, sequence, packet)
        if connection.is_client() and connection._next_service == _USERAUTH:
            _service_accepted(connection, MSG_SERVICE_ACCEPT, sequence, SSHPacket(String(_USERAUTH)))
            setattr(connection, _HAS_BEGUN, True)

    def _accept_once(connection: Any, kind: int, sequence: int, packet: SSHPacket) -> None:
        if getattr(connection, _HAS_BEGUN, False):
            setattr(connection, _HAS_BEGUN, False)
            if packet.get_string() != _USERAUTH:
                raise ProtocolError("Unexpected service in service accept")
        else:
            _service_accepted(connection, kind, sequence, packet)

    _handlers[MSG_EXT_INFO], _handlers[MSG_SERVICE_ACCEPT] = _begin_after_extensions, _accept_once


_RSA_CERTIFICATE = b"ssh-rsa-cert-v01@openssh.com"
_KNOWS_ONE_NAME = re.compile(r"SSH-2\.0-OpenSSH_7\.[2-7]")
"""Servers that know RSA certificates under one name, whatever the hash of the signature."""


def name_rsa_certificate(connection: SSHClientConnection, pair: SSHKeyPair, accepted: Container[str] | None) -> None:
    """Lets an RSA certificate be offered under the name of a SHA-2 algorithm that the server knows.

    asyncssh offers it under the old name first, and tries the other one only if another key follows. accepted:
    PubkeyAcceptedAlgorithms, None for any.
    """
    version = connection.get_extra_info("server_version") or ""
    if pair.algorithm != _RSA_CERTIFICATE or _KNOWS_ONE_NAME.match(version):
        return
    known = server_signature_algorithms(connection)
    for name in pair.sig_algorithms:
        certified = name + _RSA_CERTIFICATE.removeprefix(b"ssh-rsa")
        if name.startswith(b"rsa-") and name.decode() in known and (accepted is None or certified.decode() in accepted):
            pair.algorithm, pair.sig_algorithms = certified, (name,)
            return


def signs_at_no_cost(pair: SSHKeyPair) -> bool:
    """Whether a signature needs no action of the person. With a key of an agent or of a token, it may need one."""
    return pair.get_key_type() == "local" and not pair.use_executor


def judge_host_key(connection: SSHClientConnection, judge: Callable[[bytes], SSHKey]) -> None:
    """Lets `judge` check what the server offers, the octets of a host key or of a host certificate: it returns the server's
    own key, or raises asyncssh.HostKeyNotVerifiable.

    The library's own check ends the login for a certificate that is not valid. If the library had no such method, it would
    accept no host key.
    """
    connection.validate_server_host_key = judge  # type: ignore[method-assign,assignment]


def server_algorithms(connection: SSHClientConnection) -> tuple[tuple[str, ...], ...]:
    """The lists of algorithms that the server offers, in the order of RFC 4253 section 7.1; () if it has sent none."""
    payload: bytes = getattr(connection, "_server_kexinit", b"")
    if not payload:
        return ()
    packet = SSHPacket(payload)
    packet.get_bytes(17)
    return tuple(tuple(name.decode("ascii", "replace") for name in packet.get_namelist()) for _ in range(8))


def server_signature_algorithms(connection: SSHClientConnection) -> frozenset[str]:
    """The algorithms of signatures that the server accepts (RFC 8308 section 3.1); none if it has not said."""
    found: set[bytes] = getattr(connection, "_server_sig_algs", set())
    return frozenset(name.decode("ascii", "replace") for name in found if name)


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


SERVER_FAULT = "mailrelay_server_fault"
"""The name of the `ServerFault` by which a connection has ended, for its `get_extra_info`."""


class ServerFault(ProtocolError):
    """The server does not keep to a bound of ours, or to SSH. reason: a text after the name of the server."""


def bound_received(connection: SSHClientConnection, guard: FloodGuard) -> bool:
    """Lets `guard` end the connection, by `ServerFault`. After its end, nothing more that was received is processed. Returns
    False, and bounds nothing, if the library has no such methods."""
    if not all(hasattr(connection, name) for name in ("_recv_data", "_finish_recv_packet", "_force_close", "_inpbuf")):
        return False
    bounded = _Bounded(connection, guard)
    connection._recv_data = bounded.receive  # type: ignore[method-assign]
    connection._finish_recv_packet = bounded.finish_packet  # type: ignore[method-assign,assignment]
    return True


class _Bounded:
    """The two methods of a connection that `bound_received` replaces."""

    def __init__(self, connection: Any, guard: FloodGuard) -> None:
        self._connection = connection
        self._guard = guard
        self._process = connection._recv_data
        self._finish = connection._finish_recv_packet
        # Octets that the last call could not process.
        self._waiting = 0

    def receive(self) -> None:
        """Called for new octets, and when a step has ended that other octets had to wait for."""
        connection, guard = self._connection, self._guard
        octets = len(connection._inpbuf) - self._waiting
        if (room := MAX_FIRST_DATA - len(guard.first_data)) > 0:
            guard.first_data += connection._inpbuf[self._waiting : self._waiting + room]
        if connection._transport is None:
            connection._inpbuf = b""
        else:
            self._process()
        self._waiting = len(connection._inpbuf)
        transport = connection._transport
        unsent = transport.get_write_buffer_size() if transport is not None else 0
        if reason := guard.received(octets, self._waiting, unsent):
            self._end(reason)

    def finish_packet(self, kind: int, sequence: int, *arguments: Any, **keywords: Any) -> None:
        """Called after each packet."""
        connection = self._connection
        reason = self._guard.packet(kind, connection._pktlen, connection._send_seq, time.monotonic())
        if reason:
            self._end(reason)
        elif connection._transport is None:
            connection._inpbuf = b""
        else:
            self._finish(kind, sequence, *arguments, **keywords)

    def _end(self, reason: str) -> None:
        connection = self._connection
        if connection._transport is not None:
            # Without this, uvloop reads on in this turn of the loop.
            with contextlib.suppress(RuntimeError):
                connection._transport.pause_reading()
            fault = ServerFault(reason)
            connection.set_extra_info(**{SERVER_FAULT: fault})
            connection._force_close(fault)
        connection._inpbuf, self._waiting = b"", 0


def packet_size(channel: SSHChannel[bytes]) -> int:
    """Octets that the server takes in one packet of a channel; the least that RFC 4253 section 6.1 requires if it is not
    known."""
    return int(getattr(channel, "_send_pktsize", 32_768))


def send_window(channel: SSHChannel[bytes]) -> int | None:
    """Octets that the server takes on a channel before it must grant more (RFC 4254 section 5.2); None if the library does
    not say."""
    window: int | None = getattr(channel, "_send_window", None)
    return window


def octets_unsent(connection: SSHClientConnection) -> int:
    """Octets that wait in the write buffer of a connection's transport."""
    transport = getattr(connection, "_transport", None)
    return int(transport.get_write_buffer_size()) if transport is not None else 0


def keys_exchanged(connection: SSHClientConnection) -> bool:
    """Whether no key exchange is in progress: until its end the library keeps all that is written."""
    return bool(getattr(connection, "_kex_complete", True))


def forgive_keepalives(connection: SSHClientConnection, is_moving: Callable[[], bool]) -> bool:
    """Lets no keepalive request count as lost while `is_moving` returns True: on a slow network the request waits behind
    data. It is called before every request. Returns False if the library has no such method."""
    callback: Callable[[], None] | None = getattr(connection, "_keepalive_timer_callback", None)
    if callback is None:
        return False

    def call_and_forgive() -> None:
        if is_moving():
            connection._keepalive_count = 0
        callback()

    connection._keepalive_timer_callback = call_and_forgive  # type: ignore[method-assign]
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
