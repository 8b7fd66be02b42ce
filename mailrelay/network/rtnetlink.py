"""Reads the kernel's messages about the network, rtnetlink(7): whether a connection may be possible now, and which addresses
were removed.

    state = NetworkState()
    change = state.update(data)      # data: one datagram of the socket

Promises: no bytes raise an exception. A message that only repeats what is known (a renewed lease, another IPv6 router
advertisement) is no change. A message about loopback, a link-local address, or an interface without an address (such as a
container's) is no change.
Pure: no system call, no clock.
"""

import socket
import struct
from collections.abc import Iterator

from mailrelay.network.events import Change

# From linux/netlink.h and linux/rtnetlink.h.
NLMSG_DONE = 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_INTERFACE = struct.Struct("=BxHiII")  # family, type, index, flags, mask
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NUMBER = struct.Struct("=I")

_IFF_UP_AND_RUNNING = 0x1 | 0x40
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NOT_USABLE = 0x40 | 0x08  # tentative; a duplicate of another host's address
_RT_SCOPE_LINK = 253
_RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 4, 5, 6
_RTN_UNICAST = 1
_RTM_F_CLONED = 0x200


def dump_request(kind: int) -> bytes:
    """The request for the present state: of the interfaces (RTM_GETLINK) or of the addresses (RTM_GETADDR)."""
    body = b"\0"  # any address family
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + body


class NetworkState:
    """The running interfaces, the addresses and the default routes, as far as the messages have reported them."""

    def __init__(self) -> None:
        self._running: set[int] = set()
        self._addresses: set[tuple[int, str]] = set()
        self._defaults: set[tuple[int, int, int, int, bytes]] = set()

    def update(self, data: bytes) -> Change:
        """Adds the content of one datagram. Returns what it changed."""
        change = Change()
        for kind, body in _messages(data):
            if kind in (RTM_NEWLINK, RTM_DELLINK) and len(body) >= _INTERFACE.size:
                change |= self._interface(body, is_there=kind == RTM_NEWLINK)
            elif kind in (RTM_NEWADDR, RTM_DELADDR) and len(body) >= _ADDRESS.size:
                change |= self._address(body, is_there=kind == RTM_NEWADDR)
            elif kind in (RTM_NEWROUTE, RTM_DELROUTE) and len(body) >= _ROUTE.size:
                change |= self._route(body, is_there=kind == RTM_NEWROUTE)
        return change

    def _interface(self, body: bytes, *, is_there: bool) -> Change:
        _, _, index, flags, _ = _INTERFACE.unpack_from(body)
        if is_there and flags & _IFF_UP_AND_RUNNING == _IFF_UP_AND_RUNNING:
            is_new = index not in self._running
            self._running.add(index)
            # Without an address it cannot be used; its address comes as another message.
            return Change(may_connect=is_new and any(at == index for at, _ in self._addresses))
        self._running.discard(index)
        # The kernel removes the routes of an interface without a message.
        self._defaults = {route for route in self._defaults if route[1] != index}
        return Change()

    def _address(self, body: bytes, *, is_there: bool) -> Change:
        _, _, flags, scope, index = _ADDRESS.unpack_from(body)
        attributes = dict(_attributes(body[_ADDRESS.size :]))
        # For IPv4 on a point-to-point interface, IFA_ADDRESS is the address of the other end.
        address = _text(attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b"")))
        flags |= _number(attributes.get(_IFA_FLAGS, b""))
        if not address or scope >= _RT_SCOPE_LINK or (is_there and flags & _IFA_F_NOT_USABLE):
            return Change()
        if is_there:
            is_new = (index, address) not in self._addresses
            self._addresses.add((index, address))
            return Change(may_connect=is_new and index in self._running)
        self._addresses.discard((index, address))
        is_elsewhere = any(other == address for _, other in self._addresses)
        return Change() if is_elsewhere else Change(removed_addresses=frozenset({address}))

    def _route(self, body: bytes, *, is_there: bool) -> Change:
        family, length, _, _, table, _, _, kind, flags = _ROUTE.unpack_from(body)
        if length or kind != _RTN_UNICAST or flags & _RTM_F_CLONED:
            return Change()
        attributes = dict(_attributes(body[_ROUTE.size :]))
        out, priority = (_number(attributes.get(name, b"")) for name in (_RTA_OIF, _RTA_PRIORITY))
        route = (family, out, table, priority, attributes.get(_RTA_GATEWAY, b""))
        is_new = is_there and route not in self._defaults
        (self._defaults.add if is_there else self._defaults.discard)(route)
        return Change(may_connect=is_new)


def ends_dump(data: bytes) -> bool:
    """Whether this datagram ends the reply to a `dump_request`."""
    return any(kind == NLMSG_DONE for kind, _ in _messages(data))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[-(-length // 4) * 4 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : length]
        data = data[-(-length // 4) * 4 :]


def _text(octets: bytes) -> str:
    family = {4: socket.AF_INET, 16: socket.AF_INET6}.get(len(octets))
    return socket.inet_ntop(family, octets) if family is not None else ""


def _number(octets: bytes) -> int:
    found: int = _NUMBER.unpack(octets)[0] if len(octets) == _NUMBER.size else 0
    return found
