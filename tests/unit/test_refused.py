"""Replies that refuse an extension which was offered and used, and those that refuse something else."""

import pytest

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Reply
from mailrelay.smtp.extensions import Extension, Extensions
from mailrelay.smtp.refused import Refusals, is_bdat_refused, is_bdat_unknown, refused_extensions
from mailrelay.smtp.transaction import Command, OutgoingTransaction, Verb

ALL = Extensions(True, True, True, True, True, True, 1000)
MAIL = b"MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x\r\n"
BARE = b"MAIL FROM:<size@example.org>\r\n"
RCPT = b"RCPT TO:<b@example.net> NOTIFY=NEVER ORCPT=rfc822;b@example.net\r\n"
SIZE, BODY, UTF8, DSN = Extension.SIZE, Extension.EIGHTBITMIME, Extension.SMTPUTF8, Extension.DSN
CHUNKING, PIPELINING = Extension.CHUNKING, Extension.PIPELINING


@pytest.mark.parametrize(
    ("verb", "line", "reply", "expected"),
    [
        (Verb.CONTENT, b"", "500 5.5.1 unrecognized command", {CHUNKING}),
        (Verb.CONTENT, b"", "502 5.5.1 Error: command not implemented", {CHUNKING}),
        (Verb.CONTENT, b"", "503 BDAT command used when CHUNKING not advertised", {CHUNKING}),
        (Verb.CONTENT, b"", "504 not implemented", {CHUNKING}),
        (Verb.CONTENT, b"", "550 5.5.1 BDAT is not supported", {CHUNKING}),
        (Verb.CONTENT, b"", "554 5.5.1 Error: command not implemented", {CHUNKING}),
        (Verb.CONTENT, b"", "501 syntax error in arguments", {CHUNKING}),
        (Verb.CONTENT, b"", "554 5.6.0 unsupported character set", set()),
        (Verb.CONTENT, b"", "500 5.5.2 Line too long", set()),
        (Verb.CONTENT, b"", "552 5.3.4 Chunk exceeds message size limit", set()),
        (Verb.CONTENT, b"", "554 5.7.1 spam", set()),
        (Verb.CONTENT, b"", "451 4.3.0 later", set()),
        (Verb.RCPT, RCPT, "500 5.5.1 Invalid command: Pipelining not supported", {PIPELINING}),
        (Verb.DATA, b"DATA\r\n", "554 5.5.0 Error: SMTP protocol synchronization", {PIPELINING}),
        (Verb.MAIL, MAIL, "554 SMTP synchronization error", {PIPELINING}),
        (Verb.DATA, b"DATA\r\n", "503 5.5.1 bad sequence of commands", {PIPELINING}),
        (Verb.RCPT, RCPT, "503 5.5.1 bad sequence of commands", {PIPELINING}),
        (Verb.DATA, b"DATA\r\n", "554 5.5.1 Error: no valid recipients", set()),
        (Verb.MAIL, MAIL, "555 MAIL FROM parameters not recognized or not implemented", {SIZE, BODY, UTF8, DSN}),
        (Verb.MAIL, MAIL, "555 5.5.4 Unsupported option: SIZE=100", {SIZE}),
        (Verb.MAIL, MAIL, "501 5.5.4 Unknown BODY type 8BITMIME", {BODY}),
        (Verb.MAIL, MAIL, "501 5.7.1 DSN support is disabled", {DSN}),
        (Verb.MAIL, MAIL, "504 5.7.0 Sorry, ENVID not supported, we do not allow DSN", {DSN}),
        (Verb.MAIL, MAIL, "503 5.5.4 Unsupported option SMTPUTF8", {UTF8}),
        (Verb.MAIL, MAIL, "503 size", {SIZE}),
        (Verb.MAIL, MAIL, "501 5.5.1 nope", {SIZE, BODY, UTF8, DSN}),
        (Verb.MAIL, MAIL, "502 unknown", {SIZE, BODY, UTF8, DSN}),
        (Verb.MAIL, MAIL, "500 nope", set()),
        (Verb.MAIL, MAIL, "503 unknown", set()),
        (Verb.MAIL, MAIL, "501 unknown", set()),
        (Verb.MAIL, MAIL, "501 5.1.7 Bad sender address syntax", set()),
        (Verb.MAIL, MAIL, "504 5.5.2 <root>: Sender address rejected: need fully-qualified address", set()),
        (Verb.MAIL, MAIL, "550 5.7.1 Access denied", set()),
        (Verb.MAIL, MAIL, "552 5.3.4 Message size exceeds fixed limit", set()),
        (Verb.MAIL, MAIL, "550 5.5.4 Unsupported option", {SIZE, BODY, UTF8, DSN}),
        (Verb.MAIL, MAIL, "504 nope", {SIZE, BODY, UTF8, DSN}),
        (Verb.MAIL, MAIL, "501 5.5.4 nope", {SIZE, BODY, UTF8, DSN}),
        (Verb.MAIL, MAIL, "502 5.5.1 Error: command not implemented", {SIZE, BODY, UTF8, DSN}),
        (Verb.MAIL, MAIL, "500 unrecognized command", {SIZE, BODY, UTF8, DSN}),
        (Verb.MAIL, MAIL, "504 <root>: need fully-qualified address", set()),
        (Verb.MAIL, MAIL, "501 5.5.4 Syntax: MAIL FROM:<address>", set()),
        (Verb.MAIL, MAIL, "553 5.5.4 <root>... Domain name required for sender address root", set()),
        (Verb.MAIL, BARE, "502 5.5.1 Error: command not implemented", set()),
        (Verb.MAIL, BARE, "555 5.5.4 Unsupported option: SIZE=100", set()),
        (Verb.MAIL, BARE, "501 syntax error in parameters", set()),
        (Verb.RCPT, RCPT, "555 RCPT TO parameters not recognized or not implemented", {DSN}),
        (Verb.RCPT, RCPT, "550 5.1.1 user unknown", set()),
    ],
)
def test_the_extensions_that_a_reply_refuses(verb: Verb, line: bytes, reply: str, expected: set[Extension]) -> None:
    code, _, text = reply.partition(" ")
    assert refused_extensions(Command(verb, line), Reply(int(code), (text.encode(),)), ALL) == expected


@pytest.mark.parametrize(
    ("reply", "is_unknown"),
    [
        ("500 5.5.1 unrecognized command", True),
        ("500 BDAT is not supported", True),
        ("502 5.5.1 no", True),
        ("503 no", True),
        ("550 5.5.1 no", True),
        ("500 5.3.0 no", False),
        ("500", False),
    ],
)
def test_a_500_to_bdat_shows_that_no_message_in_flight_is_accepted_only_if_it_says_so(
    reply: str, is_unknown: bool
) -> None:
    """Else a message that is sent again might arrive twice."""
    code, _, text = reply.partition(" ")
    said = Reply(int(code), (text.encode(),))
    assert is_bdat_refused(said)
    assert is_bdat_unknown(said) is is_unknown


@pytest.mark.parametrize("verb", [Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.CONTENT])
@pytest.mark.parametrize("code", [500, 501, 502, 503, 504, 550, 555])
def test_what_is_not_used_is_not_refused(verb: Verb, code: int) -> None:
    """So a message is repeated once for each extension, and not for ever."""
    reply = Reply(code, (b"pipelining, chunking, parameter size",))
    assert refused_extensions(Command(verb, BARE), reply, Extensions()) == frozenset()


def test_extensions_that_are_not_used_are_as_if_they_were_not_offered() -> None:
    assert ALL.without(Extension) == Extensions(enhancedstatuscodes=True)
    assert ALL.without(()) == ALL
    assert ALL.without({Extension.CHUNKING}).pipelining


@pytest.mark.parametrize(
    ("refused", "accepted", "ends"),
    [
        (Verb.MAIL, Verb.MAIL, True),
        (Verb.MAIL, Verb.RCPT, True),
        (Verb.MAIL, Verb.CONTENT, False),
        (Verb.RCPT, Verb.RCPT, False),
        (Verb.RCPT, Verb.CONTENT, False),
        (Verb.RCPT, Verb.MAIL, True),
    ],
)
def test_a_refusal_of_us_counts_until_mail_of_ours_is_accepted_in_the_same_flight(
    refused: Verb, accepted: Verb, ends: bool
) -> None:
    refusals = Refusals()
    transaction = OutgoingTransaction(1, Envelope(b"a@example.org", (Recipient(b"b@example.net"),)), 100)
    login = Reply(530, (b"5.7.0 Authentication required",))
    outcome = refusals.judge_refusal(Command(refused, b"", transaction), transaction, login, ALL)
    assert refusals.end is outcome
    assert refusals.refuses_all is (refused is Verb.MAIL)
    refusals.note_success(accepted)
    assert refusals.end is (outcome if ends else None)
