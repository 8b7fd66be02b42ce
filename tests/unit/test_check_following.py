"""What `check` says of the view that an account on a relayhost has of messages there."""

import pytest

from mailrelay.check.following import found
from mailrelay.tracking.question import Answer, Output, Place
from mailrelay.tracking.queue_id import Server

EMPTY = Output(b"/var/spool/mqueue is empty\n\t\tTotal requests: 0\n", 0)


def answer(
    server: Server = Server.SENDMAIL,
    listing: Output | None = EMPTY,
    log: bytes | None = b"",
    reports: bytes | None = b"",
) -> Answer:
    return Answer(server, listing, log, reports, None, "alice", Place())


def test_all_that_can_be_seen_is_named() -> None:
    said = found(answer(), "default")
    assert (said.check, said.ok, said.fix, said.about) == ("track", True, "", "default")
    assert said.text == (
        "messages can be followed there: alice may see the queue, the log, a mailbox for delivery reports"
    )


@pytest.mark.parametrize(("log", "reports"), [(None, b""), (b"", None), (None, None)])
def test_the_queue_alone_is_enough_and_what_is_missing_is_named(log: bytes | None, reports: bytes | None) -> None:
    said = found(answer(log=log, reports=reports), "default")
    assert said.ok is True
    not_seen = said.text.partition("; not ")[2]
    assert ("the log" in not_seen, "a mailbox" in not_seen) == (log is None, reports is None)
    assert ("the group adm or systemd-journal for alice" in said.text) is (log is None)


@pytest.mark.parametrize(
    ("server", "listing", "wanted"),
    [
        (Server.SENDMAIL, Output(b"You are not permitted to see the queue\n", 0), "restrictmailq"),
        (
            Server.POSTFIX,
            Output(b"postqueue: fatal: User alice(1) is not allowed to view the mail queue\n", 69),
            "alice,",
        ),
        (Server.EXIM, Output(b"exim: permission denied\n", 1), "queue_list_requires_admin = false"),
        (Server.OPENSMTPD, Output(b"smtpctl: need root privileges\n", 1), "adm"),
        (Server.OTHER, Output(b"sh: 1: lister: not found\n", 127), "adm"),
        (Server.OTHER, None, "adm"),
    ],
)
def test_a_queue_that_may_not_be_seen_comes_with_what_to_ask_for(
    server: Server, listing: Output | None, wanted: str
) -> None:
    said = found(answer(server, listing, log=None), "default")
    # Whether a message arrives cannot be known; nothing has failed.
    assert said.ok is None
    words = listing.octets.decode().strip() if listing else "no program there lists it"
    assert said.text == f"messages are not followed there: alice may not see the queue ({words}), the log"
    assert said.fix.startswith("ask the administrator for ") and wanted in said.fix
    # The log alone is enough.
    assert found(answer(server, listing), "default").ok is True
