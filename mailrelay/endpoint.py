"""A TCP address or the path of a UNIX socket: where a server listens, or where it is reached.

    Endpoint = Tcp | Unix
    str(endpoint)       "localhost:25", "[::1]:25", "unix:/run/imap": the notation of the settings file and of messages

`grammar` reads endpoints from the settings file; no other code parses this notation.
"""

from typing import NamedTuple


class Tcp(NamedTuple):
    """host: a name or an address, an IPv6 address without brackets. port: 0 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Unix(NamedTuple):
    """path: an absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Endpoint = Tcp | Unix
