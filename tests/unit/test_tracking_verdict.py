"""What has become of a recipient on the relayhost: the table, and whom a sighting concerns."""

from itertools import product

import pytest

from mailrelay.mail.there import Source, There
from mailrelay.tracking.sighting import Seen, Sighting, assign
from mailrelay.tracking.verdict import Evidence, InQueue, judge

BOB = b"bob@far.example"


def seen(what: Seen, words: bytes = b"words", final: bytes = b"") -> Sighting:
    return Sighting("A1", BOB, what, words, final=final)


@pytest.mark.parametrize(
    ("evidence", "state", "source"),
    [
        (Evidence(), There.WAITING, Source.NONE),
        (Evidence(reason=b"your login may not see the queue"), There.NOT_FOLLOWED, Source.NONE),
        (Evidence(InQueue.LISTED, [seen(Seen.WAITING, b"")]), There.WAITING, Source.QUEUE),
        (Evidence(InQueue.LISTED, [seen(Seen.DEFERRED)]), There.DEFERRED, Source.QUEUE),
        (Evidence(InQueue.LISTED, [seen(Seen.WAITING)], [seen(Seen.DEFERRED)]), There.DEFERRED, Source.LOG),
        (Evidence(InQueue.OTHERS), There.WAITING, Source.QUEUE),
        (Evidence(InQueue.GONE, gone_since=0.0, asked=0.0, has_mailbox=True), There.WAITING, Source.QUEUE),
        (Evidence(InQueue.GONE, gone_since=0.0, asked=4.9, has_mailbox=True), There.WAITING, Source.QUEUE),
        (Evidence(InQueue.GONE, gone_since=0.0, asked=5.0, has_mailbox=True), There.LEFT, Source.QUEUE),
        (Evidence(InQueue.GONE, gone_since=0.0, asked=5.0), There.LEFT_UNWATCHED, Source.QUEUE),
        (Evidence(InQueue.GONE, log=[seen(Seen.DEFERRED)], gone_since=0.0, asked=1.0), There.WAITING, Source.QUEUE),
        (Evidence(InQueue.GONE, log=[seen(Seen.DELIVERED)]), There.DELIVERED, Source.LOG),
        (Evidence(log=[seen(Seen.DEFERRED), seen(Seen.DELIVERED)]), There.DELIVERED, Source.LOG),
        (Evidence(log=[seen(Seen.DEFERRED)], reason=b"no listing"), There.DEFERRED, Source.LOG),
        (Evidence(log=[seen(Seen.BOUNCED)]), There.BOUNCED, Source.LOG),
        (Evidence(log=[seen(Seen.HANDED_ON)]), There.WAITING, Source.LOG),
        (Evidence(log=[seen(Seen.HANDED_ON), seen(Seen.DELIVERED)]), There.DELIVERED, Source.LOG),
        # Of an alias, one member is delivered and another is not.
        (Evidence(log=[seen(Seen.DELIVERED, final=b"a"), seen(Seen.DEFERRED, final=b"b")]), There.DEFERRED, Source.LOG),
        (Evidence(log=[seen(Seen.BOUNCED, final=b"a"), seen(Seen.DELIVERED, final=b"b")]), There.BOUNCED, Source.LOG),
        # A server behind the next one refused it.
        (Evidence(log=[seen(Seen.DELIVERED)], reports=[seen(Seen.BOUNCED)]), There.BOUNCED, Source.REPORT),
        (Evidence(reports=[seen(Seen.DEFERRED)]), There.DEFERRED, Source.REPORT),
    ],
)
def test_the_table(evidence: Evidence, state: There, source: Source) -> None:
    found = judge(evidence)
    assert (found.state, found.source) == (state, source)


def test_delivered_and_left_need_their_evidence() -> None:
    choices = [[], *([seen(what)] for what in Seen)]
    for in_queue, listed, log, reports, gone in product(InQueue, choices, choices, choices, (None, 0.0, 9.0)):
        evidence = Evidence(in_queue, listed, log, reports, gone, 10.0, has_mailbox=True)
        found = judge(evidence)
        if found.state is There.DELIVERED:
            assert [one.seen for one in log] == [Seen.DELIVERED]
        if found.state is There.LEFT:
            assert (in_queue, gone) == (InQueue.GONE, 0.0)
            assert not any(one.seen is Seen.BOUNCED for one in reports)
        assert (found.state is There.BOUNCED) == any(one.seen is Seen.BOUNCED for one in (*log, *reports))


def test_words_are_shown_without_control_characters() -> None:
    found = judge(Evidence(log=[seen(Seen.BOUNCED, b"550 \x1b[2J\r\n\x00\xff no")]))
    assert found.shown_words == "550 \\x1b[2J\\x0d\\x0a\\x00\\xff no"


@pytest.mark.parametrize(
    ("ours", "theirs", "is_cut", "meant"),
    [
        ([BOB], b"Bob@FAR.example", False, BOB),
        ([b"root"], b"root@mx.example", False, b"root"),
        ([BOB, b"BOB@far.example"], b"Bob@far.example", False, None),
        ([BOB, b"BOB@far.example"], BOB, False, BOB),
        ([BOB], b"bob@far", True, BOB),
        ([BOB, b"bob@far.example.org"], BOB, True, None),
        ([BOB], b"eve@far.example", False, None),
        ([BOB], b"bob@other.example", False, None),
        ([BOB], b"eve@far", True, None),
        ([BOB], b"", True, None),
        ([b"root"], b"eve@mx.example", False, None),
        ([BOB], BOB + b"@mx.example", False, None),
    ],
)
def test_a_sighting_is_given_to_one_recipient_or_none(
    ours: list[bytes], theirs: bytes, is_cut: bool, meant: bytes | None
) -> None:
    sighting = Sighting("A1", theirs, Seen.DELIVERED, is_cut=is_cut)
    found = assign(ours, [sighting])
    assert [one for one, given in found.of.items() if given] == ([meant] if meant else [])
    assert found.others == ([] if meant else [sighting])
