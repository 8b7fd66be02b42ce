"""`mailrelay queue edit`: a message that waits, is held, was refused or failed, changed in the person's editor and sent.

$VISUAL, else $EDITOR, else vi gets a file (0600, in a directory of its own, 0700) with the envelope on top and the message
below it, lines ended by LF (`mail.fixing`). Once it is saved and the editor has ended, a new message goes out in the place
of the old one, whose recipients become cancelled in the same commit. Nothing is added to it: no second trace line, no Date.

Promises: unchanged or empty, nothing happens. What was written is never lost: as long as it is not queued, the file stays,
and the person is told where. Content comes through octet for octet, in whatever charset it is, but for what was changed.
"""

import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from mailrelay.cli import Failed, load_settings, rfc822_input, say
from mailrelay.cli.replace import fixable, succeed
from mailrelay.cli.terminal import is_terminal
from mailrelay.config import Settings
from mailrelay.mail.draft import BadDraft, draft, read_draft, readdressed
from mailrelay.mail.envelope import Message
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.trace import is_signed
from mailrelay.spool.actions import NoSuchMessage, NotAllowed
from mailrelay.spool.database import SpoolError


@click.command()
@click.argument("queue_id", metavar="ID")
def command(queue_id: str) -> int:
    """Change a message that has not been sent in $VISUAL or $EDITOR, and send it in the place of the old one."""
    settings = load_settings()
    editor = _editor()
    old, content = fixable(settings, queue_id, Act.EDIT)
    before = draft(old.envelope, content.replace(b"\r\n", b"\n"))
    directory = Path(tempfile.mkdtemp(prefix="mailrelay-"))
    file = directory / "message.eml"
    file.touch(mode=0o600)
    file.write_bytes(before)
    while True:
        status = _run([*editor, str(file)])
        text = file.read_bytes() if file.exists() else b""
        if not text.strip() or text == before:
            shutil.rmtree(directory)
            if status:
                raise Failed(f"the editor ended with status {status}; {old.queue_id} is left as it was")
            print(f"{old.queue_id} is left as it was: nothing was changed")
            return 0
        try:
            if status:
                raise Failed(f"the editor ended with status {status}")
            _send(settings, old, content, text)
        except (Failed, BadDraft, rfc822_input.Unfit, NotAllowed, NoSuchMessage, SpoolError, OSError) as error:
            say(f"{error}; {old.queue_id} is left as it was, what you wrote is in {file}")
            if not is_terminal(sys.stdin) or not click.confirm("Open it again?", default=True, err=True):
                return 1
        else:
            shutil.rmtree(directory)
            return 0


def _send(settings: Settings, old: Message, content: bytes, text: bytes) -> None:
    """Queues what the editor left. content: what it was before."""
    sender, to, written = read_draft(text)
    limit = max(settings.listen.max_message_size, len(content))
    changed = rfc822_input.read(io.BytesIO(written), limit, dot_ends=False)
    envelope = readdressed(old.envelope, sender, to)
    if not changed.isascii():
        envelope = replace(envelope, body=b"8BITMIME")
    succeed(settings, old, Act.EDIT, envelope, bytes(changed))
    if changed != content and is_signed(content):
        say("the message was signed: as it has been changed, the signature does not hold any more")


def _editor() -> list[str]:
    """The words that start the person's editor. Raises Failed."""
    given = next(filter(None, (os.environ.get(name, "").strip() for name in ("VISUAL", "EDITOR"))), "vi")
    try:
        words = shlex.split(given)
    except ValueError:
        words = []
    if not words or shutil.which(words[0]) is None:
        raise Failed(f"the editor '{given}' cannot be started; name one in VISUAL or EDITOR")
    return words


def _run(words: list[str]) -> int:
    """The status with which the editor ended; 127, as in a shell, if it cannot be run."""
    try:
        return subprocess.run(words, check=False).returncode
    except OSError:
        return 127
