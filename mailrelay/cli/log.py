"""`mailrelay log [ID] [-f]`: what has happened, from the daemon's log file and its rotated predecessors, oldest first.

With an id (a unique beginning of it is enough) only the lines about that message; where the spool does not know the id any
more, the lines that contain the text. With -f the lines that are still to come, until Ctrl-C; without an id, the last
few before them.

The daemon has escaped what came from outside; escaping again changes nothing, and what a library may have put there
reaches no terminal raw. Never: a change to the file.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from mailrelay.cli import Failed, load_settings
from mailrelay.mail.printable import printable
from mailrelay.spool import actions
from mailrelay.spool.database import connect, reading

FILE = "mailrelay.log"
LAST = 10
"""Lines that are shown before those that -f waits for."""
LOOK_AGAIN = 0.25
"""Seconds between two looks at the file. Nobody tells us when it grows."""


@click.command()
@click.argument("queue_id", metavar="[ID]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is still to come.")
def command(queue_id: str | None, follow: bool) -> None:
    """What has happened, to one message or at all."""
    directory = load_settings().queue.directory
    about = _whole_id(directory, queue_id) if queue_id else ""
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("rb")) for path in _files(directory)]
        if not files and not follow:
            raise Failed(f"there is no log in {directory} yet; `mailrelay serve` writes it")
        found = [line for file in files for line in _whole_lines(file) if about in line]
        if about and not found and not follow:
            raise Failed(f"the log says nothing of {about}; see `mailrelay queue --all`")
        for line in found[-LAST:] if follow and not about else found:
            print(printable(line))
        if follow:
            sys.stdout.flush()
            for line in _coming(directory / FILE, files[-1] if files else None):
                if about in line:
                    print(printable(line), flush=True)


def _whole_id(directory: Path, queue_id: str) -> str:
    try:
        db = connect(directory, create=False)
        with reading(db):
            return actions.find(db, queue_id)[1]
    except (FileNotFoundError, actions.NoSuchMessage):
        return queue_id


def _files(directory: Path) -> list[Path]:
    """The log file and what was rotated away (FILE.1, FILE.2 and so on), oldest first."""
    rotated = [path for path in directory.glob(f"{FILE}.*") if path.suffix[1:].isdecimal()]
    rotated.sort(key=lambda path: int(path.suffix[1:]), reverse=True)
    file = directory / FILE
    return [*rotated, file] if file.exists() else rotated


def _whole_lines(file: BinaryIO) -> Iterator[str]:
    """The lines from here on, without their ends. One that is still being written is left for the next time."""
    at = file.tell()
    for line in file:
        if not line.endswith(b"\n"):
            break
        at += len(line)
        yield line.decode("utf-8", "backslashreplace").removesuffix("\n")
    file.seek(at)


def _coming(path: Path, file: BinaryIO | None) -> Iterator[str]:
    """Lines as they are written to the file at `path`, which was read so far as `file`, past its rotations. Never ends."""
    while True:
        newer = _newer(path, file)
        # After the look: what was written to the old file before it was rotated away is not to be missed.
        if file is not None:
            yield from _whole_lines(file)
        if newer is not None:
            file = newer
        else:
            time.sleep(LOOK_AGAIN)


def _newer(path: Path, file: BinaryIO | None) -> BinaryIO | None:
    """The file at `path`, if it is another one than `file` by now."""
    try:
        if file is not None and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return None
        return path.open("rb")
    except FileNotFoundError:
        return None
