"""A laptop that loses its network and finds another: real events of the kernel, a real sshd on the other side."""

import asyncio
import ctypes
import errno
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.daemon_process import Relay
from harness.network_namespaces import SERVER, Networks, apart, takes_mail
from harness.processes import PATIENCE, program
from harness.sshd import Sshd

from mailrelay.network import monitor, rtnetlink
from mailrelay.network.events import Change, Clocks

pytestmark = [pytest.mark.system, pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word is Linux's")]

LETTER = b"Subject: from the backend\n\nhello\n"
SUBMIT = """
import smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=120) as client:
    client.ehlo("client.example")
    client.mail("me@example.org")
    client.rcpt("you@example.net")
    print(client.data(sys.stdin.read())[1].decode())
"""
"""A client that sends a message and prints the reply to its content."""


@pytest.fixture
def networks() -> Iterator[Networks]:
    made = Networks()
    yield made
    made.close()


@pytest.fixture
def far(networks: Networks, tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "far", SERVER, networks.within("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def relay(networks: Networks, far: Sshd, tmp_path: Path) -> Iterator[Relay]:
    """A daemon on the laptop; without news of the network it would try again only after an hour."""
    made = Relay(tmp_path / "relay", far.ssh_config, 25, command=takes_mail(tmp_path), retry=["1h"], linger="1h")
    yield made
    made.stop()
    print(made.account())


def send(relay: Relay) -> str:
    """Queues a message; returns its id."""
    before = {one["queue_id"] for one in relay.queue("--all")}
    done = relay.run("sendmail", "-f", "me@example.org", "you@example.net", stdin=LETTER)
    assert done.returncode == 0, done.stderr
    (queue_id,) = {one["queue_id"] for one in relay.queue("--all")} - before
    return str(queue_id)


def sent(relay: Relay, queue_id: str) -> None:
    relay.logged(f"{queue_id} .*status=sent")


def test_mail_that_waits_for_a_network_is_sent_when_there_is_one(networks: Networks, relay: Relay) -> None:
    relay.start(*networks.within("laptop"))
    waiting = send(relay)
    relay.logged("unusable .*unreachable")
    networks.arrive()
    sent(relay, waiting)
    assert not relay.notices()


def test_a_cable_that_is_pulled_and_plugged_in_again_is_noticed_though_the_address_stays(
    networks: Networks, relay: Relay
) -> None:
    networks.arrive()
    networks.ip("laptop", "link", "set", "cable", "down")
    relay.start(*networks.within("laptop"))
    waiting = send(relay)
    relay.logged("unusable .*unreachable")
    networks.ip("laptop", "link", "set", "cable", "up")
    sent(relay, waiting)


def test_a_connection_of_another_network_is_never_used_again(networks: Networks, far: Sshd, relay: Relay) -> None:
    networks.arrive()
    relay.start(*networks.within("laptop"))
    sent(relay, send(relay))
    networks.leave()
    relay.logged("closed: the network has changed")
    waiting = send(relay)
    relay.logged("unusable .*unreachable")
    networks.arrive("10.77.0.9")
    sent(relay, waiting)
    assert far.logins() == 2


def submit(networks: Networks, relay: Relay) -> tuple[str, str]:
    """Sends a message by SMTP; returns its id and why it is queued."""
    argv = [*networks.within("laptop"), sys.executable, "-c", SUBMIT, str(relay.port)]
    done = subprocess.run(argv, input=LETTER, capture_output=True, timeout=150, check=True)
    code, queue_id, words = done.stdout.decode().strip().split(" ", 2)
    assert code == "2.0.0"
    return queue_id, words


def test_a_silent_cut_is_felt_by_one_client_and_all_mail_leaves_when_it_is_over(
    networks: Networks, far: Sshd, relay: Relay
) -> None:
    networks.arrive()
    relay.start(*networks.within("laptop"))
    sent(relay, send(relay))
    networks.cut()
    first, waited_in_vain = submit(networks, relay)
    assert waited_in_vain == "queued: the mail server has not replied yet"
    others = [submit(networks, relay) for _ in range(3)]
    for _, words in others:
        assert re.fullmatch("queued: (the connection to remote does not respond.*|there is no connection.*)", words)
    relay.logged("lost the connection: no response")
    networks.mend()
    for queue_id in (first, *(queue_id for queue_id, _ in others)):
        sent(relay, queue_id)
    assert far.logins() == 2


def test_a_slow_mail_server_costs_no_connection(networks: Networks, far: Sshd, relay: Relay, tmp_path: Path) -> None:
    networks.arrive()
    relay.start(*networks.within("laptop"))
    sent(relay, send(relay))
    is_slow = tmp_path / "takes-mail.is-slow"
    is_slow.touch()
    queued = [submit(networks, relay) for _ in range(2)]
    # The SSH server has responded, so the second client waits for the mail server as the first one did.
    assert {words for _, words in queued} == {"queued: the mail server has not replied yet"}
    is_slow.unlink()
    for queue_id, _ in queued:
        sent(relay, queue_id)
    assert submit(networks, relay)[1] == "sent: 2.0.0 taken"
    assert far.logins() == 1


def told(burst: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> list[Change]:
    """The changes reported for `burst`, in a network namespace with one cable, and then for an address that is removed."""
    ip = program("ip", "iproute2")
    found: list[Change] = []

    async def listen() -> None:
        async for change in monitor.changes():
            found.append(change)
            if change.removed_addresses:
                return
            subprocess.run([ip, "addr", "add", "10.77.9.9/24", "dev", "one"], check=True)
            subprocess.run([ip, "addr", "del", "10.77.9.9/24", "dev", "one"], check=True)

    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            is_complete = asyncio.Event()
            ends: list[bool] = []

            def ends_dump(data: bytes) -> bool:
                ends.append(rtnetlink.ends_dump(data))
                # The links, and then the addresses.
                if ends.count(True) == 2:
                    is_complete.set()
                return ends[-1]

            monkeypatch.setattr(monitor, "rtnetlink", Namespace(**{**vars(rtnetlink), "ends_dump": ends_dump}))
            listening = asyncio.ensure_future(listen())
            # The monitor must have read the present state before it can report changes.
            await is_complete.wait()
            burst()
            await listening

    def story() -> None:
        for words in ("link add one type veth peer two", "link set one up", "link set two up"):
            subprocess.run([ip, *words.split()], check=True)
        asyncio.run(main())

    apart(story)
    return found


def test_a_burst_of_events_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def burst() -> None:
        for number in range(1, 20):
            subprocess.run(["ip", "addr", "add", f"10.77.{number}.1/24", "dev", "one"], check=True)
        subprocess.run(["ip", "route", "add", "default", "via", "10.77.1.9"], check=True)

    opens, last = told(burst, monkeypatch)
    assert opens == Change(may_connect=True)
    assert last.removed_addresses == {"10.77.9.9"}


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long * 4),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long * 3),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
        ("rest", ctypes.c_char * 200),
    )


def step_the_clock() -> None:
    """Sets the clock forward by a nanosecond and back; the kernel reports it as set."""
    libc = ctypes.CDLL(None, use_errno=True)
    for seconds, nanoseconds in ((0, 1), (-1, 999_999_999)):
        # ADJ_SETOFFSET | ADJ_NANO of adjtimex(2)
        if libc.clock_adjtime(0, ctypes.byref(_Timex(0x0100 | 0x2000, seconds=seconds, nanoseconds=nanoseconds))) < 0:
            assert ctypes.get_errno() == errno.EPERM
            pytest.skip("the right to set the clock is missing")


@pytest.mark.parametrize(
    ("boot", "day", "change"),
    [(3600.0, 3600.0, Change(suspended=3600.0)), (0.0, -86_400.0, Change(clock_step=-86_400.0))],
)
async def test_a_resume_and_a_set_clock_are_noticed_without_polling(
    monkeypatch: pytest.MonkeyPatch, boot: float, day: float, change: Change
) -> None:
    """A test cannot suspend the computer: the event of the kernel is real, the times of the clocks after it are not."""

    shown = Clocks(1_700_000_000.0, 5000.0, 4000.0)
    is_read = asyncio.Event()

    def read_clocks() -> Clocks:
        is_read.set()
        return shown

    monkeypatch.setattr(monitor, "read_clocks", read_clocks)
    telling = monitor.changes()
    first = asyncio.ensure_future(anext(telling))
    # After it, the monitor waits for the kernel.
    await is_read.wait()
    shown = Clocks(shown.realtime + day, shown.boottime + boot, shown.monotonic)
    step_the_clock()
    try:
        assert await asyncio.wait_for(first, PATIENCE) == change
    finally:
        first.cancel()
        await telling.aclose()
