"""A message that a program has handed in (`mailrelay sendmail`) and that cannot be sent, or not to all of its recipients.

A program such as cron looks neither at the exit status nor at stderr. So the message is put on disk all the same, and each
recipient that it is not sent to has a `Problem`: it is held until the person decides, or it has failed. Its notice becomes
pending in the same commit.

    held      the message can be sent as it is once the person says so: `mailrelay queue release ID`
    bounced   the message must be sent to another address, or sent again: `queue resend --to`, `mailrelay queue edit ID`
"""

from dataclasses import dataclass

from mailrelay.mail.completion import is_bare
from mailrelay.mail.envelope import Envelope
from mailrelay.mail.outcome import Stage
from mailrelay.mail.printable import printable
from mailrelay.mail.states import State
from mailrelay.mail.trace import MAX_RECEIVED, count_received

NO_RECIPIENT = b"(no recipient)"
"""The recipient that the spool holds for a message without recipients. It is not a valid address."""


UNTRIED = (State.HELD, State.BOUNCED)
"""The states in which a recipient with a problem arrives; it is not tried."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a recipient is not tried. state: one of UNTRIED. status: enhanced status code (RFC 3463). text: for the person;
    it may hold text from outside, not escaped."""

    state: State
    status: str
    stage: Stage
    text: str


@dataclass(frozen=True, slots=True)
class HandedIn:
    """A message as a program handed it in.

    envelope: with the recipients whose addresses are valid. content: with CRLF line ends; b"" if it is not kept. problem:
    concerns all recipients of the envelope, None if they can be tried. bad: what was given as a recipient and is no valid
    address, with its problem; `NO_RECIPIENT` if there was none. notify: NOTIFY (RFC 3461) of those in `bad`.
    """

    envelope: Envelope
    content: bytes
    problem: Problem | None = None
    bad: tuple[tuple[bytes, Problem], ...] = ()
    notify: bytes = b""


def not_an_address(sentence: str) -> Problem:
    """The problem of a recipient whose address is not valid. sentence: names it, and says why."""
    return Problem(
        State.BOUNCED,
        "5.1.3",
        Stage.RCPT,
        f"{sentence}; `mailrelay queue resend ID --to ADDRESS` sends it to the right one",
    )


def no_recipient(sentence: str) -> Problem:
    """The problem of a message without a recipient. sentence: where mailrelay has looked for one, and the fix."""
    return Problem(State.BOUNCED, "5.1.3", Stage.RCPT, sentence)


def too_large_to_keep(limit: int) -> Problem:
    """The problem of a message whose content is not kept. limit: octets."""
    text = f"the message is larger than {limit} octets and is not kept; send it again, in parts"
    return Problem(State.BOUNCED, "5.3.4", Stage.CONTENT, text)


_RELEASE = "`mailrelay queue release ID` sends it as it is"
_EDIT = "`mailrelay queue edit ID` changes it"


def bad_sender(given: bytes, sender: bytes) -> Problem:
    """The problem of a sender that is not an address. given: as the program gave it. sender: the reverse path in its
    place."""
    text = (
        f"the sender '{printable(given, 80)}' is not an address; `mailrelay queue resend ID --from ADDRESS` sends it from"
        f" another one, `mailrelay queue release ID` from <{printable(sender)}>"
    )
    return Problem(State.HELD, "5.1.7", Stage.MAIL, text)


def no_relayhost(sender: bytes, relayhost: str) -> Problem:
    """The problem of a sender from which no relayhost takes mail. relayhost: the one through which a release sends it."""
    where = "`from` below [submission] and `senders`" if is_bare(sender) else "`senders`"
    text = (
        f"no relayhost takes mail from <{printable(sender)}>: see {where} in the settings;"
        " `mailrelay queue resend ID --from ADDRESS` sends it from another address,"
        f" `mailrelay queue release ID` as it is, through {printable(relayhost)}"
    )
    return Problem(State.HELD, "5.7.1", Stage.MAIL, text)


def problem_of_content(content: bytes, limit: int) -> Problem | None:
    """The problem for which this content is held; None if it can be sent. limit: listen.max_message_size, octets."""
    if count_received(content) >= MAX_RECEIVED:
        text = (
            f"the message is in a mail loop: it has {MAX_RECEIVED} Received fields or more; {_RELEASE},"
            " `mailrelay queue resend ID --to ADDRESS` to another address"
        )
        return Problem(State.HELD, "5.4.6", Stage.CONTENT, text)
    if b"\0" in content:
        text = f"the message contains a NUL octet, which some mail servers refuse; {_RELEASE}, {_EDIT}"
        return Problem(State.HELD, "5.6.0", Stage.CONTENT, text)
    if len(content) > limit:
        text = f"the message is larger than listen.max_message_size ({limit} octets); {_RELEASE}, {_EDIT}"
        return Problem(State.HELD, "5.3.4", Stage.CONTENT, text)
    return None
