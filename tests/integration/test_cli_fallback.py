"""What commands show of a fallback: in whose place it sends, and what it has sent."""

import json
import time
from pathlib import Path

from harness.person import AWAY, SENT, TERMS, Person

from mailrelay.mail.conclusion import conclude
from mailrelay.spool import attempts, relayhosts
from mailrelay.spool.database import connect, transaction


def test_status_and_queue_name_the_fallback(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.config.write_text(
        person.config.read_text().replace(
            "[queue]", 'fallback = ["second"]\n[relayhost.second]\nssh = "other.example"\n[queue]'
        )
    )
    for number in (1, 2):
        person.put(f"aaaa00000{number}", age=60)
    person.relayhost_fails(AWAY)
    db = connect(person.spool)
    with transaction(db):
        relayhosts.note_stand_in(db, "default", "second")
        now = time.time()
        (message,) = attempts.take(db, "second", (), 1, "test", now, others=("default",))
        attempts.record(
            db, conclude(message, (SENT,), TERMS, client_told=False, relays_dsn=False, now=now, chance=0.5), "test"
        )
    db.close()

    assert "  meanwhile its mail goes through second" in person.run("status").stdout.splitlines()
    (fault,) = json.loads(person.run("status", "--json").stdout)["relayhosts"]
    assert (fault["name"], fault["stand_in"]) == ("default", "second")

    assert "default cannot be reached, second sends it" in person.run("queue").stdout
    found = [json.loads(line) for line in person.run("queue", "--all", "--json").stdout.splitlines()]
    assert [(one["relayhost"], one["fallback_for"]) for one in found] == [("second", "default"), ("default", "")]
    # It does not wait for the next dial of its own relayhost.
    assert found[1]["next_attempt"] < time.time()

    sent = person.run("queue", "show", "aaaa000001").stdout
    assert "relayhost  second, as the fallback for default, which could not be reached" in sent
    assert "attempt  through second" in sent
    waits = person.run("queue", "show", "aaaa000002").stdout
    assert "fallback   second sends it" in waits
    timeline = json.loads(person.run("queue", "show", "--json", "aaaa000001").stdout)["timeline"]
    assert [event["relayhost"] for event in timeline if event["what"] == "attempt"] == ["second"]
