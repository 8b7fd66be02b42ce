"""The complete texts of notices, word for word: tests/samples/notices has those of each notice below.

After a change of the wording, `python tests/unit/test_notice_texts.py` writes the files anew; read the difference.
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailrelay.mail.notice import THERE, Concerned, Kind, Notice
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.mail.wording import body, meaning, record, report_text, summary, title

SAMPLES = Path(__file__).parents[1] / "samples/notices"
NOW = 1.7e9
BOB = Concerned(b"bob@example.net", "bounced", "5.1.1", b"550 5.1.1 5.1.1 no such user", "RCPT", True)
ANN = Concerned(b"ann@example.net", "expired", "4.4.1", b"no answer", "dial", False)
MESSAGE = Notice(
    id=1,
    kind=Kind.FAILED,
    relayhost="home",
    created=NOW,
    message=1,
    queue_id="3KQ7Z",
    sender=b"me@example.org",
    subject="Dinner",
    arrival=NOW - 3600,
    size=1234,
    concerned=(BOB,),
)
GENERAL = Notice(2, Kind.SETUP, "home", NOW, "The key was refused.\n\x1b", "ssh-add\nor another key", since=NOW - 60)
UNLIKELY = dataclasses.replace(BOB, address=b"x@example.net", description=b"", uncertain=True)
SENDER = dataclasses.replace(
    BOB, status="5.1.8", stage="MAIL", description=b"553 5.1.8 sender domain does not exist", notify=b"FAILURE"
)
THERE_BOUNCED = dataclasses.replace(
    BOB,
    accepted=NOW - 43_200,
    there=Verdict(There.BOUNCED, Source.LOG, b"550 5.2.2 mailbox full", b"mx.example.net", NOW),
)
THERE_WAITING = dataclasses.replace(BOB, address=b"y@example.net", accepted=NOW, there=Verdict(There.WAITING))
WIDE = Concerned(b"w" * 400, "bounced", "5.7.1", b"554 5.7.1 " + b"long " * 300, "content", True)


def message(*concerned: Concerned, kind: Kind = Kind.FAILED, is_kept: bool = True, subject: str = "Dinner") -> Notice:
    return dataclasses.replace(MESSAGE, kind=kind, concerned=concerned, is_kept=is_kept, subject=subject)


def general(
    kind: Kind, *, waiting: int = 0, repeats: int = 0, cause: str = "", stand_in: str = "", since: float = 60
) -> Notice:
    return dataclasses.replace(
        GENERAL,
        kind=kind,
        waiting=waiting,
        repeats=repeats,
        cause=cause,
        stand_in=stand_in,
        since=NOW - since,
        fix="" if kind is Kind.DELAYED else GENERAL.fix,
    )


NOTICES = {
    "refused": message(BOB),
    "expired": message(ANN),
    "refused-and-expired": message(BOB, ANN),
    "expired-twice": message(ANN, dataclasses.replace(ANN, address=b"eve@example.net")),
    "bounced-by-us": message(dataclasses.replace(BOB, remote=False)),
    "no-recipient": message(subject=""),
    "unknown-reason": message(UNLIKELY, subject="\u202esecret"),
    "several": message(*(dataclasses.replace(BOB, address=b"%d@example.net" % number) for number in range(4))),
    "51-recipients": message(*(dataclasses.replace(BOB, address=b"%d@example.net" % number) for number in range(51))),
    "similar-address": message(dataclasses.replace(BOB, likely=b"bob@example.org")),
    "similar-address-of-one-of-two": message(ANN, dataclasses.replace(BOB, likely=b"bob@example.org")),
    "two-similar-addresses": message(*(dataclasses.replace(one, likely=b"a@b.example") for one in (BOB, ANN))),
    "long": message(WIDE, subject="s" * 300),
    "held": message(BOB, kind=Kind.HELD),
    "relayed": message(BOB, kind=Kind.RELAYED),
    "sender-refused": message(SENDER),
    "sender-refused-held": message(SENDER, kind=Kind.HELD),
    "sender-refused-by-us": message(dataclasses.replace(SENDER, remote=False)),
    "bounced-there": message(THERE_BOUNCED),
    "bounced-there-gone": message(THERE_BOUNCED, THERE_WAITING, is_kept=False),
    "setup": general(Kind.SETUP),
    "setup-one-waits": general(Kind.SETUP, waiting=1, repeats=1),
    "setup-with-a-fallback": general(Kind.SETUP, waiting=2, stand_in="office"),
    "delayed": general(Kind.DELAYED, waiting=1, since=43_199),
    "delayed-for-half-a-day": general(Kind.DELAYED, waiting=2, stand_in="office", since=43_200),
    "delayed-there": general(Kind.DELAYED, waiting=2, cause=THERE),
    "resumed": general(Kind.RESUMED),
    "resumed-one": general(Kind.RESUMED, waiting=1),
    "resumed-two": general(Kind.RESUMED, waiting=2),
    "resumed-there": general(Kind.RESUMED, cause=THERE),
    "spool": general(Kind.SPOOL, stand_in="office"),
    "spool-still": general(Kind.SPOOL, repeats=1),
}


def texts(notice: Notice) -> str:
    values = json.dumps(record(notice), indent=1, ensure_ascii=False)
    return "\n\n".join((title(notice), body(notice), "=" * 72, report_text(notice), "=" * 72, values)) + "\n"


@pytest.fixture(autouse=True)
def _time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XXX-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", NOTICES)
def test_the_texts_of_a_notice_are_those_of_the_sample(name: str) -> None:
    assert texts(NOTICES[name]) == (SAMPLES / f"{name}.txt").read_text("utf-8")


def test_there_is_a_notice_for_each_sample() -> None:
    assert {path.stem for path in SAMPLES.iterdir()} == set(NOTICES)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("5.1.1", "mailbox"),
        ("5.1.2", "domain"),
        ("5.1.3", "valid mail address"),
        ("5.1.7", "sender"),
        ("5.1.8", "sender"),
        ("5.1.10", "no mail"),
        ("5.2.1", "closed"),
        ("4.2.2", "full"),
        ("5.2.3", "too large"),
        ("5.3.4", "too large"),
        ("4.4.4", "No mail server"),
        ("5.7.1", "not allow"),
    ],
)
def test_a_status_code_is_explained(status: str, word: str) -> None:
    assert word in meaning(status)
    assert meaning(status[0] + "." + status) == ""


@pytest.mark.parametrize(
    ("count", "lines"),
    [(1, ["A"]), (3, ["A", "A", "A"]), (4, ["A", "A", "A", "and 1 more"]), (9, ["A", "A", "A", "and 6 more"])],
)
def test_a_summary_lists_three_titles_and_counts_the_others(count: int, lines: list[str]) -> None:
    heading, text = summary([MESSAGE] * count)
    assert heading == f"{count} notices about your mail"
    assert text.split("\n") == [*(title(MESSAGE) if line == "A" else line for line in lines), "See: mailrelay queue"]


if __name__ == "__main__":
    os.environ["TZ"] = "XXX-9"
    time.tzset()
    SAMPLES.mkdir(exist_ok=True)
    for name, notice in NOTICES.items():
        (SAMPLES / f"{name}.txt").write_text(texts(notice), "utf-8")
