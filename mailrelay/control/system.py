"""The system's mailrelay, for accounts without settings of their own, behind its control socket.

    System             the queue behind the control socket: `control` asks it in place of a spool
    Queue              where messages are: the directory of one's own spool, or the `System`

On the socket, a question and its answer are one line of JSON each (`wire`, `system_answers`). The other side gets the
account from the kernel, and shows and changes only its messages, for root all messages.
Promises: a message that was handed in is on disk there. After SystemUnreachable it is not known whether it is. A program
may take as long as it likes between two questions. While too many commands run at once, the next one waits.
"""

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mailrelay.control.client_file import SystemUnreachable
from mailrelay.control.wire import packed, unpacked
from mailrelay.mail.spool_errors import NoSuchMessage, NotAllowed, SpoolError

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds to wait for an answer. At the other side a process starts, and may have to put a message on disk."""
PATIENCE = 120.0
"""Seconds for which a program tries to connect: the service manager closes connections for which there is no process.
Programs such as cron do not try again, so their mail would be lost."""
WATCHED_PATIENCE = 5.0
"""The same for a command that a person watches."""
PAUSE = 0.3
"""Seconds between two tries."""
FRESH = 10.0
"""Seconds without a question after which a new connection is made; the other side closes it after `system_answers.IDLE`.
`sendmail` waits so long for its stdin, `queue edit` for the editor."""
AGE = 300.0
"""Seconds for which a connection is used, at most: the service manager ends the process at the other side
(RuntimeMaxSec)."""
_FIRST = b'["terms"]\n'
"""The first question on a connection. It changes nothing, so it may be asked again."""
LIMIT = 1 << 30
"""Octets of an answer, at most."""
ERRORS: dict[str, type[Exception]] = {"NoSuchMessage": NoSuchMessage, "NotAllowed": NotAllowed}
"""Errors of the other side that have a type of their own here; all others are SpoolError."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings of the system's mailrelay that `sendmail` needs: all of `[submission]`, and two of `[listen]`.
    max_message_size: octets. answer_within: seconds."""

    sender: str
    domain: str
    local: str
    max_message_size: int
    answer_within: float


class System:
    """The queue of the system's mailrelay. Questions go over one connection, which the first one opens."""

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        """path: of the control socket. patience: seconds for which a connection is tried."""
        self._path = path
        self._patience = patience
        self._connection: socket.socket | None = None
        # Monotonic times: when it was opened, and when it was last used.
        self._opened = self._used = 0.0

    def ask(self, kind: type[T], question: str, *arguments: object) -> T:
        """The answer to a question of `system_answers.QUESTIONS`. Raises SystemUnreachable, SpoolError, NoSuchMessage and
        NotAllowed."""
        line = json.dumps([question, *map(packed, arguments)]).encode() + b"\n"
        try:
            answer = json.loads(self._exchange(line))
            if isinstance(answer, dict) and "result" in answer:
                return unpacked(kind, answer["result"])
            error, text = answer["error"]
        except OSError as failure:
            why = failure.strerror or str(failure)
            raise self._unreachable(why) from None
        except (ValueError, KeyError, TypeError):
            raise self._unreachable("its answer cannot be read") from None
        raise ERRORS.get(error, SpoolError)(str(text))

    def _unreachable(self, why: str) -> SystemUnreachable:
        return SystemUnreachable(
            f"the system's mailrelay cannot be reached ({self._path}: {why});"
            " ask the administrator: systemctl status mailrelay.socket mailrelay-control.socket"
        )

    def _exchange(self, line: bytes) -> bytes:
        """Sends a line and returns the next one. Raises OSError."""
        now = time.monotonic()
        if self._connection is None or now > self._used + FRESH or now > self._opened + AGE:
            self._connection = self._connect()
            self._opened = time.monotonic()
        answer = _sent(self._connection, line)
        self._used = time.monotonic()
        return answer

    def _connect(self) -> socket.socket:
        """A connection on which the first question was answered. Raises OSError."""
        if self._connection is not None:
            self._connection.close()
        end = time.monotonic() + self._patience
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(TIMEOUT)
                connection.connect(self._path)
                _sent(connection, _FIRST)
            except (BlockingIOError, ConnectionResetError, BrokenPipeError):
                connection.close()
                if time.monotonic() > end:
                    raise
            except OSError:
                connection.close()
                raise
            else:
                return connection
            time.sleep(PAUSE)


def _sent(connection: socket.socket, line: bytes) -> bytes:
    """Sends a line and returns the next one. Raises OSError."""
    connection.sendall(line)
    pieces = []
    size = 0
    while piece := connection.recv(1 << 18):
        pieces.append(piece)
        size += len(piece)
        if piece.endswith(b"\n"):
            return b"".join(pieces)
        if size > LIMIT:
            raise OSError("its answer is too long")
    raise ConnectionResetError("it has closed the connection")


Queue = Path | System
"""Where messages are: the directory of a spool, or the system's mailrelay."""
