"""MAIL and RCPT: parameters only if they are offered, and nothing that could be read as a second command."""

import pytest

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Cause, Outcome, Reply, Scope, Stage
from mailrelay.smtp import command
from mailrelay.smtp.extensions import Extensions, extensions

ALL = Extensions(
    pipelining=True, chunking=True, eightbitmime=True, smtputf8=True, dsn=True, enhancedstatuscodes=True, size=0
)
FULL = Envelope(
    b"alice@example.org",
    (Recipient(b"bob@example.net", b"SUCCESS,FAILURE", b"rfc822;bob+2Bmail@example.net"),),
    body=b"8BITMIME",
    smtputf8=True,
    ret=b"HDRS",
    envid=b"QQ314159",
)


def envelope(sender: bytes = b"", *recipients: bytes) -> Envelope:
    return Envelope(sender, tuple(map(Recipient, recipients)) or (Recipient(b"bob@example.net"),))


def unsendable(sent: Envelope, offered: Extensions) -> list[Outcome | None]:
    """Why the envelope cannot be sent, and why it cannot be sent to each of its recipients."""
    return [command.unsendable(sent, offered), *(command.unsendable_recipient(to, offered) for to in sent.recipients)]


def test_what_is_offered_is_used() -> None:
    assert command.mail(FULL, 42, ALL) == (
        b"MAIL FROM:<alice@example.org> SIZE=42 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159\r\n"
    )
    assert command.rcpt(FULL.recipients[0], ALL) == (
        b"RCPT TO:<bob@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob+2Bmail@example.net\r\n"
    )


def test_what_is_not_offered_is_left_out() -> None:
    assert command.mail(FULL, 42, Extensions()) == b"MAIL FROM:<alice@example.org>\r\n"
    assert command.rcpt(FULL.recipients[0], Extensions()) == b"RCPT TO:<bob@example.net>\r\n"


def test_what_is_offered_but_not_needed_is_left_out() -> None:
    assert command.mail(envelope(), 1, ALL) == b"MAIL FROM:<> SIZE=1\r\n"


def test_an_original_recipient_in_utf_8_is_sent_only_with_smtputf8() -> None:
    recipient = Recipient(b"bob@example.net", orcpt="utf-8;b\u00f6b@example.net".encode())
    assert b"ORCPT" not in command.rcpt(recipient, Extensions(dsn=True))
    assert b"ORCPT=utf-8;b\xc3\xb6b@example.net" in command.rcpt(recipient, ALL)


def test_a_local_part_in_utf_8_needs_smtputf8_and_its_recipient_alone_is_held_without_it() -> None:
    sender, recipient = envelope("b\u00f6b@example.net".encode()), envelope(b"", "b\u00f6b@example.net".encode())
    for international in (sender, recipient):
        assert unsendable(international, ALL) == [None, None]
        assert b" SMTPUTF8" in command.mail(international, 1, ALL)
    # Also if only one of its recipients needs it.
    mixed = envelope(b"a@example.org", b"c@example.net", recipient.recipients[0].address)
    assert b" SMTPUTF8" in command.mail(mixed, 1, ALL)
    whole, _ = unsendable(sender, Extensions())
    none, one = unsendable(recipient, Extensions())
    assert none is None
    for outcome, scope in ((whole, Scope.MESSAGE), (one, Scope.RECIPIENT)):
        assert outcome is not None
        assert (outcome.cause, outcome.scope) == (Cause.NO_SMTPUTF8, scope)
        assert outcome.fix


def test_a_domain_in_utf_8_is_sent_in_a_labels_to_a_server_without_smtputf8() -> None:
    both = envelope("me@m\u00fcller.example".encode(), "bob@M\u00dcLLER.example.".encode())
    assert unsendable(both, Extensions()) == [None, None]
    assert command.mail(both, None, Extensions()) == b"MAIL FROM:<me@xn--mller-kva.example>\r\n"
    assert command.rcpt(both.recipients[0], Extensions()) == b"RCPT TO:<bob@xn--mller-kva.example.>\r\n"
    assert command.rcpt(both.recipients[0], ALL) == "RCPT TO:<bob@M\u00dcLLER.example.>\r\n".encode()


def test_an_ascii_envelope_that_asked_for_smtputf8_goes_on_without() -> None:
    asked = Envelope(b"a@example.org", (Recipient(b"b@example.net"),), smtputf8=True)
    assert unsendable(asked, Extensions()) == [None, None]


@pytest.mark.parametrize(
    "address",
    [
        b"",
        b"bob",
        b"bob@example.net",
        b"bob@[IPv6:::1]",
        b'"b >\\" <b"@example.net',
        b'"@,"@example.net',
        b'""@x',
        b"..bob..@example.net.",
        b"CORP\\bob@example.net",
        b"CORP\\\\bob@example.net",
        b'"a b".c@example.net',
    ],
)
def test_addresses_that_are_odd_but_harmless_pass(address: bytes) -> None:
    assert unsendable(envelope(address, address), ALL) == [None, None]


@pytest.mark.parametrize(
    "address",
    [
        b"bob@example.net>\r\nRCPT TO:<eve@example.com",
        b"bob\n@example.net",
        b"bob\r@example.net",
        b"bob\x00@example.net",
        b"bob\x1b[2J@example.net",
        b"bob\x7f@example.net",
        b"bob> SIZE=1",
        b"bob>",
        b"<bob",
        b"bob @example.net",
        b'"bob',
        b'bob\\">x"@example.net',
        b'"bob\\"@example.net',
        b'"bob\r\n"@example.net',
        b'"bob\\\r"@example.net',
        b"bob@example.net\\",
        b"bob\\> SIZE=1",
        b"bob\\ @example.net",
        b'bob\\"@example.net',
        b"bob\\\r\n@example.net",
    ],
)
def test_an_address_that_could_break_a_command_is_not_sent(address: bytes) -> None:
    (sender, _), (_, good, recipient) = (
        unsendable(broken, ALL) for broken in (envelope(address), envelope(b"", b"carol@example.net", address))
    )
    assert good is None
    for outcome, scope, stage in ((sender, Scope.MESSAGE, Stage.MAIL), (recipient, Scope.RECIPIENT, Stage.RCPT)):
        assert outcome is not None
        assert (outcome.cause, outcome.scope, outcome.stage) == (Cause.UNREADABLE, scope, stage)


@pytest.mark.parametrize("value", [b"x y", b"x\r\nDATA", b"x=y", b"x\x00", b"\x7f"])
def test_a_parameter_that_could_break_a_command_is_not_sent(value: bytes) -> None:
    good = Recipient(b"bob@example.net")
    for broken in (
        Envelope(b"", (good,), ret=value),
        Envelope(b"", (good,), envid=value),
        Envelope(b"", (good, Recipient(b"carol@example.net", notify=value))),
        Envelope(b"", (Recipient(b"carol@example.net", orcpt=value), good)),
    ):
        assert sum(outcome is not None for outcome in unsendable(broken, ALL)) == 1


@pytest.mark.parametrize(
    ("lines", "offered"),
    [
        ((b"mx",), Extensions()),
        ((b"DSN", b"pipelining ", b"Size 100"), Extensions(pipelining=True, size=100)),
        ((b"mx", b"SIZE"), Extensions(size=0)),
        ((b"mx", b"SIZE 0"), Extensions(size=0)),
        ((b"mx", b"SIZE -1"), Extensions(size=0)),
        ((b"mx", b"SIZE " + b"9" * 20), Extensions(size=10**20 - 1)),
        ((b"mx", b"SIZE " + b"9" * 21), Extensions(size=0)),
        ((b"mx", b"8BITMIME", b"SMTPUTF8"), Extensions(eightbitmime=True, smtputf8=True)),
        ((b"mx", b"CHUNKING", b"dsn"), Extensions(chunking=True, dsn=True)),
        ((b"mx", b"SIZE " + b"9" * 5000), Extensions(size=0)),
        ((b"mx", b"X-DSN", b"8BITMIME", b"AUTH PLAIN", b"", b"\xff"), Extensions(eightbitmime=True)),
    ],
)
def test_extensions_are_read_from_the_reply_to_ehlo(lines: tuple[bytes, ...], offered: Extensions) -> None:
    assert extensions(Reply(250, lines)) == offered
