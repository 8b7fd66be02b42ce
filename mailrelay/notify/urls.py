"""The `urls` backend: notices through apprise to phones, chats and other services. Needs the extra `apprise`.

Promises: a missing library or an invalid URL is reported when the backend is built, not when a notice is pending. URLs hold
secrets, so no error text and no log line contains one: a URL is named by its position in the settings.
"""

import logging
import shlex
import sys
from collections.abc import Sequence
from typing import Any

try:
    import apprise  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    apprise = None  # type: ignore[assignment,unused-ignore]

from mailrelay.mail.notice import Notice
from mailrelay.mail.wording import body, summary, title
from mailrelay.notify.backend import BackendFailed, Deliver

# apprise logs URLs.
logging.getLogger("apprise").setLevel(logging.CRITICAL)


def urls(addresses: Sequence[str]) -> Deliver:
    """A backend that sends to each URL in `addresses`. Raises BackendFailed if it can never work with these settings."""
    if apprise is None:
        # Into the environment that runs this, however mailrelay was installed there.
        command = f"{shlex.quote(sys.executable)} -m pip install apprise"
        raise BackendFailed(f"urls in [notify] need a missing library: {command}")
    services = []
    for number, address in enumerate(addresses, 1):
        service = apprise.Apprise()
        if not service.add(address):
            raise BackendFailed(f"urls in [notify]: number {number} is not a URL that apprise understands")
        services.append(service)

    async def deliver(notices: Sequence[Notice]) -> None:
        headline, text = (title(notices[0]), body(notices[0])) if len(notices) == 1 else summary(notices)
        failed = [str(number) for number, service in enumerate(services, 1) if not await _sent(service, headline, text)]
        if failed:
            raise BackendFailed(
                f"urls in [notify]: number {', '.join(failed)} of {len(services)} did not accept the notice"
            )

    return deliver


async def _sent(service: Any, headline: str, text: str) -> bool:
    try:
        sent = await service.async_notify(
            title=headline,
            body=text,
            notify_type=apprise.NotifyType.FAILURE,
            body_format=apprise.NotifyFormat.TEXT,
        )
    except Exception:
        # The text of the exception may contain the URL.
        return False
    return bool(sent)
