"""Clients that send all the time: several at once, each message with its own number, and a record of the replies.

A message is offered once, whatever the reply: one that arrives twice was sent twice by the relay.
"""

import re
import smtplib
import threading
from collections import Counter
from collections.abc import Iterable

from harness.mail_clients import ME, message
from harness.mailboxes import DOMAIN
from harness.processes import until

MARK = re.compile(r"crash-\d{6}")


def marks(messages: Iterable[bytes]) -> Counter[str]:
    """How often each message is among these."""
    found: Counter[str] = Counter()
    for one in messages:
        mark = MARK.search(one.decode("latin-1"))
        assert mark is not None, one
        found[mark.group()] += 1
    return found


class Feeder:
    """Feeds 127.0.0.1:`port` from `clients` threads until it is stopped or has offered `limit` messages."""

    def __init__(self, port: int, *, clients: int = 4, limit: int = 2000, size: int = 900) -> None:
        """size: octets of a message, about."""
        self.port = port
        self.offered = 0
        self.accepted: set[str] = set()
        self._limit = limit
        self._body = (b"x" * 74 + b"\r\n") * (size // 76 + 1)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._feed, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _next(self) -> str | None:
        with self._lock:
            if self._over.is_set() or self.offered >= self._limit:
                return None
            self.offered += 1
            return f"crash-{self.offered:06d}"

    def _feed(self) -> None:
        client: smtplib.SMTP | None = None
        while not self._over.is_set():
            try:
                client = client or smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.example", timeout=20)
            except (OSError, smtplib.SMTPException):
                # Nobody listens: the relay is between two lives.
                self._over.wait(0.05)
                continue
            if (mark := self._next()) is None:
                break
            try:
                client.sendmail(ME, [f"alice@{DOMAIN}"], message(mark, self._body))
            except (OSError, smtplib.SMTPException):
                client.close()
                client = None
            else:
                with self._lock:
                    self.accepted.add(mark)
        if client is not None:
            client.close()

    def wait_accepted(self, count: int) -> None:
        """Waits until so many messages in all have been answered with a 250, or the feeder is done."""
        until(lambda: len(self.accepted) >= count or not self.running, f"{count} messages accepted")

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        assert not self.running
