"""HTTP for connections of the person's own account only, by the owner of the other end (`listener.access`).

Promises: a connection of another account is closed before an octet is read, and without a reply. On systems other than
Linux the owner cannot be determined; there only the token, the cookie and the form token protect the page.
"""

import asyncio
import os
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from mailrelay.listener.access import Access, check_access

ALLOWED = frozenset({os.getuid()})
"""User ids."""


class SameAccountProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which closes connections of other accounts."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._is_refused = check_access(transport, ALLOWED)[0] is not Access.ALLOWED
        if self._is_refused:
            cast(asyncio.Transport, transport).abort()
        else:
            super().connection_made(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_refused:
            super().connection_lost(exc)
