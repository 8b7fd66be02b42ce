"""The recorder: keeps, on the relayhost, what the mail server says in a conversation, for the time after a lost connection.

    channel = await session(record_command(token, smtp)); await start(channel, token, until)     # then the greeting is next
    records = await read(session, tokens)
    await remove(session, tokens)

A program on the relayhost, started in a session of the SSH connection, carries the octets between us and the mail server, as
forwarding does, and writes those of the mail server to ~/.cache/mailrelay/TOKEN: `recorder.pl`, or where there is no perl,
and the mail server is the relayhost's own, `cat`, `sendmail -bs` and `tee` (`recorder.sh`). It goes on when the connection
is lost. `records.sh` ends recorders and prints their records: the recorder closes its side towards the mail server, and
writes what that says until it closes its own side.

Promises: a record is complete only if the recorder has seen the mail server close the connection, and has written all that
came before. Any login shell will do; its output before ours is skipped. The directory (0700) and the files (0600) belong to
the account; no symbolic link is followed in their place. Every wait has a time limit, every record a size limit.
Never: a signal to a process that is not a recorder of ours; a token in a shell that is not 32 hexadecimal digits.
"""

import asyncio
import functools
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence

from mailrelay.endpoint import Tcp
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size
from mailrelay.ssh import remote_script
from mailrelay.ssh.channel import RelayhostChannel
from mailrelay.ssh.interface import NotRecorded, RecordRead

START = 5.0
"""Seconds for the recorder to start, with the session for it. A message waits meanwhile."""
TIMEOUT = 20.0
"""Seconds to open a session; also the longest silence in an answer about records."""
MAX_RECORD = 16 * 1024 * 1024
"""Octets of the mail server in a record; then the recorder writes no more, and the record is not complete."""
ENDING = 10.0
"""Seconds for the mail server to close the connection once the recorder ends; if it is slower, the record is growing."""
MAX_ANSWER = 64 * 1024 * 1024
"""Octets of an answer about records."""
MAX_TOKENS = 50
"""Tokens in one command line: old versions of dropbear take 4 KiB or less."""

Session = Callable[[str], Awaitable[RelayhostChannel]]
"""Runs a command on the relayhost. Raises Fault and NotRecorded."""

_TOKEN = re.compile(r"[0-9a-f]{32}")
_HOST = re.compile(r"[0-9A-Za-z._:%-]+")
_LOCAL = {Tcp("localhost", 25), Tcp("127.0.0.1", 25), Tcp("::1", 25)}
_BLOCK = 1024
"""Octets in a block of `ulimit -f`: 512 (POSIX) or 1024 (bash)."""


def record_command(token: str, smtp: Tcp, helo: str = "") -> str:
    """The command line of a recorder. smtp: the mail server, as seen from the relayhost. helo: the argument of EHLO that the
    recorder is to send, if it can; "" if it is not to. Raises NotRecorded if the name of the host has odd characters."""
    words = (remote_script.quoted(_script("recorder.pl")), *mail_server(smtp), "mailrelay", "record")
    return _command_line("recorder.sh", *words, checked(token), helo.encode().hex())


def mail_server(smtp: Tcp) -> tuple[str, str, str]:
    """The words for a mail server: host, port, and how it is reached without perl. Raises NotRecorded if the name of the
    host has odd characters."""
    if not _HOST.fullmatch(smtp.host):
        raise NotRecorded(f"The host {printable(smtp.host)} cannot be given to a shell.")
    return smtp.host, str(smtp.port), "sendmail" if smtp in _LOCAL else "none"


def scripts() -> tuple[str, str, str]:
    """The texts of the scripts: that of a recorder, its part in perl, and that about records."""
    return _script("recorder.sh"), _script("recorder.pl"), _script("records.sh")


def read_command(mark: str, tokens: Sequence[str]) -> str:
    """The command line that ends recorders and prints their records. mark: of `parse`."""
    return _command_line("records.sh", checked(mark), "mailrelay", "read", *map(checked, tokens))


def remove_command(mark: str, tokens: Sequence[str]) -> str:
    """The command line that removes these records, and all that were last written seven days ago or earlier."""
    return _command_line("records.sh", checked(mark), "mailrelay", "remove", *map(checked, tokens))


def checked(token: str) -> str:
    """The token. Raises ValueError if it is not 32 hexadecimal digits."""
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"not a token: {token!r}")
    return token


def parse(answer: bytes, mark: str) -> dict[str, RecordRead] | None:
    """The records in the output of `read_command` or `remove_command`; None if the output is not complete. Pure.

    mark: 32 hexadecimal digits that were made for this one command. So neither a mail server nor a shell can know them.
    """
    marked = re.escape(mark.encode())
    whole = re.search(rb"\n%b begin\n(.*?)^%b done\n" % (marked, marked), answer, re.DOTALL | re.MULTILINE)
    if whole is None:
        return None
    one = rb"^%b record ([0-9a-f]{32})\n(.*?)\n%b (ended|growing) \1\n" % (marked, marked)
    return {
        found[1].decode(): _record(found[2], found[1], is_growing=found[3] == b"growing")
        for found in re.finditer(one, whole[1], re.DOTALL | re.MULTILINE)
    }


def _record(file: bytes, token: bytes, *, is_growing: bool) -> RecordRead:
    """The content of a file: the line with the process ids, the octets of the mail server, the line END."""
    _, _, octets = file.partition(b"\n")
    end = b"\nEND %b\n" % token
    is_complete = octets.endswith(end)
    return RecordRead(octets.removesuffix(end), is_complete, is_growing=is_growing and not is_complete)


def refused(error: Exception) -> NotRecorded:
    """As `remote_script.refused`."""
    return remote_script.refused(error, "a recorder", NotRecorded)


async def start(channel: RelayhostChannel, token: str, until: float) -> str:
    """Waits until the recorder has connected to the mail server, whose greeting is the next to be read.

    Sets `channel.is_ehlo_sent`. until: the limit, a time of the event loop. Returns "", or why the recorder cannot reach the
    mail server. Raises NotRecorded and ConnectionError.
    """
    # If a greeting comes first, a forced command runs a mail server instead of the recorder.
    ours = rb"(recorded|unrecorded|unreached) %b(?: (.*))?\n" % token.encode()
    line = re.compile(rb"^(?:%b|220[ -].*\r\n)" % ours, re.MULTILINE)
    try:
        async with asyncio.timeout_at(until):
            found = await channel.skip_past(line)
    except TimeoutError:
        raise NotRecorded(f"The recorder did not start within {START:.0f} s.", is_temporary=True) from None
    if isinstance(found, bytes):
        raise NotRecorded(f"The recorder cannot be started there: {remote_script.shown(found)}.")
    state, reason = found[1], remote_script.shown(found[2] or b"")
    if state is None:
        raise NotRecorded(f"Another program answers there instead of the recorder: {remote_script.shown(found[0])}.")
    if state == b"unrecorded":
        raise NotRecorded(f"The recorder cannot keep a record there: {reason}.")
    channel.is_ehlo_sent = state == b"recorded" and found[2] == b"ehlo"
    return reason if state == b"unreached" else ""


async def read(session: Session, tokens: Iterable[str]) -> dict[str, RecordRead]:
    """Ends the recorders with these tokens, and returns their records; no entry for a token without a record. Raises Fault,
    NotRecorded and ConnectionError."""
    found: dict[str, RecordRead] = {}
    for some in _batches(tokens):
        found |= await _ask(session, functools.partial(read_command, tokens=some))
    return found


async def remove(session: Session, tokens: Iterable[str]) -> None:
    """Removes the records with these tokens, and forgotten ones. Raises Fault, NotRecorded and ConnectionError."""
    for some in _batches(tokens) or [[]]:
        await _ask(session, functools.partial(remove_command, tokens=some))


async def _ask(session: Session, command: Callable[[str], str]) -> dict[str, RecordRead]:
    mark = secrets.token_hex(16)
    channel = await session(command(mark))
    try:
        answer = await remote_script.answer(channel, b"", limit=MAX_ANSWER, silence=TIMEOUT)
    except TimeoutError:
        raise NotRecorded(f"Nothing came about records for {TIMEOUT:.0f} s.", is_temporary=True) from None
    finally:
        channel.close()
    if len(answer) > MAX_ANSWER:
        raise NotRecorded(f"The answer about records has more than {size(MAX_ANSWER)}.")
    found = parse(answer, mark)
    if found is None:
        raise NotRecorded(f"The answer about records is not complete: {remote_script.shown(answer[-1024:])}.")
    return found


def _batches(tokens: Iterable[str]) -> list[list[str]]:
    unique = sorted(set(tokens))
    return [unique[start : start + MAX_TOKENS] for start in range(0, len(unique), MAX_TOKENS)]


def _command_line(script: str, *words: str) -> str:
    return remote_script.command_line(_script(script), *words)


@functools.cache
def _script(name: str) -> str:
    values = {
        "MAX_RECORD": MAX_RECORD,
        "MAX_BLOCKS": MAX_RECORD // _BLOCK,
        "ROUNDS": int(ENDING * 10),
        "NAMES": "[0-9a-f]" * 32,
    }
    return remote_script.text(name, values)
