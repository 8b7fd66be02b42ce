"""What all tests share.

Hypothesis without deadlines, because how fast a machine is today is no property of this program. And names of tests that
stay the same from run to run: keys that are made anew each time are not part of them.
"""

import pytest
from hypothesis import settings

# Before the first import of it: failed assertions of helpers are explained as those of tests are.
pytest.register_assert_rewrite("harness")

settings.register_profile("mailrelay", deadline=None)
settings.load_profile("mailrelay")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    return argname if isinstance(val, str) and "AAAA" in val else None
