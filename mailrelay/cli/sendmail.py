"""`mailrelay sendmail`: sendmail(1) for programs that know no other way to send mail; also as `sendmail` itself.

    sendmail [options] [address…] <message    puts the message in the spool; works with the daemon down
    sendmail -t                               recipients from To, Cc and Bcc too (Resent-To… if there are any); Bcc goes
    sendmail -bs                              speaks SMTP on stdin and stdout: the daemon's, which must be serving
    sendmail -bp                              the listing, as `mailrelay queue` and `mailq`

-f (or -r) names the sender, <> for none; without it, it is the bare login name, which the remote completes. -F is the name
in a From field, which is made if there is none. Without -i (or -oi) a line that is a dot alone ends the message. -N, -R and
-V are RFC 3461's NOTIFY, RET and ENVID; -B is the body's type. What else is known to sendmail(1) and means nothing here is
taken and ignored: -A -C -D -G -h -L -m -n -O -o -p -s -U -v -X.

Exit status, from sysexits: 0 the message is safely on disk; 64 usage, no recipient among them; 65 the message is not fit to
be sent: an address that is none, no recipient in its header, too large, a NUL; 75 not stored, by a fault of ours; 78 the
settings are wrong. With --wait[=SECONDS] it waits that long (default: listen.answer_within) for the remote: 0 all of it was
sent; 67 refused, no such mailbox; 69 refused, at least in part; 75 stored, but not sent yet.

Promises: 0 follows the fsync of the commit. Never: a message stored in part, or to some of its recipients.
"""

import os
import sys
import time
from collections.abc import Sequence
from email.utils import formataddr
from math import inf, nan
from typing import Any

import click

from mailrelay.cli import NOBODY_SERVES, Failed, load_settings, rfc822_input, rows, say
from mailrelay.cli.addresses import BadAddress, addresses
from mailrelay.cli.dialogue import open_dialogue, relay_dialogue
from mailrelay.cli.enqueue import EX_NOUSER, EX_TEMPFAIL, enqueue, login
from mailrelay.cli.queue import show_list
from mailrelay.cli.terminal import is_terminal
from mailrelay.config import Settings
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.printable import printable
from mailrelay.mail.trace import RECEIVED_MAX, count_received
from mailrelay.spool import listing
from mailrelay.spool.database import SpoolError, connect, reading

EX_USAGE, EX_DATAERR, EX_UNAVAILABLE = 64, 65, 69
POLL = 0.2
"""Seconds between two looks at the spool with --wait: the daemon has no door at which to wait for one message."""

_WILL_NOT = frozenset({"bounced", "refused", "expired", "cancelled"})
_NOTIFY = {b"SUCCESS", b"FAILURE", b"DELAY"}
_ENVID_LIMIT = 100
"""Octets of xtext (RFC 3461 section 4.4)."""
_XTEXT = {code: f"+{code:02X}" for code in range(128) if not 33 <= code <= 126 or code in b"+="}
_IGNORED_FLAGS = ("-G", "-U", "-m", "-n", "-s", "-v")
_IGNORED_VALUES = ("-A", "-C", "-D", "-L", "-O", "-X", "-h", "-p")


class _Sendmail(click.Command):
    """A command with sendmail(1)'s words for wrong usage."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click would take the word behind a bare --wait for its value.
        args = ["--wait=" if word == "--wait" and "--" not in args[:at] else word for at, word in enumerate(args)]
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _usage(error.format_message().rstrip(".")) from None


@click.command(cls=_Sendmail)
@click.argument("recipients", nargs=-1, metavar="[ADDRESS...]")
@click.option("-t", "from_header", is_flag=True, help="Recipients from To, Cc and Bcc; Bcc is taken out.")
@click.option("-i", "ignore_dots", is_flag=True, help="A dot alone does not end the message.")
@click.option("-f", "-r", "sender", metavar="ADDRESS", help="The sender; <> for none.")
@click.option("-F", "full_name", metavar="NAME", default="", help="The name in From, if there is no From.")
@click.option("-N", "notify", metavar="WHEN", default="", help="Reports: never, or of success,failure,delay.")
@click.option("-R", "ret", metavar="full|hdrs", default="", help="What reports give back of the message.")
@click.option("-V", "envid", metavar="ID", default="", help="A name for reports to come back under.")
@click.option("-B", "body", metavar="TYPE", default="7BIT", help="7BIT or 8BITMIME.")
@click.option("-b", "mode", metavar="m|p|s", default="m", help="Send (m), list the queue (p), speak SMTP (s).")
@click.option("-o", "others", metavar="OPTION", multiple=True, help="-oi is -i; others are ignored.")
@click.option("--wait", metavar="[=SECONDS]", help="Wait until the remote has taken it, or refused it.")
def command(mode: str, wait: str | None, **given: Any) -> int:
    """Put the message on stdin in the spool, as sendmail(1) does."""
    if mode == "p":
        show_list()
        return 0
    settings = load_settings()
    if mode == "s":
        return _dialogue(settings)
    if mode != "m":
        raise _usage(f"-b{mode} is nothing that mailrelay does; the daemon is `mailrelay serve`")
    seconds = None if wait is None else _seconds(wait, settings)
    try:
        envelope, content = _message(settings.listen.max_message_size, **given)
        key, heard = enqueue(settings, envelope, content, sender_option="-f")
        if seconds is None:
            if not heard and is_terminal(sys.stderr):
                say(NOBODY_SERVES)
            return 0
        if not heard:
            say(NOBODY_SERVES)
        return _wait(settings, key, seconds if heard else 0.0)
    except (SpoolError, OSError) as error:
        raise Failed(str(error), EX_TEMPFAIL) from None


for _name in _IGNORED_FLAGS:
    command.params.append(click.Option([_name], is_flag=True, hidden=True, expose_value=False))
for _name in _IGNORED_VALUES:
    command.params.append(click.Option([_name], hidden=True, expose_value=False))


def _message(
    limit: int,
    *,
    recipients: Sequence[str],
    from_header: bool,
    ignore_dots: bool,
    sender: str | None,
    full_name: str,
    notify: str,
    ret: str,
    envid: str,
    body: str,
    others: Sequence[str],
) -> tuple[Envelope, bytes]:
    """What the caller hands in, as envelope and content. limit: octets of content. Raises Failed."""
    if not recipients and not from_header:
        raise _usage("there is no recipient; give addresses, or -t")
    if body.upper() not in ("7BIT", "8BITMIME"):
        raise _usage("-B is 7BIT or 8BITMIME")
    if ret.upper() not in ("", "FULL", "HDRS"):
        raise _usage("-R is full or hdrs")
    if not full_name.isprintable():
        raise _usage("-F holds what cannot be printed")
    reverse_path, reports, name = _reverse_path(sender), _notify(notify), _envid(envid)
    try:
        to = [address for word in recipients for address in addresses(os.fsencode(word))]
        with open(0, "rb", closefd=False) as stdin:
            message = rfc822_input.parse(rfc822_input.read(stdin, limit, dot_ends=not (ignore_dots or "i" in others)))
        if from_header:
            message, named = rfc822_input.take_recipients(message)
            to += named
    except (BadAddress, rfc822_input.Unfit) as error:
        raise Failed(str(error), EX_DATAERR) from None
    if not to:
        raise Failed("there is no recipient in To, Cc and Bcc; name one", EX_DATAERR)
    if not message.has(b"from"):
        message = rfc822_input.with_field(message, b"From", _from(full_name, reverse_path))
    content = message.content
    if count_received(content) >= RECEIVED_MAX:
        raise Failed("the message goes round in a circle; look at its Received fields", EX_DATAERR)
    envelope = Envelope(
        reverse_path,
        tuple(Recipient(address, reports) for address in dict.fromkeys(to)),
        body.upper().encode("ascii") if content.isascii() else b"8BITMIME",
        not all(address.isascii() for address in (reverse_path, *to)),
        ret.upper().encode("ascii"),
        name,
    )
    return envelope, content


def _wait(settings: Settings, key: int, seconds: float) -> int:
    """Waits until every recipient of a message is settled, `seconds` at most; says what came of those not sent."""
    deadline = time.monotonic() + seconds
    db = connect(settings.queue.directory, create=False)
    try:
        while True:
            with reading(db):
                message = listing.one(db, key)
            left = deadline - time.monotonic()
            if left <= 0 or not any(to.state in rows.WAITING for to in message.recipients):
                break
            time.sleep(min(POLL, left))
    finally:
        db.close()
    for to in message.recipients:
        if to.state != "sent":
            words = printable(to.words) or message.trouble
            say(f"{message.queue_id} <{printable(to.address)}> is {to.state}{': ' if words else ''}{words}")
    return verdict(message.recipients)


def verdict(recipients: Sequence[listing.ListedRecipient]) -> int:
    """The exit status with --wait: one recipient who will not get it outweighs those who may, and they those who have."""
    if any(to.state in _WILL_NOT for to in recipients):
        return EX_NOUSER if all(to.state in _WILL_NOT and to.status == "5.1.1" for to in recipients) else EX_UNAVAILABLE
    return 0 if all(to.state == "sent" for to in recipients) else EX_TEMPFAIL


def _dialogue(settings: Settings) -> int:
    try:
        daemon = open_dialogue(settings.listen.address)
    except OSError as error:
        raise Failed(f"{settings.listen.address}: {error.strerror or error}; {NOBODY_SERVES}", EX_TEMPFAIL) from None
    with daemon:
        try:
            relay_dialogue(daemon)
        except OSError as error:
            raise Failed(f"the dialogue broke: {error.strerror or error}; try again", EX_TEMPFAIL) from None
    return 0


def _usage(what: str) -> Failed:
    return Failed(f"{what}; see `mailrelay sendmail --help`", EX_USAGE)


def _seconds(wait: str, settings: Settings) -> float:
    if not wait:
        return settings.listen.answer_within
    try:
        seconds = float(wait.removesuffix("s"))
    except ValueError:
        seconds = nan
    if not 0 <= seconds < inf:
        raise _usage("--wait is a number of seconds, such as --wait=8")
    return seconds


def _reverse_path(sender: str | None) -> bytes:
    if sender is None:
        return login("-f")
    if sender.strip() in ("", "<>"):
        return b""
    given = os.fsencode(sender)
    try:
        (address,) = addresses(given)
    except ValueError:
        raise Failed(f"-f {printable(given, 80)} is no address; give one, or <> for none", EX_DATAERR) from None
    return address


def _from(full_name: str, reverse_path: bytes) -> bytes:
    """The value of a From field (RFC 5322 section 3.6.2)."""
    address = reverse_path or login("-f")
    if address.isascii():
        return formataddr((full_name, address.decode("ascii"))).encode("ascii")
    # Its header is UTF-8 as it is (RFC 6532).
    return b"<%s>" % address


def _notify(words: str) -> bytes:
    found = words.upper().encode("ascii", "replace")
    if found not in (b"", b"NEVER") and not _NOTIFY.issuperset(found.split(b",")):
        raise _usage("-N is never, or some of success,failure,delay")
    return found


def _envid(name: str) -> bytes:
    xtext = name.translate(_XTEXT)
    if not xtext.isascii() or len(xtext) > _ENVID_LIMIT:
        raise _usage(f"-V is up to {_ENVID_LIMIT} characters of ASCII")
    return xtext.encode("ascii")
