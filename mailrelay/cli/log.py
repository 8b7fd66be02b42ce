"""`mailrelay log [ID] [-f]`: prints the daemon's log, the current file and the rotated ones, oldest first.

With an id (a unique beginning is enough) only the lines about that message; if the spool has no such id, the lines that
contain the text. With -f it goes on with new lines as they are written, until Ctrl-C. With -f and without an id, it begins
with the last lines, not with the first.

The file has times in the zone of the daemon. They are printed in the local zone, as in `queue show`, with the same offset
from UTC. Lines are escaped here because libraries write to the log too. Lines of the daemon are escaped already.
Never: a change to a file.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import click

from mailrelay.cli.base import Failed, load_settings, say
from mailrelay.cli.terminal import put
from mailrelay.control.details import whole_id
from mailrelay.control.errors import NoSuchMessage
from mailrelay.control.log_file import FILE
from mailrelay.mail.printable import printable

LAST = 10
"""Lines that -f without an id prints before the new ones."""
LOOK_AGAIN = 0.25
"""Seconds between two reads of the file."""


@click.command("log")
@click.argument("queue_id", metavar="[ID]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they are written.")
def command(queue_id: str | None, follow: bool) -> None:
    """Show what has happened, to one message or to all."""
    directory = load_settings().queue.directory
    about, newer = _whole_id(directory, queue_id) if queue_id else ("", [])
    with ExitStack() as opened:
        files = [opened.enter_context(_open(path)) for path in _files(directory)]
        if not files and not follow:
            raise Failed(f"there is no log in {directory} yet; `mailrelay serve` writes it")
        found = [line for file in files for line in whole_lines(file) if about in line]
        if about and not found and not follow and not newer:
            raise Failed(f"the log has no line about {about}; see `mailrelay queue --all`")
        put(*map(_shown, found[-LAST:] if follow and not about else found))
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


def _files(directory: Path) -> list[Path]:
    """The log file and the rotated ones (FILE.1, FILE.2 and so on), oldest first."""
    rotated = [path for path in directory.glob(f"{FILE}.*") if path.suffix[1:].isdecimal()]
    rotated.sort(key=lambda path: int(path.suffix[1:]), reverse=True)
    file = directory / FILE
    return [*rotated, file] if file.exists() else rotated


def whole_lines(file: BinaryIO) -> Iterator[str]:
    """The lines from the current position on, without line ends. An incomplete last line is left for the next call."""
    at = file.tell()
    for line in file:
        if not line.endswith(b"\n"):
            break
        at += len(line)
        yield line.decode("utf-8", "backslashreplace").removesuffix("\n")
    file.seek(at)


def _new_lines(path: Path, file: BinaryIO | None) -> Iterator[str]:
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


def _newer(path: Path, file: BinaryIO | None) -> BinaryIO | None:
    """The file at `path`, opened, if it is not `file`; None if it is, or if there is none."""
    try:
        if file is not None and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return None
        return _open(path)
    except FileNotFoundError:
        return None


def _open(path: Path) -> BinaryIO:
    # A named pipe in its place is an error, and is not waited for.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
