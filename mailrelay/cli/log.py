"""`mailrelay log [ID] [-f]`: prints the daemon's log, the current file and the rotated ones, oldest first.

With an id (a unique beginning is enough) only the lines about that message; if the spool has no such id, the lines that
contain the text. With -f it goes on with new lines as they are written, until Ctrl-C. With -f and without an id, it begins
with the last lines, not with the first.

Lines are escaped here because libraries write to the log too. Lines of the daemon are escaped already and do not change.
Never: a change to a file.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from mailrelay.cli.base import Failed, load_settings
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
    about = _whole_id(directory, queue_id) if queue_id else ""
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("rb")) for path in _files(directory)]
        if not files and not follow:
            raise Failed(f"there is no log in {directory} yet; `mailrelay serve` writes it")
        found = [line for file in files for line in whole_lines(file) if about in line]
        if about and not found and not follow:
            raise Failed(f"the log has no line about {about}; see `mailrelay queue --all`")
        for line in found[-LAST:] if follow and not about else found:
            print(printable(line))
        if follow:
            sys.stdout.flush()
            for line in _new_lines(directory / FILE, files[-1] if files else None):
                if about in line:
                    print(printable(line), flush=True)


def _whole_id(directory: Path, queue_id: str) -> str:
    try:
        return whole_id(directory, queue_id)
    except NoSuchMessage:
        return queue_id


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
        return path.open("rb")
    except FileNotFoundError:
        return None
