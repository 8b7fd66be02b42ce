"""A client's transaction: what MAIL and RCPT accept, refuse and keep."""

import pytest

from mailrelay.listener import replies
from mailrelay.listener.replies import encode, too_big
from mailrelay.listener.transaction import MAX_RECIPIENTS, IncomingTransaction
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Reply
from mailrelay.mail.send_time import SendTime

NOW = 1_800_000_000.0
LIMIT = 1_000


def begun(arg: bytes = b"FROM:<me@example.org>", owner: int | None = None) -> IncomingTransaction:
    transaction = IncomingTransaction(owner)
    assert transaction.mail(arg, LIMIT, NOW) is replies.SENDER_OK
    return transaction


def test_a_sender_without_parameters_has_the_defaults() -> None:
    transaction = begun(b"from:<me@example.org>")
    assert transaction.rcpt(b"to:<you@example.net>") is replies.RECIPIENT_OK
    assert transaction.to_envelope() == Envelope(
        b"me@example.org", (Recipient(b"you@example.net", b"", b""),), b"7BIT", False, b"", b""
    )
    assert (transaction.mail_from, transaction.mail_options) == ("me@example.org", [])
    assert transaction.rcpt_tos == ["you@example.net"]
    assert (transaction.probe_seconds, transaction.incoming) == (0, None)


def test_the_parameters_of_a_sender_and_of_recipients_are_kept() -> None:
    transaction = begun(
        "FROM:<mé@example.org> SMTPUTF8 SIZE=1000 body=8bitmime RET=hdrs ENVID=a+2Bb HOLDFOR=5".encode(), owner=7
    )
    for arg in (
        "TO:<first@example.net>",
        "TO:<you@example.net> NOTIFY=NEVER ORCPT=utf-8;yöu@example.net",
        "TO:<yöu@example.net> NOTIFY=success ORCPT=rfc822;a",
    ):
        assert transaction.rcpt(arg.encode()) is replies.RECIPIENT_OK
    before = Recipient(b"first@example.net")
    first = Recipient(b"you@example.net", b"NEVER", "utf-8;yöu@example.net".encode())
    second = Recipient("yöu@example.net".encode(), b"success", b"rfc822;a")
    envelope = transaction.to_envelope()
    assert envelope == Envelope(
        *("mé@example.org".encode(), (before, first, second), b"8BITMIME", True, b"HDRS", b"a+2Bb"),
        send_time=SendTime(NOW + 5, by_clock=False),
        owner=7,
    )
    assert transaction.envelope_of_last_recipient().recipients == (second,)
    assert transaction.mail_from == "mé@example.org"
    assert transaction.mail_options[:2] == ["SMTPUTF8", "SIZE=1000"]
    transaction.remove_last_recipient()
    assert transaction.to_envelope().recipients == (before, first)
    assert transaction.rcpt_tos == ["first@example.net", "you@example.net"]


@pytest.mark.parametrize(
    ("arg", "refusal"),
    [
        (b"", replies.MAIL_SYNTAX),
        (b"FROM", replies.MAIL_SYNTAX),
        (b"FROM <a@b>", replies.MAIL_SYNTAX),
        (b"<a@b>", replies.MAIL_SYNTAX),
        (b"FROM:", b"553 5.1.7 "),
        (b"FROM:<a@>", b"553 5.1.7 "),
        (b"FROM:<a@b> SIZE=x", b"501 5.5.4 SIZE"),
        (b"FROM:<a@b> BODY=BINARYMIME", b"501 5.5.4 BODY"),
        (b"FROM:<a@b> RET=x", b"501 5.5.4 RET"),
        (b"FROM:<a@b> ENVID=+", b"501 5.5.4 ENVID"),
        (b"FROM:<a@b> SMTPUTF8=x", b"501 5.5.4 SMTPUTF8"),
        (b"FROM:<a@b> HOLDFOR=0", b"501 5.5.4 HOLDFOR"),
        (b"FROM:<a@b> HOLDUNTIL=0", b"501 5.5.4 HOLDUNTIL"),
        (b"FROM:<a@b> HOLDFOR=1 HOLDUNTIL=2030-12-31T08:00:00Z", b"501 5.5.4 HOLDFOR and HOLDUNTIL"),
        (b"FROM:<a@b> NOTIFY=NEVER", replies.UNKNOWN_PARAMETER),
        (b"FROM:<a@b> AUTH=<>", replies.UNKNOWN_PARAMETER),
        ("FROM:<ä@b> BODY=8BITMIME".encode(), replies.NEEDS_SMTPUTF8),
        (b"FROM:<a@b> SIZE=1001", too_big(LIMIT)),
    ],
)
def test_a_mail_that_is_refused_leaves_no_transaction(arg: bytes, refusal: Reply | bytes) -> None:
    transaction = IncomingTransaction()
    transaction.is_data_refused = True
    reply = transaction.mail(arg, LIMIT, NOW)
    assert reply == refusal if isinstance(refusal, Reply) else encode(reply).startswith(refusal)
    assert (transaction.sender, transaction.body, transaction.ret, transaction.envid) == (None, b"7BIT", b"", b"")
    assert (transaction.send_time, transaction.smtp_utf8, transaction.is_data_refused) == (None, False, True)
    assert transaction.rcpt(b"TO:<a@b>") is replies.MAIL_FIRST
    for envelope in (transaction.to_envelope, transaction.envelope_of_last_recipient):
        with pytest.raises(ValueError, match="no transaction"):
            envelope()
    # The next one starts afresh.
    assert transaction.mail(b"FROM:<>", LIMIT, NOW) is replies.SENDER_OK
    assert (transaction.sender, transaction.is_data_refused) == (b"", False)


def test_a_second_mail_is_refused_and_the_first_one_stays() -> None:
    transaction = begun(b"FROM:<> RET=FULL")
    assert transaction.mail(b"FROM:<other@example.org>", LIMIT, NOW) is replies.NESTED_MAIL
    assert (transaction.sender, transaction.ret) == (b"", b"FULL")


def test_the_auth_parameter_is_ignored_where_there_is_a_login() -> None:
    transaction = IncomingTransaction()
    assert transaction.mail(b"FROM:<a@b> AUTH=<>", LIMIT, NOW, has_auth=True) is replies.SENDER_OK
    assert IncomingTransaction().mail(b"FROM:<a@b>", LIMIT, NOW, has_auth=True) is replies.SENDER_OK


@pytest.mark.parametrize(
    ("arg", "refusal"),
    [
        (b"", replies.RCPT_SYNTAX),
        (b"TO", replies.RCPT_SYNTAX),
        (b"TO <a@b>", replies.RCPT_SYNTAX),
        (b"TO:", b"553 5.1.3 "),
        (b"TO:<>", b"553 5.1.3 "),
        (b"TO:<a@b> NOTIFY=x", b"501 5.5.4 NOTIFY"),
        (b"TO:<a@b> ORCPT=x", b"501 5.5.4 ORCPT"),
        ("TO:<a@b> ORCPT=utf-8;ö".encode(), b"501 5.5.4 ORCPT"),
        (b"TO:<a@b> RET=FULL", replies.UNKNOWN_PARAMETER),
        ("TO:<ä@b>".encode(), replies.NEEDS_SMTPUTF8),
    ],
)
def test_a_recipient_that_is_refused_is_not_in_the_envelope(arg: bytes, refusal: Reply | bytes) -> None:
    transaction = begun()
    reply = transaction.rcpt(arg)
    assert reply == refusal if isinstance(refusal, Reply) else encode(reply).startswith(refusal)
    assert (transaction.recipients, transaction.rcpt_tos) == ([], [])


def test_a_message_has_so_many_recipients_and_no_more() -> None:
    transaction = begun()
    for number in range(MAX_RECIPIENTS):
        assert transaction.rcpt(b"TO:<%d@example.net>" % number) is replies.RECIPIENT_OK
    assert transaction.rcpt(b"TO:<a@b>") is replies.TOO_MANY_RECIPIENTS
    assert len(transaction.to_envelope().recipients) == MAX_RECIPIENTS
