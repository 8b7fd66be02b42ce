"""The listening sockets: what a server gets, which uses keep one open, and whose socket file is removed."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.listener import sockets as module
from mailrelay.listener.sockets import AddressTaken, CannotListen, Sockets, bound_endpoint

ANY = Tcp("127.0.0.1", 0)


@contextmanager
def opened(sockets: Sockets, endpoint: Endpoint) -> Iterator[list[Endpoint]]:
    """Opens for a server, and closes its duplicates. Gives the addresses."""
    with ExitStack() as stack:
        yield [bound_endpoint(stack.enter_context(one)) for one in sockets.open(endpoint)]


def accepts(address: Endpoint) -> bool:
    family = socket.AF_UNIX if isinstance(address, Unix) else socket.AF_INET
    with socket.socket(family) as client:
        at = address.path if isinstance(address, Unix) else (address.host, address.port)
        return client.connect_ex(at) == 0


@pytest.mark.parametrize("is_inherited", [False, True])
def test_a_server_never_waits_for_a_client_that_has_gone(is_inherited: bool) -> None:
    """One that a service manager has opened may block until it is told not to."""
    inherited = [socket.create_server(("127.0.0.1", 0))] if is_inherited else []
    sockets = Sockets(inherited)
    (one,) = sockets.open(bound_endpoint(inherited[0]) if inherited else ANY)
    with one:
        assert not os.get_blocking(one.fileno())
        sockets.release([bound_endpoint(one)])
    for left in inherited:
        left.close()


def test_port_0_is_another_free_port_each_time() -> None:
    sockets = Sockets()
    with opened(sockets, ANY) as first, opened(sockets, ANY) as second, opened(sockets, Tcp("localhost", 0)) as both:
        assert len({*first, *second, *both}) == 4
        assert len({one.port for one in both if isinstance(one, Tcp)}) == 1
        sockets.release([*first, *second, *both])


def test_a_socket_is_open_until_its_last_user_has_released_it(tmp_path: Path) -> None:
    address = Unix(str(tmp_path / "socket"))
    sockets = Sockets()
    with opened(sockets, address):
        pass
    sockets.reset_claims()
    with opened(sockets, address):
        pass
    sockets.release([address])
    assert accepts(address)
    sockets.release([address])
    assert not Path(address.path).exists()
    # A release of what is closed does nothing.
    sockets.release([address])
    with opened(sockets, Unix(str(tmp_path / "other"))):
        assert accepts(Unix(str(tmp_path / "other")))


def test_a_socket_is_opened_anew_after_it_was_closed(tmp_path: Path) -> None:
    address = Unix(str(tmp_path / "socket"))
    sockets = Sockets()
    for _ in range(2):
        with opened(sockets, address):
            assert accepts(address)
            sockets.release([address])
        assert not Path(address.path).exists()
        sockets.reset_claims()


def test_an_inherited_socket_is_never_closed_nor_its_file_removed(tmp_path: Path) -> None:
    address = Unix(str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX) as inherited:
        inherited.bind(address.path)
        inherited.listen()
        sockets = Sockets([inherited])
        assert sockets.inherited == {address}
        for _ in range(2):
            with opened(sockets, address):
                pass
            sockets.release([address])
            sockets.reset_claims()
        assert accepts(address)
    assert Path(address.path).exists()


def test_settings_may_name_an_address_once_and_new_settings_again(tmp_path: Path) -> None:
    address, kept = Unix(str(tmp_path / "socket")), Unix(str(tmp_path / "kept"))
    sockets = Sockets()
    with opened(sockets, address), opened(sockets, kept):
        for again in (address, kept):
            with pytest.raises(AddressTaken, match="the settings name it twice"):
                sockets.open(again)
        sockets.reset_claims([kept])
        with opened(sockets, address):
            pass
        for again in (address, kept):
            with pytest.raises(AddressTaken, match="the settings name it twice"):
                sockets.open(again)
        # What could not be opened has left nothing, and has closed nothing.
        assert accepts(address)
        assert accepts(kept)
        sockets.release([address, address, kept])
    assert not any(Path(one.path).exists() for one in (address, kept))


@contextmanager
def listening_on_ipv6() -> Iterator[int]:
    """A port on ::1 that nobody uses on 127.0.0.1, also not as a client."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            holder = socket.create_server(("::1", port), family=socket.AF_INET6)
            break
    with holder:
        yield port


def test_if_one_address_of_localhost_is_taken_the_other_is_closed_unless_a_server_uses_it() -> None:
    with listening_on_ipv6() as port:
        four = Tcp("127.0.0.1", port)
        sockets = Sockets()
        with pytest.raises(AddressTaken):
            sockets.open(Tcp("localhost", port))
        assert not accepts(four)
        with opened(sockets, four):
            sockets.reset_claims()
            with pytest.raises(AddressTaken):
                sockets.open(Tcp("localhost", port))
            assert accepts(four)
            sockets.release([four])


def test_a_machine_without_ipv6_listens_on_ipv4_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = -1, *rest: int, **named: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest, **named)

    monkeypatch.setattr(module.socket, "socket", without_ipv6)
    sockets = Sockets()
    (one,) = sockets.open(Tcp("localhost", 0))
    with one:
        address = bound_endpoint(one)
        assert isinstance(address, Tcp)
        assert address.host == "127.0.0.1"
        sockets.release([address])
    with pytest.raises(CannotListen, match=r"\[::1\]:0: this machine has no such address"):
        sockets.open(Tcp("::1", 0))


def test_a_socket_file_is_private_from_the_start_and_the_umask_stays(tmp_path: Path) -> None:
    """Also where it cannot be made."""
    before = os.umask(0o022)
    try:
        path = tmp_path / "socket"
        with opened(sockets := Sockets(), Unix(str(path))):
            assert path.stat().st_mode & 0o777 == 0o600
            sockets.release([Unix(str(path))])
        with pytest.raises(CannotListen, match="No such file or directory"):
            Sockets().open(Unix(str(tmp_path / "nowhere/socket")))
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
