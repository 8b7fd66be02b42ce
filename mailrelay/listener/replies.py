"""Replies to clients: the fixed table of the listener's own, and the encoding of all.

Promises: every reply for which RFC 2034 requires it has an enhanced code (RFC 3463). Octets sent are ASCII, at most 512 in a
line (RFC 5321 section 4.5.3.1.5), whatever text of the mail server the reply contains. No reply names this machine, a
version or an exception.
"""

import re
from functools import lru_cache

from mailrelay.mail.outcome import Reply
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import size

MAX_LINE = 512
"""Octets of a reply line, its end included."""

SENDER_OK = Reply(250, (b"2.1.0 sender ok",))
RECIPIENT_OK = Reply(250, (b"2.1.5 recipient ok",))
BYE = Reply(221, (b"2.0.0 bye",))
HELP = Reply(214, (b"2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP",))
CANNOT_VERIFY = Reply(252, (b"2.5.1 cannot verify; the reply to the message will tell",))
START_CONTENT = Reply(354, (b"end with <CRLF>.<CRLF>",))

INTERNAL_ERROR = Reply(451, (b"4.3.0 internal error; see the log of mailrelay",))
TOO_MANY_RECIPIENTS = Reply(452, (b"4.5.3 too many recipients; send the rest in another message",))
TOO_MANY_CONNECTIONS = Reply(421, (b"4.7.0 too many connections; closing",))
TOO_MANY_UNKNOWN = Reply(421, (b"4.7.0 too many unknown commands; closing",))
IDLE_TOO_LONG = Reply(421, (b"4.4.2 idle for too long; closing",))
CLOSED_BEFORE_CONTENT = Reply(421, (b"4.4.2 the client closed the connection before its content; closing",))
TOO_SLOW = Reply(421, (b"4.4.2 the content came too slowly; closing",))
IDLE_CLOSED = Reply(421, (b"4.7.0 too many connections, and this one was idle; closing",))
STOPPING = Reply(421, (b"4.3.2 mailrelay is stopping; closing",))

BAD_COMMAND = Reply(500, (b"5.5.2 not an SMTP command line",))
LINE_TOO_LONG = Reply(500, (b"5.5.2 the command line is too long; closing",))
UNKNOWN_COMMAND = Reply(500, (b"5.5.1 unknown command",))
NO_ARGUMENT = Reply(501, (b"5.5.4 this command takes no argument",))
MAIL_SYNTAX = Reply(501, (b"5.5.4 syntax: MAIL FROM:<address> [parameters]",))
RCPT_SYNTAX = Reply(501, (b"5.5.4 syntax: RCPT TO:<address> [parameters]",))
NO_ENCRYPTION = Reply(502, (b"5.5.1 no encryption here: switch encryption off for this server (localhost)",))
NO_LOGIN = Reply(502, (b"5.5.1 no login here: switch the password off for this server (localhost)",))
NO_LOGIN_NOW = Reply(503, (b"5.5.1 no login within a transaction",))
HELLO_FIRST = Reply(503, (b"5.5.1 send EHLO first",))
NESTED_MAIL = Reply(503, (b"5.5.1 there is a transaction already",))
MAIL_FIRST = Reply(503, (b"5.5.1 send MAIL first",))
NO_RECIPIENTS = Reply(554, (b"5.5.1 no valid recipients",))
CONTENT_AFTER_REFUSAL = Reply(554, (b"5.5.1 no valid recipients, but content was sent; closing",))
UNKNOWN_PARAMETER = Reply(555, (b"5.5.4 unsupported parameter",))
NEEDS_SMTPUTF8 = Reply(553, (b"5.6.7 a non-ASCII address needs SMTPUTF8",))
BARE_LINE_END = Reply(550, (b"5.6.11 bare CR or LF in the content; lines must end with CRLF",))
NUL_IN_CONTENT = Reply(550, (b"5.6.0 NUL in the content (RFC 2045 section 2.8 forbids it)",))
NOT_ALLOWED = Reply(554, (b"5.7.1 this account may not send mail here (allow_users)",))
DID_NOT_WAIT = Reply(521, (b"5.7.1 a command was sent before the reply to the last one; closing",))
GO_AWAY = Reply(521, (b"5.7.1 this is a mail server for mail clients; closing",))


def too_big(limit: int) -> Reply:
    """limit: octets that a message may have."""
    return Reply(552, (b"5.3.4 the message is larger than %s (listen.max_message_size)" % size(limit).encode(),))


_ENHANCED = re.compile(rb"([245])\.\d{1,3}\.\d{1,3}(?: +|$)")


@lru_cache(maxsize=64)
def encode(reply: Reply) -> bytes:
    """`reply` as octets to send, with line ends. Lines without an enhanced code get that of the reply."""
    width = MAX_LINE - len(b"250 2.255.255 \r\n")
    pieces: list[bytes] = []
    for line in reply.lines or (b"",):
        text = printable(line).encode("ascii", "backslashreplace")
        own = _ENHANCED.match(text)
        if own and own[1] == b"%d" % (reply.code // 100):
            status, text = own[0].rstrip() + b" ", text[own.end() :]
        else:
            # RFC 2034 section 3: every reply except 3xx.
            status = b"" if reply.code // 100 == 3 else reply.status.encode("ascii") + b" "
        pieces += [status + text[start : start + width] for start in range(0, max(len(text), 1), width)]
    last = len(pieces) - 1
    return b"".join(b"%d%s%s\r\n" % (reply.code, b" " if i == last else b"-", piece) for i, piece in enumerate(pieces))
