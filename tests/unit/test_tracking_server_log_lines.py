"""Single lines of the logs of mail servers: each status, symbol and address, and lines that must not count."""

import pytest

from mailrelay.tracking.server_log import MAX_LINE, read_log
from mailrelay.tracking.sighting import MAX_RECIPIENT, Seen, Sighting

POSTFIX, SENDMAIL, EXIM, OPENSMTPD = "7CB7527E979", "6ASAlQ6Z000317", "1xXG0k-000024-2n", "14970b17"
IDS = (POSTFIX, SENDMAIL, EXIM, OPENSMTPD)
SYSLOG = b"Nov 28 10:50:22 mx %b[1]: "
POSTFIX_LINE = SYSLOG % b"postfix/smtp" + POSTFIX.encode() + b": to=<bob@far.example>, relay=%b, delay=0.01, "
POSTFIX_LINE += b"delays=0/0/0/0, dsn=%b.0.0, status=%b (%b)"
SENDMAIL_LINE = SYSLOG % b"sendmail" + SENDMAIL.encode() + b": to=%b, delay=00:00:00, mailer=relay, pri=1, relay=%b"
SENDMAIL_LINE += b", dsn=%b.0.0, %b"
EXIM_STAMP = b"2026-11-28 10:50:30 "
EXIM_LINE = EXIM_STAMP + EXIM.encode() + b" %b bob@far.example R=out T=out%b"
OPENSMTPD_LINE = (
    SYSLOG % b"smtpd" + b"3ff61342c74b99c5 mta delivery evpid=" + OPENSMTPD.encode() + b"e1c4eb26 from=<a@b> "
)
OPENSMTPD_LINE += b'to=<bob@far.example> rcpt=<%b> source="192.0.2.1"%b delay=0s result="%b" stat="%b"'


def only(line: bytes, ids: tuple[str, ...] = IDS) -> Sighting:
    (sighting,) = read_log(line, ids).sightings
    return sighting


@pytest.mark.parametrize(
    ("status", "seen"),
    [(b"sent", Seen.DELIVERED), (b"deferred", Seen.DEFERRED), (b"bounced", Seen.BOUNCED), (b"expired", Seen.BOUNCED)],
)
def test_each_status_of_postfix(status: bytes, seen: Seen) -> None:
    line = POSTFIX_LINE % (b"mx.far.example[192.0.2.9]:25", b"2", status, b"250 2.0.0 words")
    assert only(line) == Sighting(
        POSTFIX, b"bob@far.example", seen, b"250 2.0.0 words", by=b"mx.far.example[192.0.2.9]:25"
    )


@pytest.mark.parametrize("status", [b"undeliverable", b"deliverable", b"x"])
def test_another_status_of_postfix_does_not_count(status: bytes) -> None:
    assert read_log(POSTFIX_LINE % (b"none", b"2", status, b"words"), IDS).sightings == ()


@pytest.mark.parametrize(
    ("symbol", "rest", "seen", "words"),
    [
        (b"=>", b' H=mx.far.example [192.0.2.9] C="250 \\"ok\\""', Seen.DELIVERED, b'250 "ok"'),
        (b"->", b" H=mx.far.example [192.0.2.9]", Seen.DELIVERED, b"delivered"),
        (b">>", b" H=mx.far.example [192.0.2.9]", Seen.DELIVERED, b"delivered"),
        (b"==", b" defer (-44) H=mx.far.example [192.0.2.9]: a\\nb", Seen.DEFERRED, b"a b"),
        (b"**", b" H=mx.far.example [192.0.2.9]: Unrouteable address", Seen.BOUNCED, b"Unrouteable address"),
        (b"**", b" H=mx.far.example [192.0.2.9]", Seen.BOUNCED, b"R=out T=out H=mx.far.example [192.0.2.9]"),
    ],
)
def test_each_symbol_of_exim(symbol: bytes, rest: bytes, seen: Seen, words: bytes) -> None:
    found = only(EXIM_LINE % (symbol, rest))
    assert found == Sighting(EXIM, b"bob@far.example", seen, words, by=b"mx.far.example [192.0.2.9]")


@pytest.mark.parametrize(
    ("host", "by"),
    [(b"", b""), (b" H=mx.far.example", b"mx.far.example"), (b" H=x [192.0.2.9]", b"x [192.0.2.9]")],
)
def test_the_host_of_exim_may_have_no_address_and_be_missing(host: bytes, by: bytes) -> None:
    assert only(EXIM_LINE % (b"=>", host)).by == by


@pytest.mark.parametrize(
    ("addresses", "recipient", "final"),
    [
        (b"bob@far.example", b"bob@far.example", b""),
        (b"bob@far.example <bob@far.example>", b"bob@far.example", b""),
        (b"bob@far.example <team@mx.example>", b"team@mx.example", b"bob@far.example"),
        (b'a b@far.example <"a b"@far.example>', b'"a b"@far.example', b"a b@far.example"),
        (b'a"b@far.example <"a\\"b"@far.example>', b'"a\\"b"@far.example', b'a"b@far.example'),
        (b'a "b@far.example <"a \\"b"@far.example>', b'"a \\"b"@far.example', b'a "b@far.example'),
        (b'bob@far.example <"a b"@mx.example>', b'"a b"@mx.example', b"bob@far.example"),
    ],
)
def test_the_addresses_of_exim(addresses: bytes, recipient: bytes, final: bytes) -> None:
    found = only(EXIM_STAMP + EXIM.encode() + b" => " + addresses + b" R=out T=out")
    assert (found.recipient, found.final) == (recipient, final)


@pytest.mark.parametrize(
    "addresses",
    [
        b"a b@far.example",
        b"a b@far.example <bob@far.example>",
        b'a b@far.example <"c d"@far.example>',
        b'a"b@far.example',
    ],
)
def test_an_address_of_exim_that_may_be_two_does_not_count(addresses: bytes) -> None:
    assert read_log(EXIM_STAMP + EXIM.encode() + b" => " + addresses + b" R=out T=out", IDS).sightings == ()


@pytest.mark.parametrize(
    ("stamp", "counts"),
    [
        (b"2026-11-28 10:50:30 ", True),
        (b"2026-11-28 10:50:30.123 +0100 [81] ", True),
        (b"Nov 28 10:50:30 mx exim[81]: ", True),
        (b"Nov 28 10:50:30 mx exim[81]: 2026-11-28 10:50:30 ", True),
        (b"Nov 28 10:50:30 mx exim[81]: 2026-11-28 10:50:30 2026-11-28 10:50:30 ", False),
        (b"2026-11-28 10:50:30 2026-11-28 10:50:30 ", False),
        (b"Nov 28 10:50:30 mx other[81]: ", False),
        (b"", False),
        (b"x 2026-11-28 10:50:30 ", False),
    ],
)
def test_a_line_of_exim_has_one_time_of_its_own_at_most(stamp: bytes, counts: bool) -> None:
    line = stamp + EXIM.encode() + b" => bob@far.example R=out T=out"
    assert len(read_log(line, IDS).sightings) == counts


@pytest.mark.parametrize(
    ("result", "seen"),
    [(b"Ok", Seen.DELIVERED), (b"TempFail", Seen.DEFERRED), (b"PermFail", Seen.BOUNCED), (b"Expired", Seen.BOUNCED)],
)
def test_each_result_of_opensmtpd(result: bytes, seen: Seen) -> None:
    found = only(OPENSMTPD_LINE % (b"-", b' relay="192.0.2.9 (mx)"', result, b"250 words"))
    assert found == Sighting(OPENSMTPD, b"bob@far.example", seen, b"250 words", by=b"192.0.2.9 (mx)")
    without_relay = only(OPENSMTPD_LINE % (b"team@mx.example", b"", result, b"words"))
    assert without_relay == Sighting(OPENSMTPD, b"team@mx.example", seen, b"words", final=b"bob@far.example")


@pytest.mark.parametrize(
    ("digit", "rest", "seen", "words"),
    [
        (b"2", b"stat=Sent (ok then)", Seen.DELIVERED, b"ok then"),
        (b"2", b"stat=Sent", Seen.DELIVERED, b"Sent"),
        (b"4", b"stat=Deferred: later", Seen.DEFERRED, b"later"),
        (b"4", b"reply=451 no, stat=Deferred: later", Seen.DEFERRED, b"451 no"),
        (b"5", b"stat=User unknown", Seen.BOUNCED, b"User unknown"),
        (b"5", b"reply=550 no, stat=User unknown", Seen.BOUNCED, b"550 no"),
    ],
)
def test_each_class_of_dsn_of_sendmail(digit: bytes, rest: bytes, seen: Seen, words: bytes) -> None:
    found = only(SENDMAIL_LINE % (b"<bob@far.example>", b"mx.far.example. [192.0.2.9]", digit, rest))
    assert found == Sighting(SENDMAIL, b"bob@far.example", seen, words, by=b"mx.far.example. [192.0.2.9]")


@pytest.mark.parametrize("rest", [b"stat=Sending", b"stat=Deferred: x", b"reply=250 x, stat=Sent (x)"])
def test_sendmail_has_delivered_only_what_it_calls_sent(rest: bytes) -> None:
    assert read_log(SENDMAIL_LINE % (b"<bob@far.example>", b"x", b"2", rest), IDS).sightings == ()


@pytest.mark.parametrize("final", [b'"|/usr/bin/filter x"', b"|filter", b"/var/mail/x", b'"/var/mail/x y"'])
def test_a_program_or_file_of_sendmail_is_about_its_controlling_address(final: bytes) -> None:
    # Sendmail leaves relay= out for a program.
    line = SYSLOG % b"sendmail" + SENDMAIL.encode() + b": to=" + final
    after = b", delay=00:00:00, mailer=prog, dsn=2.0.0, stat=Sent"
    assert only(line + b", ctladdr=<me@mx.example> (0/0)" + after) == Sighting(
        SENDMAIL, b"me@mx.example", Seen.DELIVERED, b"Sent", final=final
    )
    assert only(line + b", ctladdr=me@mx.example" + after).recipient == b"me@mx.example"
    assert only(line + after).recipient == final


def test_a_mailbox_of_sendmail_is_about_itself() -> None:
    line = SYSLOG % b"sendmail" + SENDMAIL.encode() + b": to=<bob@far.example>,eve@far.example, ctladdr=<me@mx.example>"
    found = read_log(line + b", delay=00:00:00, mailer=relay, dsn=2.0.0, stat=Sent", IDS).sightings
    assert [(one.recipient, one.final) for one in found] == [(b"bob@far.example", b""), (b"eve@far.example", b"")]


@pytest.mark.parametrize(
    ("line", "removed"),
    [
        (SYSLOG % b"postfix/qmgr" + POSTFIX.encode() + b": removed", POSTFIX),
        (SYSLOG % b"postfix-out/qmgr" + POSTFIX.encode() + b": removed", POSTFIX),
        (SYSLOG % b"postfix/smtp" + POSTFIX.encode() + b": removed", None),
        (SYSLOG % b"postfix/qmgr" + POSTFIX.encode() + b": removed by", None),
        (SYSLOG % b"postfix/qmgr" + b"AAAAAAAAAAA: removed", None),
        (SYSLOG % b"sendmail" + SENDMAIL.encode() + b": done; delay=00:00:01, ntries=1", SENDMAIL),
        (SYSLOG % b"sendmail" + b"6ASAlQ6Z000999: done; delay=00:00:01, ntries=1", None),
        (SYSLOG % b"sshd" + SENDMAIL.encode() + b": done; delay=00:00:01, ntries=1", None),
        (EXIM_STAMP + EXIM.encode() + b" Completed", EXIM),
        (EXIM_STAMP + EXIM.encode() + b" Completed QT=3s", EXIM),
        (EXIM_STAMP + EXIM.encode() + b" Completed x", None),
        (EXIM_STAMP + b"1xXG0k-000024-99 Completed", None),
    ],
)
def test_the_end_of_a_message_is_that_of_its_queue_id(line: bytes, removed: str | None) -> None:
    found = read_log(line, IDS)
    assert (found.sightings, found.removed) == ((), frozenset({removed} - {None}))


DELIVERIES = (
    POSTFIX_LINE % (b"none", b"2", b"sent", b"x"),
    SENDMAIL_LINE % (b"<bob@far.example>", b"x", b"2", b"stat=Sent"),
    EXIM_LINE % (b"=>", b""),
    OPENSMTPD_LINE % (b"-", b"", b"Ok", b"x"),
)


@pytest.mark.parametrize("line", DELIVERIES, ids=["postfix", "sendmail", "exim", "opensmtpd"])
def test_a_line_counts_for_the_wanted_ids_only_whatever_its_line_end(line: bytes) -> None:
    found = read_log(line, IDS)
    assert len(found.sightings) == 1
    assert read_log(b"\n" + line + b"\r\n\n", IDS) == found
    assert read_log(line, ()).sightings == ()
    assert read_log(line, ["not safe; \u00e9"]).sightings == ()
    assert read_log(line + b"\n" + line, IDS).sightings == found.sightings * 2


def test_a_line_that_is_too_long_is_passed_over_and_the_next_one_counts() -> None:
    line = POSTFIX_LINE % (b"none", b"4", b"deferred", b"%b")
    longest = line % (b"x" * (MAX_LINE - len(line) + 2))
    assert len(longest) == MAX_LINE
    assert len(read_log(longest, IDS).sightings) == 1
    assert len(read_log(longest + b"x\n" + EXIM_LINE % (b"=>", b""), IDS).sightings) == 1


def test_addresses_and_names_are_bounded() -> None:
    local = b"x" * (MAX_RECIPIENT - len(b"@mx.example"))
    addresses = b"<%b@mx.example>,<%bx@mx.example>" % (local, local)
    longest, longer = read_log(SENDMAIL_LINE % (addresses, b"r" * 300, b"4", b"stat=x"), IDS).sightings
    assert (longest.recipient, longest.final, len(longest.by)) == (local + b"@mx.example", b"", 300)
    assert (longer.recipient, longer.final) == (local + b"x@mx.exampl", b"")
    original = EXIM_STAMP + EXIM.encode() + b" => %bx@far.example <%bx@mx.example> R=out H=%b [192.0.2.9]"
    found = only(original % (local, local, b"h" * 255))
    assert (found.recipient, found.final) == (local + b"x@mx.exampl", local + b"x@far.examp")
    name = b"n" * 300
    found = only(OPENSMTPD_LINE % (b"-", b' relay="' + name + b'"', b"Ok", b"x"))
    assert found.by == name


TAKEN = b"2.0.0 Ok: queued as 6076427E9A1"


@pytest.mark.parametrize(
    ("relay", "words", "next_id"),
    [
        (b"localhost[127.0.0.1]:10025", b"250 " + TAKEN, "6076427E9A1"),
        (b"localhost[127.9.8.7]:10025", b"250-" + TAKEN, "6076427E9A1"),
        (b"localhost[::1]:10025", TAKEN, "6076427E9A1"),
        (b"localhost[IPv6:::1]", TAKEN, "6076427E9A1"),
        (b"127.0.0.1", TAKEN, "6076427E9A1"),
        (b"127.0.0.1 (localhost)", TAKEN, "6076427E9A1"),
        (b"::1 (localhost)", TAKEN, "6076427E9A1"),
        (b"localhost[127.0.0.1]", b"250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 " + TAKEN, "6076427E9A1"),
        (b"localhost[127.0.0.1]", b"250 OK id=1xXG0l-00002p-0j", "1xXG0l-00002p-0j"),
        # Our own id again, an id in the words of no known server, none, another code, a distant server.
        (b"localhost[127.0.0.1]", b"250 2.0.0 Ok: queued as " + POSTFIX.encode(), ""),
        (b"localhost[127.0.0.1]", b"250 thanks, queued as 6076427E9A1", ""),
        (b"localhost[127.0.0.1]", b"250 2.0.0 taken", ""),
        (b"localhost[127.0.0.1]", b"450 " + TAKEN, ""),
        (b"localhost[128.0.0.1]", b"250 " + TAKEN, ""),
        (b"localhost[::2]", b"250 " + TAKEN, ""),
        (b"127.far.example[192.0.2.1]", b"250 " + TAKEN, ""),
        (b"localhost", b"250 " + TAKEN, ""),
    ],
)
def test_a_message_is_followed_by_the_id_that_a_server_on_the_same_host_names(
    relay: bytes, words: bytes, next_id: str
) -> None:
    found = only(POSTFIX_LINE % (relay, b"2", b"sent", words))
    assert (found.seen, found.next_id) == (Seen.HANDED_ON if next_id else Seen.DELIVERED, next_id)
    assert found.words == words


@pytest.mark.parametrize("status", [b"deferred", b"bounced"])
def test_what_was_not_delivered_is_not_handed_on(status: bytes) -> None:
    found = only(POSTFIX_LINE % (b"localhost[127.0.0.1]", b"4", status, b"250 " + TAKEN))
    assert (found.seen is not Seen.HANDED_ON, found.next_id) == (True, "")
