"""Reports of three real mail servers, tied to our message by each of its ids, and reports that are none of ours."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from harness.tracking_samples import IDS, sample

from mailrelay.tracking.report import Ours, read_reports
from mailrelay.tracking.sighting import Seen

SERVERS = ["sendmail", "postfix", "exim"]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("known", ["envid", "message_id"])
def test_a_report_names_ours_and_the_words(server: str, known: str) -> None:
    name = IDS[server][0]
    value = {"envid": b"3KQ7ZABC", "message_id": b"m3.A@laptop.example"}[known]
    ours = Ours((name,), **{known: value})
    (found,) = read_reports(sample(f"{server}.report"), [ours, Ours(("OTHER1",), message_id=b"other@laptop.example")])
    assert (found.queue_id, found.recipient, found.seen) == (name, b"bad1@far.example", Seen.BOUNCED)
    assert found.words.startswith(b"550-5.1.1 <bad1@far.example> No such user here")


def test_a_report_of_postfix_names_ours_by_its_queue_id_too() -> None:
    """Also by one under which a filter handed it on."""
    (found,) = read_reports(sample("postfix.report"), [Ours(("FIRST1", IDS["postfix"][0]))])
    assert found.queue_id == "FIRST1"


def test_reports_among_other_mail_and_with_crlf_are_found() -> None:
    other = b"From me Sat Nov 28 10:00:00 2026\nSubject: lunch?\n\nSee you at noon.\n\n"
    mailbox = other.join([b"", *(sample(f"{server}.report").rstrip(b"\n") + b"\n\n" for server in SERVERS), b""])
    found = read_reports(mailbox.replace(b"\n", b"\r\n"), [Ours(("A1",), envid=b"3KQ7ZABC")])
    assert len(found) == 3


@pytest.mark.parametrize("server", SERVERS)
def test_ids_that_do_not_agree_name_nothing(server: str) -> None:
    ours = [Ours(("A1",), envid=b"3KQ7ZABC"), Ours(("B2",), message_id=b"m3.A@laptop.example")]
    assert read_reports(sample(f"{server}.report"), ours) == ()


def test_a_message_id_of_two_messages_names_neither_but_an_envid_does() -> None:
    text, both = sample("exim.report"), b"m3.A@laptop.example"
    assert read_reports(text, [Ours(("A1",), message_id=both), Ours(("B2",), message_id=both)]) == ()
    (found,) = read_reports(text, [Ours(("A1",), b"3KQ7ZABC", both), Ours(("B2",), b"OTHER", both)])
    assert found.queue_id == "A1"


@pytest.mark.parametrize("server", SERVERS)
def test_a_report_from_before_a_message_that_was_sent_again_is_not_about_it(server: str) -> None:
    """Both have the same Message-ID. The relayhost's own time counts."""
    came = datetime(2026, 11, 28, 10, 50, tzinfo=UTC).timestamp()
    text, ours = sample(f"{server}.report"), Ours(("A1",), message_id=b"m3.A@laptop.example")
    assert len(read_reports(text, [replace(ours, not_before=came - 600)])) == 1
    assert read_reports(text, [replace(ours, not_before=came + 600)]) == ()
    for stamp in (b"Received: x; then\n", b"Received: x; \xff\n", b"Received: x\n", b""):
        undated = re.sub(rb"^Received: .*\n([ \t].*\n)*", stamp, text, count=1, flags=re.MULTILINE)
        assert len(read_reports(undated, [replace(ours, not_before=came + 600)])) == 1, stamp


@pytest.mark.parametrize("server", SERVERS)
def test_the_text_of_a_report_in_an_ordinary_message_is_no_report(server: str) -> None:
    text = sample(f"{server}.report").replace(b"multipart/report", b"multipart/mixed")
    assert read_reports(text, [Ours(("A1",), envid=b"3KQ7ZABC")]) == ()


@pytest.mark.parametrize(
    ("action", "seen"),
    [(b"delayed", Seen.DEFERRED), (b"relayed", Seen.DELIVERED), (b"FAILED (bad)", Seen.BOUNCED), (b"eaten", None)],
)
def test_the_action_decides(action: bytes, seen: Seen | None) -> None:
    text = sample("postfix.report").replace(b"Action: failed", b"Action: " + action)
    found = read_reports(text, [Ours(("A1",), envid=b"3KQ7ZABC")])
    assert [one.seen for one in found] == ([seen] if seen else [])


def test_the_original_recipient_is_ours() -> None:
    text = sample("postfix.report").replace(b"rfc822;bad1@far.example", b"rfc822;team@mx.example")
    (found,) = read_reports(text, [Ours(("A1",), envid=b"3KQ7ZABC")])
    assert (found.recipient, found.final) == (b"team@mx.example", b"bad1@far.example")


@pytest.mark.parametrize(
    "kind", [b"message/rfc822", b"text/rfc822-headers", b"message/global", b"message/global-headers", b"text/plain"]
)
def test_a_message_is_known_by_the_message_id_in_what_was_returned_of_it(kind: bytes) -> None:
    text = sample("postfix.report").replace(b"Content-Type: message/rfc822", b"Content-Type: " + kind)
    found = read_reports(text, [Ours(("A1",), message_id=b"m3.A@laptop.example")])
    assert [one.queue_id for one in found] == ([] if kind == b"text/plain" else ["A1"])


def test_a_huge_mailbox_of_nested_parts_is_read_within_bounds() -> None:
    part = b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\n\n--b\n'
    assert read_reports(b"From x\n" + part * 50_000, [Ours(("A1",), envid=b"3KQ7ZABC")]) == ()
    groups = b"Final-Recipient: rfc822; a@b\nAction: failed\n\n" * 5000
    text = b"From x\n" + part + b"Content-Type: message/delivery-status\n\nOriginal-Envelope-Id: 3KQ7ZABC\n\n" + groups
    assert len(read_reports(text, [Ours(("A1",), envid=b"3KQ7ZABC")])) <= 1000
