"""The question about mail that the mail server of the relayhost has accepted: what its queue, its log and the mailbox say.

    answer = await ask(session, question)

One session of the SSH connection runs `mail_question.sh`. All data goes to its stdin; of a queue id, only a program that
takes it in no other way gets it as an argument. The output of a login shell before ours is skipped.

Promises: all of it takes TIMEOUT seconds at most. An answer counts only if it is complete, from the first to the last mark,
which is made for this one question and which nobody else on the relayhost sees. Nothing is written there.
Never: data of ours in a script; sudo; a setup fault.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable

from mailrelay.mail.quantity import size
from mailrelay.ssh import remote_script
from mailrelay.ssh.channel import RelayhostChannel
from mailrelay.ssh.interface import NotAnswered
from mailrelay.tracking.question import MAX_IDS, Answer, Output, Place, Question
from mailrelay.tracking.queue_id import Server, is_safe
from mailrelay.tracking.report import MAX_REPORT

TIMEOUT = 20.0
"""Seconds for a question."""
LIST_SECONDS = 5
"""Seconds for the program that lists the queue."""
MAX_ANSWER = 32 * 1024 * 1024
"""Octets of an answer."""
MAX_MAILBOX = 64 * 1024 * 1024
"""Octets of an mbox that are read, from its end."""
ALLOWANCE = 86400
"""Seconds by which the clock of the relayhost may be behind ours."""

Session = Callable[[str], Awaitable[RelayhostChannel]]
"""Runs a command on the relayhost. Raises Fault and NotAnswered."""

_MARK_OF_OURS = re.compile(r"[!-~]{8,200}")
_LOG_PLACE = re.compile(r"none|file \d{1,20} \d{1,15}|journal [!-~]{1,500}")
_MAILBOX_PLACE = re.compile(r"\d{1,15} \d{1,12}")
_FROM_THE_BEGINNING = ("none", "\n", "0 0")
_SERVERS = {server.value: server for server in Server}


def command() -> str:
    """The command line that answers a question."""
    return remote_script.command_line(script(), "mailrelay", "ask")


def script() -> str:
    """The text of the script."""
    return remote_script.text(
        "mail_question.sh", {"MAX_REPORT": MAX_REPORT, "MAX_MAILBOX": MAX_MAILBOX, "LIST_SECONDS": LIST_SECONDS}
    )


def data(question: Question, mark: str) -> bytes:
    """The stdin of the command. mark: of `parse`. Raises ValueError if a part of the question is not as `Question` says, and
    NotAnswered if the person's command is not one line."""
    if len(question.ids) > MAX_IDS or len(question.retry) > MAX_IDS:
        raise ValueError(f"more than {MAX_IDS} queue ids")
    if not all(map(is_safe, (*question.ids, *question.retry))):
        raise ValueError("not queue ids that a shell may see")
    if not all(map(_MARK_OF_OURS.fullmatch, question.marks)):
        raise ValueError("a mark is not of 8 to 200 printable octets")
    if not all(char.isprintable() for char in question.command):
        raise NotAnswered("The command that lists the queue is not one line.")
    lines = (
        mark,
        _words(question.ids),
        _words(question.marks),
        _words(question.retry),
        question.command,
        str(max(int(question.since) - ALLOWANCE, 0)),
        *_places(question.place),
    )
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def parse(answer: bytes, mark: str, now: float) -> Answer | None:
    """The answer in the output of the command; None if the output is not complete. Pure.

    mark: 32 hexadecimal digits that were made for this one question. now: epoch seconds when it was asked.
    """
    marked = re.escape(mark.encode())
    whole = re.search(rb"\n%b begin\n(.*)^%b answered\n" % (marked, marked), answer, re.DOTALL | re.MULTILINE)
    if whole is None:
        return None
    parts = _Parts(whole[1], marked)
    account, there = parts.word("account"), parts.word("now")
    if not there.isdecimal() or len(there) > 12:
        return None
    places = _checked((parts.word("logged"), f"{parts.word('last')} {there}"))
    server = parts.word("server")
    reports = parts.between("mailbox", "read")
    if reports is not None:
        reports = re.sub(rb"\n%b last \d+\n" % marked, b"", reports).lstrip(b"\n")
    # With a .forward, reports may go elsewhere.
    is_forwarded = parts.has("forwarded")
    return Answer(
        server=_SERVERS.get(server, Server.OTHER),
        listing=parts.output("queue", "listed"),
        log=parts.between("log", "logged"),
        reports=None if is_forwarded and not reports else reports,
        retried=parts.output("retry", "retried"),
        account=account,
        place=Place("\n".join(places)),
        seconds_ahead=int(there) + 0.5 - now,
    )


class _Parts:
    """The parts of an answer, between lines that begin with the mark."""

    def __init__(self, answer: bytes, marked: bytes) -> None:
        self._answer = b"\n" + answer
        self._marked = marked

    def has(self, name: str) -> bool:
        return re.search(rb"\n%b %b\n" % (self._marked, name.encode()), self._answer) is not None

    def word(self, name: str) -> str:
        """The words behind the last mark with this name; "" if there is none."""
        found = re.findall(rb"\n%b %b ([^\n]*)\n" % (self._marked, name.encode()), self._answer)
        return found[-1].decode("utf-8", "replace") if found else ""

    def between(self, begin: str, end: str) -> bytes | None:
        ends = (self._marked, begin.encode(), self._marked, end.encode())
        found = re.search(rb"\n%b %b\n(.*?)\n%b %b\b" % ends, self._answer, re.DOTALL)
        return found[1] if found else None

    def output(self, begin: str, end: str) -> Output | None:
        octets, status = self.between(begin, end), self.word(end)
        return None if octets is None or not status.isdecimal() else Output(octets, int(status[:4]))


async def ask(session: Session, question: Question) -> Answer:
    """Asks the question. Raises Fault, NotAnswered, and ConnectionError if the connection or the session breaks."""
    mark = secrets.token_hex(16)
    sent = data(question, mark)
    try:
        async with asyncio.timeout(TIMEOUT):
            channel = await session(command())
            try:
                asked = time.time()
                answer = await remote_script.answer(channel, sent, limit=MAX_ANSWER, silence=TIMEOUT)
            finally:
                channel.close()
    except TimeoutError:
        raise NotAnswered(f"The relayhost did not finish its answer about mail within {TIMEOUT:.0f} s.") from None
    if len(answer) > MAX_ANSWER:
        raise NotAnswered(f"The answer about mail there has more than {size(MAX_ANSWER)}.")
    found = parse(answer, mark, asked)
    if found is None:
        raise NotAnswered(f"The answer about mail there is not complete: {remote_script.shown(answer[-1024:])}.")
    return found


def refused(error: Exception) -> NotAnswered:
    """As `remote_script.refused`."""
    return remote_script.refused(error, "a question about mail", NotAnswered)


def _words(words: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(words))


def _places(place: Place | None) -> tuple[str, str]:
    """The places in the log and in the mailbox of an answer before this one."""
    log, _, mailbox = place.text.partition("\n") if place is not None else _FROM_THE_BEGINNING
    return _checked((log, mailbox))


def _checked(places: tuple[str, str]) -> tuple[str, str]:
    """The places. The beginning stands for text that is none."""
    return (
        places[0] if _LOG_PLACE.fullmatch(places[0]) else "none",
        places[1] if _MAILBOX_PLACE.fullmatch(places[1]) else "0 0",
    )
