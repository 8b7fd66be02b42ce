"""Any message of rtnetlink is read, and only one that may allow a connection or removes an address is a change."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.network import rtnetlink
from mailrelay.network.events import Change
from mailrelay.network.rtnetlink import NetworkState

RUNNING, DOWN = 0x1 | 0x40, 0x1
TENTATIVE = 0x40
UNIVERSE, LINK = 0, 253
ETHERNET, WIRELESS = 2, 3
KINDS = (16, 17, 20, 21, 24, 25)
MAY_CONNECT = Change(may_connect=True)


def attribute(kind: int, octets: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(octets), kind) + octets + bytes(-len(octets) % 4)


def datagram(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def interface(index: int, flags: int, *, kind: int = rtnetlink.RTM_NEWLINK) -> bytes:
    return datagram(kind, struct.pack("=BxHiII", 0, 1, index, flags, 0) + attribute(3, b"eth0\0"))


def address(
    index: int, text: str, *, kind: int = rtnetlink.RTM_NEWADDR, scope: int = UNIVERSE, flags: int = 0
) -> bytes:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    octets = socket.inet_pton(family, text)
    head = struct.pack("=BBBBI", family, 24, flags & 0xFF, scope, index)
    return datagram(kind, head + attribute(1, octets) + attribute(8, struct.pack("=I", flags)))


def route(index: int, gateway: str, *, kind: int = rtnetlink.RTM_NEWROUTE, length: int = 0, what: int = 1) -> bytes:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, 254, 3, 0, what, 0)
    octets = socket.inet_pton(socket.AF_INET, gateway)
    return datagram(kind, head + attribute(5, octets) + attribute(4, struct.pack("=I", index)))


def heard(*datagrams: bytes) -> Change:
    """What the last of these is, after the others."""
    state = NetworkState()
    return [state.update(one) for one in datagrams][-1]


UP = interface(ETHERNET, RUNNING)
HERE = address(ETHERNET, "192.0.2.7")


@given(st.binary())
def test_after_bytes_of_any_kind_the_network_is_still_understood(data: bytes) -> None:
    state = NetworkState()
    state.update(data)
    assert state.update(UP + HERE).may_connect
    rtnetlink.ends_dump(data)


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=80)), max_size=6))
def test_after_messages_with_any_content_the_network_is_still_understood(messages: list[tuple[int, bytes]]) -> None:
    state = NetworkState()
    state.update(b"".join(datagram(kind, body) for kind, body in messages))
    assert state.update(UP + HERE).may_connect


@given(st.data())
def test_after_a_message_that_is_cut_off_or_has_a_bit_turned_the_network_is_understood(data: st.DataObject) -> None:
    whole = UP + HERE + route(ETHERNET, "192.0.2.1")
    at = data.draw(st.integers(0, len(whole) - 1))
    turned = whole[at] ^ (1 << data.draw(st.integers(0, 7)))
    for damaged in (whole[:at], whole[:at] + bytes([turned]) + whole[at + 1 :]):
        state = NetworkState()
        state.update(damaged)
        assert state.update(UP + address(ETHERNET, "198.51.100.9")).may_connect


def test_an_address_on_a_running_interface_may_allow_a_connection() -> None:
    assert heard(UP, HERE) == MAY_CONNECT
    assert heard(UP, address(ETHERNET, "2001:db8::7")) == MAY_CONNECT


def test_a_default_route_may_allow_a_connection_and_no_other_route_does() -> None:
    assert heard(route(ETHERNET, "192.0.2.1")) == MAY_CONNECT
    assert not heard(route(ETHERNET, "192.0.2.1", length=24))
    assert not heard(route(ETHERNET, "192.0.2.1", what=7)), "unreachable default is no way"


def test_a_cable_that_is_plugged_in_again_may_allow_a_connection_where_the_address_has_stayed() -> None:
    assert heard(UP, HERE, interface(ETHERNET, DOWN), UP) == MAY_CONNECT


def test_a_default_route_that_went_with_its_interface_is_new_when_it_comes_again() -> None:
    one = route(ETHERNET, "192.0.2.1")
    assert heard(UP, one, interface(ETHERNET, DOWN), UP, one) == MAY_CONNECT
    assert heard(UP, one, route(ETHERNET, "192.0.2.1", kind=rtnetlink.RTM_DELROUTE), one) == MAY_CONNECT


def test_what_is_only_said_again_is_no_change() -> None:
    assert not heard(UP, HERE, HERE)
    assert not heard(UP, HERE, UP)
    assert not heard(route(ETHERNET, "192.0.2.1"), route(ETHERNET, "192.0.2.1"))


def test_what_leads_nowhere_is_no_change() -> None:
    assert not heard(interface(ETHERNET, RUNNING)), "a container's interface, without an address"
    assert not heard(UP, address(ETHERNET, "fe80::1", scope=LINK))
    assert not heard(HERE), "of an interface that does not run"
    assert not heard(UP, address(ETHERNET, "2001:db8::7", flags=TENTATIVE))


def test_an_address_that_was_tentative_is_news_once_it_can_be_used() -> None:
    text = "2001:db8::7"
    assert heard(UP, address(ETHERNET, text, flags=TENTATIVE), address(ETHERNET, text)) == MAY_CONNECT


def test_an_address_has_gone_when_no_interface_has_it_any_more() -> None:
    gone = address(ETHERNET, "192.0.2.7", kind=rtnetlink.RTM_DELADDR)
    assert heard(UP, HERE, gone) == Change(removed_addresses=frozenset({"192.0.2.7"}))
    assert not heard(UP, HERE, address(WIRELESS, "192.0.2.7"), gone)
    assert heard(UP, HERE, gone, HERE) == MAY_CONNECT


def test_several_messages_of_one_datagram_are_one_change() -> None:
    moved = UP + HERE + address(ETHERNET, "192.0.2.8", kind=rtnetlink.RTM_DELADDR)
    assert heard(moved) == Change(may_connect=True, removed_addresses=frozenset({"192.0.2.8"}))


def test_a_dump_ends_with_the_datagram_that_holds_done_also_after_other_messages() -> None:
    done = datagram(rtnetlink.NLMSG_DONE, struct.pack("=i", 0))
    assert rtnetlink.ends_dump(done)
    assert rtnetlink.ends_dump(UP + HERE + done)
    assert not rtnetlink.ends_dump(UP + HERE)
    assert not rtnetlink.ends_dump(b"")
    # A message cut off in its header is none.
    assert not rtnetlink.ends_dump(done[:15])


@pytest.mark.parametrize("kind", [rtnetlink.RTM_GETLINK, rtnetlink.RTM_GETADDR])
def test_a_dump_request_asks_for_the_state_of_all_families(kind: int) -> None:
    request = rtnetlink.dump_request(kind)
    assert struct.unpack_from("=IHHII", request) == (len(request), kind, 0x1 | 0x300, 0, 0)
    assert request[16:] == b"\0"
