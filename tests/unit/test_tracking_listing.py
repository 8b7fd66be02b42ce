"""The queue as the programs of real mail servers list it, and their ways to refuse."""

import json

import pytest
from harness.tracking_samples import sample

from mailrelay.tracking.listing import Listed, NotPermitted, Unreadable, read_listing
from mailrelay.tracking.queue_id import Server
from mailrelay.tracking.sighting import Seen

GREY = (
    b"451 4.7.1 <grey1@far.example>: Greylisted, stat=Sent (AAAAAAAA012345 Message accepted for delivery), (try later)"
)


def listed(server: Server, output: bytes) -> Listed:
    found = read_listing(server, output, 0)
    assert isinstance(found, Listed), found
    return found


def test_postfix_names_reason_and_time_of_each_recipient() -> None:
    found = listed(Server.POSTFIX, sample("postfix.listing"))
    first, *others = found.sightings
    assert (first.recipient, first.seen, first.since) == (b"grey1@far.example", Seen.DEFERRED, 1795863022.0)
    assert GREY in first.words
    assert [one.recipient for one in others] == [b"ok9@far.example", b'"sp ace"@far.example']
    assert found.ids == {"6076427E9A1", "6663027E9A4"}


@pytest.mark.parametrize("server", [Server.SENDMAIL, Server.OTHER])
def test_sendmail_names_the_reason_of_each_recipient(server: Server) -> None:
    found = listed(server, sample("sendmail.listing"))
    by_recipient = {one.recipient: one for one in found.sightings}
    # sendmail shows the first 100 octets.
    words = by_recipient[b"grey1@far.example"].words
    assert words.endswith(b"Message accepted for")
    assert GREY.startswith(words)
    # The reason of the message is for recipients without one of their own.
    for address in (b"ok9@far.example", b'"sp ace"@far.example'):
        assert by_recipient[address].seen is Seen.DEFERRED
        assert by_recipient[address].words == b"Connection refused by [127.0.0.1]"
    assert len(found.ids) == 3


def test_the_reason_of_another_recipient_is_nobodys() -> None:
    """sendmail's reason of the message is that of its last failure."""
    text = (
        b"\t\t/q (1 request)\n-----Q-ID-----\n6ASAlPhe000224*       6      90114 Nov 28 10:47 <me@x>\n"
        b"                 (Deferred: 451 busy)\n\t\t\t\t\t\t<a@x>\n\t\t (Deferred: 451 busy)\n\t\t\t\t\t\t<b@x>\n"
        b"\t\tTotal requests: 1\n"
    )
    a, b = listed(Server.SENDMAIL, text).sightings
    assert (a.seen, a.words) == (Seen.DEFERRED, b"451 busy")
    assert (b.seen, b.words) == (Seen.WAITING, b"")


@pytest.mark.parametrize("mark", [b" ", b"*", b"-"])
def test_a_message_whose_content_sendmail_is_just_removing_is_still_listed(mark: bytes) -> None:
    """Its size is -1."""
    text = (
        b"\t\t/q (1 request)\n-----Q-ID-----\n6ASLhu5w030098" + mark + b"      -1      30098 Nov 28 21:43 <me@x>\n"
        b"\t\t\t\t\t\t<x@gone.example>\n\t\tTotal requests: 1\n"
    )
    found = listed(Server.SENDMAIL, text)
    assert found.ids == {"6ASLhu5w030098"}
    assert [(one.recipient, one.seen) for one in found.sightings] == [(b"x@gone.example", Seen.WAITING)]


def test_exim_lists_who_waits_and_not_who_is_done() -> None:
    found = listed(Server.EXIM, sample("exim.listing"))
    names = [one.recipient for one in found.sightings]
    assert names == [b"grey1@far.example", b"grey2@far.example", b"ok9@far.example", b'"sp ace"@far.example']
    assert {one.seen for one in found.sightings} == {Seen.WAITING}


@pytest.mark.parametrize(
    ("server", "text"),
    [
        (Server.SENDMAIL, b"/var/spool/mqueue is empty\n\t\tTotal requests: 0\n"),
        (
            Server.SENDMAIL,
            b"WARNING: local host name (mx) is not qualified; see cf/README: WHO AM I?\n"
            b"/var/spool/mqueue is empty\n\t\tTotal requests: 0\n",
        ),
        (Server.POSTFIX, b""),
        (Server.POSTFIX, b"postqueue: warning: Mail system is down\n"),
        (Server.EXIM, b""),
        (
            Server.EXIM,
            b"      1xXG0k-000024-2x\n    *** spool read error: No such file or directory ***\n\n",
        ),
        (Server.OTHER, b""),
    ],
)
def test_an_empty_queue_is_a_listing(server: Server, text: bytes) -> None:
    assert listed(server, text).ids == frozenset()


@pytest.mark.parametrize(
    ("server", "text", "status"),
    [
        (Server.SENDMAIL, b"You are not permitted to see the queue\n\t\tTotal requests: 0\n", 0),
        (Server.SENDMAIL, b"can not chdir(/var/spool/mqueue/): Permission denied\nProgram mode requires special\n", 78),
        (Server.SENDMAIL, b"Program mode requires special privileges, e.g., root or TrustedUser.\n", 78),
        (Server.POSTFIX, b"postqueue: fatal: User nobody(65534) is not allowed to view the mail queue\n", 69),
        (Server.EXIM, b"exim: permission denied\n", 1),
        (Server.OPENSMTPD, b"smtpctl: need root privileges\n", 1),
        (Server.OTHER, b"You are not permitted to see the queue\n", 0),
    ],
)
def test_a_refusal_is_a_result_of_its_own(server: Server, text: bytes, status: int) -> None:
    assert read_listing(server, text, status) == NotPermitted(text.partition(b"\n")[0])


@pytest.mark.parametrize(
    ("server", "text", "status"),
    [
        (Server.SENDMAIL, b"", 0),
        (Server.SENDMAIL, b"sh: sendmail: not found\n", 127),
        (Server.SENDMAIL, sample("sendmail.listing").rpartition(b"\t\tTotal")[0], 0),
        (Server.POSTFIX, sample("postfix.listing")[:500], 0),
        (Server.POSTFIX, sample("postfix.listing"), 1),
        (Server.POSTFIX, b"Welcome!\n" + sample("postfix.listing"), 0),
        (Server.POSTFIX, b"[" * 100_000 + b"\n", 0),
        (Server.POSTFIX, b'{"queue_id": ' + b"[" * 100_000 + b"\n", 0),
        (Server.EXIM, b"2026-11-28 exim configuration error\n", 0),
        (Server.POSTFIX, json.dumps({"queue_id": "A B", "recipients": []}).encode(), 0),
    ],
)
def test_odd_output_is_no_listing(server: Server, text: bytes, status: int) -> None:
    """Else what is not in it would seem to have left the queue."""
    assert isinstance(read_listing(server, text, status), Unreadable)
