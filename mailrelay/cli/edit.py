"""`mailrelay queue edit`: opens a message in the person's editor, and sends it. The message waits, is held, was refused or
failed, also on the relayhost.

$VISUAL, else $EDITOR, else vi opens a file (mode 0600, in a directory of its own, 0700) that holds the envelope and below it
the message, with LF line ends (`mail.draft`). After the file was saved and the editor has ended, a new message is queued; in
the same commit the recipients of the old one become cancelled. Nothing is added: no second Received field, no Date.

Promises: an unchanged or empty file changes nothing. The person's text is never lost: the file stays until its message is
queued, and the person is told where it is. Unchanged parts of the content stay the same, octet for octet, in any charset.
"""

import dataclasses
import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from mailrelay.cli import rfc822_input
from mailrelay.cli.base import NO_DAEMON, Failed, load_shared, say
from mailrelay.cli.questions import confirm
from mailrelay.cli.queue_ids import queue_ids
from mailrelay.cli.terminal import is_terminal, put
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Settings
from mailrelay.control.errors import CONTROL_ERRORS
from mailrelay.control.replacement import replace, replaceable
from mailrelay.control.system import Queue
from mailrelay.mail.draft import BadDraft, draft, read_draft, readdressed
from mailrelay.mail.envelope import Message
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.trace import is_signed


@click.command("edit")
@click.argument("queue_id", metavar="ID", shell_complete=queue_ids)
def command(queue_id: str) -> int:
    """Edit a message that has not been sent, and send it.

    So also one that failed, or has bounced on the relayhost. The editor is $VISUAL, else $EDITOR, else vi. The new message
    replaces the old one.
    """
    settings, queue = load_shared()
    editor = _editor()
    with waiting_for("the spool"):
        old, content = replaceable(queue, queue_id, Act.EDIT)
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
            put(f"{old.queue_id} is left as it was: nothing was changed")
            return 0
        try:
            if status:
                raise Failed(f"the editor ended with status {status}")
            _send(settings, queue, old, content, text)
        except (Failed, BadDraft, *CONTROL_ERRORS, OSError) as error:
            say(f"{error}; {old.queue_id} is left as it was, your text is in {file}")
            if not is_terminal(sys.stdin) or not confirm("Open it again?", default=True, err=True):
                return 1
        else:
            shutil.rmtree(directory)
            return 0


def _send(settings: Settings, queue: Queue, old: Message, content: bytes, text: bytes) -> None:
    """Queues the message in `text`, the file from the editor. content: of the old message."""
    sender, to, written = read_draft(text)
    limit = max(settings.listen.max_message_size, len(content))
    try:
        changed = rfc822_input.read(io.BytesIO(written), limit, dot_ends=False)
    except rfc822_input.TooLarge:
        raise Failed(f"the message is larger than listen.max_message_size allows ({limit} octets)") from None
    envelope = readdressed(old.envelope, sender, to)
    if not changed.isascii():
        envelope = dataclasses.replace(envelope, body=b"8BITMIME")
    with waiting_for("the spool"):
        new = replace(settings, queue, old, Act.EDIT, envelope, bytes(changed))
    put(f"{old.queue_id} is replaced by {new.queue_id}")
    if not new.daemon_runs:
        say(NO_DAEMON)
    if changed != content and is_signed(content):
        say("the message was signed: its signature is no longer valid, as the message has changed")


def _editor() -> list[str]:
    """The command that starts the person's editor, as words. Raises Failed."""
    named = next(filter(None, (os.environ.get(name, "").strip() for name in ("VISUAL", "EDITOR"))), "")
    if not named and not is_terminal(sys.stdin):
        raise Failed("there is no terminal for an editor; name one that needs none in VISUAL or EDITOR")
    given = named or "vi"
    try:
        words = shlex.split(given)
    except ValueError:
        words = []
    if not words or shutil.which(words[0]) is None:
        raise Failed(f"the editor '{given}' cannot be started; name one in VISUAL or EDITOR")
    return words


def _run(words: list[str]) -> int:
    """The exit status of the editor; 127, as in a shell, if it cannot be run."""
    try:
        return subprocess.run(words, check=False).returncode
    except OSError:
        return 127
