"""What a backend is: an async function that carries notices to the person, or says in one sentence why it could not.

A backend is called with one notice, or with several where one message to the person is to stand for them all. It returns
once they have left our hands for good, raises `BackendFailed` otherwise, and may be cancelled at any time.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from mailrelay.mail.notice import Notice

Carry = Callable[[Sequence[Notice]], Coroutine[Any, Any, None]]


class BackendFailed(Exception):
    """The backend carried nothing; the notice stays owed. The text is one sentence that a person can act on, escaped."""
