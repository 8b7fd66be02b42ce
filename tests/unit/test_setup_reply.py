"""Replies of real mail servers: which refuse mailrelay itself, and which refuse this mail."""

from pathlib import Path

import pytest

from mailrelay.config import Relayhost
from mailrelay.mail.outcome import SETUP_REPLIES, Cause, Outcome, Reply, Scope, Stage
from mailrelay.mail.setup_reply import cause_of, fix
from mailrelay.mail.triage import Disposition, classify, is_setup_fault

HELO, LOGIN, TLS, CLIENT, COMMAND = (
    Cause.HELO_REFUSED,
    Cause.LOGIN_WANTED,
    Cause.TLS_WANTED,
    Cause.CLIENT_REFUSED,
    Cause.COMMAND_REFUSED,
)
GREETING, EHLO, MAIL, RCPT, DATA, CONTENT = (
    Stage.GREETING,
    Stage.EHLO,
    Stage.MAIL,
    Stage.RCPT,
    Stage.DATA,
    Stage.CONTENT,
)

REFUSE_US = [
    ("Postfix", "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", RCPT, HELO),
    ("Postfix", "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", EHLO, HELO),
    ("Postfix", "501 5.5.2 <a_b>: Helo command rejected: Invalid name", RCPT, HELO),
    ("Postfix", "550 5.7.1 <laptop.local>: Helo command rejected: Host not found", RCPT, HELO),
    ("Postfix", "450 4.7.1 <laptop.local>: Helo command rejected: Host not found", RCPT, HELO),
    ("Postfix", "554 5.7.1 <localhost>: Helo command rejected: Access denied", MAIL, HELO),
    ("Postfix", "550 5.7.1 <localhost>: Helo command rejected: spammers use this name", RCPT, HELO),
    ("Postfix", "554 5.7.1 <localhost>: Helo command rejected: Relay access denied", RCPT, HELO),
    ("Postfix", "554 5.7.1 Service unavailable; Helo command [laptop.local] blocked using rhsbl.example", RCPT, HELO),
    ("Postfix", "503 5.5.1 Error: send HELO/EHLO first", MAIL, HELO),
    ("Postfix", "554 5.7.1 <localhost[127.0.0.1]>: Client host rejected: Access denied", RCPT, CLIENT),
    ("Postfix", "554 5.7.1 <localhost[127.0.0.1]>: Client host rejected: Access denied", MAIL, CLIENT),
    ("Postfix", "550 5.7.25 Client host rejected: cannot find your hostname, [127.0.0.1]", RCPT, CLIENT),
    ("Postfix", "450 4.7.25 Client host rejected: cannot find your hostname, [127.0.0.1]", RCPT, CLIENT),
    ("Postfix", "450 4.7.1 Client host rejected: cannot find your reverse hostname, [127.0.0.1]", RCPT, CLIENT),
    ("Postfix", "450 4.7.1 <unknown[127.0.0.1]>: Client host rejected: Access denied", RCPT, CLIENT),
    ("Postfix", "554 5.7.1 Service unavailable; Client host [127.0.0.1] blocked using zen.spamhaus.org", RCPT, CLIENT),
    ("Postfix", "503 5.7.0 Error: access denied for localhost[127.0.0.1]", MAIL, CLIENT),
    ("Postfix", "530 5.7.0 Must issue a STARTTLS command first", MAIL, TLS),
    ("Postfix", "450 4.7.1 Session encryption is required", RCPT, TLS),
    ("Postfix", "550 5.7.1 Session encryption is required", MAIL, TLS),
    ("Postfix", "502 5.5.1 Error: command not implemented", MAIL, COMMAND),
    ("Postfix", "500 5.5.2 Error: command not recognized", MAIL, COMMAND),
    ("Postfix postscreen", "521 5.5.1 Error: command not implemented", MAIL, COMMAND),
    ("sendmail", "503 5.0.0 Polite people say HELO first", MAIL, HELO),
    ("sendmail", "503 5.0.0 I demand that you introduce yourself first", MAIL, HELO),
    ("sendmail", "530 5.7.0 Authentication required", MAIL, LOGIN),
    ("sendmail", "503 5.7.0 Authentication required.", MAIL, LOGIN),
    ("sendmail", "550 5.7.1 not authenticated", RCPT, LOGIN),
    ("sendmail", "530 5.7.0 Must issue a STARTTLS command first", MAIL, TLS),
    ("sendmail", "501 5.0.0 EHLO requires domain address", EHLO, HELO),
    *(("various", f"{code} not with me", EHLO, HELO) for code in (501, 504, 550, 553)),
    ("sendmail", "501 Invalid domain name", EHLO, HELO),
    ("sendmail", '502 5.5.1 Command not implemented: "MAIL"', MAIL, COMMAND),
    ("sendmail", '500 5.5.1 Command unrecognized: "MAIL FROM:<>"', MAIL, COMMAND),
    ("sendmail", "503 5.0.0 Need MAIL before RCPT", RCPT, COMMAND),
    ("Exim", "550 HELO required before MAIL", MAIL, HELO),
    ("Exim", "503 HELO or EHLO required", MAIL, HELO),
    ("Exim", "550 HELO or EHLO required", MAIL, HELO),
    ("Exim", "501 Syntactically invalid EHLO argument(s)", EHLO, HELO),
    ("Exim", "550 Invalid HELO name (See RFC2821 4.1.1.1)", RCPT, HELO),
    ("Exim", "550 Helo name contains a bare IP address (HELO was [127.0.0.1])", RCPT, HELO),
    ("Exim", "550 EHLO/HELO does not contain a dotted address", RCPT, HELO),
    ("Exim", "550 Authentication required", MAIL, LOGIN),
    ("Exim", "550 Authentication required", RCPT, LOGIN),
    ("Exim", "550 A TLS encrypted connection is required", MAIL, TLS),
    ("Exim", "503 STARTTLS required before MAIL", MAIL, TLS),
    ("Exim", "550 sender IP address 127.0.0.1 is locally blacklisted here. If you think this is wrong", RCPT, CLIENT),
    ("Exim", "500 unrecognized command", MAIL, COMMAND),
    ("OpenSMTPD", "530 5.5.1 Invalid command: Must issue a STARTTLS command first", MAIL, TLS),
    ("OpenSMTPD", "530 5.5.1 Invalid command: Must issue an AUTH command first", MAIL, LOGIN),
    ("OpenSMTPD", "530 Must issue a STARTTLS command first", MAIL, TLS),
    ("OpenSMTPD", "501 5.5.1 Invalid command: Invalid domain name", EHLO, HELO),
    ("OpenSMTPD", "503 5.5.1 Invalid command: Command not allowed at this point.", MAIL, COMMAND),
    ("OpenSMTPD", "500 5.5.1 Invalid command: Command unrecognized", MAIL, COMMAND),
    ("qmail", "553 sorry, your HELO host name has been denied (#5.7.1)", MAIL, HELO),
    ("qmail", "553 sorry, your HELO/EHLO greeting is in my badhelo list (#5.7.1)", RCPT, HELO),
    ("qmail", "530 authentication required (#5.7.1)", MAIL, LOGIN),
    ("qmail", "535 authentication required (#5.7.1)", MAIL, LOGIN),
    ("qmail", "530 Authorization required (#5.7.1) ", MAIL, LOGIN),
    ("qmail", "503 authorize your mail before sending (#5.5.1)", MAIL, LOGIN),
    ("qmail", "502 unimplemented (#5.5.1)", MAIL, COMMAND),
    ("Exchange", "530 5.7.1 Client was not authenticated", MAIL, LOGIN),
    ("Exchange", "530 5.7.57 Client not authenticated to send mail. [X.prod.outlook.com]", MAIL, LOGIN),
    ("Exchange", "530 5.7.57 Client not authenticated to send mail. [X.prod.outlook.com]", CONTENT, LOGIN),
    ("Exchange", "530 5.7.0 Must issue a STARTTLS command first", MAIL, TLS),
    ("Exchange", "503 5.5.2 Send hello first", MAIL, HELO),
    ("Exchange", "501 5.5.4 Invalid domain name", EHLO, HELO),
    ("Exchange", "550 5.7.1 Client does not have permissions to submit to this server", MAIL, CLIENT),
    ("Exim, cPanel", "550 Access denied - Invalid HELO name (See RFC2821 4.1.1.1)", RCPT, HELO),
    ("Exim, cPanel", "550 SMTP AUTH is required for message submission on port 587", RCPT, LOGIN),
    ("spamdyke", "504 Refused. Authentication is required to send mail.", MAIL, LOGIN),
    ("spamdyke", "554 Refused. Your IP address is listed in the RBL at zen.spamhaus.org", RCPT, CLIENT),
    ("RFC 5248", "523 5.7.10 Encryption needed", MAIL, TLS),
    ("Haraka", "503 Use EHLO/HELO before MAIL", MAIL, HELO),
    ("Haraka", "550 Authentication required", MAIL, LOGIN),
    ("RFC 4954", "538 5.7.11 Encryption required for requested authentication mechanism", MAIL, TLS),
    ("RFC 4954", "535 5.7.8 Authentication credentials invalid", MAIL, LOGIN),
    ("RFC 7504", "521 5.3.2 this host accepts no mail", MAIL, COMMAND),
    ("Sophos", "530 5.7.0 STARTTLS is mandatory", MAIL, TLS),
    ("various", "550 Must use TLS", MAIL, TLS),
    ("various", "550 5.7.1 A TLS connection is required", MAIL, TLS),
    ("hMailServer", "530 SMTP authentication is required.", RCPT, LOGIN),
    ("osTicket's server", "550 Invalid HELO string (localhost)", RCPT, HELO),
    ("GMX", "550 5.7.1 Sorry, your helo has been denied.", RCPT, HELO),
    ("Exchange", "550 5.7.1 Unauthenticated senders not allowed", MAIL, LOGIN),
    ("various", "550 Unauthenticated connections are not accepted", MAIL, LOGIN),
    ("various", "550 5.7.1 Unencrypted connections are not accepted", MAIL, TLS),
    ("various", "554 5.7.1 Your IP 127.0.0.1 is not authorized to send mail through this server", MAIL, CLIENT),
    ("various", "550 Host [172.17.0.1] is not authorized: your host is not permitted here", MAIL, CLIENT),
    ("Postfix", "554 5.7.1 <mail.example.org[203.0.113.5]>: Client host rejected: Access denied", RCPT, CLIENT),
    (
        "Postfix",
        "554 5.7.1 <[127.0.0.1]>: Helo command rejected: use mail.example.org for these recipients",
        RCPT,
        HELO,
    ),
    ("various", "502 sorry", MAIL, COMMAND),
    ("Exim", "550 Bad HELO - Host impersonating [localhost]", RCPT, HELO),
]

REFUSE_THIS_MAIL = [
    ("sendmail", "550 5.7.1 <x@example.net>... Relaying denied", RCPT),
    ("sendmail", "550 5.7.1 <x@example.net>... Relaying denied. Proper authentication required.", RCPT),
    ("sendmail", "550 5.7.1 <x@example.net>... Relaying denied. IP name lookup failed [127.0.0.1]", RCPT),
    ("sendmail", "550 5.1.1 <x@example.net>... User unknown", RCPT),
    ("sendmail", "553 5.1.8 <a@nowhere>... Domain of sender address a@nowhere does not exist", MAIL),
    ("sendmail", "451 4.1.8 Domain of sender address a@nowhere does not resolve", MAIL),
    ("sendmail", "553 5.5.4 <root>... Domain name required for sender address root", MAIL),
    ("sendmail", "550 5.7.1 <a@example.org>... Access denied", MAIL),
    ("sendmail", "550 5.7.1 Access denied", MAIL),
    ("sendmail", "452 4.5.3 Too many recipients", RCPT),
    ("Postfix", "554 5.7.1 <x@example.net>: Relay access denied", RCPT),
    ("Postfix", "454 4.7.1 <x@example.net>: Relay access denied", RCPT),
    ("Postfix", "550 5.7.1 <a@example.org>: Sender address rejected: Access denied", RCPT),
    ("Postfix", "553 5.7.1 <a@example.org>: Sender address rejected: not logged in", RCPT),
    ("Postfix", "450 4.1.8 <a@nowhere>: Sender address rejected: Domain not found", RCPT),
    ("Postfix", "504 5.5.2 <root>: Sender address rejected: need fully-qualified address", RCPT),
    ("Postfix", "504 5.5.2 <root>: Recipient address rejected: need fully-qualified address", RCPT),
    ("Postfix", "550 5.1.1 <x@example.org>: Recipient address rejected: User unknown in local table", RCPT),
    ("Postfix", "450 4.2.0 <x@example.org>: Recipient address rejected: Greylisted, see http://x/", RCPT),
    ("Postfix", "450 4.7.1 <localhost[127.0.0.1]>: Client host rejected: Try again later", RCPT),
    ("Postfix", "450 4.7.1 Client host rejected: Service unavailable", RCPT),
    ("Postfix", "451 4.3.0 <laptop>: Helo command rejected: Temporary lookup failure", RCPT),
    ("Postfix", "501 5.1.7 Bad sender address syntax", MAIL),
    ("Postfix", "552 5.3.4 Message size exceeds fixed limit", MAIL),
    ("Postfix", "554 5.7.1 <starttls@example.net>: Relay access denied", RCPT),
    ("Postfix", "550 5.1.1 <helo@example.net>: user unknown", RCPT),
    ("Postfix", "554 5.5.1 Error: no valid recipients", DATA),
    ("Postfix", "451 4.3.5 Server configuration problem", RCPT),
    ("Exim", "501 <root>: sender address must contain a domain", MAIL),
    ("Exim", "550 relay not permitted", RCPT),
    ("Exim", "550 relay not permitted, authentication required", RCPT),
    ("Exim", "550 Sender verify failed", RCPT),
    ("Exim", "550 Administrative prohibition", RCPT),
    ("Exim", "550 [SPF] 127.0.0.1 is not allowed to send mail from example.org.", RCPT),
    ("Exim", "550 Rejected for too many bad recipients", RCPT),
    ("OpenSMTPD", "550 Invalid recipient: <tls@example.net>", RCPT),
    ("qmail", "553 sorry, your envelope sender has been denied (#5.7.1)", MAIL),
    ("qmail", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", RCPT),
    ("Exchange", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", CONTENT),
    ("Exchange", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", RCPT),
    ("Exchange", "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", RCPT),
    ("Exchange", "550 5.7.133 authentication required; the sender was not authenticated for this group", RCPT),
    ("Exim, cPanel", "550 Please turn on SMTP Authentication; not permitted to relay through this server", RCPT),
    ("spamdyke", "554 Refused. Sending to remote addresses (relaying) is not allowed.", RCPT),
    ("a mail server", "550 5.7.1 Access denied", EHLO),
    ("Haraka", "550 I cannot deliver mail for <x@example.net>", RCPT),
    (
        "Google",
        "550 5.7.26 Unauthenticated email from example.org is not accepted due to domain's DMARC policy",
        CONTENT,
    ),
    ("Outlook", "550 5.7.515 Access denied, sending domain example.org doesn't meet the required authentication", RCPT),
    ("a filter", "554 5.7.1 This message has an encrypted attachment; please use another way", CONTENT),
    ("a filter", "550 5.7.1 authentication required", CONTENT),
    ("a filter", "554 5.7.1 spam", CONTENT),
    ("a filter", "550 5.7.1 SPF check failed: helo=localhost", RCPT),
    ("sendmail", "550 5.7.1 TLS required to this recipient", RCPT),
    ("various", "550 5.7.1 the recipient is required to use TLS; sending in the clear is not permitted", RCPT),
    ("various", "550 5.7.1 Message must be encrypted with PGP", RCPT),
    ("Outlook", "550 5.7.1 Service unavailable, Client host [203.0.113.9] blocked using Spamhaus", RCPT),
    ("Outlook", "550 5.7.606 Access denied, banned sending IP [203.0.113.9].", RCPT),
    ("Google", "550 5.7.26 This mail has been blocked because the sender is unauthenticated. SPF or DKIM", CONTENT),
    ("Exim, SPF", "550 127.0.0.1 is not allowed to send mail from example.org", RCPT),
    ("Exim, SPF", "550 5.7.1 127.0.0.1 is not authorized to send messages for <a@example.org>", RCPT),
    ("Exim, SPF", "550 Sender Policy Framework check failed: [127.0.0.1] is not permitted", RCPT),
    ("Exim callout", "550 Verification failed for <a@example.org> Response: 550 HELO required", RCPT),
    ("Exim callout", "550 could not complete sender verify callout: HELO rejected", RCPT),
    (
        "Postfix",
        "450 4.1.1 <x@example.net>: Recipient address rejected: unverified address: host mx.example.net[192.0.2.1] said:"
        " 550 5.7.1 Client host rejected: Access denied (in reply to RCPT TO command)",
        RCPT,
    ),
    (
        "Postfix",
        "550 5.1.0 <a@example.org>: Sender address rejected: undeliverable address: host mx.example.org said: 504 5.5.2"
        " <localhost>: Helo command rejected: need fully-qualified hostname (in reply to RCPT TO command)",
        RCPT,
    ),
    ("a proxy", "550 host mx.example.net[192.0.2.1] said: 530 5.7.0 Must issue a STARTTLS command first", RCPT),
    ("a list", "550 5.7.1 You must be authenticated to send to this list", RCPT),
    ("a list", "550 5.7.1 Mailing list requires authentication of the sender", RCPT),
    ("a list", "550 5.7.1 Only members may send; please log in first", RCPT),
    ("various", "550 You must authenticate to use From address a@example.org", RCPT),
    ("various", "550 5.7.1 mail from a@example.org requires authentication", MAIL),
    ("various", "553 Authentication is required to send mail as <a@example.org>", MAIL),
    ("various", "550 x@example.net has blocked your server", RCPT),
    ("various", "550 5.7.1 refused; please see https://example.net/auth?login=1", RCPT),
    ("various", "550 5.7.1 refused; please ask tls.example.net", RCPT),
    ("various", "550 5.7.1 refused (client=[198.51.100.7] helo=mail.example.org)", RCPT),
    ("various", "450 4.7.1 access denied for 127.0.0.1, retry in 300 seconds", RCPT),
    ("various", "550 5.7.1 Sender Authentication Required", MAIL),
    ("various", "550 STARTTLS is required for this sender", MAIL),
    ("various", "550 Your host is not allowed to send to user x", RCPT),
    ("various", "550 the user needs to log in to activate the account", RCPT),
    ("AOL", "521 AOL will not accept delivery of this message", RCPT),
    ("various", "500 5.1.1 no such user", RCPT),
    ("smtp-sink", "500 5.3.0 Error: command failed", RCPT),
    ("various", "503 5.1.1 no such user", RCPT),
    ("various", "550 what you say", MAIL),
    ("various", "599 never heard of that", DATA),
    ("various", "451 4.7.0 busy", MAIL),
    ("various", "421 4.7.0 authentication required", MAIL),
    ("various", "250 2.0.0 authentication required", MAIL),
    ("various", "550 5.7.1 the next server offers no tls", RCPT),
    ("various", "550 5.7.1 auth failed at the next server", RCPT),
    ("various", "454 4.7.0 Temporary authentication failure", MAIL),
    ("Postfix", "554 5.3.2 mx.example.org ESMTP not accepting connections", GREETING),
    ("Postfix", "421 4.7.0 localhost Error: too many connections from 127.0.0.1", GREETING),
]


def reply(line: str) -> Reply:
    code, _, text = line.partition(" ")
    return Reply(int(code), (text.encode(),))


@pytest.mark.parametrize(("server", "line", "stage", "expected"), REFUSE_US)
def test_a_reply_that_refuses_us_is_a_setup_fault_of_the_relayhost(
    server: str, line: str, stage: Stage, expected: Cause
) -> None:
    assert cause_of(stage, reply(line), accepted=False) is expected, server


@pytest.mark.parametrize(("server", "line", "stage"), REFUSE_THIS_MAIL)
def test_a_reply_that_refuses_this_mail_is_no_setup_fault(server: str, line: str, stage: Stage) -> None:
    assert cause_of(stage, reply(line), accepted=False) is None, server


@pytest.mark.parametrize(("server", "line", "stage", "expected"), REFUSE_US)
def test_a_server_that_has_just_accepted_mail_speaks_of_this_mail(
    server: str, line: str, stage: Stage, expected: Cause
) -> None:
    assert cause_of(stage, reply(line), accepted=True) is None


@pytest.mark.parametrize("cause", sorted(SETUP_REPLIES))
@pytest.mark.parametrize("stage", [GREETING, EHLO, MAIL, RCPT, DATA, CONTENT])
@pytest.mark.parametrize("code", [450, 504, 550])
def test_such_a_reply_costs_no_attempt_and_needs_the_person(cause: Cause, stage: Stage, code: int) -> None:
    outcome = Outcome(stage, Reply(code, (b"words",)), cause)
    assert (outcome.scope, classify(outcome)) == (Scope.RELAYHOST, Disposition.NOT_TRIED)
    assert is_setup_fault(outcome)


def test_every_such_cause_has_a_fix_of_its_own() -> None:
    def fixes(command: str) -> list[str]:
        relayhost = Relayhost(name="a", ssh="a", ssh_config=Path("config"), command=command)
        return [fix(cause, relayhost) for cause in SETUP_REPLIES]

    assert len(set(fixes(""))) == len(SETUP_REPLIES)
    assert all("localhost:25" in one for one in fixes(""))
    assert any("command = " in one for one in fixes(""))
    assert not any("command = " in one for one in fixes("sendmail -bs"))


@pytest.mark.parametrize(
    ("cause", "problem", "step"),
    [
        (HELO, "refuses the name laptop.example", "Set helo for this relayhost"),
        (LOGIN, "wants a login", "permit 127.0.0.1 there"),
        (TLS, "wants TLS", "smtpd_tls_security_level = may"),
        (CLIENT, "refuses connections from its own host", "permit 127.0.0.1 there"),
        (COMMAND, "does not take the commands", "Set smtp for this relayhost to a mail server that does"),
        (Cause.REPLY, "This is the reply of the mail server", "See its log"),
    ],
)
def test_each_fault_has_its_fix_and_a_command_is_offered_where_none_is_set(
    cause: Cause, problem: str, step: str
) -> None:
    through_port = Relayhost(name="home", ssh="s", ssh_config=Path("/x"), helo="laptop.example")
    by_command = Relayhost(name="home", ssh="s", ssh_config=Path("/x"), helo="laptop.example", command="/bin/m\x1b -bs")
    text, with_command = fix(cause, through_port), fix(cause, by_command)
    for one in (text, with_command):
        assert problem in one
        assert step in one
        assert one.endswith(".")
    assert f"({through_port.smtp})" in text
    assert "(/bin/m\\x1b -bs)" in with_command
    assert ('set command = "/usr/sbin/sendmail -bs"' in text) is (cause not in (HELO, Cause.REPLY))
    assert "set command" not in with_command
    # The same words but for the server and the offer.
    offer = ', or set command = "/usr/sbin/sendmail -bs" for this relayhost'
    assert text.replace(offer, "").replace(str(through_port.smtp), "") == with_command.replace("/bin/m\\x1b -bs", "")
