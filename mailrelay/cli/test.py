"""`mailrelay test ADDRESS`: sends a test message through the spool like any other, and prints what becomes of it.

Each event is one line: accepted, dialled, attempt, the reply of the mail server. The command ends when there is nothing
more to see: the mail server has taken or refused the message, or the next attempt is later than the person wants to wait.
The relayhost is dialled at once, even if its back-off has not ended.

What the mail server has accepted is followed on the relayhost (setting `track`), until there is a verdict, for THERE_WAIT at
most: each change is one line.

Exit status: 0 the mail server took the message; 1 anything else, also if it bounced on the relayhost. The last line says
what happened and what to do: refused, with the reply; still waiting; the relayhost cannot be reached, with the fix; the
daemon is not running (if it was not running at the start, no message is queued).
"""

import os
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path

import click

from mailrelay import submission
from mailrelay.cli.addresses import BadAddress, addresses
from mailrelay.cli.base import NO_DAEMON, Failed, load_settings
from mailrelay.cli.follow import awaited
from mailrelay.cli.progress_bar import ProgressBar
from mailrelay.cli.rows import replaced
from mailrelay.cli.terminal import colour, moment, put
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Settings
from mailrelay.control.acts import retry
from mailrelay.control.daemon import is_served
from mailrelay.control.enqueue import NoRelayhost, enqueue
from mailrelay.control.following import Progress, follow_progress
from mailrelay.control.records import WAITING
from mailrelay.mail.completion import is_bare
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.lifecycle import State
from mailrelay.mail.overview import Event
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import length
from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.there import There
from mailrelay.mail.there_wording import there_text

WAIT = 60.0
"""Seconds to wait, unless the person says otherwise."""
THERE_WAIT = 30.0
"""Seconds to wait for a verdict on the relayhost, at most: the daemon asks there 2, 10 and 28 s after the reply."""


@click.command("test")
@click.argument("address")
@click.option("--from", "sender", metavar="ADDRESS", help="The sender; by default that of programs that give none.")
@click.option(
    "--wait", type=click.FloatRange(0, 86_400), default=WAIT, metavar="SECONDS", help="How long to wait (60)."
)
def command(address: str, sender: str | None, wait: float) -> None:
    """Send a test message and follow it to its end. Exit status 0 only if your server accepted it, and it did not bounce
    there."""
    settings = load_settings()
    to = mailbox(address)
    send_and_follow(settings, to, default_sender(settings) if sender is None else mailbox(sender), wait)


def default_sender(settings: Settings, own: str = "") -> bytes:
    """The reverse path of the test message, of `mailrelay test` and of `mailrelay setup`: that of programs that give none.

    own: the person's address on the relayhost, "" if it is not known; then the result may be bare.
    """
    sender = submission.default_sender(settings.submission)
    return own.encode() if own and is_bare(sender) else sender


def mailbox(word: str) -> bytes:
    """The one address in `word`. Raises Failed."""
    try:
        found = addresses(os.fsencode(word))
    except BadAddress as error:
        raise Failed(str(error), 2) from None
    if len(found) != 1:
        raise Failed(f"'{word}' is not one address", 2)
    return found[0]


def whole_address(word: str) -> bytes:
    """The one address in `word`, with its domain. Raises Failed, with what is wanted."""
    wanted = "give one address, as in name@example.org"
    try:
        found = mailbox(word)
    except Failed as error:
        raise Failed(f"{error}; {wanted}", 2) from None
    if b"@" not in found:
        raise Failed(f"'{word}' has no domain; {wanted}", 2)
    return found


def send_and_follow(
    settings: Settings, to: bytes, sender: bytes, wait: float = WAIT, *, follows_there: bool = True
) -> None:
    """Sends a test message and prints what becomes of it, for `wait` seconds at most.

    follows_there: also after the mail server has taken it, as `follow`.

    Returns when the mail server has taken it; raises Failed, with what to do, for every other end.
    """
    directory = settings.queue.directory
    if not is_served(directory):
        raise Failed(f"{NO_DAEMON}; no message was sent")
    with waiting_for("the spool"):
        try:
            stored = enqueue(settings, _envelope(sender, to), _content(sender, to))
        except NoRelayhost as error:
            raise Failed(f"{error}, or give --from") from None
    # Ends the back-off of the relayhost: the test is to find out whether the cause of an earlier fault is repaired.
    with waiting_for("the spool"):
        retry(directory, [stored.queue_id])
    # After `retry`: a fault whose next dial is later than `begun` is from a dial for this message, not from an earlier one.
    begun = time.time()
    put(f"a test message to <{printable(to)}> is queued as {stored.queue_id}")
    follow(settings, stored.key, begun, begun + wait, follows_there=follows_there)


def follow(settings: Settings, key: int, begun: float, deadline: float, *, follows_there: bool = True) -> None:
    """Prints what becomes of a message with one recipient. begun, deadline: epoch seconds.

    Returns when the mail server has taken it, and its verdict on the relayhost is known or THERE_WAIT is over. Raises Failed
    for every other end.
    """
    printed: set[Event] = set()
    with waiting_for("the daemon") as wait:
        bar = ProgressBar(settings.queue.directory, wait)
        for progress in follow_progress(settings.queue.directory, key, deadline - time.time()):
            (recipient,) = progress.message.recipients
            # The time that dialling took is known at the end of the attempt.
            if recipient.state != "active" and not printed.issuperset(progress.timeline):
                wait.pause()
                _print_new(progress, printed, begun)
            if recipient.state == "sent":
                wait.pause()
                put(colour("your server took it", "green", sys.stdout))
                break
            why = _why_it_ends(progress, begun, deadline)
            if why:
                raise Failed(why)
            bar.show(progress.message, awaited(progress.message, time.time()))
        else:
            queue_id = progress.message.queue_id
            waited = length(time.time() - begun)
            raise Failed(f"{queue_id} is not sent after {waited}; see `mailrelay queue show {queue_id}`")
    if follows_there and recipient.there is not None:
        _follow_there(settings.queue.directory, key, begun, min(deadline, time.time() + THERE_WAIT))


def _follow_there(directory: Path, key: int, begun: float, deadline: float) -> None:
    """Prints what becomes of a message with one recipient on the relayhost. begun, deadline: epoch seconds. Raises Failed if
    it has bounced there."""
    queue_id = ""
    with waiting_for("what becomes of it there") as wait:
        for progress in follow_progress(directory, key, deadline - time.time()):
            (recipient,) = progress.message.recipients
            verdict, queue_id = recipient.there, progress.message.queue_id
            if verdict is not None and verdict.state is not There.WAITING:
                wait.pause()
                now = time.time()
                put(f"{max(0.0, now - begun):6.1f} s  {there_text(verdict, now)}")
                if verdict.state is There.BOUNCED:
                    raise Failed(f"{queue_id} has bounced there; see `mailrelay queue show {queue_id}`")
                return
            if not progress.daemon_runs:
                break
    put(f"what becomes of it there is not known yet; see `mailrelay queue show {queue_id}`")


def _print_new(progress: Progress, printed: set[Event], begun: float) -> None:
    """Prints the events that are not in `printed`, and adds them."""
    for event in progress.timeline:
        if event not in printed and not event.planned:
            put(*_lines(event, begun, progress.message.fallback_for))
    printed.update(progress.timeline)


def _why_it_ends(progress: Progress, begun: float, deadline: float) -> str:
    """Why a message that is not sent need not be followed any longer, as a sentence; "" if it is to be followed."""
    message, fault = progress.message, progress.fault
    (recipient,) = message.recipients
    queue_id, reply = message.queue_id, reply_text(recipient.description)
    if recipient.state not in WAITING:
        why = replaced(recipient) or reply
        return f"{queue_id} is {recipient.state}{': ' if why else ''}{why}; see `mailrelay queue show {queue_id}`"
    # A fault from before this message may be gone.
    if fault is not None and fault.next_dial > begun and not fault.stand_in:
        fix = f" {printable(fault.fix)}" if fault.setup else ""
        return f"{queue_id} waits: {reply_text(fault.text)}{fix}"
    if not progress.daemon_runs:
        return f"{NO_DAEMON}; {queue_id} waits for it"
    if recipient.state == "deferred" and message.next_attempt is not None and message.next_attempt > deadline:
        next_attempt = moment(message.next_attempt, time.time())
        return f"{queue_id} waits, and is tried again {next_attempt}: {reply}; see `mailrelay queue show {queue_id}`"
    return ""


def _lines(event: Event, begun: float, fallback_for: str) -> Iterator[str]:
    """fallback_for: as in `Listed`."""
    through = f" through {event.relayhost}" if fallback_for and event.relayhost else ""
    stage = f" at {event.stage}" if event.stage and event.what != State.SENT else ""
    yield f"{max(0.0, event.at - begun):6.1f} s  {event.what}{through}{stage}"
    if event.description:
        yield f"          {reply_text(event.description)}"


def _envelope(sender: bytes, to: bytes) -> Envelope:
    return Envelope(sender, (Recipient(to),), smtputf8=not (sender + to).isascii())


def _content(sender: bytes, to: bytes) -> bytes:
    """The test message, with CRLF line ends."""
    found = EmailMessage(policy=SMTP)
    body = f"This is the test message of `mailrelay test`, sent {formatdate(localtime=True)}.\n"
    found["Subject"] = "mailrelay test: this message came through your relay"
    found["Auto-Submitted"] = "auto-generated"
    found.set_content(f"{body}As you can read it, mail from this computer arrives. It needs no answer.\n")
    # Not through EmailMessage, which would change the addresses.
    head = b"From: <%s>\r\nTo: <%s>\r\n" % (sender, to)
    return head + found.as_bytes()
