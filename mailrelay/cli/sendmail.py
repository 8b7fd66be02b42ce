"""`mailrelay sendmail`: sendmail(1), for programs that send mail through it; also installed as `sendmail` itself.

    sendmail [options] [address…] <message    puts the message in the spool; works while the daemon does not run
    sendmail -t                               recipients from To, Cc and Bcc too (if there are Resent-To, Resent-Cc or
                                              Resent-Bcc, from these); removes Bcc
    sendmail -bs                              SMTP on stdin and stdout, with the daemon, which must run
    sendmail -bp                              the listing, as `mailrelay queue` and `mailq`

-f (or -r) gives the sender, <> for none; without it, the sender is the login name. Bare names, in the envelope and in the
header, are completed (settings, `[submission]`). -F is the name in the From field that is added if there is none. Without
-i (or -oi) a line with only a dot ends the message. -N, -R and -V are NOTIFY, RET and ENVID of RFC 3461; -B is the body's
type. Other options of sendmail(1) have no meaning here and are ignored: -A -C -D -G -h -L -m -n -O -o -p -s -U -v -X.

Exit status, from sysexits: 0 the message is on disk; 64 usage, for example no recipient; 65 the message cannot be sent: an
invalid address, no recipient in its header, too large, a NUL; 75 not stored, because of a failure on this
computer; 78 the settings are wrong. With --wait[=SECONDS] it waits that long (default: listen.answer_within) for the mail
server: 0 sent to all recipients; 67 refused, no such mailbox; 69 refused, at least in part; 75 stored, but not sent yet.

Promises: 0 follows the fsync of the commit. Never: a message stored in part, or for some of its recipients only.
"""

import os
import sys
from collections.abc import Sequence
from email.utils import formataddr
from math import inf, nan
from typing import Any

import click

from mailrelay.cli import rfc822_input
from mailrelay.cli.addresses import BadAddress, addresses
from mailrelay.cli.base import NO_DAEMON, Failed, load_settings, say
from mailrelay.cli.dialogue import open_dialogue, relay_dialogue
from mailrelay.cli.queue import show_list
from mailrelay.cli.submission import EX_NOUSER, EX_TEMPFAIL, login, submit
from mailrelay.cli.terminal import is_terminal
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Settings
from mailrelay.control.following import follow
from mailrelay.control.records import WAITING
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.overview import ListedRecipient
from mailrelay.mail.printable import printable
from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.mail.trace import MAX_RECEIVED, count_received
from mailrelay.submission import completion

EX_USAGE, EX_DATAERR, EX_UNAVAILABLE = 64, 65, 69
_WILL_NOT_BE_SENT = frozenset({"bounced", "refused", "expired", "cancelled"})
_NOTIFY = {b"SUCCESS", b"FAILURE", b"DELAY"}
_MAX_ENVID = 100
"""Octets of xtext (RFC 3461 section 4.4)."""
_XTEXT = {code: f"+{code:02X}" for code in range(128) if not 33 <= code <= 126 or code in b"+="}
_IGNORED_FLAGS = ("-G", "-U", "-m", "-n", "-s", "-v")
_IGNORED_VALUES = ("-A", "-C", "-D", "-L", "-O", "-X", "-h", "-p")


class _Sendmail(click.Command):
    """A command with the exit status of sendmail(1) for wrong usage."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click would take the word after a bare --wait as its value.
        args = ["--wait=" if word == "--wait" and "--" not in args[:at] else word for at, word in enumerate(args)]
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _usage(error.format_message().rstrip(".")) from None


@click.command("sendmail", cls=_Sendmail)
@click.argument("recipients", nargs=-1, metavar="[ADDRESS...]")
@click.option("-t", "from_header", is_flag=True, help="Take recipients from To, Cc and Bcc; remove Bcc.")
@click.option("-i", "ignore_dots", is_flag=True, help="A line with only a dot does not end the message.")
@click.option("-f", "-r", "sender", metavar="ADDRESS", help="The sender; <> for none.")
@click.option("-F", "full_name", metavar="NAME", default="", help="The name in From, if the message has no From.")
@click.option("-N", "notify", metavar="WHEN", default="", help="When to report: never, or success,failure,delay.")
@click.option("-R", "ret", metavar="full|hdrs", default="", help="How much of the message reports contain.")
@click.option("-V", "envid", metavar="ID", default="", help="An id that reports will contain.")
@click.option("-B", "body", metavar="TYPE", default="7BIT", help="7BIT or 8BITMIME.")
@click.option("-b", "mode", metavar="m|p|s", default="m", help="Send (m), list the queue (p), speak SMTP (s).")
@click.option("-o", "others", metavar="OPTION", multiple=True, help="-oi is -i; others are ignored.")
@click.option("--wait", metavar="[=SECONDS]", help="Wait until the mail server has taken or refused it.")
def command(mode: str, wait: str | None, **given: Any) -> int:
    """Put the message on stdin in the spool, as sendmail(1) does."""
    if mode == "p":
        show_list()
        return 0
    settings = load_settings()
    if mode == "s":
        return _dialogue(settings)
    if mode != "m":
        raise _usage(f"-b{mode} is not supported; the daemon is `mailrelay serve`")
    seconds = None if wait is None else _seconds(wait, settings)
    try:
        envelope, content = _message(settings, **given)
        stored = submit(settings, envelope, content, sender_option="-f")
        if not stored.daemon_runs and (seconds is not None or is_terminal(sys.stderr)):
            say(NO_DAEMON)
        if seconds is None:
            return 0
        return _wait(settings, stored.key, seconds if stored.daemon_runs else 0.0)
    except (SpoolError, OSError) as error:
        raise Failed(str(error), EX_TEMPFAIL) from None


for _name in _IGNORED_FLAGS:
    command.params.append(click.Option([_name], is_flag=True, hidden=True, expose_value=False))
for _name in _IGNORED_VALUES:
    command.params.append(click.Option([_name], hidden=True, expose_value=False))


def _message(
    settings: Settings,
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
    """Envelope and content from the command line and stdin. Raises Failed."""
    if not recipients and not from_header:
        raise _usage("there is no recipient; give addresses, or -t")
    if body.upper() not in ("7BIT", "8BITMIME"):
        raise _usage("-B is 7BIT or 8BITMIME")
    if ret.upper() not in ("", "FULL", "HDRS"):
        raise _usage("-R is full or hdrs")
    if not full_name.isprintable():
        raise _usage("-F contains a character that cannot be printed")
    reverse_path = completion(settings.submission).whole_sender(_reverse_path(sender))
    reports, name = _notify(notify), _envid(envid)
    dot_ends = not (ignore_dots or "i" in others)
    message, to = _read(recipients, settings.listen.max_message_size, from_header=from_header, dot_ends=dot_ends)
    if not message.has(b"from"):
        message = rfc822_input.with_field(message, b"From", _from(full_name, reverse_path))
    content = message.content
    if count_received(content) >= MAX_RECEIVED:
        raise Failed("the message is in a mail loop; look at its Received fields", EX_DATAERR)
    envelope = Envelope(
        reverse_path,
        tuple(Recipient(address, reports) for address in dict.fromkeys(to)),
        body.upper().encode("ascii") if content.isascii() else b"8BITMIME",
        not all(address.isascii() for address in (reverse_path, *to)),
        ret.upper().encode("ascii"),
        name,
    )
    return envelope, content


def _read(
    words: Sequence[str], limit: int, *, from_header: bool, dot_ends: bool
) -> tuple[rfc822_input.Input, list[bytes]]:
    """The message on stdin, and its recipients: `words`, and with `from_header` those in its header. Raises Failed."""
    try:
        to = [address for word in words for address in addresses(os.fsencode(word))]
        with open(0, "rb", closefd=False) as stdin:
            message = rfc822_input.parse(rfc822_input.read(stdin, limit, dot_ends=dot_ends))
        if from_header:
            message, named = rfc822_input.take_recipients(message)
            to += named
    except (BadAddress, rfc822_input.Unfit) as error:
        raise Failed(str(error), EX_DATAERR) from None
    if not to:
        raise Failed("there is no recipient in To, Cc and Bcc; name one", EX_DATAERR)
    return message, to


def _wait(settings: Settings, key: int, seconds: float) -> int:
    """Waits until every recipient is settled, `seconds` at most; prints a line for each that is not sent."""
    with waiting_for("the mail server to take the message"):
        for message in follow(settings.queue.directory, key, seconds):
            if not any(to.state in WAITING for to in message.recipients):
                break
    for to in message.recipients:
        if to.state != "sent":
            words = reply_text(to.description or message.fault_text)
            say(f"{message.queue_id} <{printable(to.address)}> is {to.state}{': ' if words else ''}{words}")
    return exit_status(message.recipients)


def exit_status(recipients: Sequence[ListedRecipient]) -> int:
    """The exit status with --wait. A recipient that will not be sent decides; if there is none, one that waits."""
    if any(to.state in _WILL_NOT_BE_SENT for to in recipients):
        no_user = all(to.state in _WILL_NOT_BE_SENT and to.status == "5.1.1" for to in recipients)
        return EX_NOUSER if no_user else EX_UNAVAILABLE
    return 0 if all(to.state == "sent" for to in recipients) else EX_TEMPFAIL


def _dialogue(settings: Settings) -> int:
    try:
        daemon = open_dialogue(settings.listen.address)
    except OSError as error:
        raise Failed(f"{settings.listen.address}: {error.strerror or error}; {NO_DAEMON}", EX_TEMPFAIL) from None
    with daemon:
        try:
            relay_dialogue(daemon)
        except OSError as error:
            raise Failed(f"the SMTP dialogue ended: {error.strerror or error}; try again", EX_TEMPFAIL) from None
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
        raise Failed(f"-f {printable(given, 80)} is not an address; give one, or <> for none", EX_DATAERR) from None
    return address


def _from(full_name: str, reverse_path: bytes) -> bytes:
    """The value of a From field (RFC 5322 section 3.6.2)."""
    address = reverse_path or login("-f")
    if address.isascii():
        return formataddr((full_name, address.decode("ascii"))).encode("ascii")
    # The header is UTF-8 (RFC 6532).
    return b"<%s>" % address


def _notify(words: str) -> bytes:
    found = words.upper().encode("ascii", "replace")
    if found not in (b"", b"NEVER") and not _NOTIFY.issuperset(found.split(b",")):
        raise _usage("-N is never, or one or more of success,failure,delay")
    return found


def _envid(name: str) -> bytes:
    xtext = name.translate(_XTEXT)
    if not xtext.isascii() or len(xtext) > _MAX_ENVID:
        raise _usage(f"-V is at most {_MAX_ENVID} ASCII characters")
    return xtext.encode("ascii")
