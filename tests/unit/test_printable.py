"""Text from outside is escaped, so that it cannot affect its display."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.printable import printable


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"550 5.1.1 no such user", "550 5.1.1 no such user"),
        (b"\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\r\nb\tc", "a\\x0d\\x0ab\\x09c"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("invoice\u202efdp.exe", "invoice\\u202efdp.exe"),
        ("line\u2028line\u2029", "line\\u2028line\\u2029"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("Grüße, 田中　様", "Grüße, 田中　様"),
        ("می‌خواهم 👩‍🚀", "می‌خواهم 👩‍🚀"),
        (b"Gr\xfc\xdfe", "Gr\\xfc\\xdfe"),
        (b"", ""),
    ],
)
def test_only_what_could_act_on_the_screen_is_escaped(raw: bytes | str, shown: str) -> None:
    assert printable(raw) == shown


def test_what_is_cut_off_leaves_an_ellipsis_and_what_fits_is_whole() -> None:
    assert printable("abcdef", 6) == "abcdef"
    assert printable("abcdefg", 6) == "abcde…"
    assert printable("\x1b\x1b", 5) == "\\x1b…"


@given(st.one_of(st.binary(), st.text(st.characters())))
def test_no_input_leaves_anything_that_acts_and_a_second_pass_changes_nothing(raw: bytes | str) -> None:
    shown = printable(raw)
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp", "Co", "Cn")]
    assert not [char for char in shown if unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF")]
    assert printable(shown) == shown
    shown.encode()


@given(st.binary(), st.integers(1, 40))
def test_the_limit_is_never_passed(raw: bytes, limit: int) -> None:
    assert len(printable(raw, limit)) <= limit
