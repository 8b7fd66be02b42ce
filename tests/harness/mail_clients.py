"""Mail clients: swaks, curl and git send-email, and a content that a test can compare octet by octet."""

import smtplib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.mailboxes import DOMAIN
from harness.processes import missing, program

ME = f"me@{DOMAIN}"


def message(token: str, body: bytes = b"Hello.\r\n", to: str = f"alice@{DOMAIN}") -> bytes:
    """A complete message: a mail server adds trace lines to it and nothing else. Line ends are CRLF."""
    head = (
        f"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nFrom: {ME}\r\nTo: {to}\r\n"
        f"Subject: {token}\r\nMessage-ID: <{token}@{DOMAIN}>\r\n\r\n"
    )
    return head.encode() + body


def submit(port: int, recipients: Sequence[str], content: bytes, sender: str = ME) -> tuple[int, str]:
    """Sends a message to 127.0.0.1:`port` unchanged; returns the reply to its content. Every recipient must be accepted."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("client.example")
        assert client.mail(sender, ["BODY=8BITMIME"])[0] == 250
        for recipient in recipients:
            assert client.rcpt(recipient)[0] == 250
        code, words = client.data(content)
    return code, words.decode()


def swaks(port: int, recipients: Sequence[str], token: str) -> subprocess.CompletedProcess[str]:
    """Sends a small message with swaks; the status is 0 if it was accepted; the transcript is on stdout."""
    argv = [program("swaks", "swaks"), "--server", "127.0.0.1", "--port", str(port), "--timeout", "60"]
    argv += ["--from", ME, "--to", ",".join(recipients), "--header", f"Subject: {token}", "--body", "Hello."]
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)


def curl(port: int, recipient: str, content: bytes) -> subprocess.CompletedProcess[bytes]:
    """Sends a message with curl."""
    argv = [program("curl", "curl"), "-sS", f"smtp://127.0.0.1:{port}", "--mail-from", ME, "--mail-rcpt", recipient]
    return subprocess.run([*argv, "-T", "-"], input=content, capture_output=True, timeout=100, check=False)


def require_git_send_email() -> None:
    git = program("git", "git")
    programs = subprocess.run([git, "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(programs, "git-send-email").exists():
        missing("git send-email (Debian package git-email)")
