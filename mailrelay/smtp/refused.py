"""Judges the refusals of a conversation: of this message, of mailrelay itself (`mail.setup_reply`), or of an extension.

A mail server may refuse an extension that it had offered: BDAT is "not implemented", a parameter is "not recognized". Then
the message is sent again without the extension, in another conversation. An extension counts as refused only if it was
used, so a message is repeated at most once for each extension.
"""

import re
from collections.abc import Collection

from mailrelay.mail.outcome import SETUP_REPLIES, Cause, Outcome, Reply, Scope, Stage
from mailrelay.mail.printable import printable
from mailrelay.mail.setup_reply import MEAN_NOTHING_ELSE, cause_of
from mailrelay.smtp.extensions import Extension, Extensions
from mailrelay.smtp.transaction import STAGES, Command, OutgoingTransaction, Verb

_PIPELINING = re.compile(rb"pipelin|synchroni[sz]", re.IGNORECASE)
_NOT_A_COMMAND = re.compile(rb"command|recogni[sz]e|implement|unknown|not supported|sequence|bdat|chunk", re.IGNORECASE)
_BDAT = re.compile(rb"\bbdat\b|\bchunking\b", re.IGNORECASE)
_LINE_TOO_LONG = re.compile(rb"\bline\b", re.IGNORECASE)
_PARAMETERS = {
    Extension.SIZE: (b" SIZE=", re.compile(rb"\bsize\b", re.IGNORECASE)),
    Extension.EIGHTBITMIME: (b" BODY=", re.compile(rb"\bbody\b|\b8bitmime\b", re.IGNORECASE)),
    Extension.SMTPUTF8: (b" SMTPUTF8", re.compile(rb"\bsmtputf8\b", re.IGNORECASE)),
    Extension.DSN: (
        b" RET= ENVID= NOTIFY= ORCPT=",
        re.compile(rb"\b(?:dsn|ret|envid|notify|orcpt)\b", re.IGNORECASE),
    ),
}
"""The parameters of MAIL and RCPT that belong to an extension, and the words by which a reply names it."""
_PARAMETER_WORDS = re.compile(rb"parameter|option|argument|extension", re.IGNORECASE)
_ADDRESS_WORDS = re.compile(rb"address|domain|host|mailbox|qualified|recipient|sender|syntax:|user", re.IGNORECASE)


def refused_extensions(replied: Command, reply: Reply, offered: Extensions) -> frozenset[Extension]:
    """The extensions that `reply`, a 4xx or 5xx to the command `replied` of a transaction, refuses; none if it refuses
    something else.

    Precondition: the replies before this one show no error in the sequence of commands. offered: the extensions in use.
    """
    if replied.verb is Verb.CONTENT and offered.uses_bdat and is_bdat_refused(reply):
        return frozenset({Extension.CHUNKING})
    # Without pipelining, these commands are in their sequence.
    is_out_of_sequence = reply.code == 503 and replied.verb in (Verb.RCPT, Verb.DATA)
    if offered.pipelining and reply.code >= 500 and (is_out_of_sequence or _PIPELINING.search(reply.text)):
        return frozenset({Extension.PIPELINING})
    if replied.verb not in (Verb.MAIL, Verb.RCPT) or (
        reply.code not in (500, 501, 502, 503, 504, 555) and reply.status != "5.5.4"
    ):
        return frozenset()
    parameters = replied.line[replied.line.rfind(b">") :]
    used = {
        extension: words
        for extension, (names, words) in _PARAMETERS.items()
        if any(b" " + name in parameters for name in names.split())
    }
    named = frozenset(extension for extension, words in used.items() if words.search(reply.text))
    return named or (frozenset(used) if _refuses_parameters(reply) else frozenset())


def _refuses_parameters(reply: Reply) -> bool:
    """Whether the reply to MAIL or RCPT with parameters refuses these, or the command with them, and not the address."""
    # RFC 5321 section 4.1.1.11: 555 means nothing else.
    if reply.code == 555 or _PARAMETER_WORDS.search(reply.text):
        return True
    if _ADDRESS_WORDS.search(reply.text):
        return False
    # RFC 5321 section 4.2.2: 504 is "command parameter not implemented". RFC 3463: 5.5.4 is "invalid command arguments".
    return (
        reply.code == 504
        or reply.status in ("5.5.1", "5.5.4")
        or (reply.code in (500, 502) and _NOT_A_COMMAND.search(reply.text) is not None)
    )


def is_bdat_refused(reply: Reply) -> bool:
    """Whether the reply to BDAT, with recipients accepted before it, refuses the command and not the content."""
    if reply.code == 500:
        return not _LINE_TOO_LONG.search(reply.text)
    # RFC 3463: 5.5.1 is "invalid command". 501 is an error in the arguments of BDAT.
    return reply.code in (501, 502, 503, 504, 521) or (
        reply.code > 500 and (reply.status == "5.5.1" or bool(_BDAT.search(reply.text)))
    )


def is_bdat_unknown(reply: Reply) -> bool:
    """Whether a reply for which `is_bdat_refused` is true shows that the mail server accepts no BDAT at all, so that it has
    none of the messages in flight."""
    return reply.code != 500 or bool(_NOT_A_COMMAND.search(reply.text))


class Refusals:
    """The refusals of one conversation.

    extensions: those that were offered, used and then refused; the next conversations must not use them. end: the outcome
    for which no transaction may be started any more, None while they may be. accepted: the commands that the mail server
    has accepted; CONTENT means a message.
    """

    def __init__(self) -> None:
        self.extensions: set[Extension] = set()
        self.end: Outcome | None = None
        self.accepted: set[Verb] = set()
        # What shows that the mail server accepts mail of ours: the commands accepted since the last refusal of mailrelay.
        self._evidence: set[Verb] = set()

    @property
    def refuses_all(self) -> bool:
        """Whether the mail server refuses mailrelay at MAIL, so that it has accepted none of the messages in flight."""
        return self.end is not None and self.end.scope is Scope.RELAYHOST and self.end.stage is Stage.MAIL

    def note_success(self, verb: Verb) -> None:
        """Notes a command that the mail server has accepted. If it is a message or recipient, a refusal of another one in
        the same flight was no setup fault."""
        self.accepted.add(verb)
        self._evidence.add(verb)
        if self.end is None or self.end.cause not in SETUP_REPLIES:
            return
        if verb is Verb.CONTENT or (verb is Verb.RCPT and self.end.stage is Stage.RCPT):
            self.end = None

    def judge(self, stage: Stage, reply: Reply) -> Outcome:
        """The outcome of a 4xx, 5xx or unexpected reply. Its cause is a setup fault if the reply means one.

        A code that means nothing else counts the second time: the mail server may have been changed meanwhile.
        """
        accepted = Verb.CONTENT in self._evidence or (stage is Stage.RCPT and Verb.RCPT in self._evidence)
        if reply.code in MEAN_NOTHING_ELSE:
            self._evidence.clear()
        return Outcome(stage, reply, cause_of(stage, reply, accepted=accepted) or Cause.REPLY)

    def judge_refusal(
        self, replied: Command, transaction: OutgoingTransaction, reply: Reply, offered: Extensions
    ) -> Outcome:
        """The outcome of the recipients that a 4xx or 5xx to the command `replied` of `transaction` refuses; they had none
        before.

        If its cause is `Cause.LOST`, the transaction is marked to be repeated. Sets `end` if no transaction may follow.
        offered: the extensions in use.
        """
        outcome = self.judge(STAGES[replied.verb], reply)
        if outcome.cause in (Cause.REPLY, Cause.COMMAND_REFUSED):
            refused = refused_extensions(replied, reply, offered)
            # RFC 5321 section 4.1.4: the mail server believes that a transaction is open.
            is_out_of_sequence = reply.code == 503 and replied.verb is Verb.MAIL and Verb.RCPT in self.accepted
            if refused or is_out_of_sequence:
                self.extensions |= refused
                transaction.is_repeated = True
                outcome = _to_repeat(outcome, refused)
        if transaction.is_repeated or outcome.scope is Scope.RELAYHOST:
            self.end = self.end or outcome
        return outcome

    def reason_to_end(self, verb: Verb, reply: Reply, offered: Extensions | None, *, is_good: bool) -> str | None:
        """Why nothing may follow this reply: one sentence; None if the conversation goes on. After an unexpected reply,
        CHUNKING counts as refused if it is in use.

        verb: what was replied to. offered: the extensions in use. is_good: the reply means success.
        """
        replied_to = "the content" if verb in (Verb.CONTENT, Verb.LONE_DOT) else verb.name
        if reply.code == 421:
            return f"the mail server ended the conversation with 421 to {replied_to}"
        if not (is_good or reply.code >= 400) or (not is_good and verb is Verb.RSET):
            if offered is not None and offered.uses_bdat:
                # The mail server may have read content as commands, and this may be the reply to one of them.
                self.extensions.add(Extension.CHUNKING)
            return f"the mail server sent an unexpected {reply.code} to {replied_to}; the conversation was closed"
        return None


def _to_repeat(outcome: Outcome, refused: Collection[Extension]) -> Outcome:
    """The outcome, with `Cause.LOST`, of a transaction to be repeated. outcome: of the refusal. refused: the extensions;
    none if the mail server took a command to be out of sequence."""
    names = " and ".join(sorted(extension.upper() for extension in refused))
    why = f"offers {names} and refuses it" if names else "lost the order of the commands"
    text = f"the mail server {why} ({printable(outcome.description, 200)}); the message is sent again"
    return Outcome(outcome.stage, cause=Cause.LOST, text=text)
