"""`mailrelay status`: whether all is fine, on one screen and as an exit status for monitoring (`control.status`).

    0  fine
    1  late: mail has waited longer than queue.delay_notice_after, or a notice could not be delivered yet
    2  failed: mail has failed or cannot be sent as it is, a relayhost waits for the person, there is no room for more mail,
       the spool cannot be used, the daemon does not answer, or nobody is serving: no daemon runs
    3  cannot tell: the settings or the spool cannot be read

`--brief` prints one line for prompts, bars and watchdogs: why the status is not 0, worst first; an empty line if it is 0.

    ✉ nobody serves, the spool cannot be used, no room, default needs you, 1 failed, 2 waiting 14min, notices not delivered
    ✉ cannot tell

Where the locale lacks the sign ✉ the line begins with "mail:". For the same reasons the text is the same except for its
numbers: a program can compare it.

`--json` prints one object (`control.status`); with status 3 there is none, only the line on stderr.
"""

import locale
import sys
import time
from collections.abc import Iterable, Iterator

import click

from mailrelay.cli import lazy
from mailrelay.cli.base import Failed, load_settings
from mailrelay.cli.terminal import colour, moment, put
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import SettingsError
from mailrelay.control.status import Level, Status, read_status, status_record
from mailrelay.mail.overview import SpoolStatus
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import length, size
from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.spool_errors import SpoolError

CANNOT_TELL = 3
_COLOURS = {Level.FINE: "green", Level.LATE: "yellow", Level.FAILED: "red"}
_SIGN = "✉"


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--brief", is_flag=True, help="Print one short line, for prompts and bars; empty if all is fine.")
def command(as_json: bool, brief: bool) -> int:
    """Show on one screen whether all is fine. Exit status: 0 fine, 1 late, 2 failed or nobody is serving, 3 cannot tell."""
    if as_json and brief:
        raise click.UsageError("--json and --brief do not go together", click.get_current_context())
    now = time.time()
    try:
        settings = load_settings()
        with waiting_for("the daemon and the spool", quiet=as_json or brief):
            status = read_status(settings, now)
    except (SettingsError, SpoolError, OSError) as error:
        if brief:
            print(_brief(("cannot tell",)))
        line = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise Failed(line, CANNOT_TELL) from None
    if brief:
        print(_brief(reason for _, reason in status.reasons))
    elif as_json:
        lazy.print_json(status_record(status))
    else:
        put(*_screen(status, now))
    return status.level.value


def _brief(reasons: Iterable[str]) -> str:
    line = ", ".join(reasons)
    try:
        for encoding in (locale.getencoding(), sys.stdout.encoding if sys.stdout else "ascii"):
            _SIGN.encode(encoding)
    except UnicodeEncodeError:
        return line and f"mail: {line}"
    return line and f"{_SIGN} {line}"


def _screen(status: Status, now: float) -> Iterator[str]:
    yield colour(status.level.name.lower(), _COLOURS[status.level], sys.stdout)
    yield f"serving  {_serving(status)}"
    if status.failure:
        yield f"spool    {printable(status.failure)}"
    if status.spool is not None:
        yield from _numbers(status.spool, now)
    if room := _room(status):
        yield f"room     {room}"
    if status.spool is not None:
        yield from _faults(status.spool, now, is_serving=status.pid is not None)
        if status.spool.failing_notices:
            yield ""
        for (backend, why), kinds in _by_backend(status.spool.failing_notices).items():
            yield f"not told yet by {backend} ({', '.join(kinds)}): {printable(why)}"


def _serving(status: Status) -> str:
    if status.pid is None:
        return "nobody: start `mailrelay serve`"
    process = f"process {status.pid or 'unknown'}"
    return f"{process} does not answer: end it, and start `mailrelay serve`" if status.answers is False else process


def _room(status: Status) -> str:
    """Why there is no room for more mail, or for which there is if not for all; "" if there is."""
    full, largest, is_limited = status.space
    return full or (f"for messages up to {size(largest)}" if is_limited and largest is not None else "")


def _numbers(spool: SpoolStatus, now: float) -> Iterator[str]:
    oldest = f", the oldest for {length(now - spool.oldest)}" if spool.oldest is not None else ""
    late = f", {spool.late} late" if spool.late else ""
    yield f"pending  {spool.pending}{late}{oldest}"
    stranded = f", {spool.stranded} cannot be sent as it is; see `mailrelay queue`" if spool.stranded else ""
    yield f"held     {spool.held}{stranded}"
    yield f"failed   {spool.failed}{'; see `mailrelay queue`' if spool.failed else ''}"


def _faults(spool: SpoolStatus, now: float, *, is_serving: bool) -> Iterator[str]:
    for fault in spool.faults:
        yield ""
        yield f"relayhost {fault.relayhost} cannot be reached, since {length(now - fault.since)}"
        yield from (f"  {reply_text(line)}" for line in fault.text.splitlines())
        yield from (f"  → {printable(line)}" for line in fault.fix.splitlines())
        if is_serving:
            yield f"  next try {moment(max(now, fault.next_dial), now)}"


def _by_backend(untold: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], list[str]]:
    """The kinds of notice that a backend could not deliver, by backend and reason, for one line each."""
    found: dict[tuple[str, str], list[str]] = {}
    for kind, backend, why in untold:
        kinds = found.setdefault((backend, why), [])
        if kind not in kinds:
            kinds.append(kind)
    return found
