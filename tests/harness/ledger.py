"""What must be true of a daemon that was killed at any moment: checked after every kill, and at the end.

Every message that got a 250 is in the spool or has arrived. A message arrives twice only if it was being sent at a kill.
"""

from harness.daemon_process import Relay
from harness.feeder import MARK, Feeder, marks
from harness.postfix import Sink
from harness.processes import until


class Ledger:
    def __init__(self, relay: Relay, sink: Sink, feeder: Feeder) -> None:
        self.relay, self.sink, self.feeder = relay, sink, feeder
        self.cuts = 0
        self.in_flight: set[str] = set()

    def after_a_cut(self) -> None:
        """Called while no daemon runs: reads the spool as the kill left it."""
        self.cuts += 1
        accepted = set(self.feeder.accepted)
        listed = {_mark(one["subject"]): one["queue_name"] for one in self.relay.queue()}
        self.in_flight |= {mark for mark, name in listed.items() if name == "active"}
        lost = accepted - set(listed) - set(marks(self.sink.messages()))
        assert not lost, f"after cut {self.cuts}: got a 250, and are neither in the spool nor with the remote: {lost}"

    def at_the_end(self, what: str) -> str:
        """Called while the daemon runs and no client sends: waits until all is delivered; returns the figures."""
        until(lambda: self.relay.queue() == [], "nothing waits any more")
        arrived = marks(self.sink.messages())
        assert self.feeder.accepted - set(arrived) == set(), "got a 250 and never arrived"
        twice = {mark for mark, count in arrived.items() if count > 1}
        everything = self.relay.queue("--all")
        uncertain = {_mark(one["subject"]) for one in everything if any(to["uncertain"] for to in one["recipients"])}
        figures = (
            f"{what}: {self.cuts} cuts, {self.feeder.offered} offered, {len(self.feeder.accepted)} accepted,"
            f" {len(arrived)} delivered, {len(twice)} of them twice; {len(self.in_flight)} were in flight at a cut,"
            f" {len(uncertain)} are marked uncertain"
        )
        assert twice <= self.in_flight, "arrived twice without having been in flight at a cut"
        assert twice <= uncertain, "arrived twice and the person is not told that they may have"
        assert uncertain <= self.in_flight, "called uncertain though no cut concerned them"
        assert {to["state"] for one in everything for to in one["recipients"]} == {"sent"}
        return figures


def _mark(subject: str) -> str:
    found = MARK.search(subject)
    assert found is not None, subject
    return found.group()
