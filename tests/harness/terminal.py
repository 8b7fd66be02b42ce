"""Runs a program on a pseudo terminal, reads its output and types."""

import os
import pty
import re
import select
import signal
import termios
import time
from collections.abc import Mapping, Sequence

import pytest

PATIENCE = 30.0
"""Seconds for an expected output. Only a failing test waits that long."""


class Terminal:
    """Runs `argv`. text: its output so far, with CRLF line ends turned into LF. size: lines and columns, for a program that
    fills the screen."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], size: tuple[int, int] | None = None
    ) -> None:
        self._at = 0
        self._octets = b""
        self._pid, self._handle = pty.fork()
        if self._pid == 0:
            try:
                if size is not None:
                    termios.tcsetwinsize(0, size)
                os.execvpe(argv[0], list(argv), dict(environment))
            finally:
                os._exit(127)

    @property
    def text(self) -> str:
        return self._octets.decode(errors="replace").replace("\r\n", "\n")

    def read_to(self, pattern: str) -> str:
        """Reads up to the pattern; returns the output since the last pattern."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = re.compile(pattern).search(self.text, self._at)
            if found:
                before, self._at = self._at, found.end()
                return self.text[before : found.end()]
            if not self._more(deadline):
                pytest.fail(f"never said {pattern!r}; it said:\n{self.text}")

    def type(self, line: str) -> None:
        os.write(self._handle, line.encode() + b"\n")

    def press(self, keys: str) -> None:
        """Types keys without a line end: "\\x18" is Ctrl-X, "\\r" is Enter."""
        os.write(self._handle, keys.encode())

    def answer(self, question: str, line: str) -> str:
        """Waits for a question and types a line; returns the output up to the question."""
        said = self.read_to(question)
        self.type(line)
        return said

    def end(self) -> int:
        """Reads to the end of the output; returns the exit status."""
        deadline = time.monotonic() + PATIENCE
        while self._more(deadline):
            pass
        if time.monotonic() > deadline:
            os.kill(self._pid, signal.SIGKILL)
            pytest.fail(f"has not ended; it said:\n{self.text}")
        os.close(self._handle)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _more(self, deadline: float) -> bool:
        """Waits for more output; returns whether there was any."""
        ready, _, _ = select.select([self._handle], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._handle, 65536)
        except OSError:
            # On Linux: no process has the other side open any more.
            return False
        self._octets += data
        return bool(data)
