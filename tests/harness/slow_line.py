"""A slow way to an SSH server: a port that passes on only so many octets a second towards the server."""

import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PIECE = 4096


class SlowLine:
    """rate: octets a second in one direction; what comes back is not held up. As on a real line, only little fits on it."""

    def __init__(self, port: int, rate: int) -> None:
        self._to = port
        self._rate = rate
        self._listening = socket.socket()
        # The buffers of the connections that are accepted: otherwise megabytes would count as acknowledged.
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        self.port = int(self._listening.getsockname()[1])

    def lead(self, *files: Path) -> None:
        """Puts this port in the place of the server's: in an ssh_config, and in known hosts."""
        for file in files:
            file.write_text(file.read_text().replace(str(self._to), str(self.port)))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        # Wakes `accept`, which `close` alone does not.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            for source, sink, rate in ((near, far, self._rate), (far, near, 0)):
                threading.Thread(target=_pass, args=(source, sink, rate), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, rate: int) -> None:
    try:
        while data := source.recv(PIECE):
            if rate:
                time.sleep(len(data) / rate)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
