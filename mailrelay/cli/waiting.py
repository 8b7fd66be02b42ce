"""Says what a command waits for: "waiting for the mail server of mail.example.org …".

    with waiting_for("the host keys of mail.example.org"):
        found = asyncio.run(scan(relayhost))

    with waiting_for("the connection to mail.example.org") as wait:
        wait.goes_on("the reply of the mail server")     another text, or the same one
        wait.pause()                                     before something is printed
        wait.shows("[##--] 1.2 of 5.0 MB")               at once, this line instead; only if `wait.can_redraw`

The line appears after a second and is cleared at the end of the block.

Promises: nothing where stdout or stderr is not a terminal, so that no pipe, file or program sees it. It goes to stderr.
Call `pause` before anything else is printed.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mailrelay.cli.terminal import is_terminal, line_width
from mailrelay.mail.printable import printable

AFTER = 1.0
"""Seconds of waiting before the line is shown."""
DEFAULT_WIDTH = 80
"""Columns, where the width of the terminal is not known."""


class Wait:
    """A wait. is_shown: whether the line is shown after AFTER seconds; if not, all methods do nothing."""

    def __init__(self, what: str, *, is_shown: bool) -> None:
        self._what = what
        self._is_shown = is_shown
        self._timer: threading.Timer | None = None
        # On a terminal that cannot clear a line, each text is printed once, on a line of its own.
        self._clears = os.environ.get("TERM", "dumb") != "dumb"
        self._printed = ""

    @property
    def can_redraw(self) -> bool:
        """Whether `shows` shows anything."""
        return self._is_shown and self._clears

    @property
    def width(self) -> int:
        """Columns of the line, at most: if it took two lines of the terminal, only the second one would be cleared."""
        return (line_width(sys.stdout) or DEFAULT_WIDTH) - 1

    def shows(self, line: str) -> None:
        """Shows a line of printable text in place of what is there."""
        if not self.can_redraw or line == self._printed:
            return
        self._stop_timer()
        self._printed = line
        print(f"\r{line[: self.width]}\x1b[K", end="", file=sys.stderr, flush=True)

    def goes_on(self, what: str = "") -> None:
        """The wait goes on, or begins again: now for `what`; "" for the same as before."""
        if self._timer is not None and what in ("", self._what):
            return
        self.pause()
        self._what = what or self._what
        if self._is_shown:
            self._timer = threading.Timer(AFTER, self._show)
            self._timer.daemon = True
            self._timer.start()

    def pause(self) -> None:
        """Clears the line, until the wait goes on."""
        self._stop_timer()
        if self._printed and self._clears:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._printed = ""

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None

    def _show(self) -> None:
        line = printable(f"waiting for {self._what} …")
        if line == self._printed:
            return
        self._printed = line
        shown = line[: self.width] if self._clears else line
        print(shown, end="" if self._clears else "\n", file=sys.stderr, flush=True)


@contextmanager
def waiting_for(what: str, *, quiet: bool = False) -> Iterator[Wait]:
    """Says on a terminal what the block waits for. quiet: say nothing, as for JSON."""
    wait = Wait(what, is_shown=not quiet and is_terminal(sys.stdout) and is_terminal(sys.stderr))
    wait.goes_on()
    try:
        yield wait
    finally:
        wait.pause()
