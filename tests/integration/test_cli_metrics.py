"""`mailrelay status --metrics`: text that both parsers of Prometheus read, whatever the state of mailrelay is."""

import os
import time
from pathlib import Path

import pytest
from harness.person import AWAY, BOUNCED, CLOSED, SENT, Person
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from mailrelay import __version__
from mailrelay.control.metrics import Metric, metrics_text
from mailrelay.mail.printable import printable
from mailrelay.mail.states import COUNTED_AS
from mailrelay.spool import liveness, lock

Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def samples(text: str) -> dict[Sample, float]:
    """The samples of a text, which both parsers read alike."""
    both = [
        {(one.name, tuple(sorted(one.labels.items()))): one.value for family in read(text) for one in family.samples}
        for read in (openmetrics_parser.text_string_to_metric_families, parser.text_string_to_metric_families)
    ]
    assert both[0] == both[1]
    return both[0]


def metrics(person: Person, status: int) -> dict[Sample, float]:
    done = person.run("status", "--metrics")
    assert done.returncode == status
    found = samples(done.stdout)
    assert found["mailrelay_status", ()] == status
    assert found["mailrelay_build_info", (("version", __version__),)] == 1
    return found


def messages(found: dict[Sample, float], relayhost: str = "default") -> dict[str, float]:
    return {
        word: found["mailrelay_messages", (("relayhost", relayhost), ("state", word))]
        for word in COUNTED_AS
        if found["mailrelay_messages", (("relayhost", relayhost), ("state", word))]
    }


def test_without_a_daemon_and_a_spool_there_is_a_whole_text(person: Person) -> None:
    found = metrics(person, 2)
    assert found["mailrelay_up", ()] == 0
    assert found["mailrelay_oldest_pending_age_seconds", ()] == 0
    assert found["mailrelay_relayhost_usable", (("relayhost", "default"),)] == 1
    assert not person.spool.exists()


def test_messages_count_by_relayhost_and_state_with_the_history(person: Person) -> None:
    for number in range(4):
        person.put(f"aaaa00000{number}", age=120 - number)
    person.attempt(SENT)
    person.attempt(BOUNCED)
    assert person.run("queue", "hold", "aaaa000002").returncode == 0
    found = metrics(person, 2)
    assert messages(found) == {"pending": 1, "held": 1, "failed": 1, "sent": 1}
    assert 115 < found["mailrelay_oldest_pending_age_seconds", ()] < 160
    assert found["mailrelay_pending_notices", (("backend", "mailbox"),)] == 1
    assert found["mailrelay_pending_notices", (("backend", "urls"),)] == 0
    assert 0 < found["mailrelay_spool_size_bytes", ()] < found["mailrelay_spool_limit_bytes", ()]


def test_a_daemon_that_answers_is_up_and_names_its_connections(person: Person) -> None:
    person.put("aaaa000001")
    with lock.lock(person.spool):
        listening = liveness.listen(person.spool)
        found = {}
        try:
            if os.fork() == 0:
                os._exit(_answer_once(listening))
            found = metrics(person, 0)
        finally:
            os.close(listening)
            os.wait()
    assert found["mailrelay_up", ()] == 1
    assert found["mailrelay_relayhost_connected", (("relayhost", "default"),)] == 1


def _answer_once(listening: int) -> int:
    import socket

    with socket.socket(fileno=listening) as server:
        server.settimeout(30)
        asking, _ = server.accept()
        with asking:
            asking.sendall(liveness.line(liveness.Answer(os.getpid(), "", "", connected=("default",))))
    return 0


def test_a_fault_shows_with_its_age_and_whether_it_needs_the_person(person: Person) -> None:
    label = (("relayhost", "default"),)
    person.put("aaaa000001")
    person.relayhost_fails(AWAY)
    found = metrics(person, 2)
    assert found["mailrelay_relayhost_usable", label] == found["mailrelay_relayhost_needs_you", label] == 0
    assert 0 <= found["mailrelay_relayhost_fault_age_seconds", label] < 60
    person.relayhost_fails(CLOSED, setup=True)
    assert metrics(person, 2)["mailrelay_relayhost_needs_you", label] == 1


def test_mail_of_a_relayhost_that_the_settings_have_no_more_is_counted(person: Person) -> None:
    person.put("aaaa000001")
    person.config.write_text(person.config.read_text().replace("relayhost.default", "relayhost.other"))
    found = metrics(person, 2)
    assert (messages(found), messages(found, "other")) == ({"pending": 1}, {})


def test_a_spool_that_cannot_be_read_leaves_out_what_is_not_known(person: Person) -> None:
    person.put("aaaa000001")
    (person.spool / "spool.db").write_bytes(b"no database" * 1000)
    found = metrics(person, 2)
    assert found["mailrelay_spool_usable", ()] == 0
    assert ("mailrelay_oldest_pending_age_seconds", ()) not in found


def test_wrong_settings_leave_a_text_that_says_so(person: Person) -> None:
    person.config.write_text("nonsense")
    assert set(metrics(person, 3)) == {
        ("mailrelay_status", ()),
        ("mailrelay_build_info", (("version", __version__),)),
    }
    assert person.run("status", "--metrics", "--json").returncode == 2


def test_the_age_of_mail_from_the_future_is_0(person: Person) -> None:
    person.put("aaaa000001", age=-3600)
    assert metrics(person, 2)["mailrelay_oldest_pending_age_seconds", ()] == 0


@given(st.text())
def test_no_label_breaks_the_text(name: str) -> None:
    text = metrics_text([Metric("mailrelay_one", "Some help.", [({"relayhost": name}, time.time())])])
    assert list(samples(text)) == [("mailrelay_one", (("relayhost", printable(name)),))]
