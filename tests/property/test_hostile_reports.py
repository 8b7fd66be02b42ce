"""Hostile text of a sender or a mail server adds no header, field or part to a report."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import flufl.bounce
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrelay.mail.dsn import compose, needs_smtputf8
from mailrelay.mail.notice import Concerned, Kind, Notice

INJECTION = st.sampled_from(
    [
        b"\r\nBcc: x@example.net\r\n",
        b"\n\nAction: delivered\n",
        b"\r\n--",
        b"\x1b[2J",
        b"=?utf-8?b?DQo=?=",
        b"\x00",
        b"\xff",
    ]
)
HOSTILE = st.lists(
    st.one_of(st.binary(max_size=40), INJECTION, st.just(b"word " * 30), st.just(b"x" * 1100)), max_size=5
).map(b"".join)
HOSTILE_TEXT = st.one_of(HOSTILE.map(lambda raw: raw.decode("latin-1")), st.text(st.characters(), max_size=200))
ADDRESS = st.one_of(st.just(b"bob@example.net"), st.just("jörg@example.net".encode()), HOSTILE)
CONCERNED = st.builds(
    Concerned,
    address=ADDRESS,
    state=st.sampled_from(["bounced", "expired", "held", "sent"]),
    status=st.one_of(st.sampled_from(["5.1.1", "4.2.2", "2.0.0", ""]), HOSTILE_TEXT),
    description=HOSTILE,
    stage=st.just("RCPT"),
    remote=st.booleans(),
    uncertain=st.booleans(),
    likely=ADDRESS,
    orcpt=st.one_of(HOSTILE, HOSTILE.map(lambda raw: b"rfc822;" + b"".join(b"+%02X" % octet for octet in raw))),
)
NOTICE = st.builds(
    Notice,
    id=st.just(1),
    kind=st.sampled_from([Kind.FAILED, Kind.HELD, Kind.RELAYED]),
    relayhost=HOSTILE_TEXT,
    created=st.floats(0, 4e9),
    message=st.just(1),
    queue_id=st.one_of(st.just("3KQ7Z"), HOSTILE_TEXT),
    sender=ADDRESS,
    subject=HOSTILE_TEXT,
    arrival=st.floats(0, 4e9),
    size=st.integers(0, 300),
    ret=st.sampled_from([b"", b"FULL", b"HDRS"]),
    envid=HOSTILE,
    concerned=st.lists(CONCERNED, min_size=1, max_size=3).map(tuple),
)
HEADERS = {
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "in-reply-to",
    "references",
    "auto-submitted",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
}
FIELDS = {
    "original-recipient",
    "final-recipient",
    "action",
    "status",
    "remote-mta",
    "diagnostic-code",
    "last-attempt-date",
}


@given(NOTICE, HOSTILE)
@settings(max_examples=150, deadline=None)
def test_nothing_from_outside_starts_a_line_of_a_report(notice: Notice, original: bytes) -> None:
    content = compose(notice, original=original, now=1.7e9, message_id=b"<1@localhost>", boundary=b"4f1b0c" * 5)

    lines = content.split(b"\r\n")
    assert not [line for line in lines if b"\r" in line or b"\n" in line or b"\0" in line]
    assert max(map(len, lines)) <= 998
    head = content.partition(b"\r\n\r\n")[0]
    assert not [line for line in head.split(b"\r\n") if not line.strip()]

    report = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(report, EmailMessage)
    names = [name.lower() for name in report]
    assert set(names) <= HEADERS
    assert len(names) == len(set(names))
    kinds = [part.get_content_type() for part in report.iter_parts()]
    if not needs_smtputf8(notice):
        assert content.isascii()
        assert kinds[:2] == ["text/plain", "message/delivery-status"]
        assert kinds[2:] in ([], ["text/rfc822-headers"], ["message/rfc822"])
        status: Any = list(report.iter_parts())[1].get_payload()
        assert len(status) == 1 + len(notice.concerned)
        for group in status[1:]:
            assert {name.lower() for name in group} <= FIELDS
            assert len(group.keys()) == len({name.lower() for name in group})
            assert group["Action"] in ("failed", "delayed", "relayed")
    else:
        assert kinds[:2] == ["text/plain", "message/global-delivery-status"]
        content.decode("utf-8")


@given(
    st.lists(st.sampled_from([b"ann@example.net", b"bob+x@example.net", b"o'hara@example.net"]), min_size=1), HOSTILE
)
@settings(max_examples=50, deadline=None)
def test_a_list_manager_finds_every_recipient_behind_a_hostile_reply(addresses: list[bytes], words: bytes) -> None:
    notice = Notice(
        id=1,
        kind=Kind.FAILED,
        relayhost="default",
        created=0.0,
        message=1,
        sender=b"me@example.org",
        concerned=tuple(Concerned(address, "bounced", "5.0.0", words, "RCPT", True) for address in addresses),
    )
    content = compose(notice, original=words, now=0.0, message_id=b"<1@localhost>", boundary=b"4f1b0c" * 5)
    assert flufl.bounce.all_failures(email.message_from_bytes(content)) == (frozenset(), frozenset(addresses))
