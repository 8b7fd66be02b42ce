"""`mailrelay sendmail`: sendmail(1) for programs that know no other way to send mail; also as `sendmail` itself.

    sendmail [options] [address…] <message    puts the message in the spool; works with the daemon down
    sendmail -t                               recipients from To, Cc and Bcc too (Resent-To… if there are any); Bcc goes
    sendmail -bs                              speaks SMTP on stdin and stdout: the daemon's, which must be serving
    sendmail -bp                              the listing, as `mailrelay queue` and `mailq`

-f (or -r) names the sender, <> for none; without it, it is the bare login name, which the remote completes. -F is the name in
a From field, which is made if there is none. Without -i (or -oi) a line that is a dot alone ends the message. -N, -R and -V
are RFC 3461's NOTIFY, RET and ENVID; -B is the body's type. What else is known to sendmail(1) and means nothing here is taken
and ignored: -A -C -D -G -h -L -m -n -O -o -p -s -U -v -X.

Exit status, from sysexits: 0 the message is safely on disk; 64 usage, no recipient among them; 65 the message is not fit to
be sent: an address that is none, no recipient in its header, too large, a NUL; 75 not stored, by a fault of ours; 78 the
settings are wrong. With --wait[=SECONDS] it waits that long (default: listen.answer_within) for the remote: 0 all of it was
sent; 67 refused, no such mailbox; 69 refused, at least in part; 75 stored, but not sent yet.

Promises: 0 follows the fsync of the commit. Never: a message stored in part, or to some of its recipients.
"""

import os
import pwd
import sys
import time
from collections.abc import Sequence
from email.utils import formataddr
from math import isfinite

import click

from mailrelay.cli import Failed, letter, load_settings, rows, say
from mailrelay.cli.addresses import BadAddress, addresses
from mailrelay.cli.dialogue import relay_dialogue
from mailrelay.cli.queue import NOBODY_SERVES, show_list
from mailrelay.cli.terminal import is_terminal
from mailrelay.config import Settings
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.lifecycle import FAILED
from mailrelay.mail.printable import printable
from mailrelay.mail.record import arrive
from mailrelay.mail.routing import choose
from mailrelay.mail.trace import HOPS_MAX, hops
from mailrelay.spool import listing, trigger
from mailrelay.spool.accepting import accept, new_queue_id
from mailrelay.spool.database import SpoolError, connect, reading, transaction

EX_USAGE, EX_DATAERR, EX_NOUSER, EX_UNAVAILABLE, EX_TEMPFAIL = 64, 65, 67, 69, 75
POLL = 0.2
"""Seconds between two looks at the spool with --wait: the daemon has no door at which to wait for one message."""

_NOTIFY = {b"SUCCESS", b"FAILURE", b"DELAY"}
_ENVID_LIMIT = 100
"""Octets of xtext (RFC 3461 section 4.4)."""
_XTEXT = {octet: f"+{octet:02X}" for octet in range(256) if not 33 <= octet <= 126 or octet in b"+="}
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
@click.option("-o", "others", metavar="OPTION", multiple=True, help="i is -i; others are ignored.")
@click.option("--wait", metavar="SECONDS", help="Wait until the remote has taken it, or refused it.")
@click.pass_context
def command(
    context: click.Context,
    recipients: Sequence[str],
    from_header: bool,
    ignore_dots: bool,
    sender: str | None,
    full_name: str,
    notify: str,
    ret: str,
    envid: str,
    body: str,
    mode: str,
    others: Sequence[str],
    wait: str | None,
) -> int:
    """Put the message on stdin in the spool, as sendmail(1) does."""
