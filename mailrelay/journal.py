"""Lines for the journal of systemd, each with its priority (sd-daemon(3)).

    if journal.is_journal(sys.stderr):
        sys.stderr.write(journal.lines("the disk is full", logging.ERROR))

The journal itself adds the name of the program, so these lines do not begin with "mailrelay:". Every command loads this
module: it imports nothing that loads slowly, so not `logging`.
"""

import os
from typing import TextIO

ERROR, INFO = 40, 20
"""`logging.ERROR` and `logging.INFO`, for commands."""


def is_journal(stream: TextIO | None, journal_stream: str | None = None) -> bool:
    """Whether the text written to `stream` goes to the journal. journal_stream: the value of `JOURNAL_STREAM`
    (systemd.exec(5)); None for that of the environment."""
    named = os.environ.get("JOURNAL_STREAM", "") if journal_stream is None else journal_stream
    if not named or stream is None:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        # The stream may be closed, or have no descriptor.
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def lines(text: str, level: int) -> str:
    """`text` with the priority before each line, and a line end after each. level: a level of `logging`, such as ERROR."""
    # The priorities of syslog: critical, error, warning, info, debug.
    priority = 2 if level >= 50 else 3 if level >= ERROR else 4 if level >= 30 else 6 if level >= INFO else 7
    return "".join(f"<{priority}>{line}\n" for line in text.split("\n"))
