"""Messages with bare addresses in the spool are completed when an attempt is opened, before they are sent."""

import time
from pathlib import Path

import pytest
from harness.messages import NOW, new_queue_id
from harness.relay import running_relay

from mailrelay.mail.completion import Completion
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.record import Arrival, arrive
from mailrelay.spool import attempts, listing, stored
from mailrelay.spool.accepting import accept
from mailrelay.spool.completing import MAX_PIECES
from mailrelay.spool.database import PIECE, connect, transaction

HEADER = b"From: root (Cron Daemon)\r\nTo: root\r\n\r\n"
COMPLETION = Completion(account=b"me@mail.example", is_local_account=lambda name: name == b"root")


def arrival(content: bytes, *, completes_header: bool, sender: bytes = b"root", now: float = NOW) -> Arrival:
    envelope = Envelope(sender, (Recipient(b"root", b"NEVER"), Recipient(b"alice"), Recipient(b"postmaster")))
    return arrive(
        envelope,
        content,
        queue_id=new_queue_id(),
        token="t",
        relayhost="default",
        now=now,
        completes_header=completes_header,
    )


@pytest.mark.parametrize("body", [b"hello\r\n", b"x" * 2 * PIECE], ids=["small", "large"])
@pytest.mark.parametrize("completes_header", [False, True])
def test_the_envelope_becomes_whole_and_the_header_where_it_is_asked_for(
    tmp_path: Path, completes_header: bool, body: bytes
) -> None:
    db = connect(tmp_path / "spool")
    accepted = arrival(HEADER + body, completes_header=completes_header)
    with transaction(db):
        key = accept(db, accepted, 10**9)
    with transaction(db):
        (message,) = attempts.take(db, "default", (), 1, "n", NOW, completion=COMPLETION)
    assert message.envelope.sender == b"me@mail.example"
    assert message.envelope.recipients == (
        Recipient(b"me@mail.example", b"NEVER"),
        Recipient(b"alice@mail.example"),
        Recipient(b"postmaster"),
    )
    content = b"".join(stored.content(db, key))
    assert len(content) == message.size == listing.one(db, key).size
    if completes_header:
        assert content.endswith(b"From: root@mail.example (Cron Daemon)\r\nTo: root@mail.example\r\n\r\n" + body)
        assert b".t.mailrelay@mail.example>\r\n" in content
    else:
        assert content == accepted.content
    # The next attempt finds the same.
    with transaction(db):
        attempts.put_back(db, [key], "n", NOW)
        (again,) = attempts.take(db, "default", (), 1, "n", NOW, completion=Completion(account=b"x@y"))
    assert again == message
    db.close()


@pytest.mark.parametrize("body", [b"", b"\r\n", b"x" * 2 * PIECE], ids=["none", "small", "large"])
@pytest.mark.parametrize("fill", [-6, -5, -4, -3, -2, -1, 0, 1, PIECE, 4 * PIECE])
def test_a_header_of_any_length_becomes_whole(tmp_path: Path, fill: int, body: bytes) -> None:
    db = connect(tmp_path / "spool")
    start = len(arrival(b"\r\n", completes_header=True).content) - len(b"\r\n")
    to = b", ".join([b"alice"] * 2)
    header = b"Subject: " + b"x" * (PIECE - start - len(b"Subject: \r\nTo: \r\n\r\n") - len(to) + fill)
    content = header + b"\r\nTo: " + to + b"\r\n\r\n" + body
    with transaction(db):
        key = accept(db, arrival(content, completes_header=True), 10**9)
        (message,) = attempts.take(db, "default", (), 1, "n", NOW, completion=COMPLETION)
    found = b"".join(stored.content(db, key))
    assert len(found) == message.size
    assert found.endswith(b"x\r\nTo: alice@mail.example, alice@mail.example\r\n\r\n" + body)
    db.close()


@pytest.mark.parametrize(("fill", "is_whole"), [(-3, True), (-1, True), (0, True), (PIECE, False)])
def test_damage_behind_the_header_does_not_keep_it_from_becoming_whole(
    tmp_path: Path, fill: int, is_whole: bool
) -> None:
    """fill: octets of the end of the header in the second piece, less four. The third piece is damaged."""
    db = connect(tmp_path / "spool")
    start = len(arrival(b"\r\n", completes_header=True).content) - len(b"\r\n")
    to = b"To: alice\r\nSubject: "
    header = to + b"x" * (PIECE - start - len(to) + fill) + b"\r\n\r\n"
    with transaction(db):
        key = accept(db, arrival(header + b"y" * 2 * PIECE, completes_header=True), 10**9)
        other = accept(db, arrival(HEADER + b"z" * 2 * PIECE, completes_header=False), 10**9)
        before = b"".join(stored.content(db, other))
        db.execute("UPDATE content SET data = x'00' WHERE message = ? AND seq = 2", (key,))
        (message,) = attempts.take(db, "default", (key,), 1, "n", NOW, completion=COMPLETION)
    assert message.has_bare_header is not is_whole
    first, goes_on = stored.piece(db, key, 0) or (b"", False)
    assert goes_on
    assert (b"\r\nTo: alice@mail.example\r\n" in first) is is_whole
    assert b"".join(stored.content(db, other)) == before
    db.close()


def test_a_header_that_no_mail_server_accepts_becomes_whole_in_its_first_pieces_only(tmp_path: Path) -> None:
    db = connect(tmp_path / "spool")

    def long(fill: int) -> Arrival:
        header = b"Subject: " + b"x" * fill + b"\r\nTo: alice\r\nCc: alice\r\n\r\n"
        return arrival(header + b"hello\r\n", completes_header=True)

    size = MAX_PIECES * PIECE
    # The second field begins with the first piece that is not completed.
    accepted = long(2 * size - long(size).content.index(b"Cc: "))
    with transaction(db):
        key = accept(db, accepted, 10**9)
        (message,) = attempts.take(db, "default", (), 1, "n", NOW, completion=COMPLETION)
    content = b"".join(stored.content(db, key))
    assert content.endswith(b"x\r\nTo: alice@mail.example\r\nCc: alice\r\n\r\nhello\r\n")
    assert message.size == len(content)
    db.close()


def test_what_is_not_known_stays_bare_until_it_is(tmp_path: Path) -> None:
    db = connect(tmp_path / "spool")
    accepted = arrival(HEADER, completes_header=True)
    with transaction(db):
        key = accept(db, accepted, 10**9)
        (message,) = attempts.take(db, "default", (), 1, "n", NOW)
        attempts.put_back(db, [key], "n", NOW)
    assert (message.envelope, message.has_bare_header) == (accepted.envelope, True)
    with transaction(db):
        (message,) = attempts.take(db, "default", (), 1, "n", NOW, completion=COMPLETION)
    assert (message.envelope.sender, message.has_bare_header) == (b"me@mail.example", False)
    db.close()


def test_a_message_id_of_ours_gets_the_domain_though_no_address_in_the_header_is_bare(tmp_path: Path) -> None:
    db = connect(tmp_path / "spool")
    for sender in (b"", b"root", b"root@localhost"):
        accepted = arrival(b"From: me@x.example\r\n\r\n", completes_header=True, sender=sender)
        with transaction(db):
            key = accept(db, accepted, 10**9)
            attempts.take(db, "default", (), 1, "n", NOW, completion=COMPLETION)
        assert b".t.mailrelay@mail.example>\r\n" in b"".join(stored.content(db, key))
    db.close()


async def test_a_relay_completes_with_the_account_at_the_name_that_the_mail_server_gives_itself(
    tmp_path: Path,
) -> None:
    async with running_relay(tmp_path) as at:

        async def greet(verb: str, argument: bytes) -> bytes | None:
            return b"220 mail.example ESMTP" if verb == "GREETING" else None

        at.remote.policy = greet
        key = await at.spool.accept(arrival(HEADER + b"hello\r\n", completes_header=True, now=time.time()))
        at.scheduler.message_arrived(key)
        await at.settled(key, "sent", "sent", "sent")
        (received,) = at.remote.received
        assert received.sender.partition(b"@")[::2] == (b"demo", b"mail.example")
        assert received.recipients == (b"root@mail.example", b"alice@mail.example", b"postmaster")
        assert b"\r\nFrom: root@mail.example (Cron Daemon)\r\nTo: root@mail.example\r\n" in received.content
        assert at.message(key).sender == received.sender
