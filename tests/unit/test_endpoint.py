"""Endpoints are written as the settings file has them, and read back as the same value."""

import pytest

from mailrelay.endpoint import Endpoint, Tcp, Unix
from mailrelay.grammar import SettingsError, listen_endpoint, remote_endpoint, tcp_endpoint


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Tcp("localhost", 25), "localhost:25"),
        (Tcp("192.0.2.1", 80), "192.0.2.1:80"),
        (Tcp("::1", 143), "[::1]:143"),
        (Unix("/run/imap"), "unix:/run/imap"),
    ],
)
def test_an_endpoint_is_written_in_the_notation_of_the_settings_and_read_back(endpoint: Endpoint, text: str) -> None:
    assert str(endpoint) == text
    assert remote_endpoint(text) == endpoint


def test_port_0_is_for_listening_only() -> None:
    assert listen_endpoint("[::1]:0", {}) == Tcp("::1", 0)
    with pytest.raises(SettingsError, match="is not a host and port"):
        tcp_endpoint("[::1]:0")
