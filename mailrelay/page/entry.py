"""The one-time token that opens the session for the person's browser, and the file by which the browser gets it.

Every account of this computer can read a program's arguments, and a browser gets the address to open as an argument. So the
browser gets the address of a file (mode 0600, in a directory of its own, 0700); the file leads to the address with the
token.

Promises: a token opens one session, once. The file is removed as soon as the token was used, and when the process ends.
"""

import html
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={url}"><title>mailrelay</title>
<p><a href="{url}">Open the page of mailrelay</a></p></html>
"""


class Entry:
    """token: "" once it was used. The file exists from `write_file` until `remove_file` or the use of the token."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._directory: Path | None = None

    def redeem(self, token: str) -> bool:
        """Uses up the token. Returns whether `token` is the right one and was not used before."""
        # Encoded, because `compare_digest` accepts text only if it is ASCII.
        fits = bool(self.token) and secrets.compare_digest(token.encode("utf-8", "replace"), self.token.encode())
        if fits:
            self.token = ""
            self.remove_file()
        return fits

    def write_file(self, url: str) -> Path:
        """Writes the file that leads the browser to `url`. Returns its path. Raises OSError."""
        self._directory = Path(tempfile.mkdtemp(prefix="mailrelay-web-"))
        file = self._directory / "open.html"
        file.touch(mode=0o600)
        file.write_text(_PAGE.format(url=html.escape(url)), "utf-8")
        return file

    def remove_file(self) -> None:
        """Removes the file, if there is one."""
        if self._directory is not None:
            with suppress(OSError):
                shutil.rmtree(self._directory)
            self._directory = None
