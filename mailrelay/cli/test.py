"""`mailrelay test ADDRESS`: a letter through the spool like any other, followed to its end, told as it happens.

Each thing that happens to it is one line: accepted, dialled, tried, what the remote said. It ends when there is nothing more
to see: the remote has taken the letter or refused it, or the next try is further off than the person wants to wait.
The way is dialled at once, also where the last attempt to open it failed.

Exit status: 0 the remote took it; 1 anything else, and the last line says what and what to do: refused, with the remote's
words; still waiting; the way is shut, with the fixing step; nobody serves (then nothing is queued, or the letter waits).
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Any

import click

from mailrelay.cli import NOBODY_SERVES, Failed, load_settings, rows
from mailrelay.cli.addresses import BadAddress, addresses
from mailrelay.cli.change import changing
from mailrelay.cli.enqueue import enqueue, login
from mailrelay.cli.terminal import colour, length, moment
from mailrelay.config import Settings
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.lifecycle import State
from mailrelay.mail.overview import RelayhostFault
from mailrelay.mail.printable import printable
from mailrelay.spool import actions, listing, lock, trigger
from mailrelay.spool.database import connect, reading

WAIT = 60.0
"""Seconds after which we stop looking, where the person does not say."""
POLL = 0.1
"""Seconds between two looks at the spool: the daemon has no door at which to wait for one message."""


@click.command()
@click.argument("address")
@click.option("--from", "sender", metavar="ADDRESS", help="The sender; without it, your login name.")
@click.option(
    "--wait", type=click.FloatRange(0, 86_400), default=WAIT, metavar="SECONDS", help="How long to look (60)."
)
def command(address: str, sender: str | None, wait: float) -> None:
    """Send a test letter and follow it to the end. Exit status 0 only if your server took it."""
    settings = load_settings()
    to = mailbox(address)
    send_and_follow(settings, to, login("--from") if sender is None else mailbox(sender), wait)


def mailbox(word: str) -> bytes:
    """The one address in `word`. Raises Failed."""
    try:
        found = addresses(os.fsencode(word))
    except BadAddress as error:
        raise Failed(str(error), 2) from None
    if len(found) != 1:
        raise Failed(f"'{word}' is not one address", 2)
    return found[0]


def send_and_follow(settings: Settings, to: bytes, sender: bytes, wait: float = WAIT) -> None:
    """Sends a test letter and prints what becomes of it, for `wait` seconds at most.

    Returns once the remote has taken it; raises Failed, with what is to be done, for every other end.
    """
    directory = settings.queue.directory
    if lock.holder(directory) is None:
        raise Failed(f"{NOBODY_SERVES}; no letter was sent")
    key, _ = enqueue(settings, _envelope(sender, to), _letter(sender, to), sender_option="--from")
    begun = time.time()
    with changing(directory) as db:
        queue_id = listing.one(db, key).queue_id
        # A fault of the way may have been fixed since the last dial: this letter is to find out.
        with suppress(actions.NotAllowed):
            actions.retry(db, key, queue_id, begun)
    trigger.fire(directory)
    print(f"a letter to <{printable(to)}> is on its way as {queue_id}", flush=True)
    follow(settings, key, queue_id, begun, begun + wait)


def follow(settings: Settings, key: int, queue_id: str, begun: float, deadline: float) -> None:
    """Prints what becomes of a message with one recipient. begun, deadline: epoch seconds. Raises Failed for every end but
    that the remote has taken it."""
    directory = settings.queue.directory
    later = f"`mailrelay queue show {queue_id}` tells what becomes of it"
    db = connect(directory, create=False)
    told: set[listing.Event] = set()
    try:
        while True:
            # Before the look: what a daemon writes last is to be seen.
            is_served = lock.holder(directory) is not None
            with reading(db):
                message, story = listing.one(db, key), listing.story(db, key)
                shut = _shut(db, message.relayhost, begun)
            (recipient,) = message.recipients
            # How long the dial took is known at the end of the attempt.
            if recipient.state != "active":
                for event in story:
                    # The next try of a notice is still to come.
                    if event not in told and event.at <= time.time():
                        print("\n".join(_lines(event, begun)), flush=True)
                told.update(story)
            if recipient.state == "sent":
                print(colour("your server took it", "green", sys.stdout), flush=True)
                return
            words = printable(recipient.words)
            if recipient.state not in rows.WAITING:
                raise Failed(f"{queue_id} is {recipient.state}: {words}; see `mailrelay queue show {queue_id}`")
            if shut is not None:
                fix = f" {printable(shut.fix)}" if shut.setup else ""
                raise Failed(f"{queue_id} waits: {printable(shut.text)}{fix}")
            if not is_served:
                raise Failed(f"{NOBODY_SERVES}; {queue_id} waits for it")
            if recipient.state == "deferred" and message.next_attempt is not None and message.next_attempt > deadline:
                next_try = moment(message.next_attempt, time.time())
                raise Failed(f"{queue_id} waits, and is tried again {next_try}: {words}; {later}")
            left = deadline - time.time()
            if left <= 0:
                raise Failed(f"{queue_id} is not there after {length(time.time() - begun)}; {later}")
            time.sleep(min(POLL, left))
    finally:
        db.close()


def _shut(db: Any, relayhost: str, begun: float) -> RelayhostFault | None:
    """What keeps the relayhost from being reached, if it was dialled since we began."""
    troubles = listing.status(db).faults
    return next((one for one in troubles if one.relayhost == relayhost and one.next_dial > begun), None)


def _lines(event: listing.Event, begun: float) -> Iterator[str]:
    stage = f" at {event.stage}" if event.stage and event.what != State.SENT else ""
    yield f"{max(0.0, event.at - begun):6.1f} s  {event.what}{stage}"
    if event.words:
        yield f"          {printable(event.words)}"


def _envelope(sender: bytes, to: bytes) -> Envelope:
    return Envelope(sender, (Recipient(to),), smtputf8=not (sender + to).isascii())


def _letter(sender: bytes, to: bytes) -> bytes:
    """The test letter, as SMTP carries it."""
    found = EmailMessage(policy=SMTP)
    body = f"This is the test letter of `mailrelay test`, sent {formatdate()}.\n"
    found["Subject"] = "mailrelay test: this letter came through your relay"
    found["Auto-Submitted"] = "auto-generated"
    found.set_content(f"{body}That you can read it means that mail from this computer arrives. It needs no answer.\n")
    # Not by way of the parser of headers: an address stays as it was given.
    head = b"From: <%s>\r\nTo: <%s>\r\n" % (sender, to)
    return head + found.as_bytes()
