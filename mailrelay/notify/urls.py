"""The backend through apprise: to a phone, a chat, whatever a URL of theirs can name. Needs the extra mailrelay[apprise].

Promises: a missing library and a URL that it does not understand are found when the backend is built, not when there is bad
news. URLs hold secrets, so no text of ours ever holds one: they are named by their place in the settings.
"""

import logging
from collections.abc import Sequence
from typing import Any

try:
    import apprise  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    apprise = None  # type: ignore[assignment,unused-ignore]

from mailrelay.mail.notice import Notice
from mailrelay.mail.wording import body, summary, title
from mailrelay.notify.backend import BackendFailed, Carry

# It logs URLs.
logging.getLogger("apprise").setLevel(logging.CRITICAL)


def urls(addresses: Sequence[str]) -> Carry:
    """A backend to every one of `addresses`. Raises BackendFailed where it can never be gone as the settings stand."""
    if apprise is None:
        raise BackendFailed("urls in [notify] need a library that is not there: pip install 'mailrelay[apprise]'")
    services = []
    for place, address in enumerate(addresses, 1):
        service = apprise.Apprise()
        if not service.add(address):
            raise BackendFailed(f"urls in [notify]: number {place} is not a URL that apprise understands")
        services.append(service)

    async def carry(notices: Sequence[Notice]) -> None:
        headline, text = (title(notices[0]), body(notices[0])) if len(notices) == 1 else summary(notices)
        failed = [str(place) for place, service in enumerate(services, 1) if not await _took(service, headline, text)]
        if failed:
            raise BackendFailed(
                f"urls in [notify]: number {', '.join(failed)} of {len(services)} did not take the notice"
            )

    return carry


async def _took(service: Any, headline: str, text: str) -> bool:
    try:
        taken = await service.async_notify(
            title=headline,
            body=text,
            notify_type=apprise.NotifyType.FAILURE,
            body_format=apprise.NotifyFormat.TEXT,
        )
    except Exception:
        # Its words may hold the URL.
        return False
    return bool(taken)
