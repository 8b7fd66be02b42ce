"""The person learns of every failure and delay: refusals, deferrals and broken connections, with real servers."""

import json
import re
from collections.abc import Callable
from email import message_from_bytes, message_from_string
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.mail_clients import message, submit, swaks
from harness.mailboxes import DOMAIN
from harness.postfix import Postfix, Sink
from harness.processes import free_port, until
from harness.sendmail import Sendmail
from harness.sshd import Sshd, make_key

pytestmark = pytest.mark.system

NOBODY = f"nobody-here@{DOMAIN}"
ALICE = f"alice@{DOMAIN}"


def test_every_backend_reports_a_refused_recipient_and_the_other_recipient_gets_the_mail(
    sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(sendmail.port)
    relay.start()
    said = swaks(relay.port, [ALICE, NOBODY], token)
    assert said.returncode == 0, said.stdout
    sendmail.boxes.wait("alice", token)

    assert relay.states() == {ALICE: "sent", NOBODY: "bounced"}
    (failed,) = relay.queue()
    recipient = next(one for one in failed["recipients"] if one["address"] == NOBODY)
    assert failed["queue_name"] == "failed"
    assert recipient["status"] == "5.1.1"
    assert "User unknown" in recipient["reply"]

    status = relay.run("status", "--json")
    assert status.returncode == 2, status.stdout
    json.loads(status.stdout)

    line = relay.logged(rf"{failed['queue_id']} to=<{NOBODY}> relay=default delay=\S+ delays=\S+/\S+/\S+ dsn=5\.1\.1 ")
    assert " ERROR " in line, "who must act is told by the severity: the person"
    assert re.search(r" status=bounced \(550 5\.1\.1 .*User unknown", line)

    (notice,) = until(lambda: relay.notices(token), "the command has the notice")
    assert [one["address"] for one in notice["recipients"]] == [NOBODY]

    (letter,) = until(lambda: relay.letters(token), "the Maildir has the report")
    assert message_from_string(letter).get_content_type() == "multipart/report"
    assert NOBODY in letter

    (dsn,) = sendmail.boxes.wait("me", token)
    report = message_from_bytes(dsn)
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert re.search(rb"Final-Recipient: rfc822; ?" + re.escape(NOBODY.encode()), dsn)
    assert b"Status: 5.1.1" in dsn
    assert ALICE.encode() not in dsn.partition(b"message/delivery-status")[2].partition(b"\r\n--")[0]

    relay.do("queue", "drop", failed["queue_id"])
    assert relay.queue() == []
    assert relay.run("status").returncode == 0


def test_on_an_open_connection_a_recipient_is_refused_at_rcpt_and_the_others_get_their_mail(
    sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(sendmail.port)
    relay.start()
    assert swaks(relay.port, [ALICE], token).returncode == 0
    said = swaks(relay.port, [NOBODY, ALICE], token)
    assert re.search(r"-> RCPT TO:<nobody-here@\S+>\s+<\*\* 550 5\.1\.1 .*User unknown", said.stdout), said.stdout
    assert re.search(r"<-  250 2\.0\.0 \S+ sent: ", said.stdout), said.stdout
    assert set(relay.states("--all").values()) == {"sent"}
    assert (relay.notices(), relay.letters()) == ([], [])
    assert len(sendmail.boxes.wait("alice", token, 2)) == 2


def test_a_waiting_client_gets_the_refusal_of_the_mail_server_and_no_notice_is_sent(
    sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(sendmail.port)
    relay.start()
    said = swaks(relay.port, [NOBODY, f"also-nobody@{DOMAIN}"], token)
    assert said.returncode != 0
    assert "550 5.1.1" in said.stdout
    assert "User unknown" in said.stdout
    until(lambda: set(relay.states("--all").values()) == {"refused"}, "both are recorded as refused")
    assert relay.queue() == []
    assert (relay.notices(), relay.letters()) == ([], [])


def test_a_temporary_refusal_of_one_recipient_does_not_delay_the_others(
    sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(sendmail.port, retry=("1h",))
    relay.start()
    later = f"later@{DOMAIN}"
    code, _ = submit(relay.port, [later, ALICE], message(token))
    assert code == 250
    sendmail.boxes.wait("alice", token)
    assert relay.states() == {ALICE: "sent", later: "deferred"}
    (waiting,) = relay.queue()
    assert waiting["queue_name"] == "deferred"
    assert waiting["next_attempt"] > waiting["arrival_time"]
    relay.do("queue", "retry", waiting["queue_id"])
    until(lambda: relay.queue()[0]["attempts"] == 2, "it was tried again at once")
    assert len(sendmail.boxes.read("alice", token)) == 1


def test_postfix_refuses_one_takes_one_and_defers_one_in_the_same_transaction(
    postfix: Postfix, relays: Callable[..., Relay], token: str
) -> None:
    relay = relays(postfix.port, retry=("1h",))
    relay.start()
    later, closed = f"later@{DOMAIN}", f"closed@{DOMAIN}"
    submit(relay.port, [closed, later, ALICE, NOBODY], message(token))
    postfix.boxes.wait("alice", token)
    until(
        lambda: relay.states() == {closed: "bounced", later: "deferred", ALICE: "sent", NOBODY: "bounced"},
        "each has its own state",
    )
    postfix.boxes.wait("me", token)


def test_soft_errors_defer_and_the_next_try_delivers(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], token: str
) -> None:
    sink = sinks("-r", "RCPT")
    relay = relays(sink.port, retry=("1s",))
    relay.start()
    code, words = submit(relay.port, [ALICE], message(token))
    assert code == 250
    assert "queued: " in words
    relay.logged(r"status=deferred \(450 ")
    sink.stop()
    sinks(port=sink.port)
    sink.wait(1)
    relay.logged("status=sent")
    assert relay.states("--all") == {ALICE: "sent"}
    assert relay.notices() == []


def test_mail_waits_while_sshd_is_down_and_is_sent_on_retry(
    sshd: Sshd, sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    sshd.stop()
    relay = relays(sendmail.port, retry=("1h",))
    relay.start()
    for number in range(3):
        code, words = submit(relay.port, [ALICE], message(f"{token}-{number}"))
        assert code == 250
        assert "queued: " in words
    assert [(one["recipients"][0]["state"], one["attempts"]) for one in relay.queue()] == [("queued", 0)] * 3
    sshd.start()
    relay.do("queue", "retry", "--all")
    sendmail.boxes.wait("alice", token, count=3)
    until(lambda: relay.queue() == [], "nothing waits")


def test_mail_waits_while_the_mail_server_behind_sshd_is_down(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], token: str
) -> None:
    port = free_port()
    relay = relays(port, retry=("1h",))
    relay.start()
    code, words = submit(relay.port, [ALICE], message(token))
    assert (code, "queued: " in words) == (250, True)
    assert relay.states() == {ALICE: "queued"}
    sink = sinks(port=port)
    relay.do("queue", "retry", "--all")
    sink.wait(1)


def until_told(relay: Relay, count: int) -> list[str]:
    """The kinds of the notices that the command received, after there are `count`."""
    until(lambda: len(relay.notices()) >= count, f"{count} notices are told")
    return [str(notice["kind"]) for notice in relay.notices()]


def test_prohibited_forwarding_causes_one_notice_for_many_messages_with_the_fix(
    sshd: Sshd, sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    sshd.stop()
    sshd.start(forwarding=False)
    relay = relays(sendmail.port)
    relay.start()
    for number in range(5):
        code, words = submit(relay.port, [ALICE], message(f"{token}-{number}"))
        assert (code, "queued: " in words) == (250, True)
    (notice,) = until(relay.notices, "the command is told")
    assert notice["kind"] == "setup"
    assert "AllowTcpForwarding" in notice["fix"]
    (letter,) = until(relay.letters, "the Maildir has a report")
    assert "AllowTcpForwarding" in letter
    assert relay.run("status").returncode == 2
    assert set(relay.states().values()) == {"queued"}

    sshd.stop()
    sshd.start()
    relay.do("queue", "retry", "--all")
    sendmail.boxes.wait("alice", token, count=5)
    assert until_told(relay, 2) == ["setup", "resumed"]
    until(lambda: len(relay.letters()) == 2, "the Maildir has word that mail moves again")
    until(lambda: relay.run("status").returncode == 0, "nothing is wrong any more")


def test_a_changed_host_key_causes_a_notice_and_the_server_gets_no_mail(
    sshd: Sshd, sendmail: Sendmail, relays: Callable[..., Relay], token: str, tmp_path: Path
) -> None:
    sshd.know(make_key(tmp_path / "another"))
    relay = relays(sendmail.port)
    relay.start()
    for number in range(2):
        code, words = submit(relay.port, [ALICE], message(f"{token}-{number}"))
        assert (code, "queued: " in words) == (250, True)
    (notice,) = until(relay.notices, "the command is told")
    assert notice["kind"] == "setup"
    assert "key" in notice["title"] + notice["text"]
    assert notice["fix"]
    until(relay.letters, "the Maildir has a report")
    assert [line for line in sshd.log if "publickey" in line] == []
    assert set(relay.states().values()) == {"queued"}

    sshd.know(sshd.host_key)
    relay.do("queue", "retry", "--all")
    sendmail.boxes.wait("alice", token, count=2)
    assert until_told(relay, 2) == ["setup", "resumed"]
