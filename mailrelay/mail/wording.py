"""Puts a notice into words, once, for every backend that carries it.

Promises: nothing from outside (addresses, subjects, the remote's words) comes through unescaped, see `mail.printable`;
every text is bounded; every text says what happened, to whom, why, and the step that comes next. Line ends are LF.

Never: to add markup. A backend that has one escapes it.
"""

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

from mailrelay.mail.address_suggestion import suggestion
from mailrelay.mail.notice import ABOUT_RELAYHOST, Concerned, Kind, Notice
from mailrelay.mail.printable import printable

ADDRESS_LIMIT = 320
"""Characters of an address: a path has 256 octets at most (RFC 5321 section 4.5.3.1.3), and some may be escaped."""
REASON_LIMIT = 900
SUBJECT_LIMIT = 200

_LISTED_SHORT = 3
_LISTED = 50
_WIDTH = 72

_MEANING = {
    "1.1": "There is no such mailbox there. Look for a spelling mistake in the address.",
    "1.2": "There is no such mail domain. Look for a spelling mistake after the @.",
    "1.3": "This cannot be a mail address. Look for a spelling mistake.",
    "1.10": "This domain takes no mail at all.",
    "2.1": "The mailbox is closed.",
    "2.2": "The mailbox is full. Ask the recipient by another way, and send it again later.",
    "2.3": "The message is too large for it. Send it smaller, or in parts.",
    "3.4": "The message is too large for it. Send it smaller, or in parts.",
    "4.4": "No mail server was found for this domain. Look for a spelling mistake after the @.",
    "7.1": "The server does not allow it. Its words may say why.",
}
"""What the detail of an enhanced status code (RFC 3463) means to somebody who has never seen one."""


def title(notice: Notice) -> str:
    """One line that says what happened and to whom."""
    match notice.kind:
        case Kind.SETUP:
            return f"Mail {'still ' if notice.repeats else ''}cannot leave through {printable(notice.relayhost, 80)}"
        case Kind.DELAYED:
            return _waiting(notice)
        case Kind.RESUMED:
            return f"Mail leaves again through {printable(notice.relayhost, 80)}"
        case Kind.HELD:
            return f"Mail to {_whom(notice.concerned)} waits for you"
        case Kind.RELAYED:
            return f"Mail to {_whom(notice.concerned)} was handed on"
        case Kind.FAILED:
            return f"Mail to {_whom(notice.concerned)} {_fate(notice.concerned)}"


def body(notice: Notice) -> str:
    """A few lines for a small space: the remote's words, the subject, what to do next. About 1,500 characters at most."""
    if notice.kind in ABOUT_RELAYHOST:
        return "\n".join(filter(None, (_lines(notice.text), _lines(notice.fix), *_of_a_way(notice))))
    lines = [_short(one, named=len(notice.concerned) > 1) for one in notice.concerned[:_LISTED_SHORT]]
    if notice.subject:
        lines.append(f"Subject: {printable(notice.subject, 100)}")
    lines += [" ".join(one) for one in _suggestions(notice)[:1]]
    if notice.kind is not Kind.RELAYED:
        lines.append(f"See: mailrelay queue show {printable(notice.queue_id, 40)}")
    return "\n".join(lines)


def summary(notices: Sequence[Notice]) -> tuple[str, str]:
    """Title and body of one notice that stands for several: for backends on which a flood would be clicked away unread."""
    titles = [title(notice) for notice in notices[:_LISTED_SHORT]]
    more = len(notices) - len(titles)
    lines = [*titles, *([f"and {more} more"] if more else []), "See: mailrelay queue"]
    return f"{len(notices)} troubles with your mail", "\n".join(lines)


def report_text(notice: Notice) -> str:
    """The whole account, for a report that is read as mail. Lines of 72 characters, longer only where a word is."""
    if notice.kind in ABOUT_RELAYHOST:
        return _paragraphs(
            f"{title(notice)}.{_SAFE.get(notice.kind, '')}",
            _indented(notice.text, "  "),
            "What to do:" if notice.fix else "",
            _indented(notice.fix, "  "),
            *_of_a_way(notice),
        )
    queue_id = printable(notice.queue_id, 40)
    listed = [_account(one) for one in notice.concerned[:_LISTED]]
    more = len(notice.concerned) - len(listed)
    return _paragraphs(
        _OPENING[notice.kind],
        *listed,
        f"  and {more} more, which the next part of this report names." if more > 0 else "",
        *(f"{question}\n\n  {command}" for question, command in _suggestions(notice)),
        "\n".join(
            (
                f"Subject:  {printable(notice.subject, SUBJECT_LIMIT) or '(none)'}",
                f"Sent:     {format_datetime(datetime.fromtimestamp(notice.arrival, UTC).astimezone())}",
                f"Queue id: {queue_id}",
            )
        ),
        _NEXT[notice.kind].format(id=queue_id),
    )


def record(notice: Notice) -> dict[str, object]:
    """The notice for programs: what JSON can hold, every text escaped, with the names of `mailrelay queue --json`.

    Times are epoch seconds. `queue_id` is empty and `recipients` too for what concerns a relayhost; `since` and
    `waiting` are 0 for what concerns a message.
    """
    return {
        "notice": notice.id,
        "kind": notice.kind.value,
        "created": notice.created,
        "title": title(notice),
        "body": body(notice),
        "relayhost": printable(notice.relayhost, 80),
        "since": notice.since,
        "waiting": notice.waiting,
        "text": printable(notice.text, REASON_LIMIT),
        "fix": printable(notice.fix, REASON_LIMIT),
        "queue_id": printable(notice.queue_id, 40),
        "sender": printable(notice.sender, ADDRESS_LIMIT),
        "subject": printable(notice.subject, SUBJECT_LIMIT),
        "arrival_time": notice.arrival,
        "message_size": notice.size,
        "recipients": [
            {
                "address": printable(one.address, ADDRESS_LIMIT),
                "state": one.state,
                "status": one.status,
                "reply": printable(one.words, REASON_LIMIT),
                "stage": one.stage,
                "remote": one.remote,
                "uncertain": one.uncertain,
                "did_you_mean": printable(one.likely, ADDRESS_LIMIT),
            }
            for one in notice.concerned
        ],
    }


_SAFE = {
    Kind.SETUP: " It waits, safely stored, and leaves by itself once this is fixed.",
    Kind.DELAYED: " Safely stored; it is tried again and again by itself, and you will hear when it moves.",
}
_OPENING = {
    Kind.FAILED: "Your message did not reach everybody it was meant for, and is not tried again by itself:",
    Kind.HELD: "Your message cannot be sent as it is. It waits, safely stored, until you decide:",
    Kind.RELAYED: "Your message was handed on. The mail server took it, but sends no word of its arrival:",
}
_NEXT = {
    Kind.FAILED: """\
What to do: fix what the words above complain of, and send it again. There is
no need to write it anew; it is kept whole until you let it go:

  mailrelay queue resend {id} --to ADDRESS    to another address
  mailrelay queue edit {id}                   in your editor
  mailrelay queue show {id}                   what happened to it
  mailrelay queue drop {id}                   let it go""",
    Kind.HELD: """\
What to do:

  mailrelay queue show {id}       what happened to it
  mailrelay queue release {id}    try it again
  mailrelay queue edit {id}       change it in your editor, and send it
  mailrelay queue cancel {id}     take it out""",
    Kind.RELAYED: "There is nothing to do. You asked for this word when you sent the message.",
}


def _suggestions(notice: Notice) -> list[tuple[str, ...]]:
    """Question and command for each recipient of whom another is likely."""
    alone = len(notice.concerned) == 1
    found = (suggestion(printable(notice.queue_id, 40), one.likely, alone=alone) for one in notice.concerned)
    return [one for one in found if one]


def _of_a_way(notice: Notice) -> list[str]:
    """What waits for a relayhost, or does so no longer."""
    match notice.kind:
        case Kind.RESUMED if notice.waiting:
            return [f"{_mails(notice.waiting)} on the way now. There is nothing to do."]
        case Kind.RESUMED:
            return ["Nothing waits any longer. There is nothing to do."]
        case Kind.DELAYED:
            return ["See: mailrelay queue"]
        case _:
            waiting = [f"{_waiting(notice)}."] if notice.waiting else []
            return [*waiting, "Once it is fixed: mailrelay queue retry --all"]


def _waiting(notice: Notice) -> str:
    verb = "waits" if notice.waiting == 1 else "wait"
    return f"{_mails(notice.waiting)} {verb} since {_clock(notice.since, notice.created)}"


def _mails(count: int) -> str:
    return "1 mail" if count == 1 else f"{count} mails"


def _clock(at: float, now: float) -> str:
    """The person's own time of day, with the day where that is another."""
    then = datetime.fromtimestamp(at).astimezone()
    return then.strftime("%H:%M" if now - at < 43_200 else "%Y-%m-%d %H:%M")


def _whom(concerned: Sequence[Concerned]) -> str:
    if not concerned:
        return "nobody"
    first = printable(concerned[0].address, 80)
    return first if len(concerned) == 1 else f"{first} and {len(concerned) - 1} more"


def _fate(concerned: Sequence[Concerned]) -> str:
    match {one.state for one in concerned}:
        case states if states == {"bounced"}:
            return "was refused"
        case states if states == {"expired"}:
            return "could not be delivered in time"
        case _:
            return "has failed"


def _short(one: Concerned, *, named: bool) -> str:
    said = printable(one.words, 250) or "no reason is known"
    if one.remote:
        said = f"The mail server said: {said}"
    if one.uncertain:
        said = f"{said} (it may have arrived all the same)"
    return f"{printable(one.address, 80)}: {said}" if named else said


def _account(one: Concerned) -> str:
    whose = "The mail server said" if one.remote else "Reason"
    said = f"{whose}: {printable(one.words, REASON_LIMIT) or 'no reason is known'}"
    meaning = _MEANING.get(one.status[2:], "") if one.remote and one.state != "sent" else ""
    uncertain = "It may have arrived all the same: the connection broke at the last moment." if one.uncertain else ""
    return "\n".join(
        (
            f"  {printable(one.address, ADDRESS_LIMIT)}",
            *(_indented(line, "    ") for line in (said, meaning, uncertain) if line),
        )
    )


def _lines(text: str) -> str:
    return "\n".join(printable(line, 400) for line in text.splitlines())


def _indented(text: str, indent: str) -> str:
    return "\n".join(
        textwrap.fill(
            printable(line, REASON_LIMIT),
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
    )


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(
        text if "\n" in text or text.startswith(" ") else textwrap.fill(text, _WIDTH) for text in texts if text
    )
