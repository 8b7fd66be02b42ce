"""Plays the conversations in tests/dialogues, which are written as in RFC 5321 appendix D.

S: text            the remote says a line
C: text            we say a line; all that we say between two lines of the remote's must be written down: one flight
> N: <from> <to>…  message N starts; the lines of its content follow as `| text`, "\\n" for a bare LF
> quit             no more messages
> lost TEXT        the wire ends
> closed           the remote closes the channel
> trust DOUBTED    first of all: what is known of the remote (PROVEN, where this is missing)
= ready            an event, in order: also `= N: untried`, `= ended: STAGE WORDS`, and
= N: STAGE WORDS   the outcome of a recipient of message N, one line for each, with its words
# text             a remark
"""

from pathlib import Path

import pytest

from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.outcome import Outcome
from mailrelay.smtp.events import ContentWanted, Ended, Event, Finished, Ready, Untried
from mailrelay.smtp.flight import Trust
from mailrelay.smtp.session import Session

DIALOGUES = sorted((Path(__file__).parent.parent / "dialogues").glob("*.txt"))


def told(outcome: Outcome) -> str:
    return f"{outcome.stage} {outcome.description.decode()}"


class Play:
    """One file on its way: what was said and heard so far, and not yet found in the file."""

    def __init__(self, script: list[str]) -> None:
        self.session = Session(b"[127.0.0.1]", trust=Trust.PROVEN)
        self.contents: dict[int, bytes] = {}
        self.said: list[str] = []
        self.heard: list[str] = []
        self.script = script

    def note(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Ready():
                    self.heard.append("ready")
                case ContentWanted(key):
                    self.session.send_content(self.contents[key])
                    self.note(self.session.end_content())
                case Finished(key, outcomes):
                    self.heard += [f"{key}: {told(outcome)}" for outcome in outcomes]
                case Untried(key):
                    self.heard.append(f"{key}: untried")
                case Ended(outcome):
                    self.heard.append(f"ended: {told(outcome)}")

    def start(self, key: int, paths: str) -> None:
        sender, *recipients = [path.strip("<>").encode() for path in paths.split()]
        lines = []
        while self.script and self.script[0].startswith("|"):
            lines.append(self.script.pop(0)[2:].replace("\\n", "\n").encode() + b"\r\n")
        self.contents[key] = b"".join(lines)
        envelope = Envelope(sender, tuple(map(Recipient, recipients)))
        self.note(self.session.start(key, envelope, len(self.contents[key])))

    def run(self) -> None:
        while self.script:
            line = self.script.pop(0)
            mark, _, text = line.partition(" ")
            match mark:
                case "" | "#":
                    continue
                case "C:":
                    assert self.said, f"not said: {text}"
                    assert self.said.pop(0) == text
                case "=":
                    assert self.heard, f"not heard: {text}"
                    assert self.heard.pop(0) == text
                case "S:":
                    assert self.said == [], f"said before: {line}"
                    self.note(self.session.receive(text.encode() + b"\r\n"))
                case ">" if text == "quit":
                    self.session.quit()
                case ">" if text.startswith("trust "):
                    self.session = Session(b"[127.0.0.1]", trust=Trust[text.removeprefix("trust ")])
                case ">" if text == "closed" or text.startswith("lost "):
                    self.note(self.session.lost(text.removeprefix("lost "), is_closed=text == "closed"))
                case ">":
                    key, _, paths = text.partition(": ")
                    assert self.session.capacity, f"no message was wanted before: {line}"
                    self.start(int(key), paths)
                case _:
                    pytest.fail(f"cannot read: {line}")
            self.said += self.session.take_output().decode().removesuffix("\r\n").split("\r\n")
            self.said = [said for said in self.said if said]
        assert self.said == []
        assert self.heard == []


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_dialogue(path: Path) -> None:
    Play(path.read_text().splitlines()).run()


def test_there_are_dialogues() -> None:
    assert DIALOGUES
