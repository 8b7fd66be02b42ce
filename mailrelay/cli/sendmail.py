"""`mailrelay sendmail`: sendmail(1), for programs that send mail through it; also installed as `sendmail` itself.

    sendmail [options] [address…] <message    puts the message in the spool; works while the daemon does not run
    sendmail -t                               recipients from To, Cc and Bcc too (if there are Resent-To, Resent-Cc or
                                              Resent-Bcc, from these)
    sendmail -bs                              SMTP on stdin and stdout, with the daemon, which must run
    sendmail -bp                              the listing, as `mailrelay queue` and `mailq`
    sendmail -q…                              makes all mail due now, as `mailrelay queue retry --all`
    sendmail -bi, -I                          nothing: there is no alias database; also installed as `newaliases`

Bcc is removed, with -t and without. -f (or -r) gives the sender, <> for none; without it, the sender is the login name.
Bare names, in the envelope and in the header, are completed (settings, `[submission]`). -F is the name in the From field
that is added if there is none. Without -i (or -oi) a line with only a dot ends the message. -N, -R and -V are NOTIFY, RET
and ENVID of RFC 3461; -B is the body's type. Other options of sendmails have no meaning here and are ignored
(`sendmail_options`).

--in 10m or --at "tomorrow 8:00" (`send_time`) says when the message is sent; until then it can be cancelled. So with the
setting `queue.undo`. --at is an error if the time has passed or cannot be read: nothing is stored then.

What cannot be sent is stored all the same: programs such as cron look neither at the exit status nor at stderr. It is
held, or has failed, with a notice (`mail.handed_in`). An option with a wrong value is ignored, and named on stderr.

Exit status, from sysexits: 0 the message is on disk; 64 usage, for example -bd or a wrong --at; 65 the message is too large
to be stored; 75 not stored, because of a failure on this computer; 78 the settings are wrong. With --wait[=SECONDS] it waits
that long (default: listen.answer_within) for the mail server: 0 sent to all recipients; 67 refused, no such mailbox; 69
refused, at least in part; 75 stored, but not sent yet, at once if its time comes later. Of a message that is not stored, the
system's log has a line, and ~/dead.letter has the message (`dead_letter`).

Promises: 0 follows the fsync of the commit. Never: a message stored in part, or for some of its recipients only.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from math import inf, nan
from typing import TYPE_CHECKING, Any

import click

from mailrelay.cli import dead_letter, lazy, rfc822_input, send_time, sendmail_options
from mailrelay.cli.addresses import BadAddress, addresses, parse_list
from mailrelay.cli.base import (
    NO_DAEMON,
    VERSION_OPTION,
    Failed,
    load_queue,
    load_settings,
    load_shared,
    say,
    system_client,
)
from mailrelay.cli.progress_bar import ProgressBar
from mailrelay.cli.queue import show_list
from mailrelay.cli.terminal import is_terminal
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Settings, SettingsError
from mailrelay.control.enqueue import Stored, hand_in
from mailrelay.control.following import follow
from mailrelay.control.records import WAITING
from mailrelay.endpoint import Endpoint, Unix
from mailrelay.mail import handed_in
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.handed_in import HandedIn, Problem
from mailrelay.mail.overview import ListedRecipient
from mailrelay.mail.printable import printable
from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.send_time import SendTime
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.submission import completion, login

if TYPE_CHECKING:
    from mailrelay.control.system import Queue

EX_USAGE, EX_DATAERR, EX_NOUSER, EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG = 64, 65, 67, 69, 75, 78
STORED_FACTOR = 2
"""A message that is larger than listen.max_message_size is stored and held. Above this multiple of it, its content is not
stored."""
DEAD_LETTER_LIMIT = 50_000_000
"""Octets of a message that is kept in ~/dead.letter, at most."""
_WILL_NOT_BE_SENT = frozenset({"bounced", "refused", "expired", "cancelled"})
_MAX_NAMED = 5
"""Recipients that are not tried and are named on stderr, at most."""
_UNKNOWN = "mailrelay.sendmail.unknown"
"""The key in click's `ctx.meta` of the options that are not known."""
_UNSUPPORTED = {
    "d": "the daemon is `mailrelay serve`",
    "D": "the daemon is `mailrelay serve`",
    "v": "no address is verified here; `mailrelay test ADDRESS` sends a test message",
    "t": "there are no address rules to test",
    "h": "`mailrelay status` shows the relayhosts",
    "H": "there is no host status to delete",
    "z": "the configuration is not frozen",
}
"""Modes of -b that other sendmails have, each with a hint."""


class _Sendmail(click.Command):
    """A command with the options and the exit status of sendmail(1)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known, ctx.meta[_UNKNOWN] = sendmail_options.rewritten(args)
        try:
            return super().parse_args(ctx, known)
        except click.UsageError as error:
            raise _usage(error.format_message().rstrip(".")) from None


@click.command("sendmail", cls=_Sendmail, context_settings={"help_option_names": ["--help"]})
@click.argument("recipients", nargs=-1, metavar="[ADDRESS...]")
@click.option("-t", "from_header", is_flag=True, help="Take recipients from To, Cc and Bcc, too.")
@click.option("-i", "ignore_dots", is_flag=True, help="A line with only a dot does not end the message; also -oi.")
@click.option("-f", "-r", "sender", metavar="ADDRESS", help="The sender; <> for none.")
@click.option("-F", "full_name", metavar="NAME", default="", help="The name in From, if the message has no From.")
@click.option("-N", "notify", metavar="WHEN", default="", help="When to report: never, or success,failure,delay.")
@click.option("-R", "ret", metavar="full|hdrs", default="", help="How much of the message reports contain.")
@click.option("-V", "envid", metavar="ID", default="", help="An id that reports will contain.")
@click.option("-B", "body", metavar="TYPE", default="", help="7BIT or 8BITMIME.")
@click.option(
    "-b",
    "mode",
    metavar="m|p|s|i",
    default="",
    help="Send (m), list the queue (p), speak SMTP (s), aliases: nothing (i).",
)
@click.option("-q", "runs_queue", is_flag=True, help="Make all mail due now, as `mailrelay queue retry --all`.")
@click.option("--in", "wait_for", metavar="TIME", help="Send it after this time, such as 10m or 2h.")
@click.option("--at", "wait_until", metavar="TIME", help='Send it then: "8:00", "tomorrow 8:00", "2026-12-01 08:00".')
@click.option("--wait", metavar="[=SECONDS]", help="Wait until the mail server has taken or refused it.")
def command(mode: str, runs_queue: bool, wait: str | None, **given: Any) -> int:
    """Put the message on stdin in the spool, as sendmail(1) does. Other options of sendmail(1) are ignored."""
    match mode:
        case "p":
            show_list()
            return 0
        case "i":
            return 0
        case "s":
            lazy.run_dialogue(_smtp_address())
            return 0
        case "" if runs_queue:
            return _retry_all(load_queue())
        case "" | "m" | "a":
            return _send(wait, given)
        case _:
            hint = _UNSUPPORTED.get(mode, "the modes are -bm, -bp, -bs and -bi")
            raise Failed(f"-b{mode} is not supported: {hint}", EX_USAGE)


def _smtp_address() -> Endpoint:
    client = system_client()
    return load_settings().listen.address if client is None else Unix(client.smtp)


def _retry_all(queue: "Queue") -> int:
    if lazy.retry_all(queue) and is_terminal(sys.stderr):
        say(NO_DAEMON)
    return 0


class _Stdin:
    """The message on stdin. content: None before the first read; b"" after a read that failed."""

    def __init__(self, *, dot_ends: bool) -> None:
        self._dot_ends = dot_ends
        self.content: bytes | None = None

    def read(self, limit: int) -> bytes:
        """The message. limit: octets, at most. Raises Failed, TooLarge."""
        try:
            with open(0, "rb", closefd=False) as file:
                # If this read fails, `for_dead_letter` does not read again.
                self.content = b""
                self.content = rfc822_input.read(file, limit, dot_ends=self._dot_ends)
        except OSError as error:
            what = f"the message on stdin cannot be read: {error.strerror}; give it again"
            raise Failed(what, EX_TEMPFAIL) from None
        return self.content

    def for_dead_letter(self) -> bytes:
        """The message, which is read if it has not been; b"" if it cannot be read, or is larger than DEAD_LETTER_LIMIT."""
        if self.content is None and not is_terminal(sys.stdin):
            try:
                return self.read(DEAD_LETTER_LIMIT)
            except (Failed, rfc822_input.TooLarge):
                pass
        return self.content or b""


def _send(wait: str | None, given: dict[str, Any]) -> int:
    stdin = _Stdin(dot_ends=not given.pop("ignore_dots"))
    wait_for, wait_until = given.pop("wait_for"), given.pop("wait_until")
    try:
        settings, queue = load_shared()
        seconds = None if wait is None else _seconds(wait, settings)
        given_time = _send_time(wait_for, wait_until, time.time())
        message = _message(settings, stdin, given_time, **given)
        stored = hand_in(settings, message, queue)
    except (SettingsError, Failed, SpoolError, OSError) as error:
        raise _not_stored(error, stdin) from None
    _say_problems(stored)
    if not message.content:
        # The message was too large: only its envelope is stored.
        return EX_DATAERR
    if not stored.daemon_runs and (seconds is not None or is_terminal(sys.stderr)):
        _say(NO_DAEMON)
    is_tried = message.problem is None and bool(message.envelope.recipients)
    if is_tried and stored.send_time is not None and (given_time or wait is not None or is_terminal(sys.stderr)):
        how = f"`mailrelay queue cancel {stored.queue_id}` cancels it until then"
        _say(f"{stored.queue_id} waits until {stored.send_time.text}; {how}")
    if seconds is None:
        return 0
    if is_tried and stored.send_time is not None and stored.send_time.at > time.time() + seconds:
        return EX_TEMPFAIL
    try:
        return _wait(queue, stored.key, seconds if stored.daemon_runs else 0.0)
    except (SpoolError, OSError) as error:
        raise Failed(str(error), EX_TEMPFAIL) from None


def _not_stored(error: Exception, stdin: _Stdin) -> Failed:
    """The error of a message that is not stored. Saves the message and writes a line to the system's log (`dead_letter`)."""
    content = stdin.for_dead_letter()
    file = dead_letter.save(content) if content else None
    line = f"{error}; the message is in {file}" if file else str(error)
    dead_letter.report(f"a message was not stored: {line}")
    if isinstance(error, Failed):
        return Failed(line, error.status)
    return Failed(line, EX_CONFIG if isinstance(error, SettingsError) else EX_TEMPFAIL)


def _say(line: str) -> None:
    """As `say`, but a closed stderr is no error: the message is stored all the same."""
    try:
        say(line)
    except OSError:
        # The interpreter flushes stderr at its end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _say_problems(stored: Stored) -> None:
    for address, problem in stored.problems[:_MAX_NAMED]:
        _say(f"{stored.queue_id} <{printable(address)}> is {problem.state}: {problem.text}")
    if len(stored.problems) > _MAX_NAMED:
        _say(f"{stored.queue_id}: there are more; see `mailrelay queue show {stored.queue_id}`")


def _warn(what: str) -> None:
    """Names an option that is ignored."""
    line = f"{what}; it is ignored"
    _say(line)
    if not is_terminal(sys.stderr):
        dead_letter.report(line)


def _message(
    settings: Settings,
    stdin: _Stdin,
    send_time: SendTime | None,
    *,
    recipients: Sequence[str],
    from_header: bool,
    sender: str | None,
    full_name: str,
    notify: str,
    ret: str,
    envid: str,
    body: str,
) -> HandedIn:
    """The message on stdin, with the envelope that the command line gives. Warns of wrong options. Raises Failed.

    notify, ret, envid, body: the values of -N, -R, -V and -B; "" if not given.
    """
    for option in click.get_current_context().meta[_UNKNOWN]:
        _warn(f"{option} is not an option of sendmail(1), or lacks its value")
    if not full_name.isprintable():
        _warn("-F contains a character that cannot be printed")
        full_name = ""
    reverse_path, problem = _reverse_path(sender)
    reverse_path = completion(settings.submission).whole_sender(reverse_path)
    notify_value = _value(sendmail_options.notify, notify)
    limit = settings.listen.max_message_size
    is_stored = True
    try:
        octets = stdin.read(STORED_FACTOR * limit)
    except rfc822_input.TooLarge as error:
        octets, is_stored = error.beginning, False
    message = rfc822_input.parse(octets)
    to, bad = _recipients(recipients, message if from_header else None)
    message = rfc822_input.without_bcc(message)
    if not message.has(b"from"):
        message = rfc822_input.with_field(message, b"From", _from(full_name, reverse_path))
    content = message.content
    if not is_stored:
        problem = handed_in.too_large_to_keep(STORED_FACTOR * limit)
    envelope = Envelope(
        reverse_path,
        tuple(Recipient(address, notify_value) for address in to),
        body=(_value(sendmail_options.body, body) or b"7BIT") if content.isascii() else b"8BITMIME",
        smtputf8=not all(address.isascii() for address in (reverse_path, *to)),
        ret=_value(sendmail_options.ret, ret),
        envid=_value(sendmail_options.envid, envid),
        send_time=send_time,
    )
    problem = problem or handed_in.problem_of_content(content, limit)
    return HandedIn(envelope, content if is_stored else b"", problem, bad, notify_value)


def _value(parse: Callable[[str], bytes], given: str) -> bytes:
    """The value of an option; if it is wrong, warns and returns b""."""
    try:
        return parse(given)
    except ValueError as error:
        _warn(str(error))
        return b""


def _recipients(
    words: Sequence[str], message: rfc822_input.Input | None
) -> tuple[list[bytes], tuple[tuple[bytes, Problem], ...]]:
    """The recipients in the arguments and in the header, each once, and the parts that are not addresses, with the reason.

    message: None without -t. If there is no recipient at all, the second result says so.
    """
    found: list[bytes] = []
    bad: list[BadAddress] = []
    for good, wrong in (
        *(_argument(os.fsencode(word)) for word in words),
        *(parse_list(value) for value in (rfc822_input.recipient_values(message) if message else ())),
    ):
        found += good
        bad += wrong
    problems = {error.text: handed_in.not_an_address(str(error)) for error in bad}
    if not found and not problems:
        where = "no To, Cc or Bcc of its header names one" if message else "no argument and no -t was given"
        problems[handed_in.NO_RECIPIENT] = handed_in.no_recipient(
            f"the message has no recipient: {where}; `mailrelay queue resend ID --to ADDRESS` sends it"
        )
    return list(dict.fromkeys(found)), tuple(problems.items())


def _argument(word: bytes) -> tuple[list[bytes], list[BadAddress]]:
    """The addresses in an argument, which is not empty."""
    found, bad = parse_list(word)
    if not found and not bad:
        bad = [BadAddress(word)]
    return found, bad


def _wait(queue: "Queue", key: int, seconds: float) -> int:
    """Waits until no recipient waits, `seconds` at most. Prints those that are not sent. Returns the exit status."""
    awaited = "the mail server to take the message"
    with waiting_for(awaited) as wait:
        bar = ProgressBar(queue, wait)
        for message in follow(queue, key, seconds):
            if not any(to.state in WAITING for to in message.recipients):
                break
            bar.show(message, awaited)
    for to in message.recipients:
        if to.state != "sent":
            why = reply_text(to.description or message.fault_text)
            say(f"{message.queue_id} <{printable(to.address)}> is {to.state}{': ' if why else ''}{why}")
    return exit_status(message.recipients)


def exit_status(recipients: Sequence[ListedRecipient]) -> int:
    """The exit status with --wait: EX_NOUSER or EX_UNAVAILABLE if a recipient will not be sent, else EX_TEMPFAIL if one
    waits or is held, else 0."""
    if any(to.state in _WILL_NOT_BE_SENT for to in recipients):
        no_user = all(to.state in _WILL_NOT_BE_SENT and to.status == "5.1.1" for to in recipients)
        return EX_NOUSER if no_user else EX_UNAVAILABLE
    return 0 if all(to.state == "sent" for to in recipients) else EX_TEMPFAIL


def _usage(what: str) -> Failed:
    return Failed(f"{what}; see `mailrelay sendmail --help`", EX_USAGE)


def _seconds(wait: str, settings: Settings) -> float:
    """The value of --wait, in seconds; "" is the setting `listen.answer_within`. Raises Failed."""
    if not wait:
        return settings.listen.answer_within
    try:
        seconds = float(wait.removesuffix("s"))
    except ValueError:
        seconds = nan
    if not 0 <= seconds < inf:
        raise _usage("--wait is a number of seconds, such as --wait=8")
    return seconds


def _send_time(wait_for: str | None, wait_until: str | None, now: float) -> SendTime | None:
    """The send time of --in or --at; None if neither is given. now: epoch seconds. Raises Failed: to send the message at
    once cannot be undone."""
    if wait_for is not None and wait_until is not None:
        raise _usage("--in and --at do not go together")
    try:
        if wait_for is not None:
            return send_time.parse_in(wait_for, now)
        return None if wait_until is None else send_time.parse_at(wait_until, now)
    except send_time.BadTime as error:
        raise _usage(str(error)) from None


def _reverse_path(sender: str | None) -> tuple[bytes, Problem | None]:
    """The reverse path. If the given one is not an address: the login name, and why the message is held."""
    if sender is None:
        return login(), None
    if sender.strip() in ("", "<>"):
        return b"", None
    given = os.fsencode(sender)
    try:
        (address,) = addresses(given)
    except ValueError:
        return login(), handed_in.bad_sender(given, login())
    return address, None


def _from(full_name: str, reverse_path: bytes) -> bytes:
    """The value of a From field (RFC 5322 section 3.6.2)."""
    address = reverse_path or login()
    if address.isascii():
        return lazy.mailbox(full_name, address.decode("ascii")).encode("ascii")
    # The header is UTF-8 (RFC 6532).
    return b"<%s>" % address


command.params.append(VERSION_OPTION)
