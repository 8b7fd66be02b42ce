"""The other side of the control socket (`system`): answers the questions of one account about its messages, by the functions
that the commands use.

The service manager starts one process for each connection (mailrelay-control.socket, with Accept=yes), as the account that
the spool belongs to. No daemon needs to run, and no question reaches the daemon.

Promises: the account is the one that the kernel names. Root, and the account of the spool, see and change all messages; any
other account only its own (`spool.ownership`): for others it gets NoSuchMessage. Nothing in a question names a file or a
program. One account alone cannot use up all processes (PROCESSES).
"""

import dataclasses
import fcntl
import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mailrelay.config import Settings
from mailrelay.control import acts, bulk, details, enqueue, listing, replacement
from mailrelay.control.errors import CONTROL_ERRORS
from mailrelay.control.following import AskedThere, await_retries
from mailrelay.control.progress import sending
from mailrelay.control.replacement import Replaced
from mailrelay.control.system import Terms
from mailrelay.control.wire import packed, unpacked
from mailrelay.mail.address import is_address
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.handed_in import UNTRIED, HandedIn, Problem
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.overview import Listed
from mailrelay.mail.printable import printable
from mailrelay.mail.selection import Filter
from mailrelay.mail.send_time import MAX_WAIT as MAX_SEND_WAIT
from mailrelay.mail.sending import Sending
from mailrelay.mail.spool_errors import NoSuchMessage, NotAllowed, SpoolError
from mailrelay.spool import ownership
from mailrelay.spool.command_spool import CommandSpool

IDLE = 20.0
"""Seconds without a whole question after which the connection is closed."""
PROCESSES = 32
"""Connections of one account at once, at most: half of MaxConnections in mailrelay-control.socket. A further one is closed
before the first answer, and `system` tries it again."""
LOCK = "control.lock"
"""A file in the directory of the spool. Each process locks one octet of it; PROCESSES of them belong to each account."""
MAX_WAIT = 10.0
"""Seconds that a question may wait for the daemon."""
OVERHEAD = 1 << 20
"""Octets of a question besides the content."""
MAX_RECIPIENTS = 10_000
MAX_VALUES = 1_000_000
"""Values in a question, at most. Each takes up to 300 octets of memory, and only two or three of the line."""
MAX_ORCPT = 500
"""Octets of a parameter, at most: those of ORCPT (RFC 3461 section 4.2), which is the longest one."""
_CREDENTIALS = struct.Struct("=iII")
_STATUS = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}")


class BadQuestion(Exception):
    """The client does not speak this protocol. The text is one sentence."""


def peer(connection: socket.socket) -> int:
    """The user id of the account at the other end, from the kernel. Raises OSError."""
    octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(octets)[1])


def is_within_limit(directory: Path, uid: int) -> bool:
    """Whether fewer than PROCESSES other processes answer this account. This one counts until it ends."""
    try:
        handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # The question shows why the directory cannot be used.
        return True
    for one in range(PROCESSES):
        with suppress(OSError):
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, uid * PROCESSES + one)
            return True
    os.close(handle)
    return False


def answer(settings: Settings, connection: socket.socket) -> None:
    """Answers the questions on a connection until its end. Limits this process to the messages of the account."""
    uid = peer(connection)
    if uid not in (0, os.geteuid()):
        ownership.limit_to(uid)
        if not is_within_limit(settings.queue.directory, uid):
            return
    # `sendmail` takes twice this size, and base64 makes four octets of three: 2.7 times. The rest is spare.
    limit = settings.listen.max_message_size * 3 + OVERHEAD
    unread = bytearray()
    with suppress(OSError):
        while line := _line(connection, unread, limit):
            connection.sendall(json.dumps(_answer(settings, uid, line)).encode() + b"\n")


def _line(connection: socket.socket, unread: bytearray, limit: int) -> bytes:
    """The next line; empty at the end of the connection, for a line of more than `limit` octets, and for one that is not
    whole after IDLE. unread: octets after the last line. Raises OSError."""
    end = time.monotonic() + IDLE
    searched = 0
    while (at := unread.find(b"\n", searched)) < 0:
        searched, left = len(unread), end - time.monotonic()
        if searched > limit or left <= 0:
            return b""
        connection.settimeout(left)
        piece = connection.recv(1 << 18)
        if not piece:
            return b""
        unread += piece
    line = bytes(unread[: at + 1])
    del unread[: at + 1]
    connection.settimeout(IDLE)
    return line


def _answer(settings: Settings, uid: int, line: bytes) -> dict[str, object]:
    try:
        return {"result": packed(_result(settings, uid, line))}
    except (BadQuestion, ValueError, TypeError, RecursionError, OverflowError) as error:
        return {"error": ["BadQuestion", f"the question cannot be read ({printable(str(error), 200)})"]}
    except CONTROL_ERRORS as error:
        return {"error": [type(error).__name__, str(error)]}
    except OSError as error:
        return {"error": ["SpoolError", f"the spool cannot be used: {error.strerror or error}"]}


def _result(settings: Settings, uid: int, line: bytes) -> object:
    if sum(map(line.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BadQuestion("too many values")
    asked = json.loads(line)
    if not (isinstance(asked, list) and asked and isinstance(asked[0], str)):
        raise BadQuestion("not a list")
    function, kinds = QUESTIONS.get(asked[0], (None, ()))
    if function is None or len(kinds) != len(asked) - 1:
        raise BadQuestion("not a question")
    arguments = [unpacked(kind, one) for kind, one in zip(kinds, asked[1:], strict=True)]
    return function(settings, uid, *arguments)


def _terms(settings: Settings, _uid: int) -> Terms:
    known = settings.submission
    listen = settings.listen
    return Terms(known.sender, known.domain, known.local, listen.max_message_size, listen.answer_within)


def _messages(settings: Settings, _uid: int, history: bool) -> list[Listed]:
    return list(listing.messages(settings.queue.directory, history=history))


def _one(settings: Settings, _uid: int, key: int) -> Listed:
    try:
        with CommandSpool(settings.queue.directory).reading() as view:
            return view.one(key)
    except (StopIteration, FileNotFoundError):
        raise SpoolError("the message is no longer in the spool") from None


def _await_retries(settings: Settings, _uid: int, ids: Sequence[str], seconds: float) -> list[AskedThere]:
    if len(ids) > MAX_RECIPIENTS:
        raise BadQuestion("too many ids")
    return await_retries(settings.queue.directory, ids, min(max(seconds, 0.0), MAX_WAIT))


def _hand_in(settings: Settings, uid: int, message: HandedIn) -> enqueue.Stored:
    _check(message.envelope, message.content)
    if not _is_parameter(message.notify):
        raise BadQuestion("a parameter is not valid")
    envelope = dataclasses.replace(message.envelope, owner=uid, is_damaged=False)
    if not (envelope.recipients or message.bad) or len(message.bad) > MAX_RECIPIENTS:
        raise BadQuestion("no recipient, or too many")
    if not all(map(_is_problem, filter(None, (message.problem, *(one for _, one in message.bad))))):
        raise BadQuestion("not a problem")
    return enqueue.hand_in(settings, dataclasses.replace(message, envelope=envelope))


def _replace(
    settings: Settings,
    _uid: int,
    queue_id: str,
    recipients: tuple[int, ...],
    what: Act,
    envelope: Envelope,
    content: bytes,
) -> Replaced:
    _check(envelope, content)
    directory = settings.queue.directory
    # The old message is read from the spool: the client's copy is not trusted.
    old, _ = replacement.replaceable(directory, queue_id, what)
    if old.recipient_ids != recipients:
        raise NotAllowed(f"the state of {queue_id} has changed meanwhile; see `mailrelay queue show {queue_id}`")
    envelope = dataclasses.replace(envelope, owner=old.envelope.owner, is_damaged=False)
    return replacement.replace(settings, directory, old, what, envelope, content)


def _check(envelope: Envelope, content: bytes) -> None:
    """What the commands make sure of before they hand a message over. Raises BadQuestion."""
    addresses = [to.address for to in envelope.recipients]
    if len(addresses) > MAX_RECIPIENTS:
        raise BadQuestion("too many recipients")
    if not all(map(is_address, [*addresses, *filter(None, [envelope.sender])])):
        raise BadQuestion("an address is not valid")
    if envelope.body not in (b"7BIT", b"8BITMIME") or envelope.ret not in (b"", b"FULL", b"HDRS"):
        raise BadQuestion("a parameter is not valid")
    parameters = [envelope.envid, *(value for to in envelope.recipients for value in (to.notify, to.orcpt))]
    if not all(map(_is_parameter, parameters)):
        raise BadQuestion("a parameter is not valid")
    if envelope.send_time is not None and envelope.send_time.at > time.time() + MAX_SEND_WAIT:
        raise BadQuestion("a send time is too far ahead")
    # A bare line feed or carriage return could end the content early at a mail server (SMTP smuggling).
    if b"\n" in content.replace(b"\r\n", b"") or b"\r" in content.replace(b"\r\n", b""):
        raise BadQuestion("a line does not end with CRLF")


def _is_problem(problem: Problem) -> bool:
    # The status is shown and logged as it is; the text is escaped.
    return problem.state in UNTRIED and _STATUS.fullmatch(problem.status) is not None


def _is_parameter(value: bytes) -> bool:
    # A longer command would make a mail server close the conversation, in which mail of other accounts may be next.
    return len(value) <= MAX_ORCPT and value.isascii() and value.decode().isprintable() and b" " not in value


def _acted(settings: Settings, _uid: int, ids: Sequence[str], what: Act) -> acts.Done:
    return _in_batches(lambda some: acts.act(settings.queue.directory, some, what), ids)


def _retried(settings: Settings, _uid: int, ids: Sequence[str]) -> acts.Done:
    return _in_batches(lambda some: acts.retry(settings.queue.directory, some), ids)


def _in_batches(do: Callable[[Sequence[str]], acts.Done], ids: Sequence[str]) -> acts.Done:
    """Does it for all ids, in several commits: during a long one the daemon could accept no mail of other accounts."""
    whole = do(ids[: bulk.BATCH])
    for at in range(bulk.BATCH, len(ids), bulk.BATCH):
        time.sleep(bulk.PAUSE)
        try:
            done = do(ids[at : at + bulk.BATCH])
        except SpoolError as error:
            failure = f"{error}; not done: {len(ids) - at} of {len(ids)} messages"
            return dataclasses.replace(whole, failures=[*whole.failures, failure])
        whole = acts.Done(
            whole.changed + done.changed,
            whole.failures + done.failures,
            whole.lacks_daemon or done.lacks_daemon,
            [*whole.only_there, *done.only_there],
        )
    return whole


def _changed(
    settings: Settings, _uid: int, selected: bulk.Selected, verb: str
) -> tuple[acts.Done, dict[bulk.Skip, list[str]]]:
    if verb not in (bulk.RETRY, Act.HOLD, Act.RELEASE, Act.CANCEL, Act.DROP):
        raise BadQuestion("not a verb")
    done = bulk.change(settings.queue.directory, selected, verb)
    return done, selected.skipped


def _sending(settings: Settings, _uid: int) -> list[Sending]:
    found = []
    directory = settings.queue.directory
    with suppress(FileNotFoundError), CommandSpool(directory).reading() as view:
        for one in sending(directory):
            # Messages of other accounts are not found.
            with suppress(NoSuchMessage):
                view.find(one.queue_id)
                found.append(one)
    return found


Function = Callable[..., object]
QUESTIONS: dict[str, tuple[Function, tuple[Any, ...]]] = {
    "terms": (_terms, ()),
    "messages": (_messages, (bool,)),
    "one": (_one, (int,)),
    "details": (lambda settings, _, given: details.details(settings.queue.directory, given), (str,)),
    "whole_id": (lambda settings, _, given: details.whole_id(settings.queue.directory, given), (str,)),
    "content": (lambda settings, _, given: details.content(settings.queue.directory, given), (str,)),
    "act": (_acted, (list[str], Act)),
    "retry": (_retried, (list[str],)),
    "retry_all": (lambda settings, _: acts.retry_all(settings.queue.directory), ()),
    "select": (
        lambda settings, _, wanted, verb: bulk.select(settings.queue.directory, wanted, verb),
        (Filter, str),
    ),
    "change": (_changed, (bulk.Selected, str)),
    "sending": (_sending, ()),
    "await_retries": (_await_retries, (list[str], float)),
    "hand_in": (_hand_in, (HandedIn,)),
    "replaceable": (
        lambda settings, _, given, what: replacement.replaceable(settings.queue.directory, given, what),
        (str, Act),
    ),
    "replace": (_replace, (str, tuple[int, ...], Act, Envelope, bytes)),
}
"""By the name of the question: the function that answers it, and the types of the arguments that the client gives. The
function gets the settings and the uid of the account before these."""
