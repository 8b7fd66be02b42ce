"""Delivery status notifications, as other mail programs and list managers parse them."""

import dataclasses
import email
import email.policy
from email.message import EmailMessage, Message
from typing import Any

import flufl.bounce
import pytest

from mailrelay.mail.dsn import MAX_RETURN, compose, needs_smtputf8
from mailrelay.mail.notice import Concerned, Kind, Notice

BOB = Concerned(
    address=b"bob@example.net",
    state="bounced",
    status="5.1.1",
    description=b"550 5.1.1 <bob@example.net>: Recipient address rejected: no such user here",
    stage="RCPT",
    remote=True,
)
ORIGINAL = b"From: me@example.org\r\nSubject: Dinner\r\nMessage-ID: <dinner@example.org>\r\n\r\nAt eight?\r\n"
REFUSED = Notice(
    id=7,
    kind=Kind.FAILED,
    relayhost="default",
    created=1_700_000_020.0,
    message=3,
    queue_id="3KQ7Z",
    sender=b"me@example.org",
    subject="Dinner",
    arrival=1_700_000_000.0,
    size=len(ORIGINAL),
    concerned=(BOB,),
)
HOST_KEY = Notice(
    id=8,
    kind=Kind.SETUP,
    relayhost="default",
    created=1_700_000_000.0,
    text="The host key of mail.example.org has changed.",
    fix="Look at it, and accept it if it is right:\nmailrelay trust mail.example.org",
)


def composed(notice: Notice, original: bytes = ORIGINAL) -> bytes:
    return compose(
        notice, original=original, now=1_700_000_030.0, message_id=b"<r1@localhost>", boundary=b"0123456789abcdef"
    )


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert [(part.get_content_type(), part.defects) for part in message.walk() if part.defects] == []
    return message


def parts(message: EmailMessage) -> list[Any]:
    return list(message.iter_parts())


def fields(message: EmailMessage) -> list[Message]:
    return list(parts(message)[1].get_payload())


def test_a_report_gives_the_refused_recipient_and_the_reply_for_people_and_for_programs() -> None:
    report = parsed(composed(REFUSED))
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert report["To"].addresses[0].addr_spec == "me@example.org"
    assert report["Subject"] == "Mail to bob@example.net was refused: Dinner"
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["Message-ID"] == "<r1@localhost>"
    assert report["Date"].datetime.timestamp() == 1_700_000_030.0
    assert [part.get_content_type() for part in parts(report)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    words = " ".join(parts(report)[0].get_content().split())
    assert "bob@example.net The mail server said: 550 5.1.1 <bob@example.net>: Recipient address rejected" in words
    assert "The mailbox does not exist" in words
    assert "mailrelay queue show 3KQ7Z" in words
    message_fields, bob = fields(report)
    assert message_fields["Reporting-MTA"] == "dns; localhost"
    assert message_fields["Arrival-Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert message_fields["Original-Envelope-Id"] is None
    assert bob["Final-Recipient"] == "rfc822; bob@example.net"
    assert bob["Action"] == "failed"
    assert bob["Status"] == "5.1.1"
    assert bob["Last-Attempt-Date"] == "Tue, 14 Nov 2023 22:13:40 +0000"
    assert " ".join(bob["Diagnostic-Code"].split()) == f"smtp; {BOB.description.decode()}"


def test_a_long_reply_is_folded_in_a_report() -> None:
    content = composed(
        dataclasses.replace(REFUSED, concerned=(dataclasses.replace(BOB, description=b"550 no " + b"word " * 99),))
    )
    assert content.isascii()
    assert max(len(line) for line in content.split(b"\r\n")) <= 78


def test_a_list_manager_finds_the_failed_recipients() -> None:
    ann = dataclasses.replace(
        BOB, address=b"ann@example.net", state="expired", status="4.2.2", description=b"452 4.2.2 full"
    )
    message = email.message_from_bytes(composed(dataclasses.replace(REFUSED, concerned=(BOB, ann))))
    assert flufl.bounce.all_failures(message) == (
        frozenset(),
        frozenset({b"bob@example.net", b"ann@example.net"}),
    )


def test_a_list_manager_takes_a_relayed_message_for_no_failure() -> None:
    relayed = dataclasses.replace(
        REFUSED,
        kind=Kind.RELAYED,
        concerned=(dataclasses.replace(BOB, state="sent", status="2.1.5", description=b"250 ok"),),
    )
    content = composed(relayed)
    assert fields(parsed(content))[1]["Action"] == "relayed"
    assert flufl.bounce.all_failures(email.message_from_bytes(content)) == (frozenset(), frozenset())


def test_held_mail_is_reported_as_delayed_and_not_as_failed() -> None:
    held = dataclasses.replace(REFUSED, kind=Kind.HELD)
    assert fields(parsed(composed(held)))[1]["Action"] == "delayed"


def test_our_own_reason_is_not_shown_as_a_reply_of_the_mail_server() -> None:
    ours = dataclasses.replace(
        BOB, description=b"the connection was lost", remote=False, status="4.4.2", state="expired"
    )
    report = parsed(composed(dataclasses.replace(REFUSED, concerned=(ours,))))
    assert fields(report)[1]["Diagnostic-Code"] == "x-mailrelay; the connection was lost"
    assert "The mail server said" not in parts(report)[0].get_content()


def test_the_parameters_of_the_sender_come_back_decoded() -> None:
    asked = dataclasses.replace(BOB, orcpt=b"rfc822;bob+2Blists@example.net")
    report = parsed(composed(dataclasses.replace(REFUSED, envid=b"QQ+2B314+3D", concerned=(asked,))))
    message_fields, bob = fields(report)
    assert message_fields["Original-Envelope-Id"] == "QQ+314="
    assert bob["Original-Recipient"] == "rfc822; bob+lists@example.net"


def test_line_ends_hidden_in_xtext_start_no_field() -> None:
    asked = dataclasses.replace(BOB, orcpt=b"rfc822;x+0D+0AAction:+20delivered")
    report = parsed(
        composed(dataclasses.replace(REFUSED, envid=b"a+0D+0A+0D+0AAction:+20delivered", concerned=(asked,)))
    )
    assert len(fields(report)) == 2
    assert fields(report)[1].get_all("Action") == ["failed"]


def test_the_report_joins_the_thread_of_the_message() -> None:
    report = parsed(composed(REFUSED))
    assert report["In-Reply-To"] == "<dinner@example.org>"
    assert report["References"] == "<dinner@example.org>"


@pytest.mark.parametrize(
    "header",
    [
        b"Message-ID: <a@b> <c@d>",
        b"Message-ID: nonsense",
        b"Message-ID: <a\x1bb@c>",
        b"Message-ID: <a@b\rBcc: x>",
        b"Message-ID: <" + b"a" * 400 + b"@b>",
    ],
)
def test_a_message_id_that_is_none_is_left_out(header: bytes) -> None:
    report = parsed(composed(REFUSED, original=header + b"\r\n\r\n"))
    assert report["In-Reply-To"] is None
    assert report["References"] is None


def test_only_the_headers_come_back_by_default() -> None:
    returned = parts(parsed(composed(REFUSED)))[2]
    assert returned.get_content_type() == "text/rfc822-headers"
    assert b"Subject: Dinner" in composed(REFUSED)
    assert b"At eight?" not in composed(REFUSED)


def test_the_whole_message_comes_back_byte_for_byte_where_it_was_asked_for() -> None:
    content = composed(dataclasses.replace(REFUSED, ret=b"FULL"))
    assert parts(parsed(content))[2].get_content_type() == "message/rfc822"
    assert b"\r\n\r\n" + ORIGINAL + b"\r\n--" in content


@pytest.mark.parametrize(
    ("size", "original"),
    [
        (MAX_RETURN + 1, b"Subject: a\r\n\r\n" + b"x" * 70 + b"\r\nAt eight?"),
        (14 + 10, b"Subject: a\r\n\r\nAt eight?\xff"),
    ],
    ids=["too large", "not 7-bit"],
)
def test_a_message_that_is_too_large_or_not_7bit_comes_back_as_headers(size: int, original: bytes) -> None:
    content = composed(dataclasses.replace(REFUSED, ret=b"FULL", size=size), original)
    assert parts(parsed(content))[2].get_content_type() == "text/rfc822-headers"
    assert b"At eight?" not in content


def test_half_a_header_line_is_not_returned() -> None:
    content = composed(dataclasses.replace(REFUSED, size=10**6), b"Subject: Dinner\r\nX-Cut: of")
    assert b"X-Cut" not in content
    assert b"Subject: Dinner" in content


def test_a_message_of_a_header_alone_comes_back_with_its_last_line() -> None:
    original = b"Subject: Dinner\r\nX-Last: yes"
    assert b"\r\nX-Last: yes\r\n" in composed(dataclasses.replace(REFUSED, size=len(original)), original)


def test_headers_in_8_bit_come_back_unharmed_in_a_7_bit_report() -> None:
    content = composed(REFUSED, b"Subject: Gr\xfc\xdfe\r\nX: a\nBcc: b\r\n\r\n")
    assert content.isascii()
    assert b"\nBcc" not in content
    assert b"Subject: Gr\xfc\xdfe" in parts(parsed(content))[2].get_payload(decode=True)


def test_a_message_that_is_gone_is_reported_without_its_headers() -> None:
    report = parsed(composed(REFUSED, b""))
    assert [part.get_content_type() for part in parts(report)] == ["text/plain", "message/delivery-status"]


def test_an_address_outside_ascii_makes_a_report_of_the_international_kind() -> None:
    joerg = dataclasses.replace(BOB, address="jörg@example.net".encode())
    notice = dataclasses.replace(REFUSED, smtputf8=True, sender="zoë@example.org".encode(), concerned=(joerg,))
    assert needs_smtputf8(notice)
    assert not needs_smtputf8(REFUSED)
    content = composed(notice, "Subject: Grüße\r\n\r\nAt eight?\r\n".encode())
    report = parsed(content)
    assert report.get_param("report-type") == "global-delivery-status"
    assert [part.get_content_type() for part in parts(report)] == [
        "text/plain",
        "message/global-delivery-status",
        "message/global-headers",
    ]
    text = content.decode("utf-8")
    assert "\r\nTo: <zoë@example.org>\r\n" in text
    assert "\r\nFinal-Recipient: utf-8; jörg@example.net\r\n" in text
    assert text.endswith("\r\n\r\nSubject: Grüße\r\n\r\n--0123456789abcdef--\r\n")


def test_a_report_of_the_international_kind_returns_no_message_of_another_kind() -> None:
    joerg = dataclasses.replace(BOB, address="jörg@example.net".encode())
    report = parsed(composed(dataclasses.replace(REFUSED, ret=b"FULL", concerned=(joerg,))))
    assert parts(report)[2].get_content_type() == "message/global-headers"


def test_a_report_on_mail_with_the_null_reverse_path_names_no_addressee() -> None:
    report = parsed(composed(dataclasses.replace(REFUSED, sender=b"")))
    assert report["To"] == "undisclosed-recipients:;"


def test_a_report_on_a_setup_fault_is_text_alone_with_the_fix() -> None:
    report = parsed(composed(HOST_KEY, b""))
    assert report.get_content_type() == "text/plain"
    assert "\r\n  mailrelay trust mail.example.org\r\n" in report.get_content()
    assert "has changed" in report.get_content()


def test_an_encoded_word_in_a_subject_is_shown_as_it_was_written() -> None:
    hostile = "=?utf-8?q?=0D=0ABcc:_all=40example.net?="
    report = parsed(composed(dataclasses.replace(REFUSED, subject=hostile)))
    assert str(report["Subject"]).endswith(hostile)


def test_a_boundary_that_the_outside_knew_is_not_used() -> None:
    with pytest.raises(ValueError, match="boundary"):
        composed(REFUSED, b"Subject: x\r\n--0123456789abcdef--\r\n\r\n")


def test_a_thousand_recipients_are_all_in_the_fields_and_not_all_in_the_text() -> None:
    many = tuple(dataclasses.replace(BOB, address=b"u%d@example.net" % number) for number in range(1000))
    report = parsed(composed(dataclasses.replace(REFUSED, concerned=many)))
    assert len(fields(report)) == 1001
    assert "and 950 more" in parts(report)[0].get_content()


def test_a_report_on_a_setup_fault_has_each_field_on_a_line_of_its_own() -> None:
    head, _, text = composed(dataclasses.replace(HOST_KEY, sender=b"me@example.org"), b"").partition(b"\r\n\r\n")
    assert [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))] == [
        b"From",
        b"To",
        b"Subject",
        b"Date",
        b"Message-ID",
        b"Auto-Submitted",
        b"MIME-Version",
        b"Content-Type",
    ]
    assert text.startswith(b"Mail cannot be sent through default.")
    assert text.endswith(b"\r\n")


JOERG = dataclasses.replace(BOB, address="jörg@example.net".encode())


@pytest.mark.parametrize("concerned", [BOB, JOERG], ids=["7-bit", "international"])
@pytest.mark.parametrize("char", ["x", "ü", "\x1b"])
def test_no_line_of_a_report_is_longer_than_998_octets(concerned: Concerned, char: str) -> None:
    long = dataclasses.replace(concerned, description=b"550 " + b"y" * 3000, orcpt=b"rfc822;" + b"z" * 3000)
    notice = dataclasses.replace(REFUSED, concerned=(long,), envid=b"e" * 3000, subject=char * 3000, size=10**6)
    content = composed(notice, f"Subject: {char * 3000}\r\nX-A: b\r\n\r\nbody\r\n".encode())
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert b"X-A: b\r\n" in content
    content.decode()


def test_a_header_in_a_report_of_the_international_kind_has_no_control_character_but_keeps_its_lines() -> None:
    original = b"Subject: a\r\n\tb\x1b\r\nX: \xff\r\n\r\nbody\r\n"
    content = composed(dataclasses.replace(REFUSED, concerned=(JOERG,), size=len(original)), original)
    assert content.endswith(b"\r\n\r\nSubject: a\r\n b\\x1b\r\nX: \\xff\r\n\r\n--0123456789abcdef--\r\n")


def test_spaces_in_a_reply_make_no_empty_line_in_a_report() -> None:
    said = b"550 a" + b" " * 200 + b"b" * 80 + b" c " + b"d" * 80
    content = composed(dataclasses.replace(REFUSED, concerned=(dataclasses.replace(BOB, description=said),)))
    status = content.partition(b"Diagnostic-Code: ")[2].partition(b"\r\nLast-Attempt-Date: ")[0]
    lines = status.split(b"\r\n")
    assert len(lines) > 2
    assert all(line.strip() for line in lines)
    assert all(line.startswith(b" ") for line in lines[1:])
    assert b"".join(lines) == b"smtp; " + said


@pytest.mark.parametrize(("more", "kind"), [(0, "message/rfc822"), (1, "text/rfc822-headers")])
def test_a_message_of_the_largest_size_comes_back_whole_and_one_octet_more_does_not(more: int, kind: str) -> None:
    head = b"Subject: Dinner\r\n\r\n"
    lines = b"x" * 62 + b"\r\n"
    whole = head + lines * ((MAX_RETURN - len(head)) // 64)
    whole += b"x" * (MAX_RETURN + more - len(whole))
    notice = dataclasses.replace(REFUSED, ret=b"full", size=len(whole))
    assert parts(parsed(composed(notice, whole)))[2].get_content_type() == kind
    # What was read is not all of the message.
    cut = dataclasses.replace(notice, size=len(whole) + 1)
    assert parts(parsed(composed(cut, whole)))[2].get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize(
    ("char", "is_returned"), [(b"\t", True), (b" ", True), (b"~", True), (b"\x7f", False), (b"\n", False)]
)
def test_only_a_message_of_plain_lines_comes_back_whole(char: bytes, is_returned: bool) -> None:
    original = b"Subject: a\r\n\r\nb" + char + b"c\r\n"
    content = composed(dataclasses.replace(REFUSED, ret=b"FULL", size=len(original)), original)
    assert (original in content) is is_returned
    long = b"Subject: a\r\n\r\n" + b"x" * (998 if is_returned else 999) + b"\r\n"
    content = composed(dataclasses.replace(REFUSED, ret=b"FULL", size=len(long)), long)
    assert (long in content) is is_returned


@pytest.mark.parametrize(
    ("orcpt", "original"),
    [
        (b"rfc822;b+40example.net", "rfc822; b@example.net"),
        (b"utf-8;b", "utf-8; b"),
        (b"x;", None),
        (b";b", None),
        (b"b", None),
        (b"rf c;b", None),
        (b"rfc822;b c", None),
        (b"r" * 33 + b";b", None),
    ],
)
def test_an_original_recipient_is_named_if_it_has_its_form(orcpt: bytes, original: str | None) -> None:
    report = parsed(composed(dataclasses.replace(REFUSED, concerned=(dataclasses.replace(BOB, orcpt=orcpt),))))
    assert fields(report)[1]["Original-Recipient"] == original


@pytest.mark.parametrize("subject", ["Dinner", "Grüße", "=?x", ""])
def test_the_subject_of_a_report_is_encoded_only_where_it_must_be(subject: str) -> None:
    content = composed(dataclasses.replace(REFUSED, subject=subject))
    assert (b"\r\nSubject: =?utf-8?" in content) is (subject in ("Grüße", "=?x"))
    expected = f"Mail to bob@example.net was refused{': ' if subject else ''}{subject}"
    assert str(parsed(content)["Subject"]) == expected


@pytest.mark.parametrize(
    ("original", "answered"),
    [
        (b"Subject: a\r\nMESSAGE-ID:<a@b>\t\r\n\r\n", "<a@b>"),
        (b"Message-ID:\r\n <a@b>\r\n\r\n", "<a@b>"),
        (b"Message-ID: \r\n\t <a@b> \r\nSubject: a\r\n\r\n", "<a@b>"),
        (b"Message-ID:\r\n<a@b>\r\n\r\n", None),
        (b"Message-ID:\r\n\r\n <a@b>\r\n", None),
        (b"Subject: a\r\n\r\nMessage-ID: <a@b>\r\n", None),
        (b"X-Message-ID: <a@b>\r\n\r\n", None),
    ],
)
def test_a_report_answers_the_message_id_of_the_header_folded_or_not(original: bytes, answered: str | None) -> None:
    report = parsed(composed(REFUSED, original))
    assert report["In-Reply-To"] == report["References"] == answered


def test_letters_outside_ascii_are_escaped_in_the_fields_of_a_7_bit_report() -> None:
    one = dataclasses.replace(BOB, description="550 ü €".encode())
    report = composed(dataclasses.replace(REFUSED, concerned=(one,)))
    assert b"\r\nDiagnostic-Code: smtp; 550 \\xfc \\u20ac\r\n" in report
    assert report.isascii()
