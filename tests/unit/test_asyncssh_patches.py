"""The installed asyncssh still has the names that `asyncssh_patches` uses beside the public interface."""

import ast
import asyncio
from pathlib import Path
from types import FunctionType

import asyncssh
import pytest
from asyncssh import auth, public_key

import mailrelay
from mailrelay.ssh import asyncssh_patches

PUBLIC_KEY_AUTH = asyncssh_patches._QueryFirst
"""The library's own class: at import, `asyncssh_patches` registers a subclass of it."""

NULL_AUTH = asyncssh_patches._NoneFirst

ON_THE_MODULE = ("_ClientPublicKeyAuth", "_ClientNullAuth", "_client_auth_handlers")
ON_THE_CLASS = (
    (PUBLIC_KEY_AUTH, "_send_signed_request"),
    (PUBLIC_KEY_AUTH, "send_request"),
    (PUBLIC_KEY_AUTH, "auth_failed"),
    (PUBLIC_KEY_AUTH, "auth_succeeded"),
    (NULL_AUTH, "_start"),
    (NULL_AUTH, "auth_failed"),
    (asyncssh.SSHClientConnection, "validate_server_host_key"),
    (asyncssh.SSHClientConnection, "try_next_auth"),
    (asyncssh.SSHClientConnection, "get_owner"),
    (asyncssh.SSHClientConnection, "get_server_auth_methods"),
    (asyncssh.SSHClientConnection, "_recv_data"),
    (asyncssh.SSHClientConnection, "_finish_recv_packet"),
    (asyncssh.SSHClientConnection, "_force_close"),
    (asyncssh.SSHClientConnection, "_make_keepalive_request"),
    (asyncssh.SSHClientConnection, "_keepalive_timer_callback"),
    (asyncssh.SSHClientConnection, "create_task"),
    (asyncssh.SSHClientConnection, "is_client"),
    (public_key.SSHOpenSSHCertificate, "_decode_options"),
    (asyncssh.SSHClientChannel, "_open"),
    (asyncssh.SSHClientChannel, "_make_request"),
)
ON_INSTANCES = (
    (asyncssh.SSHClientConnection.try_next_auth, "_auth_methods"),
    (asyncssh.SSHClientConnection.public_key_auth_requested, "_client_keys"),
    (asyncssh.SSHClientConnection.public_key_auth_requested, "_saved_rsa_key"),
    (asyncssh.SSHClientConnection._process_kexinit, "_server_kexinit"),
    (asyncssh.SSHClientConnection._process_ext_info, "_server_sig_algs"),
    (asyncssh.SSHClientConnection.send_service_request, "_next_service"),
    (asyncssh.SSHClientConnection.process_packet, "_packet_handlers"),
    (asyncssh.SSHClientConnection._set_keepalive_timer, "_keepalive_timer_callback"),
    (asyncssh.SSHClientConnection._keepalive_timer_callback, "_keepalive_count"),
    (asyncssh.SSHClientConnection.data_received, "_inpbuf"),
    (asyncssh.SSHClientConnection._recv_packet, "_pktlen"),
    (asyncssh.SSHClientConnection._recv_packet, "_finish_recv_packet"),
    (asyncssh.SSHClientConnection._finish_recv_packet, "_transport"),
    (asyncssh.SSHClientConnection.send_packet, "_send_seq"),
    (asyncssh.SSHClientChannel._flush_send_buf, "_send_pktsize"),
    (asyncssh.SSHClientChannel._flush_send_buf, "_send_window"),
    (asyncssh.SSHClientChannel._process_window_adjust, "_send_window"),
    (asyncssh.SSHClientConnection.send_packet, "_kex_complete"),
    (PUBLIC_KEY_AUTH._start, "_keypair"),
    (PUBLIC_KEY_AUTH._start, "_conn"),
)
"""Each attribute with a method of the library that uses it."""
OURS = {"_send_signature", "_pair"}


@pytest.mark.parametrize("name", ON_THE_MODULE)
def test_the_module_for_authentication_has_the_name(name: str) -> None:
    assert hasattr(auth, name)


@pytest.mark.parametrize(("owner", "name"), ON_THE_CLASS)
def test_the_class_has_the_method(owner: type, name: str) -> None:
    assert callable(getattr(owner, name))


@pytest.mark.parametrize(("method", "name"), ON_INSTANCES)
def test_the_library_still_uses_the_attribute(method: FunctionType, name: str) -> None:
    assert name in method.__code__.co_names


def test_our_class_logs_in_with_keys() -> None:
    assert auth._client_auth_handlers[b"publickey"] is asyncssh_patches._SignAtOnce


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_the_library_ignores_a_full_transport(name: str) -> None:
    """What we put in its place would hide what the library did there."""
    library = getattr(asyncssh.SSHClientConnection, name)
    assert hasattr(asyncio.Protocol, name)
    assert library.__code__.co_names == ()


def test_received_data_goes_through_the_wrapped_method() -> None:
    assert "_recv_data" in asyncssh.SSHClientConnection.data_received.__code__.co_names


def test_every_private_name_of_the_module_is_in_a_table_of_this_test() -> None:
    tested = {*ON_THE_MODULE, *(name for _, name in (*ON_THE_CLASS, *ON_INSTANCES)), *OURS}
    assert private_names(Path(asyncssh_patches.__file__)) <= tested


def test_no_other_module_uses_private_names_of_another_object() -> None:
    package = Path(mailrelay.__file__).parent
    files = [*package.glob("ssh/*.py"), *package.glob("check/*.py")]
    found = {file.name: private_names(file) for file in files if file.name != "asyncssh_patches.py"}
    # A copy of the connection itself.
    assert {name: names for name, names in found.items() if names} == {"connection.py": {"_relayhost"}}


def private_names(file: Path) -> set[str]:
    """Private attributes that a module takes from objects other than `self`, directly or by getattr."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                # What the attribute itself has is another node.
                pass
            case ast.Attribute(attr="_replace"):
                # A public method of a NamedTuple.
                pass
            case ast.Attribute(attr=name) if name.startswith("_") and not name.startswith("__"):
                found.add(name)
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]) if name.startswith(
                "_"
            ):
                found.add(name)
    return found


def test_a_keepalive_request_without_a_reply_counts_only_while_nothing_moves() -> None:
    class Connection(asyncssh.SSHClientConnection):
        def __init__(self) -> None:
            self._keepalive_count = 0

        def _keepalive_timer_callback(self) -> None:
            self._keepalive_count += 1

    connection = Connection()
    moves = iter([True, True, False, False, True])
    assert asyncssh_patches.forgive_keepalives(connection, lambda: next(moves))
    counts = []
    for _ in range(5):
        connection._keepalive_timer_callback()
        counts.append(connection._keepalive_count)
    assert counts == [1, 1, 2, 3, 1]
