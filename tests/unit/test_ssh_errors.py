"""From an error of SSH to an outcome: where it happened, why, and whether the person must act."""

import errno
import socket
from pathlib import Path

import asyncssh
import pytest

from mailrelay.config import Relayhost
from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.mail.outcome import Cause, Outcome, Stage
from mailrelay.ssh.asyncssh_patches import ServerFault
from mailrelay.ssh.errors import message, server_fault, stream_failed
from mailrelay.ssh.hops import Hop, hops_of

PROHIBITED = asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")
REFUSED = asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused")
WEB, SOCKET = Tcp("localhost", 80), Unix("/run/imap")


@pytest.fixture
def hop(tmp_path: Path) -> Hop:
    config = tmp_path / "config"
    config.write_text("")
    [found] = hops_of(Relayhost(name="x", ssh="me@mail", ssh_config=config))
    return found


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (REFUSED, "Connection refused"),
        (asyncssh.ConnectionLost("It ended.\n\x1b[31m"), r"It ended.\x0a\x1b[31m"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 22)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (ValueError("it is short."), "it is short"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_is_one_printable_line_without_a_full_stop(error: Exception, text: str) -> None:
    assert message(error) == text


def test_a_server_that_does_not_keep_to_ssh_is_a_fault_for_the_person(hop: Hop) -> None:
    found = server_fault(ServerFault("it sends a packet of 9 GB\x1b"), hop)
    assert (found.stage, found.cause) == (Stage.DIAL, Cause.SSH_REFUSED)
    assert found.text == f"The SSH server of {hop.place} does not work correctly: it sends a packet of 9 GB\\x1b."
    assert found.fix == f"To see more: {hop.login_command}"


@pytest.mark.parametrize(
    ("to", "allowed"),
    [
        (WEB, '"AllowTcpForwarding yes", and localhost:80 in PermitOpen (or permitopen= of the key)'),
        (SOCKET, '"AllowStreamLocalForwarding yes"'),
    ],
)
def test_a_prohibited_endpoint_has_the_directive_that_allows_it(hop: Hop, to: Endpoint, allowed: str) -> None:
    text = f"The SSH server of {hop.place} prohibits forwarding to {to}: open failed."
    assert stream_failed(PROHIBITED, to, hop, is_up=True) == Outcome(
        Stage.CHANNEL, cause=Cause.FORWARDING_PROHIBITED, text=text, fix=f"In sshd_config there: {allowed}"
    )


def test_an_endpoint_that_is_not_reached_may_be_reached_later(hop: Hop) -> None:
    text = f"{hop.place} cannot reach localhost:80: Connection refused."
    assert stream_failed(REFUSED, WEB, hop, is_up=True) == Outcome(Stage.CHANNEL, cause=Cause.UNREACHABLE, text=text)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "{} did not answer in time when asked to open a channel to unix:/run/imap."),
        (PROHIBITED, "The connection to {} was lost when it was asked to open a channel to unix:/run/imap."),
        (REFUSED, "The connection to {} was lost when it was asked to open a channel to unix:/run/imap."),
    ],
)
def test_on_a_connection_that_is_lost_no_reply_counts(hop: Hop, error: Exception, text: str) -> None:
    found = stream_failed(error, SOCKET, hop, is_up=False)
    assert found == Outcome(Stage.CHANNEL, cause=Cause.LOST, text=text.format(hop.place))
