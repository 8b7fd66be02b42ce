"""The queue id in the 250 of each mail server, and no id where there is none that a shell may see."""

import pytest

from mailrelay.tracking.queue_id import QueueId, Server, is_safe, queue_id_in


@pytest.mark.parametrize(
    ("text", "server", "name"),
    [
        (b"2.0.0 Ok: queued as 6076427E9A1", Server.POSTFIX, "6076427E9A1"),
        (b"2.0.0 Ok: 4711 bytes queued as 4cXYZ34mQzz1Bq", Server.POSTFIX, "4cXYZ34mQzz1Bq"),
        (b"2.0.0 6ASAlPhe000224 Message accepted for delivery", Server.SENDMAIL, "6ASAlPhe000224"),
        (b"OK id=1xXG0k-000024-2n", Server.EXIM, "1xXG0k-000024-2n"),
        (b"OK id=1xXG0k-00000000024-2nAB", Server.EXIM, "1xXG0k-00000000024-2nAB"),
        (b"2.0.0 14970b17 Message accepted for delivery", Server.OPENSMTPD, "14970b17"),
        (b"ok 1795862845 qp 4711", Server.QMAIL, "4711"),
        (b"2.0.0 Message queued with id 1a2b3c", Server.STALWART, "1a2b3c"),
        (b"Thanks, queued as <x.1-Z>", Server.OTHER, "x.1-Z"),
    ],
)
def test_each_server_names_its_id(text: bytes, server: Server, name: str) -> None:
    assert queue_id_in(text) == QueueId(server, name)


@pytest.mark.parametrize(
    "text",
    [
        b"2.0.0 Ok: queued as $(reboot)",
        b"2.0.0 Ok: queued as 6076427E9A1;reboot",
        b"queued as -rf",
        b"2.0.0 Ok",
        b"",
    ],
)
def test_what_is_no_id_is_none(text: bytes) -> None:
    assert queue_id_in(text) is None


@pytest.mark.parametrize(
    ("name", "safe"),
    [("6076427E9A1", True), ("1xXG0k-000024-2n", True), ("x.1-Z", True)]
    + [(name, False) for name in ("", "-rf", "a b", "a;b", "$(a)", "a\n", "a/b", "a\0", "ä", "*", "a" * 1000)],
)
def test_only_letters_digits_and_marks_between_them_are_shown_to_a_shell(name: str, safe: bool) -> None:
    assert is_safe(name) is safe
