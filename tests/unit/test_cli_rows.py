"""How the queue is shown: a row a recipient, the reason for whoever waits, and nothing raw."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.cli.rows import HEADINGS, plain, rows, uncertainty
from mailrelay.cli.terminal import colour, moment
from mailrelay.control.records import line, message_record
from mailrelay.mail.overview import Listed, ListedRecipient
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import length, size

NOW = 1_000_000.0


def recipient(state: str, words: bytes = b"", uncertain: float | None = None) -> ListedRecipient:
    return ListedRecipient(b"bob@example.org", state, "4.0.0", "RCPT", words, uncertain)


def message(*recipients: ListedRecipient, fault_text: str = "", next_attempt: float | None = NOW + 240) -> Listed:
    return Listed(
        1, "aaaa000001", "deferred", "default", NOW - 720, 1234, b"me@x", "hi", 1, next_attempt, fault_text, recipients
    )


@pytest.mark.parametrize(
    ("state", "words", "fault_text", "reason"),
    [
        ("deferred", b"450 later", "", "450 later"),
        ("deferred", b"450 later", "no network", "450 later"),
        ("queued", b"", "no network", "no network"),
        ("queued", b"", "", ""),
        ("active", b"450 later", "", "450 later"),
        ("held", b"too odd", "no network", ""),
        ("bounced", b"550 no", "no network", ""),
        ("sent", b"250 ok", "no network", ""),
    ],
)
def test_only_who_waits_has_a_delay_reason(state: str, words: bytes, fault_text: str, reason: str) -> None:
    said: Any = message_record(message(recipient(state, words), fault_text=fault_text), NOW)
    (found,) = said["recipients"]
    assert found["delay_reason"] == reason
    assert found["reply"] == words.decode()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("queued", "may arrive twice"),
        ("deferred", "may arrive twice"),
        ("active", "may arrive twice"),
        ("sent", "may arrive twice"),
        ("held", "may have arrived all the same"),
        ("bounced", "may have arrived all the same"),
        ("cancelled", "may have arrived all the same"),
    ],
)
def test_what_may_have_arrived_is_said_in_every_state(state: str, words: str) -> None:
    assert uncertainty(recipient(state, uncertain=NOW)) == words
    assert uncertainty(recipient(state)) == ""
    assert words in plain(rows(message(recipient(state, uncertain=NOW)), NOW)[0])


@pytest.mark.parametrize(
    ("state", "next_attempt", "shown"),
    [
        ("deferred", NOW + 240, "in 4 min"),
        ("queued", NOW - 50, "now"),
        ("active", None, "now"),
        ("held", NOW + 240, "-"),
        ("bounced", None, "-"),
    ],
)
def test_the_next_attempt_is_shown_for_whom_there_is_one(state: str, next_attempt: float | None, shown: str) -> None:
    (row,) = rows(message(recipient(state), next_attempt=next_attempt), NOW)
    assert dict(zip(HEADINGS, row, strict=True))["NEXT"] == shown


def test_the_columns_of_plain_text_do_not_move() -> None:
    shown = [plain(HEADINGS), *(plain(rows(message(recipient(state)), NOW)[0]) for state in ("sent", "cancelled"))]
    assert {line.index(word) for line, word in zip(shown, ("FROM", "<me", "<me"), strict=True)} == {57}
    assert shown[1].startswith("aaaa000001  sent       12 min ago  ")


@given(st.binary(), st.binary(), st.text(), st.binary(), st.text())
def test_whatever_comes_from_outside_is_shown_on_one_line_and_escaped(
    address: bytes, words: bytes, subject: str, sender: bytes, fault_text: str
) -> None:
    hostile = ListedRecipient(address, "deferred", "4.0.0", "RCPT", words, NOW)
    listed = Listed(1, "aaaa000001", "deferred", "default", NOW, 1, sender, subject, 1, NOW, fault_text, (hostile,))
    again = json.loads(line(listed, NOW))
    assert again == message_record(listed, NOW)
    for text in (plain(rows(listed, NOW)[0]), again["subject"], again["sender"], *again["recipients"][0].values()):
        assert not isinstance(text, str) or printable(text) == text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86_399, "23 h"), (200_000, "2 d")],
)
def test_a_length_of_time_is_rounded_down(seconds: float, shown: str) -> None:
    assert length(seconds) == shown


def test_a_moment_is_in_the_past_now_or_to_come() -> None:
    assert [moment(at, NOW) for at in (NOW - 90, NOW - 0.5, NOW, NOW + 0.5, NOW + 90)] == [
        "1 min ago",
        "now",
        "now",
        "now",
        "in 1 min",
    ]


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1290, "1.2 kB"),
        (999_999, "999.9 kB"),
        (10**6, "1 MB"),
        (10**10, "10 GB"),
    ],
)
def test_a_size_is_rounded_down(octets: int, shown: str) -> None:
    assert size(octets) == shown


def test_what_is_no_terminal_gets_no_colour() -> None:
    assert colour("fine", "green", io.StringIO()) == "fine"


def test_a_terminal_gets_colour_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "")
    assert colour("fine", "green", terminal) == "\x1b[32mfine\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert colour("fine", "green", terminal) == "fine"
