"""Values printed by `systemctl show-environment` are unquoted as a shell does."""

import pytest

from mailrelay.check.environment import unquoted


@pytest.mark.parametrize(
    ("shown", "value"),
    [
        ("/run/user/1000/agent", "/run/user/1000/agent"),
        ("", ""),
        ("'a b'", "a b"),
        ('"a b"', "a b"),
        ("a\\ b", "a b"),
        ("$'a\\nb'", "a\nb"),
        ("$'it\\'s'", "it's"),
        ("$'caf\u00e9'", "caf\u00e9"),
        ("'never ends", "'never ends"),
    ],
)
def test_a_value_is_unquoted_as_by_a_shell(shown: str, value: str) -> None:
    assert unquoted(shown) == value
