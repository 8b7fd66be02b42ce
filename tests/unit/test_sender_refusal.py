"""Which refusals are about the sender."""

import pytest

from mailrelay.mail.outcome import Reply
from mailrelay.mail.sender_refusal import is_sender_refused


def refused(stage: str, reply: bytes) -> bool:
    code, _, text = reply.partition(b" ")
    return is_sender_refused(stage, Reply(int(code), (text,)).status, reply)


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("MAIL", b"501 <root>: sender address must contain a domain"),
        ("MAIL", b"553 5.5.4 <root>... Domain name required for sender address root"),
        ("MAIL", b"501 5.1.8 Domain of sender address me@nowhere does not exist"),
        ("MAIL", b"553 5.1.8 Sender domain unknown"),
        ("MAIL", b"550 5.7.1 Access denied"),
        ("MAIL", b"550 no"),
        ("RCPT", b"550 5.1.8 <me@nowhere>: Sender address rejected: Domain not found"),
        ("RCPT", b"504 5.5.2 <root>: Sender address rejected: need fully-qualified address"),
        ("RCPT", b"553 5.7.1 <me@a.example>: Sender address rejected: not owned by user me"),
        ("RCPT", b"550 Sender verify failed"),
        ("RCPT", b"550 5.1.7 Bad address"),
        ("content", b"550 5.1.7 Bad sender"),
    ],
)
def test_a_refusal_of_the_sender(stage: str, reply: bytes) -> None:
    assert refused(stage, reply)


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("MAIL", b"552 5.3.4 Message too large"),
        ("MAIL", b"552 too large"),
        ("MAIL", b"555 5.5.4 Unsupported option"),
        ("MAIL", b"554 5.3.5 Local configuration error"),
        ("MAIL", b"450 4.1.8 Domain of sender does not resolve"),
        ("RCPT", b"550 5.1.1 <a@b>: no such user"),
        ("RCPT", b"553 5.1.3 bad recipient"),
        ("RCPT", b"552 5.2.2 over quota, sender notified"),
        ("RCPT", b"450 4.7.1 Sender greylisted"),
        ("content", b"550 5.7.1 spam from this sender"),
        ("dial", b"the network is away"),
        ("", b""),
    ],
)
def test_another_refusal(stage: str, reply: bytes) -> None:
    status = Reply(int(reply[:3]), (reply[4:],)).status if reply[:3].isdigit() else ""
    assert not is_sender_refused(stage, status, reply)
