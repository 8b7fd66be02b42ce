"""Lines of the logs of four real mail servers, in the forms of syslog, the journal and files of their own."""

import pytest
from harness.tracking_samples import IDS, sample

from mailrelay.tracking.server_log import read_log
from mailrelay.tracking.sighting import Seen

SAID = {
    b"ok1@far.example": (Seen.DELIVERED, b'2.0.0 Ok: queued as "4cXYZ" (1/2) by next.example'),
    b"grey1@far.example": (Seen.DEFERRED, b"451 4.7.1 <grey1@far.example>: Greylisted"),
    b"bad1@far.example": (Seen.BOUNCED, b"550-5.1.1 <bad1@far.example> No such user here"),
}


@pytest.mark.parametrize("server", IDS)
def test_each_recipient_has_the_words_of_the_next_server(server: str) -> None:
    seen = {one.recipient: one for one in read_log(sample(f"{server}.log"), IDS[server][:1]).sightings}
    assert set(seen) == set(SAID)
    for recipient, (state, words) in SAID.items():
        assert seen[recipient].seen is state
        assert words in seen[recipient].words
        assert b"127.0.0.1" in seen[recipient].by


@pytest.mark.parametrize("server", IDS)
def test_other_ids_are_passed_over(server: str) -> None:
    assert read_log(sample(f"{server}.log"), ["AAAAAAAA012345"]).sightings == ()


@pytest.mark.parametrize("server", ["postfix", "exim"])
def test_an_alias_is_followed_by_its_original_address(server: str) -> None:
    found = {one.final: one for one in read_log(sample(f"{server}.log"), IDS[server]).sightings if one.final}
    assert found[b"ok7@far.example"].recipient == b"team@mx.example"


def test_a_program_of_sendmail_is_followed_by_its_controlling_address() -> None:
    found = read_log(sample("sendmail.log"), IDS["sendmail"][1:2]).sightings
    assert (found[0].recipient, found[0].seen, found[0].final) == (
        b"me@mx.example",
        Seen.DELIVERED,
        b'"|/tmp/tpk/sm/deliver me"',
    )


@pytest.mark.parametrize("server", ["sendmail", "postfix", "exim"])
def test_quoted_local_parts_are_addresses(server: str) -> None:
    found = {one.recipient: one.seen for one in read_log(sample(f"{server}.log"), IDS[server][2:3]).sightings}
    assert found == {b"ok9@far.example": Seen.DEFERRED, b'"sp ace"@far.example': Seen.DEFERRED}


def test_the_end_of_a_message_is_found() -> None:
    assert read_log(sample("postfix.log"), IDS["postfix"]).removed == {"7CB7527E979"}
    assert read_log(sample("exim.log"), IDS["exim"]).removed == {"1xXG0l-00003Y-1y"}


@pytest.mark.parametrize(
    "stamp",
    [
        b"2026-11-28T10:50:22.123456+00:00 mx",
        b"2026-11-28T10:50:22Z mx.example.org",
        b"2026-11-28T10:50:22+0000 mx",
        b"1795863022.435666 mx",
        b"Sat 2026-11-28 10:50:22 UTC mx",
        b"Nov  8 10:50:22.435666 mx",
    ],
)
@pytest.mark.parametrize("server", ["sendmail", "postfix", "opensmtpd"])
def test_every_form_of_syslog_and_the_journal_is_read(server: str, stamp: bytes) -> None:
    text = sample(f"{server}.log")
    other = b"".join(stamp + line[18:] for line in text.splitlines(keepends=True))
    assert text[15:18] == b" mx"
    assert read_log(other, IDS[server]) == read_log(text, IDS[server])


def test_exim_through_syslog_is_read() -> None:
    text = sample("exim.log")
    other = b"".join(b"Nov 28 10:50:30 mx exim[81]: " + line for line in text.splitlines(keepends=True))
    assert read_log(other, IDS["exim"]) == read_log(text, IDS["exim"])


SENDMAIL = (
    b"Nov 28 10:47:26 mx sendmail[319]: 6ASAlQ6Z000317: to=<ok3@far.example>, delay=00:00:00, mailer=relay, pri=30114"
)
POSTFIX = (
    b"Nov 28 10:50:22 mx postfix/smtp[127]: 7CB7527E979: to=<ok3@far.example>, relay=%b, delay=0.01, delays=0/0/0/0"
)


@pytest.mark.parametrize(
    ("line", "next_id"),
    [
        (
            SENDMAIL + b", relay=[127.0.0.1] [127.0.0.1], dsn=2.0.0, "
            b"stat=Sent (6ASAlQ6Z000999 Message accepted for delivery)\n",
            "6ASAlQ6Z000999",
        ),
        (
            POSTFIX % b"127.0.0.1[127.0.0.1]:10024" + b", dsn=2.0.0, status=sent "
            b"(250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 6076427E9A1)\n",
            "6076427E9A1",
        ),
        (
            POSTFIX % b"localhost[::1]:10025" + b", dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 6076427E9A1)\n",
            "6076427E9A1",
        ),
    ],
)
def test_a_server_on_the_same_host_has_the_message_now(line: bytes, next_id: str) -> None:
    (found,) = read_log(line, ["6ASAlQ6Z000317", "7CB7527E979"]).sightings
    assert (found.seen, found.next_id) == (Seen.HANDED_ON, next_id)


def test_an_id_that_a_distant_server_names_is_its_own() -> None:
    sendmail = (
        SENDMAIL
        + b", relay=mx.far.example. [192.0.2.1], dsn=2.0.0, stat=Sent (6ASAlQ6Z000999 Message accepted for delivery)\n"
    )
    postfix = (
        POSTFIX % b"[127.0.0.1][192.0.2.1]:25" + b", dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 6076427E9A1)\n"
    )
    for line in (sendmail, postfix):
        (found,) = read_log(line, ["6ASAlQ6Z000317", "7CB7527E979"]).sightings
        assert (found.seen, found.next_id) == (Seen.DELIVERED, "")


def test_what_another_program_logs_is_no_line_of_the_mail_server() -> None:
    line = sample("sendmail.log").splitlines()[3]
    assert b"stat=Sent" in line
    for program in (b"sshd[1]", b"sendmailx[1]", b"x: sendmail[1]"):
        assert read_log(line.replace(b"sendmail[226]", program), IDS["sendmail"]).sightings == ()
