"""Mail that is sent later, with the whole daemon: at its time, by one dial then, and not if it was cancelled meanwhile."""

import asyncio
import json
import re
import smtplib
import sys
import time
from pathlib import Path

import pytest
from harness.command import person_of, run
from harness.daemon import LETTER, served, settings
from harness.person import AWAY, Person

from mailrelay import config
from mailrelay.demo.remote import Remote
from mailrelay.spool import lock
from mailrelay.spool.database import FILE


def submit(port: int, *options: str) -> bytes:
    """Sends a message, and returns the text of the reply to its content."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo()
        assert client.has_extn("futurerelease")
        code, text = client.mail("a@example.org", options)
        assert code == 250, text
        client.rcpt("b@example.net")
        code, text = client.data(LETTER)
        assert code == 250
        return text


async def test_a_message_is_sent_at_its_time_and_other_mail_at_once(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote, served(settings(tmp_path, remote.relayhost())) as (port, _):
        began = time.time()
        assert b"queued: waits until " in await asyncio.to_thread(submit, port, "HOLDFOR=2")
        assert remote.logins == 0, "no connection is open for it"
        assert b"sent: " in await asyncio.to_thread(submit, port)
        assert len(remote.received) == 1
        async with asyncio.timeout(20):
            await remote.arrived(2)
        assert time.time() >= began + 2
        assert remote.received[1].content.endswith(LETTER), "the content is unchanged"


async def test_with_undo_a_message_can_be_cancelled_and_an_idle_daemon_wakes_for_the_others(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote:
        person = person_of(remote, 'queue.undo = "2s"')
        loaded = config.load(person.config)
        async with served(loaded):
            port = loaded.listen.address.port  # type: ignore[union-attr]
            first, second = [await asyncio.to_thread(submit, port) for _ in range(2)]
            command = first.partition(b"`mailrelay ")[2].partition(b"`")[0].decode().split()
            assert command[:2] == ["queue", "cancel"]
            assert (await run(person, *command)).out == f"{command[2]} is cancelled\n"
            async with asyncio.timeout(20):
                await remote.arrived(1)
                queue_id = second.split()[1].decode()
                assert queue_id.encode() in remote.received[0].content
                while (await run(person, "queue")).out != "the queue is empty\n":
                    await asyncio.sleep(0.05)


async def test_a_program_may_say_when_and_retry_sends_it_now(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    async with Remote(tmp_path / "remote") as remote:
        person = person_of(remote)
        async with served(config.load(person.config)):
            queue_id = await hand_in(person, "--at", "tomorrow 8:00")
            listing = await run(person, "queue")
            assert "waits for its time" in listing.out
            assert "1 pending; 1 of them waits for its time" in listing.out
            assert (await run(person, "queue", "retry", "--network")).status == 0
            assert (await run(person, "queue", "retry", "--all")).out == "0 messages are due now\n"
            status = await run(person, "status")
            assert (status.status, "pending  1, 1 waits for its time\n" in status.out) == (0, True)
            assert remote.logins == 0
            assert (await run(person, "queue", "retry", queue_id)).out == f"{queue_id} is due now\n"
            async with asyncio.timeout(20):
                await remote.arrived(1)


async def hand_in(person: Person, *options: str) -> str:
    """Hands in a message as a program does, and returns its queue id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mailrelay", "sendmail", *options, "bob@example.net"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=person.environment,
    )
    out, err = await process.communicate(LETTER)
    assert (process.returncode, out) == (0, b""), err
    said = err.decode().removeprefix("mailrelay: ")
    queue_id = said.split()[0]
    assert said.endswith(f"; `mailrelay queue cancel {queue_id}` cancels it until then\n")
    return queue_id


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def test_with_nobody_serving_the_time_is_in_the_spool_and_local(person: Person) -> None:
    done = person.run("sendmail", "-t", "--at", "tomorrow 8:00", stdin=LETTER, env={"TZ": "Asia/Kolkata"})
    assert done.returncode == 0
    assert re.fullmatch(
        r"mailrelay: (\w+) waits until \d{4}-\d\d-\d\d 08:00:00 \+0530; `mailrelay queue cancel \1` cancels it until then\n",
        done.stderr,
    )
    ((send_time, next_attempt, by_clock, arrival),) = person.query(
        "SELECT send_time, next_attempt, by_clock, arrival FROM message"
    )
    assert (send_time, by_clock) == (next_attempt, 1)
    assert 0 < send_time - arrival <= 48 * 3600
    assert send_time % 86_400 == 2.5 * 3600


@pytest.mark.parametrize(
    "options",
    [
        ("--at", "yesterday 8:00"),
        ("--at", "2001-01-01 08:00"),
        ("--at=",),
        ("--in", "10"),
        ("--in=-10m",),
        ("--in", "10m", "--at", "8:00"),
        ("bob@example.net", "--in"),
        ("bob@example.net", "--at"),
    ],
)
def test_a_wrong_time_is_one_line_and_nothing_is_sent_at_once(person: Person, options: tuple[str, ...]) -> None:
    done = person.run("sendmail", *options, "-t", stdin=LETTER)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.count("\n") == 1
    assert not (person.spool / FILE).exists()


def test_a_message_with_a_wrong_time_is_in_dead_letter(person: Person) -> None:
    done = person.run("sendmail", "-t", "--at", "someday", stdin=LETTER)
    dead = person.config.parent / "dead.letter"
    assert f"the message is in {dead}" in done.stderr
    assert b"Subject: a letter" in dead.read_bytes()


def test_with_undo_a_program_hears_nothing_and_a_message_that_waits_for_its_time_is_not_awaited(person: Person) -> None:
    person.config.write_text(person.config.read_text() + 'undo = "1h"\n')
    done = person.run("sendmail", "-t", stdin=LETTER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with lock.lock(person.spool):
        began = time.monotonic()
        assert person.run("sendmail", "-t", "--wait=50", stdin=LETTER).returncode == 75
        assert time.monotonic() < began + 40
    assert [round(wait) for (wait,) in person.query("SELECT send_time - arrival FROM message")] == [3600, 3600]


def test_what_waits_for_its_time_is_shown_with_its_time_and_what_can_be_done(person: Person) -> None:
    person.run("sendmail", "-t", "--in", "2h", stdin=LETTER)
    person.relayhost_fails(AWAY)
    ((queue_id, send_time),) = person.query("SELECT queue_id, send_time FROM message")
    shown = person.run("queue", "show", queue_id).stdout
    at = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(send_time))
    assert f"not before {at}\n" in shown
    assert f"next       {at} (in 1 h), waits for its time\n" in shown
    assert f"to do      mailrelay queue retry {queue_id} " in shown
    assert f"           mailrelay queue cancel {queue_id} " in shown
    assert f"{at}  planned, in 1 h:  first attempt\n" in shown
    assert "the network is away" not in shown, "it does not wait for the relayhost"
    record = json.loads(person.run("queue", "--json").stdout)
    assert (record["queue_name"], record["send_time"], record["next_attempt"]) == (
        "incoming",
        int(send_time),
        int(send_time),
    )
    assert [to["delay_reason"] for to in record["recipients"]] == [""]
    listed = person.run("queue").stdout
    assert "waits for its time" in listed
    assert "the network is away" not in listed
    with lock.lock(person.spool):
        status = person.run("status", "--json")
    found = json.loads(status.stdout)
    assert (status.returncode, found["pending"], found["scheduled"], found["oldest"]) == (0, 1, 1, None)
    person.run("queue", "hold", queue_id)
    assert f"not before {at}\n" in person.run("queue", "show", queue_id).stdout
