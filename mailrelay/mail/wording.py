"""The texts of notices, for all backends.

Promises: all text from outside (addresses, subjects, replies) is escaped (`mail.printable`). Every text is bounded. It says
what happened, to which message, why, and what to do next. Line ends are LF.

Never: markup. A backend with markup escapes the text itself.
"""

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

from mailrelay.mail.address_suggestion import suggestion
from mailrelay.mail.notice import ABOUT_NO_MESSAGE, THERE, Concerned, Kind, Notice
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import number_of_messages
from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.sender_refusal import is_sender_refused
from mailrelay.mail.there import there_record

MAX_ADDRESS = 320
"""Characters of an address: a path has at most 256 octets (RFC 5321 section 4.5.3.1.3), and some may be escaped."""
MAX_REASON = 900
"""Characters of a reply, a reason or a fix."""
MAX_SUBJECT = 200
"""Characters of a subject."""

_MAX_LISTED_SHORT = 3
"""Recipients in a short text, or notices in a summary."""
_MAX_LISTED = 50
"""Recipients in the text of a report."""
_WIDTH = 72
"""Characters of a line in a report."""

_MEANINGS = {
    "1.1": "The mailbox does not exist. Check the spelling of the address.",
    "1.2": "The domain does not exist. Check the spelling after the @.",
    "1.3": "This is not a valid mail address. Check its spelling.",
    "1.7": "The address of the sender is not valid.",
    "1.8": "The domain of the sender does not exist.",
    "1.10": "This domain accepts no mail.",
    "2.1": "The mailbox is closed.",
    "2.2": "The mailbox is full. Tell the recipient in another way, and send the message again later.",
    "2.3": "The message is too large for this mailbox. Make it smaller, or send it in parts.",
    "3.4": "The message is too large for the mail server. Make it smaller, or send it in parts.",
    "4.4": "No mail server was found for this domain. Check the spelling after the @.",
    "7.1": "The mail server does not allow this message. Its reply may give the reason.",
}
"""Sentences for the person, by subject and detail of an enhanced status code (RFC 3463)."""
_VERBS = {Kind.HELD: "needs your decision", Kind.RELAYED: "was accepted by the mail server"}


def meaning(status: str) -> str:
    """What an enhanced status code (RFC 3463) means for the person, a sentence or two; "" if there is nothing to say."""
    return _MEANINGS.get(status[2:], "")


def title(notice: Notice) -> str:
    """One line: what happened, and to which message."""
    match notice.kind:
        case Kind.SETUP:
            return f"Mail {'still ' if notice.repeats else ''}cannot be sent through {printable(notice.relayhost, 80)}"
        case Kind.DELAYED:
            return _waiting_sentence(notice)
        case Kind.RESUMED if notice.cause == THERE:
            return f"No mail waits on {printable(notice.relayhost, 80)} any more"
        case Kind.RESUMED:
            return f"Mail is sent again through {printable(notice.relayhost, 80)}"
        case Kind.SPOOL:
            return f"mailrelay {'still ' if notice.repeats else ''}accepts no mail: its spool cannot be used"
        case Kind.FAILED | Kind.HELD | Kind.RELAYED:
            verb = _VERBS.get(notice.kind) or _failure_verb(notice)
            return f"Mail to {_recipients(notice.concerned)} {verb}"


def body(notice: Notice) -> str:
    """A short text of a few lines: the reason, the subject, what to do next. About 1,500 characters at most."""
    if notice.kind in ABOUT_NO_MESSAGE:
        return "\n".join(
            filter(None, (_escaped_lines(notice.text), _escaped_lines(notice.fix), *_about_no_message(notice)))
        )
    lines = [_short(notice, one, named=len(notice.concerned) > 1) for one in notice.concerned[:_MAX_LISTED_SHORT]]
    if notice.subject:
        lines.append(f"Subject: {printable(notice.subject, 100)}")
    lines += [" ".join(one) for one in _suggestions(notice)[:1]]
    if _is_there(notice):
        lines += _steps_there(notice)
    if _is_about_sender(notice):
        lines.append(
            f"To send it with another sender: mailrelay queue resend {printable(notice.queue_id, 40)} --from ADDRESS"
        )
    if notice.kind is not Kind.RELAYED:
        lines.append(f"See: mailrelay queue show {printable(notice.queue_id, 40)}")
    return "\n".join(lines)


def summary(notices: Sequence[Notice]) -> tuple[str, str]:
    """Title and body of one text in place of several notices: for backends where the person would not read many."""
    titles = [title(notice) for notice in notices[:_MAX_LISTED_SHORT]]
    more = len(notices) - len(titles)
    lines = [*titles, *([f"and {more} more"] if more else []), "See: mailrelay queue"]
    return f"{len(notices)} notices about your mail", "\n".join(lines)


def report_text(notice: Notice) -> str:
    """The complete text, for a report by mail. Lines have at most 72 characters, except for longer words."""
    if notice.kind in ABOUT_NO_MESSAGE:
        return _paragraphs(
            f"{title(notice)}.{_consequence(notice)}",
            _indented(notice.text, "  "),
            "What to do:" if notice.fix else "",
            _indented(notice.fix, "  "),
            *_about_no_message(notice),
        )
    queue_id = printable(notice.queue_id, 40)
    listed = [_entry(notice, one) for one in notice.concerned[:_MAX_LISTED]]
    more = len(notice.concerned) - len(listed)
    return _paragraphs(
        _OPENING_THERE if _is_there(notice) else _OPENING[notice.kind],
        *listed,
        f"  and {more} more, which the next part of this report lists." if more > 0 else "",
        *(f"{question}\n\n  {command}" for question, command in _suggestions(notice)),
        "\n".join(
            (
                f"Subject:  {printable(notice.subject, MAX_SUBJECT) or '(none)'}",
                f"Sent:     {format_datetime(datetime.fromtimestamp(notice.arrival, UTC).astimezone())}",
                f"Queue id: {queue_id}",
            )
        ),
        _next(notice).format(id=queue_id),
    )


def record(notice: Notice) -> dict[str, object]:
    """The notice for programs: values for JSON, every text escaped. Keys that `mailrelay queue --json` also has
    mean the same as there.

    Times are epoch seconds. For a notice about a relayhost or the spool, `queue_id` and `recipients` are empty; for a notice
    about a message or the spool, `since` and `waiting` are 0.
    """
    return {
        "notice": notice.id,
        "kind": notice.kind.value,
        "created": notice.created,
        "title": title(notice),
        "body": body(notice),
        "relayhost": printable(notice.relayhost, 80),
        "stand_in": printable(notice.stand_in, 80),
        "since": notice.since,
        "waiting": notice.waiting,
        "text": printable(notice.text, MAX_REASON),
        "fix": printable(notice.fix, MAX_REASON),
        "queue_id": printable(notice.queue_id, 40),
        "sender": printable(notice.sender, MAX_ADDRESS),
        "subject": printable(notice.subject, MAX_SUBJECT),
        "arrival_time": notice.arrival,
        "message_size": notice.size,
        "recipients": [
            {
                "address": printable(one.address, MAX_ADDRESS),
                "state": one.state,
                "status": one.status,
                "reply": printable(one.description, MAX_REASON),
                "stage": one.stage,
                "remote": one.remote,
                "uncertain": one.uncertain,
                "there": one.there and there_record(one.there),
                "did_you_mean": printable(one.likely, MAX_ADDRESS),
            }
            for one in notice.concerned
        ],
    }


def _is_there(notice: Notice) -> bool:
    """Whether the recipients of a message that failed have bounced on the relayhost."""
    return notice.kind is Kind.FAILED and any(one.bounced_there for one in notice.concerned)


def _steps_there(notice: Notice) -> list[str]:
    queue_id = printable(notice.queue_id, 40)
    send = f"To send it again: mailrelay queue resend {queue_id} --to ADDRESS, or mailrelay queue edit {queue_id}"
    return [
        send if notice.is_kept else "Its content is no longer kept. To send it again, write it again.",
        f"To dismiss it: mailrelay queue cancel {queue_id}",
    ]


def _next(notice: Notice) -> str:
    """What to do next, with "{id}" for the queue id."""
    if _is_there(notice):
        return _NEXT_THERE if notice.is_kept else _NEXT_THERE_GONE
    return _NEXT_SENDER if _is_about_sender(notice) else _NEXT[notice.kind]


def _consequence(notice: Notice) -> str:
    if notice.cause == THERE:
        return _CONSEQUENCES_THERE.get(notice.kind, "")
    if notice.stand_in and notice.kind is Kind.SETUP:
        return f" {_meanwhile(notice)}"
    return _CONSEQUENCES.get(notice.kind, "")


def _is_about_sender(notice: Notice) -> bool:
    """Whether the mail server refused the sender of a message that failed."""
    return notice.kind is Kind.FAILED and any(
        one.remote and is_sender_refused(one.stage, one.status, one.description) for one in notice.concerned
    )


_CONSEQUENCES = {
    Kind.SETUP: " Your mail is stored safely. It is sent automatically once this is fixed.",
    Kind.DELAYED: " Your mail is stored safely and is tried again automatically. You get a notice when mail is sent again.",
    Kind.SPOOL: " Programs that send mail get an error, and must keep it.",
}
_CONSEQUENCES_THERE = {
    Kind.DELAYED: " The mail server there has accepted this mail and tries again automatically. You get a notice when a"
    " message bounces, or when no mail waits there any more.",
}
_OPENING_THERE = (
    "The mail server on your relayhost accepted your message, but has not delivered it to these recipients. It is not tried"
    " again automatically:"
)
_OPENING = {
    Kind.FAILED: "Your message could not be delivered to these recipients. It is not tried again automatically:",
    Kind.HELD: "Your message is held. It is stored safely until you decide what to do:",
    Kind.RELAYED: "The mail server accepted your message. It does not report whether the message arrives:",
}
_NEXT_SENDER = """\
What to do: the mail server refused the sender. Send the message with a sender
that it accepts. You need not write it again: it is kept until you drop it.

  mailrelay queue resend {id} --from ADDRESS  send with another sender
  mailrelay queue edit {id}                   change it, then send it
  mailrelay queue show {id}                   show what happened
  mailrelay queue drop {id}                   delete it"""
_NEXT_THERE = """\
What to do: correct the cause above and send the message again. You need not
write it again: it is kept for a week, if its space is not needed.

  mailrelay queue resend {id} --to ADDRESS    send to another address
  mailrelay queue edit {id}                   change it, then send it
  mailrelay queue show {id}                   show what happened
  mailrelay queue cancel {id}                 dismiss it"""
_NEXT_THERE_GONE = """\
What to do: correct the cause above and write the message again. It is no
longer kept, because its space was needed.

  mailrelay queue show {id}                   show what happened
  mailrelay queue cancel {id}                 dismiss it"""
_NEXT = {
    Kind.FAILED: """\
What to do: correct the cause above and send the message again. You need not
write it again: it is kept until you drop it.

  mailrelay queue resend {id} --to ADDRESS    send to another address
  mailrelay queue edit {id}                   change it, then send it
  mailrelay queue show {id}                   show what happened
  mailrelay queue drop {id}                   delete it""",
    Kind.HELD: """\
What to do:

  mailrelay queue show {id}                   show what happened
  mailrelay queue release {id}                send it as it is
  mailrelay queue resend {id} --to ADDRESS    send to another address
  mailrelay queue edit {id}                   change it, then send it
  mailrelay queue cancel {id}                 do not send it""",
    Kind.RELAYED: "There is nothing to do. You requested this notice when you sent the message.",
}


def _suggestions(notice: Notice) -> list[tuple[str, ...]]:
    """For each recipient with a similar known address: a question, and the command to run if the answer is yes."""
    alone = len(notice.concerned) == 1
    found = (suggestion(printable(notice.queue_id, 40), one.likely, alone=alone) for one in notice.concerned)
    return [one for one in found if one]


def _about_no_message(notice: Notice) -> list[str]:
    """Lines about the mail that waits for a relayhost, and what to do next."""
    match notice.kind:
        case Kind.SPOOL:
            return ["See: mailrelay status"]
        case Kind.DELAYED | Kind.RESUMED if notice.cause == THERE:
            return ["See: mailrelay queue --all"]
        case Kind.RESUMED if notice.waiting:
            are = "is" if notice.waiting == 1 else "are"
            return [f"{number_of_messages(notice.waiting)} {are} being sent. There is nothing to do."]
        case Kind.RESUMED:
            return ["No message is waiting. There is nothing to do."]
        case Kind.DELAYED:
            return [*([_meanwhile(notice)] if notice.stand_in else []), "See: mailrelay queue"]
        case _:
            waiting = [f"{_waiting_sentence(notice)}."] if notice.waiting else []
            at_once = "To send at once after it is fixed: mailrelay queue retry --all"
            return [*waiting, _meanwhile(notice) if notice.stand_in else at_once]


def _meanwhile(notice: Notice) -> str:
    return f"Until then your mail goes through {printable(notice.stand_in, 80)}."


def _waiting_sentence(notice: Notice) -> str:
    verb = "has" if notice.waiting == 1 else "have"
    where = f" on {printable(notice.relayhost, 80)}" if notice.cause == THERE else ""
    since = _time_of_day(notice.since, notice.created)
    return f"{number_of_messages(notice.waiting)} {verb} been waiting{where} since {since}"


def _time_of_day(at: float, now: float) -> str:
    """The local time of day with its zone, and with the date if it is half a day ago or more: "14:03 +0900"."""
    then = datetime.fromtimestamp(at).astimezone()
    return then.strftime("%H:%M %z" if now - at < 43_200 else "%Y-%m-%d %H:%M %z")


def _recipients(concerned: Sequence[Concerned]) -> str:
    if not concerned:
        return "no recipient"
    first = printable(concerned[0].address, 80)
    return first if len(concerned) == 1 else f"{first} and {len(concerned) - 1} more"


def _failure_verb(notice: Notice) -> str:
    if _is_there(notice):
        return f"bounced on {printable(notice.relayhost, 60)}, which had accepted it"
    match {one.state for one in notice.concerned}:
        case states if states == {"bounced"} and all(one.remote for one in notice.concerned):
            return "was refused"
        case states if states == {"expired"}:
            return "could not be delivered in time"
        case _:
            return "could not be delivered"


def _accepted(notice: Notice, one: Concerned) -> str:
    accepted = _time_of_day(one.accepted, notice.created)
    return f"Accepted by {printable(notice.relayhost, 80)} at {accepted}, then bounced there."


def _short(notice: Notice, one: Concerned, *, named: bool) -> str:
    """The reason for a recipient on one line. named: whether it begins with the address."""
    if one.bounced_there:
        reason = f"{_accepted(notice, one)} {printable(one.bounced_there.sentence, 200)}"
        return f"{printable(one.address, 80)}: {reason}" if named else reason
    reason = reply_text(one.description, 250) or "the reason is not known"
    if one.remote:
        reason = f"The mail server said: {reason}"
    if one.uncertain:
        reason = f"{reason} (it may have arrived nevertheless)"
    return f"{printable(one.address, 80)}: {reason}" if named else reason


def _entry(notice: Notice, one: Concerned) -> str:
    """The paragraph of a report about a recipient."""
    if one.bounced_there:
        lines = [_accepted(notice, one), one.bounced_there.sentence, meaning(one.bounced_there.status)]
        return "\n".join(
            (f"  {printable(one.address, MAX_ADDRESS)}", *(_indented(line, "    ") for line in lines if line))
        )
    source = "The mail server said" if one.remote else "Reason"
    reason = f"{source}: {reply_text(one.description, MAX_REASON) or 'the reason is not known'}"
    means = meaning(one.status) if one.remote and one.state != "sent" else ""
    uncertain = "It may have arrived nevertheless: the connection was lost before the reply." if one.uncertain else ""
    return "\n".join(
        (
            f"  {printable(one.address, MAX_ADDRESS)}",
            *(_indented(line, "    ") for line in (reason, means, uncertain) if line),
        )
    )


def _escaped_lines(text: str) -> str:
    """Each line of `text` escaped and bounded."""
    return "\n".join(reply_text(line, 400) for line in text.splitlines())


def _indented(text: str, indent: str) -> str:
    """Each line of `text` escaped, bounded, wrapped and indented."""
    return "\n".join(
        textwrap.fill(
            reply_text(line, MAX_REASON),
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
    )


def _paragraphs(*texts: str) -> str:
    """The texts that are not empty, with an empty line between them. Single lines without indent are wrapped."""
    return "\n\n".join(
        text if "\n" in text or text.startswith(" ") else textwrap.fill(text, _WIDTH) for text in texts if text
    )
