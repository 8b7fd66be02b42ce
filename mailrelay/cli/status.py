"""`mailrelay status`: whether all is fine, on one screen and as an exit status for monitoring (`control.status`).

    0  fine
    1  late: mail has waited longer than queue.delay_notice_after, here or deferred on the relayhost, or a notice could not
       be delivered yet
    2  failed: mail has failed, has bounced on the relayhost or cannot be sent as it is, a relayhost waits for the person,
       there is no room for more mail, the spool cannot be used, the daemon does not answer or has an internal error, or
       nobody is serving: no daemon runs
    3  cannot tell: the settings or the spool cannot be read

`--brief` prints one line for prompts, bars and watchdogs: why the status is not 0, worst first; an empty line if it is 0.

    ✉ nobody serves, the spool cannot be used, no room, default needs you, 1 failed, 2 waiting 14min, notices not delivered
    ✉ cannot tell

Where the locale lacks the sign ✉ the line begins with "mail:". For the same reasons the text is the same except for its
numbers: a program can compare it.

`--json` prints one object (`control.status`); with status 3 there is none, only the line on stderr.

`--metrics` prints text for Prometheus (`control.metrics`), with each exit status.
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
from mailrelay.config import Settings, SettingsError
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
@click.option("--metrics", "as_metrics", is_flag=True, help="Print metrics, for Prometheus and node_exporter.")
def command(as_json: bool, brief: bool, as_metrics: bool) -> int:
    """Show on one screen whether all is fine. Exit status: 0 fine, 1 late, 2 failed or nobody is serving, 3 cannot tell."""
    asked = [
        name for name, is_asked in (("--json", as_json), ("--brief", brief), ("--metrics", as_metrics)) if is_asked
    ]
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} do not go together", click.get_current_context())
    now = time.time()
    try:
        settings = load_settings()
        with waiting_for("the daemon and the spool", quiet=bool(asked)):
            status = read_status(settings, now)
    except (SettingsError, SpoolError, OSError) as error:
        if brief:
            print(_brief(("cannot tell",)))
        elif as_metrics:
            _print_metrics(None, None, now)
        line = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise Failed(line, CANNOT_TELL) from None
    if brief:
        print(_brief(reason for _, reason in status.reasons))
    elif as_json:
        lazy.print_json(status_record(status))
    elif as_metrics:
        _print_metrics(settings, status, now)
    else:
        put(*_screen(status, now))
    return status.level.value


def _print_metrics(settings: Settings | None, status: Status | None, now: float) -> None:
    # Imported here, because prompts and bars run this command often, without metrics.
    from mailrelay.control import metrics  # noqa: PLC0415

    if settings is None or status is None:
        found = metrics.cannot_tell()
    else:
        found = metrics.metrics(settings, status, metrics.read_numbers(settings), now)
    # In UTF-8, as both formats want it, whatever the locale is.
    sys.stdout.buffer.write(metrics.metrics_text(found).encode())


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
    for name, text in status.errors:
        yield f"error    {printable(name)} cannot go on: {printable(text)}; see `mailrelay log`"
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
    if status.is_asleep:
        return "asleep; starts with the next mail"
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
    scheduled = (
        f", {spool.scheduled} {'waits for its' if spool.scheduled == 1 else 'wait for their'} time"
        if spool.scheduled
        else ""
    )
    yield f"pending  {spool.pending}{scheduled}{late}{oldest}"
    stranded = f", {spool.stranded} cannot be sent as it is; see `mailrelay queue`" if spool.stranded else ""
    yield f"held     {spool.held}{stranded}"
    yield f"failed   {spool.failed}{'; see `mailrelay queue`' if spool.failed else ''}"
    if spool.bounced_there:
        yield f"bounced  {spool.bounced_there} on the relayhost; see `mailrelay queue`"
    if spool.deferred_there:
        yield f"deferred {spool.deferred_there} on the relayhost, for too long; see `mailrelay queue --all`"


def _faults(spool: SpoolStatus, now: float, *, is_serving: bool) -> Iterator[str]:
    for fault in spool.faults:
        yield ""
        yield f"relayhost {fault.relayhost} cannot be reached (for {length(now - fault.since)})"
        if fault.stand_in:
            yield f"  meanwhile its mail goes through {fault.stand_in}"
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
