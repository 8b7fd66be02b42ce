"""`mailrelay log [ID] [--since TIME] [-f]`: prints the daemon's log, the current file and the rotated ones, oldest first.

With an id (a unique beginning is enough) only the lines about that message; if the spool has no such id, the lines that
contain the text. With -f it goes on with new lines as they are written, until Ctrl-C. With -f, and without an id or
--since, it begins with the last lines, not with the first.

With --since it prints the lines of that time and later ones (`since`). The clock may have been set back: each line is judged
by its own time, and one without a time belongs to the line before it.

The file has times in the zone of the daemon. They are printed in the local zone, as in `queue show`, with the same offset
from UTC. Lines are escaped here because libraries write to the log too. Lines of the daemon are escaped already.
Never: a change to a file.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import lru_cache
from io import BufferedReader
from pathlib import Path

import click

from mailrelay.cli.base import Failed, load_settings, say
from mailrelay.cli.queue_ids import queue_ids
from mailrelay.cli.since import since_option
from mailrelay.cli.terminal import clock, put
from mailrelay.control.details import whole_id
from mailrelay.control.errors import NoSuchMessage
from mailrelay.control.log_file import FILE, epoch_minute, open_file, open_files, whole_lines
from mailrelay.mail.printable import printable

LAST = 10
"""Lines that -f without an id prints before the new ones."""
LOOK_AGAIN = 0.25
"""Seconds between two reads of the file."""


@click.command("log")
@click.argument("queue_id", metavar="[ID]", required=False, shell_complete=queue_ids)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they are written.")
@since_option("Begin with the lines since then")
def command(queue_id: str | None, follow: bool, since: float | None) -> None:
    """Show what has happened, to one message or to all."""
    directory = load_settings().queue.directory
    about, newer = _whole_id(directory, queue_id) if queue_id else ("", [])
    with ExitStack() as opened:
        files = opened.enter_context(open_files(directory))
        if not files and not follow:
            raise Failed(f"there is no log in {directory} yet; `mailrelay serve` writes it")
        lines = (line for file in files for line in whole_lines(file))
        found = [line for line in (lines if since is None else _lines_since(lines, since)) if about in line]
        if not found and not follow and not newer and (about or since is not None):
            when = f" since {clock(since)}" if since is not None else ""
            if about:
                raise Failed(f"the log has no line about {about}{when}; see `mailrelay queue --all`")
            say(f"the log has no line{when}")
        put(*map(_shown, found[-LAST:] if follow and not about and since is None else found))
        if newer:
            say(f"{about} was replaced by {' and '.join(newer)}; see `mailrelay log {newer[0]}`")
        if follow:
            for line in _new_lines(directory / FILE, files[-1] if files else None):
                if about in line:
                    put(_shown(line))


def _whole_id(directory: Path, given: str) -> tuple[str, list[str]]:
    """The whole id, or what was given, and the ids of the messages that replaced it."""
    try:
        return whole_id(directory, given)
    except NoSuchMessage:
        return given, []


def _lines_since(lines: Iterable[str], since: float) -> Iterator[str]:
    """The lines whose time is `since` (epoch seconds) or later, with those without a time that follow them."""
    is_late = False
    for line in lines:
        minute = epoch_minute(line[:16], line[19:24])
        if minute is not None and line[17:19].isdecimal():
            is_late = minute + int(line[17:19]) >= int(since)
        if is_late:
            yield line


def _shown(line: str) -> str:
    """A line of the log for the person: its time in the local zone, and escaped."""
    minute, zone = _local_minute(line[:16], line[19:24])
    return printable(f"{minute}{line[16:19]}{zone}{line[24:]}")


@lru_cache(maxsize=1)
def _local_minute(minute: str, zone: str) -> tuple[str, str]:
    """A minute of the log and its offset from UTC, as in "2026-11-28T14:03" and "+0900", in the local zone. Other text stays
    as it is."""
    try:
        at = datetime.strptime(minute + zone, "%Y-%m-%dT%H:%M%z").astimezone()
    except (ValueError, OverflowError):
        return minute, zone
    return at.strftime("%Y-%m-%dT%H:%M"), at.strftime("%z")


def _new_lines(path: Path, file: BufferedReader | None) -> Iterator[str]:
    """New lines of the log at `path`, also after a rotation. file: the log that was read so far. Never ends."""
    while True:
        newer = _newer(path, file)
        # After `_newer`, so that the last lines of a file that was rotated meanwhile are read.
        if file is not None:
            yield from whole_lines(file)
        if newer is not None:
            file = newer
        else:
            time.sleep(LOOK_AGAIN)


def _newer(path: Path, file: BufferedReader | None) -> BufferedReader | None:
    """The file at `path`, opened, if it is not `file`; None if it is, or if there is none."""
    try:
        if file is not None and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return None
        return open_file(path)
    except FileNotFoundError:
        return None
