"""The opening of a conversation: the greeting of the mail server, and its replies to EHLO or HELO (RFC 5321 section 3.1).

Promises: HELO is tried only after a 5xx to EHLO. A greeting that a shell has printed before the mail server's is
ignored. A refusal has scope relayhost: it decides about no message.
Never: the use of an extension in `unusable`, even if it is offered.
"""

from collections.abc import Collection

from mailrelay.mail.outcome import Cause, Outcome, Reply, Stage
from mailrelay.smtp.extensions import Extension, Extensions, extensions
from mailrelay.smtp.refused import Refusals
from mailrelay.smtp.transaction import Command, Verb


class Opening:
    """The opening of one conversation. name: the argument of EHLO. unusable: extensions not to be used, even if they are
    offered. refusals: judges the replies that are not good. is_ehlo_sent: another program sends EHLO behind the greeting.

    server_names: the first words of the greeting and of the reply to EHLO, as far as they were received; b"" for an empty
    one.
    """

    def __init__(
        self, name: bytes, unusable: Collection[Extension], refusals: Refusals, *, is_ehlo_sent: bool = False
    ) -> None:
        self.server_names: tuple[bytes, ...] = ()
        self._name = name
        self._unusable = unusable
        self._refusals = refusals
        self._is_ehlo_sent = is_ehlo_sent

    def next(self, replied: Verb, reply: Reply) -> Command | Extensions | Outcome:
        """What follows a reply: the next command to await, the extensions in use once the conversation is ready, or the
        outcome that ends it. replied: GREETING, EHLO or HELO."""
        return self._after_greeting(reply) if replied is Verb.GREETING else self._after_ehlo(replied, reply)

    def _after_greeting(self, reply: Reply) -> Command | Outcome:
        if reply.code == 220:
            self.server_names = (_first_word(reply),)
            if self._is_ehlo_sent:
                return Command(Verb.EHLO, b"", is_sent=True)
            return Command(Verb.EHLO, b"EHLO %b\r\n" % self._name)
        if reply.code < 400:
            return not_smtp(f"the greeting has the code {reply.code}, which mail servers do not send")
        return self._refusals.judge(Stage.GREETING, reply)

    def _after_ehlo(self, verb: Verb, reply: Reply) -> Command | Extensions | Outcome:
        if reply.code == 220:
            # This is the mail server's greeting; a shell had printed the line before. The reply to EHLO is still to come.
            return Command(verb, b"", is_sent=True)
        if reply.code // 100 == 2:
            self.server_names = (*self.server_names, _first_word(reply))
            offered = extensions(reply) if verb is Verb.EHLO else Extensions()
            return offered.without(self._unusable)
        if reply.code >= 500 and verb is Verb.EHLO:
            return Command(Verb.HELO, b"HELO %b\r\n" % self._name)
        return self._refusals.judge(Stage.EHLO, reply)


def not_smtp(text: str) -> Outcome:
    """The outcome of a greeting that no mail server sends. text: one sentence about it."""
    return Outcome(
        Stage.GREETING,
        cause=Cause.NOT_SMTP,
        text=text,
        fix="set `smtp` in this relayhost's settings to the port of the mail server there",
    )


def _first_word(reply: Reply) -> bytes:
    """The word of a greeting or of a reply to EHLO that is the mail server's name (RFC 5321 sections 4.2 and 4.1.1.1)."""
    return next(iter(reply.text.split()), b"")
