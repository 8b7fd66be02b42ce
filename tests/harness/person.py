"""A person's settings and spool, with messages in every state, and the mailrelay command as a process."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mailrelay
from mailrelay.mail.conclusion import RetryPolicy, conclude
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.notice import Backend
from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.mail.record import arrive
from mailrelay.mail.there import Verdict
from mailrelay.spool import accepting, attempts, followed, relayhosts
from mailrelay.spool.database import connect, transaction
from mailrelay.tracking.followed import Found

SETTINGS = """\
[listen]
address = "{address}"
max_message_size = "100kB"
[relayhost.default]
ssh = "nowhere.example"
senders = ["{senders}"]
[queue]
directory = "{directory}"
delay_notice_after = "15m"
"""

SENT = Outcome(Stage.CONTENT, Reply(250, (b"2.0.0 taken",)))
DEFERRED = Outcome(Stage.RCPT, Reply(450, (b"4.2.0 come back later",)))
BOUNCED = Outcome(Stage.RCPT, Reply(550, (b"5.1.1 nobody here",)))
LOST = Outcome(Stage.AFTER_DOT, cause=Cause.LOST, text="the connection broke")
AWAY = Outcome(Stage.DIAL, cause=Cause.UNREACHABLE, text="the network is away")
UNREADABLE = Outcome(Stage.CONTENT, cause=Cause.UNREADABLE, text="torn")
CLOSED = Outcome(Stage.CHANNEL, cause=Cause.FORWARDING_PROHIBITED, text="no forwarding", fix="allow\x1b forwarding")

CONTENT = b"From: me@example.org\r\nSubject: hello\r\n\r\nHello.\r\n"
TERMS = RetryPolicy((3600.0,), 1e9, lambda kind, sender, notify: (Backend.MAILBOX,))


class Person:
    """Settings and a spool in `directory`."""

    def __init__(self, directory: Path, *, address: str = "127.0.0.1:1", senders: str = "*") -> None:
        directory.chmod(0o700)
        self.config = directory / "config.toml"
        self.spool = directory / "spool"
        self.config.write_text(SETTINGS.format(directory=self.spool, address=address, senders=senders))
        self.config.chmod(0o600)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.config.parent),
            "LANG": "C.UTF-8",
            "MAILRELAY_CONFIG": str(self.config),
            "PYTHONPATH": str(Path(mailrelay.__file__).parent.parent),
        }

    def run(
        self, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs `mailrelay words` to its end. Checks that stderr has only lines of mailrelay, and so no traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "mailrelay", *words],
            input=stdin,
            capture_output=True,
            env=self.environment | (env or {}),
            timeout=60,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert all(line.startswith("mailrelay: ") for line in err.splitlines()), err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def put(
        self,
        queue_id: str,
        to: Sequence[bytes] = (b"bob@example.org",),
        *,
        content: bytes = CONTENT,
        sender: bytes = b"me@example.org",
        age: float = 0.0,
    ) -> str:
        """Puts a message into the spool that was accepted `age` seconds ago."""
        envelope = Envelope(sender, tuple(Recipient(address) for address in to))
        arrival = arrive(envelope, content, queue_id=queue_id, token="", relayhost="default", now=time.time() - age)
        db = connect(self.spool)
        with transaction(db):
            accepting.accept(db, arrival, 10**9)
        db.close()
        return queue_id

    def attempt(self, *outcomes: Outcome, client_told: bool = False, is_followed: bool = False) -> None:
        """Records an attempt at the message that is due first, with an outcome for each recipient; without outcomes the
        attempt is left open. client_told: whether the client got its refusals. is_followed: as in `Record`."""
        db = connect(self.spool)
        now = time.time()
        with transaction(db):
            (message,) = attempts.take(db, "default", (), 1, "test", now)
            if outcomes:
                terms: dict[str, Any] = {"client_told": client_told, "relays_dsn": False, "now": now, "chance": 0.5}
                terms["is_followed"] = is_followed
                attempts.record(db, conclude(message, outcomes, TERMS, **terms), "test")
        db.close()

    def found_there(self, *verdicts: Verdict, is_over: bool = False) -> None:
        """The relayhost was asked about all recipients that are followed; a verdict for each one, in their order."""
        db = connect(self.spool)
        with transaction(db):
            keys = sorted(one.recipient for one in followed.followed(db, "default"))
            found = [Found(key, verdict, is_over) for key, verdict in zip(keys, verdicts, strict=True)]
            followed.found(db, found, TERMS.backends_for, time.time())
        db.close()

    def relayhost_fails(self, outcome: Outcome, *, setup: bool = False) -> None:
        db = connect(self.spool)
        with transaction(db):
            relayhosts.relayhost_failed(
                db, "default", outcome, time.time() + 600, setup, (Backend.MAILBOX,), time.time()
            )
        db.close()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        db = connect(self.spool)
        found = db.execute(sql).fetchall()
        db.close()
        return found

    def states(self) -> dict[str, str]:
        """The states of the recipients in the spool, joined by commas, by queue id."""
        sql = "SELECT queue_id, group_concat(state) FROM message m JOIN recipient r ON r.message = m.id GROUP BY m.id"
        return dict(self.query(sql))
