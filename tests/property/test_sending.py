"""How far a content is, for any flow of octets: the rate, the text, the bar, and what counts as acknowledged."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mailrelay.cli.progress_bar import bar
from mailrelay.mail.pace import SPACING, WINDOW, Pace
from mailrelay.mail.sending import Sending, progress_text, seconds_left
from mailrelay.ssh.acknowledgement import Acknowledgement

STEPS = st.lists(st.tuples(st.floats(0.001, 20.0), st.integers(0, 10**7)), min_size=1, max_size=60)
SIZES = st.integers(0, 10**12)


@given(steps=STEPS, begun=st.floats(0, 1e6))
def test_the_rate_is_never_higher_than_the_fastest_step_or_lower_than_the_slowest(
    steps: list[tuple[float, int]], begun: float
) -> None:
    pace, now, octets = Pace(begun), begun, 0
    rates = []
    for seconds, more in steps:
        before = now
        now, octets = now + seconds, octets + more
        rates.append(more / (now - before) if now > before else 0.0)
        rate = pace.rate(octets, now)
        assert min(rates) * 0.999 - 1e-6 <= rate <= max(rates) * 1.001 + 1e-6
        assert len(pace._samples) <= WINDOW / SPACING + 2


def test_the_rate_is_that_of_the_last_seconds_and_of_the_whole_time_if_nobody_has_asked_before() -> None:
    pace = Pace(100.0)
    assert pace.rate(0, 100.0) == 0.0
    assert pace.rate(1000, 110.0) == 100.0
    for second in range(111, 121):
        pace.rate(1000, float(second))
    assert pace.rate(1000, 121.0) == 0.0
    assert pace.rate(1500, 122.0) == 100.0
    assert pace.rate(10**9, 122.0) > 0


@given(octets=SIZES, size=SIZES, rate=st.floats(0, 1e12))
def test_the_text_never_says_that_more_is_there_than_is(octets: int, size: int, rate: float) -> None:
    octets = min(octets, size)
    sending = Sending("id", "default", octets, size, rate, seconds_left(octets, size, rate))
    text = progress_text(sending)
    done, _, whole, unit = re.match(r"([0-9.]+) (of) ([0-9.]+) (\S+?),", text).groups()  # type: ignore[union-attr]
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert float(done) * factor <= octets * 1.000001
    assert float(done) <= float(whole)
    assert text.endswith("the mail server's reply is awaited") == (octets == size)
    for width in range(0, 120, 7):
        line = bar(sending, width)
        assert len(line) <= width
        assert text.startswith(line) or re.fullmatch(r"\[#*-*\] " + re.escape(text), line)


def test_the_text_has_the_form_that_people_know() -> None:
    assert (
        progress_text(Sending("id", "a", 1_290_000, 5_000_000, 130_400.0, 30.9)) == "1.2 of 5.0 MB, 130 kB/s, 30 s left"
    )
    assert progress_text(Sending("id", "a", 0, 900, 0.0, None)) == "0 of 900 B, 0 B/s"
    assert progress_text(Sending("id", "a", 999, 60_000, 1234.0, 48.0)) == "0.9 of 60.0 kB, 1.2 kB/s, 48 s left"
    shown = bar(Sending("id", "a", 25, 100, 5.0, 15.0), 60)
    assert shown == "[#######---------------------] 25 of 100 B, 5 B/s, 15 s left"
    assert seconds_left(10, 20, 0.5) is None
    assert seconds_left(20, 20, 0.0) == 0.0


class Server:
    """An SSH server that has `taken` octets of those that were sent, and grants more in steps."""

    def __init__(self, window: int, step: int) -> None:
        self.initial = self.window = window
        self.step = step
        self.taken = self._granted = 0

    def take(self, sent: int, octets: int) -> None:
        self.taken = min(sent, self.taken + octets)
        if self.taken - self._granted >= self.step:
            self.window += self.taken - self._granted
            self._granted = self.taken


@given(
    window=st.integers(1, 1 << 22),
    step=st.floats(0.001, 0.5),
    turns=st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 300_000), st.integers(0, 500_000)), max_size=80),
)
def test_what_counts_as_acknowledged_only_grows_and_is_within_a_step_of_the_truth(
    window: int, step: float, turns: list[tuple[int, int, int]]
) -> None:
    server = Server(window, max(1, int(step * window)))
    acknowledgement = Acknowledgement(server.window)
    sent, before = 0, 0
    for write, take, waiting in turns:
        octets = min(write, server.window)
        sent, server.window = sent + octets, server.window - octets
        server.take(sent, take)
        acknowledgement.measure_step(sent, server.window)
        queued = min(waiting, sent - server.taken)
        found = acknowledgement.octets(sent, server.window, queued)
        assert before <= found <= sent
        # What waits on this computer does not count.
        assert found <= max(before, sent - queued)
        assert found >= server.taken - server.step
        before = found
    assert acknowledgement.octets(sent, None, 0) <= sent


def test_what_the_server_may_have_taken_beyond_its_grants_is_the_step_that_was_measured() -> None:
    acknowledgement = Acknowledgement(1000)
    # It has granted 100 octets after 300; later 100 more. TCP has acknowledged all that was sent.
    acknowledgement.measure_step(300, 800)
    acknowledgement.measure_step(900, 300)
    assert acknowledgement.octets(1000, 200, 0) == 300
    # Where nothing was measured, half of the first window counts as the step.
    assert Acknowledgement(1000).octets(1000, 200, 0) == 700
