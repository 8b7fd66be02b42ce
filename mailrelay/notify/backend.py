"""The interface of a notice backend: an async function that delivers notices to the person.

A backend is called with one notice, or with several that it sums up as one where it can. It returns once the notices are
delivered and cannot be lost any more. Otherwise it raises `BackendFailed`, or `BackendMissing` if waiting for it is in vain.
It may be cancelled at any time.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from mailrelay.mail.notice import Notice

Deliver = Callable[[Sequence[Notice]], Coroutine[Any, Any, None]]


class BackendFailed(Exception):
    """The backend did not deliver all notices; all of them stay pending. The text is one sentence with a fix, escaped."""


class BackendMissing(BackendFailed):
    """The backend cannot exist on this computer: its notices do not stay pending for it."""
