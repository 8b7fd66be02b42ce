"""`mailrelay status`: how things stand, on one screen, and as an exit status for monitoring.

    0  fine
    1  late: mail has waited longer than queue.delay_notice_after, or bad news has not reached the person yet
    2  failed: mail that has failed or cannot be sent as it is lies in the spool, a relayhost waits for the person, there is
       no room for more mail, or nobody is serving
    3  cannot tell: the settings or the spool cannot be read

`--brief` prints one line for prompts, bars and watchdogs: why the status is not 0, worst first; an empty one if it is 0.

    ✉ nobody serves, no room, default needs you, 1 failed, 1 cannot be sent, 2 waiting 14min, bad news untold
    ✉ cannot tell

Where the locale has no such sign the line begins with "mail:". But for their numbers its words stay the same as long as the
reasons do, so that a program can see whether there is a new one.

`--json` prints one object (see `standing`); with status 3 there is none, only the line on stderr.
"""

import locale
import sys
import time
from collections.abc import Iterable, Iterator

import click

from mailrelay.cli import Failed, load, load_settings
from mailrelay.cli.terminal import colour, length, moment
from mailrelay.config import Settings, SettingsError
from mailrelay.mail.overview import SpoolStatus
from mailrelay.mail.printable import printable
from mailrelay.spool import listing, lock
from mailrelay.spool.database import SpoolError, SpoolFull, connect, reading
from mailrelay.spool.space import check_space

FINE, LATE, FAILED, CANNOT_TELL = range(4)
_WORDS = ("fine", "late", "failed")
_COLOURS = ("green", "yellow", "red")
_SIGN = "✉"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
@click.option("--brief", is_flag=True, help="One short line, for prompts and bars; empty if all is fine.")
def command(as_json: bool, brief: bool) -> int:
    """How things stand, on one screen. Exit status: 0 fine, 1 late, 2 failed or nobody is serving, 3 cannot tell."""
    if as_json and brief:
        raise click.UsageError("--json and --brief do not go together", click.get_current_context())
    try:
        settings = load_settings()
        pid = lock.holder(settings.queue.directory)
        stands, full = _standing(settings)
    except (SettingsError, SpoolError, OSError) as error:
        if brief:
            print(_brief(("cannot tell",)))
        line = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise Failed(line, CANNOT_TELL) from None
    now = time.time()
    why = reasons(
        stands, serving=pid is not None, full=bool(full), late_after=settings.queue.delay_notice_after, now=now
    )
    status = max((status for status, _ in why), default=FINE)
    if brief:
        print(_brief(reason for _, reason in why))
    elif as_json:
        print(load("standing").line(settings, stands, full, pid, _WORDS[status]))
    else:
        print("\n".join(_screen(stands, full, pid, status, now)))
    return status


def reasons(stands: SpoolStatus, *, serving: bool, full: bool, late_after: float, now: float) -> list[tuple[int, str]]:
    """Why all is not fine, worst first: the exit status that each reason asks for, and a few words. Empty if all is fine.

    full: there is no room for more mail. late_after: seconds that mail may wait. now: epoch seconds.
    """
    found = []
    if not serving:
        found.append((FAILED, "nobody serves"))
    if full:
        found.append((FAILED, "no room"))
    found.extend((FAILED, f"{printable(trouble.relayhost)} needs you") for trouble in stands.faults if trouble.setup)
    if stands.failed:
        found.append((FAILED, f"{stands.failed} failed"))
    if stands.stranded:
        found.append((FAILED, f"{stands.stranded} cannot be sent"))
    if stands.oldest is not None and now - stands.oldest > late_after:
        found.append((LATE, f"{stands.pending} waiting {length(now - stands.oldest).replace(' ', '')}"))
    if stands.failing_notices:
        found.append((LATE, "bad news untold"))
    return found


def _brief(words: Iterable[str]) -> str:
    line = ", ".join(words)
    try:
        for encoding in (locale.getencoding(), sys.stdout.encoding if sys.stdout else "ascii"):
            _SIGN.encode(encoding)
    except UnicodeEncodeError:
        return line and f"mail: {line}"
    return line and f"{_SIGN} {line}"


def _standing(settings: Settings) -> tuple[SpoolStatus, str]:
    """How things stand, and why there is no room for more mail ("" if there is)."""
    full = ""
    try:
        db = connect(settings.queue.directory, create=False)
    except FileNotFoundError:
        return SpoolStatus(0, None, 0, 0, 0, (), ()), full
    with reading(db):
        found = listing.status(db)
        try:
            check_space(db, settings.listen.max_message_size, settings.queue.max_size)
        except SpoolFull as error:
            full = str(error)
    db.close()
    return found, full


def _screen(stands: SpoolStatus, full: str, pid: str | None, status: int, now: float) -> Iterator[str]:
    yield colour(_WORDS[status], _COLOURS[status], sys.stdout)
    if pid is None:
        yield "serving  nobody: start `mailrelay serve`"
    else:
        yield f"serving  process {pid or 'unknown'}"
    oldest = f", the oldest for {length(now - stands.oldest)}" if stands.oldest is not None else ""
    yield f"pending  {stands.pending}{oldest}"
    stranded = f", {stands.stranded} cannot be sent as it is; see `mailrelay queue`" if stands.stranded else ""
    yield f"held     {stands.held}{stranded}"
    yield f"failed   {stands.failed}{'; see `mailrelay queue`' if stands.failed else ''}"
    if full:
        yield f"room     {full}"
    for trouble in stands.faults:
        yield ""
        yield f"relayhost {trouble.relayhost} cannot be reached, since {length(now - trouble.since)}"
        yield from (f"  {printable(line)}" for line in trouble.text.splitlines())
        for line in trouble.fix.splitlines():
            yield f"  → {printable(line)}"
        if pid is not None:
            yield f"  next try {moment(max(now, trouble.next_dial), now)}"
    if stands.failing_notices:
        yield ""
    for (backend, why), kinds in _by_backend(stands.failing_notices).items():
        yield f"not told yet by {backend} ({', '.join(kinds)}): {printable(why)}"


def _by_backend(untold: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], list[str]]:
    """Which kinds of notice a backend could not carry, for each reason: many notices wait for one desktop."""
    found: dict[tuple[str, str], list[str]] = {}
    for kind, backend, why in untold:
        kinds = found.setdefault((backend, why), [])
        if kind not in kinds:
            kinds.append(kind)
    return found
