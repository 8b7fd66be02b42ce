"""Real mail clients send messages to the listener."""

import asyncio
import shutil
import smtplib
import subprocess
from collections.abc import Callable
from email.message import EmailMessage

import pytest
from harness.listener import Intake, listener

from mailrelay.mail.outcome import Reply


async def serve(client: Callable[[str], object], intake: Intake, **settings: str) -> object:
    """Run a blocking client, which is given host:port, against a listener."""

    async with listener(intake, **settings) as listening:
        return await asyncio.to_thread(client, str(listening.addresses[0]))


def letter(subject: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "me@example.org"
    message["To"] = "you@example.net"
    message["Subject"] = subject
    message.set_content(".dots\n..\nand text\n")
    return message


async def test_smtplib_sends_several_messages_over_one_connection() -> None:
    intake = Intake()

    def client(address: str) -> None:
        with smtplib.SMTP(*address.split(":")) as server:
            server.send_message(letter("one"))
            server.send_message(letter("two"), rcpt_options=["NOTIFY=FAILURE,DELAY"], mail_options=["RET=HDRS"])
            server.sendmail("jö@example.org", ["ü@example.net"], "three\n", mail_options=["SMTPUTF8"])

    await serve(client, intake)
    assert len(intake.committed) == 3
    assert b"\r\n.dots\r\n..\r\nand text\r\n" in intake.committed[0][1]
    assert intake.committed[1][0].recipients[0].notify == b"FAILURE,DELAY"
    assert intake.committed[2][0].sender == "jö@example.org".encode()


async def test_smtplib_gets_the_mail_servers_refusal_unchanged() -> None:
    intake = Intake()
    intake.reply = Reply(550, (b"5.1.1 <you@example.net> no such user", b"5.1.1 ask the postmaster"))

    def client(address: str) -> smtplib.SMTPDataError:
        with smtplib.SMTP(*address.split(":")) as server, pytest.raises(smtplib.SMTPDataError) as caught:
            server.send_message(letter("hi"))
        return caught.value

    error = await serve(client, intake)
    assert isinstance(error, smtplib.SMTPDataError)
    assert (error.smtp_code, error.smtp_error) == (
        550,
        b"5.1.1 <you@example.net> no such user\n5.1.1 ask the postmaster",
    )


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed")
@pytest.mark.parametrize("options", [[], ["--pipeline"]])
async def test_swaks_sends(options: list[str]) -> None:
    intake = Intake()

    def client(address: str) -> str:
        host, port = address.split(":")
        command = [
            "swaks",
            "--server",
            host,
            "--port",
            port,
            "--from",
            "me@example.org",
            "--to",
            "a@b.example,c@d.example",
        ]
        return subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout

    output = await serve(client, intake)
    assert "250 2.0.0 queued" in str(output)
    assert [recipient.address for recipient in intake.committed[0][0].recipients] == [b"a@b.example", b"c@d.example"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_sends() -> None:
    intake = Intake()

    def client(address: str) -> None:
        command = ["curl", "-sS", "--crlf", "--url", f"smtp://{address}", "--mail-from", "me@example.org"]
        subprocess.run(
            [*command, "--mail-rcpt", "you@example.net", "-T", "-"], input=b"Subject: hi\n\n.dot\n", check=True
        )

    await serve(client, intake)
    assert intake.committed[0][1] == b"Subject: hi\r\n\r\n.dot\r\n"


CARELESS = """
use Net::SMTP;
my $client = Net::SMTP->new($ARGV[0], Port => $ARGV[1], Timeout => 20) or die "no greeting";
$client->mail('me@example.org');
$client->to('no address');
$client->data();
$client->datasend("From: me\\@example.org\\nSubject: hi\\n\\nMAIL FROM:<a\\@b>\\nhello\\n");
$client->dataend();
print $client->code, " ", $client->message;
"""


@pytest.mark.skipif(shutil.which("perl") is None, reason="perl is not installed")
async def test_a_perl_script_that_ignores_replies_gets_the_reason_of_the_refusal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake()

    def client(address: str) -> str:
        command = ["perl", "-e", CARELESS, *address.split(":")]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert str(await serve(client, intake)).startswith("554 5.5.1 no valid recipients")
    assert intake.committed == []
    assert not any("security" in line for line in caplog.messages)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_sends_with_a_password() -> None:
    intake = Intake()

    def client(address: str) -> None:
        command = [
            "curl",
            "-sS",
            "--crlf",
            "--url",
            f"smtp://{address}",
            "--user",
            "me:secret",
            "--mail-from",
            "a@b.example",
        ]
        subprocess.run(
            [*command, "--mail-rcpt", "c@d.example", "-T", "-"], input=b"Subject: hi\n\nhello\n", check=True, timeout=60
        )

    await serve(client, intake, auth="ignore")
    assert len(intake.committed) == 1
