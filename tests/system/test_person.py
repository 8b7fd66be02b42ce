"""Commands of the person on the queue and the daemon, with real servers."""

import signal
from collections.abc import Callable

import pytest
from harness.daemon_process import Relay
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.postfix import Package, Sink, send_with_source
from harness.processes import until
from harness.sshd import Sshd

pytestmark = pytest.mark.system

ALICE = f"alice@{DOMAIN}"
BOB = f"bob@{DOMAIN}"


def test_held_mail_waits_for_its_release_and_cancelled_mail_is_never_sent(
    sshd: Sshd, sinks: Callable[..., Sink], relays: Callable[..., Relay], token: str
) -> None:
    sink = sinks()
    sshd.stop()
    relay = relays(sink.port, retry=("1h",))
    relay.start()
    for number in range(3):
        submit(relay.port, [ALICE], message(f"{token}-{number}"))
    held, cancelled, free = (one["queue_id"] for one in relay.queue())
    relay.do("queue", "hold", held)
    relay.do("queue", "cancel", cancelled)
    assert {one["queue_id"]: one["queue_name"] for one in relay.queue()}[held] == "hold"
    sshd.start()
    relay.do("queue", "retry", "--all")
    sink.wait(1)
    assert f"{token}-2".encode() in sink.messages()[0]
    until(lambda: [one["queue_id"] for one in relay.queue()] == [held], "only the held one is left")
    refused = relay.run("queue", "release", free)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    relay.do("queue", "release", held)
    sink.wait(2)
    until(lambda: relay.queue() == [], "nothing waits")
    states = {one["queue_id"]: one["recipients"][0]["state"] for one in relay.queue("--all")}
    assert states == {held: "sent", cancelled: "cancelled", free: "sent"}


def test_failed_mail_is_kept_whole_until_it_is_dropped(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], token: str
) -> None:
    sink = sinks("-f", "RCPT")
    relay = relays(sink.port, answer_within="0s", dsn=False)
    relay.start()
    submit(relay.port, [ALICE], message(token, b"the whole of it\r\n"))
    until(lambda: relay.states() == {ALICE: "bounced"}, "it is refused")
    (failed,) = until(relay.queue, "it is listed")
    shown = relay.do("queue", "show", "--content", failed["queue_id"][:8])
    assert "the whole of it" in shown
    assert relay.run("queue", "cancel", "zzzz").returncode == 1
    relay.stop()
    relay.start()
    assert relay.states() == {ALICE: "bounced"}
    relay.do("queue", "drop", failed["queue_id"])
    assert relay.queue() == []
    assert relay.run("status").returncode == 0


def test_sigterm_during_a_delivery_ends_the_daemon_soon_and_the_mail_arrives_after_the_next_start(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], token: str
) -> None:
    sink = sinks("-w", "60")
    relay = relays(sink.port, answer_within="0s")
    child = relay.start()
    submit(relay.port, [ALICE], message(token))
    until(lambda: [one["queue_name"] for one in relay.queue()] == ["active"], "a delivery is under way")
    child.process.send_signal(signal.SIGTERM)
    assert child.ended(patience=12) == 0, child.output
    assert "Traceback" not in child.output
    assert [one["queue_name"] for one in relay.queue()] != ["active"], "what was under way is put back or recorded"
    sink.stop()
    sinks(port=sink.port)
    relay.start()
    sink.wait(1)
    until(lambda: relay.states("--all") == {ALICE: "sent"}, "and is known to have arrived")


def test_a_second_daemon_on_the_same_spool_ends_at_once_and_names_the_first(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], token: str
) -> None:
    sink = sinks()
    relay = relays(sink.port)
    first = relay.start()
    second = relay.launch()
    try:
        assert second.ended(patience=10) != 0
        assert len(second.lines) == 1, second.output
        assert str(first.pid) in second.output
        relay.child = first
        submit(relay.port, [ALICE], message(token))
        assert len(sink.messages()) == 1
    finally:
        second.stop()
        first.stop()


def test_smtp_source_feeds_several_sessions_at_once_and_all_of_it_arrives(
    sinks: Callable[..., Sink], relays: Callable[..., Relay], postfix_package: Package
) -> None:
    sink = sinks()
    relay = relays(sink.port, answer_within="0s")
    relay.start()
    send_with_source(postfix_package, relay.port, messages=200, sessions=5)
    sink.wait(200)
    until(lambda: relay.queue() == [], "nothing waits")
    assert len(sink.messages()) == 200
