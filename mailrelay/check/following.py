"""Checks what the account on a relayhost may see of messages that the mail server there has accepted (`tracking`).

One question is asked (`ssh.mail_question`), about a message that does not exist. A message can be followed if the queue or
the log can be read; for each that cannot, the finding says what to ask the administrator for. Never: a failed check.
"""

import time

from mailrelay.check.finding import Finding
from mailrelay.config import Relayhost
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.interface import NotAnswered
from mailrelay.tracking.listing import Listed, NotPermitted, read_listing
from mailrelay.tracking.question import Answer, Question
from mailrelay.tracking.queue_id import Server

NOBODY = "000000-000000-00"
"""A queue id that no message has. It has the form of Exim's, which Exim wants."""

_SHOWS_QUEUE = {
    Server.POSTFIX: "`authorized_mailq_users` of main.cf that names {account}",
    Server.SENDMAIL: "`PrivacyOptions` of sendmail.cf without `restrictmailq`",
    Server.EXIM: "`queue_list_requires_admin = false` in the configuration of Exim",
}
_SHOWS_LOG = "the group adm or systemd-journal for {account}"


async def examine(connection: RelayhostConnection, relayhost: Relayhost) -> list[Finding]:
    """Whether messages can be followed there; nothing if the settings want it not. Raises Fault."""
    if relayhost.track == "off":
        return []
    command = "" if relayhost.track == "auto" else relayhost.track
    try:
        answer = await connection.ask(Question([NOBODY], [], command=command, since=time.time()))
    except NotAnswered as error:
        return [Finding("track", None, f"messages are not followed there: {error}", about=relayhost.name)]
    return [found(answer, relayhost.name)]


def found(answer: Answer, about: str) -> Finding:
    """What the answer shows. about: the relayhost."""
    unseen, wanted = _queue(answer)
    visible, hidden = ([], [f"the queue ({unseen})"]) if unseen else (["the queue"], [])
    if answer.log is None:
        hidden.append("the log")
        wanted = [*wanted, _SHOWS_LOG]
    else:
        visible.append("the log")
    can_follow = bool(visible)
    (hidden if answer.reports is None else visible).append("a mailbox for delivery reports")
    request = f"ask the administrator for {', or '.join(wanted)}".format(account=answer.account) if wanted else ""
    if not can_follow:
        what = f"messages are not followed there: {answer.account} may not see {', '.join(hidden)}"
        return Finding("track", None, what, request, about)
    what = f"messages can be followed there: {answer.account} may see {', '.join(visible)}"
    what += f"; not {', '.join(hidden)}" if hidden else ""
    return Finding("track", True, f"{what}; {request}" if request else what, about=about)


def _queue(answer: Answer) -> tuple[str, list[str]]:
    """Why the queue cannot be seen, "" if it can, and what would show it."""
    if answer.listing is None:
        return "no program there lists it", []
    listing = read_listing(answer.server, answer.listing.octets, answer.listing.status)
    if isinstance(listing, Listed):
        return "", []
    words = listing.words.decode("utf-8", "backslashreplace").rstrip(".") or f"status {answer.listing.status}"
    shown_by = _SHOWS_QUEUE.get(answer.server) if isinstance(listing, NotPermitted) else None
    return words, [shown_by] if shown_by else []
