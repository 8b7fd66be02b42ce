"""One flipped bit anywhere in the files of a spool: each message is sent as it came in, or held and told, or the spool is
reported as damaged.

    MAILRELAY_FLIPS=10000 pytest tests/property/test_flipped_bits.py      # flips for each kind of place, 30 without it
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import flips

from mailrelay.spool.database import FILE

FLIPS = int(os.environ.get("MAILRELAY_FLIPS", "30"))
PAGE, FRAME = 4096, 4096 + 24

# A place in a file of this size.
IN_FILE: dict[str, Callable[[random.Random, int], int]] = {
    "header": lambda draw, _size: draw.randrange(100),
    "head of a page": lambda draw, size: draw.randrange(size // PAGE) * PAGE + draw.randrange(60),
    "cell": lambda draw, size: draw.randrange(size // PAGE) * PAGE + PAGE - 1 - draw.randrange(300),
    "anywhere": lambda draw, size: draw.randrange(size),
}
IN_LOG: dict[str, Callable[[random.Random, int], int]] = {
    "header of the log": lambda draw, _size: draw.randrange(32),
    "head of a frame": lambda draw, size: 32 + draw.randrange((size - 32) // FRAME) * FRAME + draw.randrange(24),
    "anywhere in the log": lambda draw, size: draw.randrange(size),
}


@pytest.fixture(scope="module", params=["in the file", "in the log"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> flips.Sample:
    return flips.make(tmp_path_factory.mktemp("flips") / "spool", checkpointed=request.param == "in the file")


def outcome(sample: flips.Sample, directory: Path) -> str:
    """What became of the mail in the spool in `directory`: a word, or an error of the test."""
    result = flips.run(directory)
    altered = {address for address, octets in result.sent.items() if sample.expected.get(address, octets) != octets}
    assert not altered
    if result.broken or any("commits" in line for line in result.reported):
        return "reported"
    assert result.sent.keys() <= sample.expected.keys()
    lost = {address for address in sample.expected if address not in result.sent and result.told.get(address) != "held"}
    changed = {address for address, state in sample.live.items() if result.told.get(address) not in (state, "held")}
    # The address of a recipient may be what was altered: then it is told of under that address.
    known = sample.expected.keys() | sample.live.keys()
    altered = {address for address in result.told if address not in known}
    assert len(lost | changed) == len(altered), (lost, changed, altered)
    return "sent" if result.sent == sample.expected else "held"


def test_a_spool_without_damage_is_sent_as_it_came_in(sample: flips.Sample, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sample.directory, tmp_path / "spool"))
    result = flips.run(copy)
    assert (result.broken, result.reported) == ("", [])
    assert result.sent == sample.expected
    assert result.told == sample.live


@pytest.mark.parametrize(
    ("sample", "place"),
    [("in the file", place) for place in IN_FILE] + [("in the log", place) for place in (*IN_FILE, *IN_LOG)],
    indirect=["sample"],
)
def test_a_flipped_bit_alters_no_message_and_hides_none(sample: flips.Sample, tmp_path: Path, place: str) -> None:
    name = FILE if place in IN_FILE else f"{FILE}-wal"
    draw = random.Random(place)
    found: Counter[str] = Counter()
    for _ in range(FLIPS):
        copy = Path(shutil.copytree(sample.directory, tmp_path / "spool"))
        octets = bytearray((copy / name).read_bytes())
        at, bit = (IN_FILE | IN_LOG)[place](draw, len(octets)), draw.randrange(8)
        octets[at] ^= 1 << bit
        (copy / name).write_bytes(octets)
        try:
            found[outcome(sample, copy)] += 1
        except Exception as error:
            error.add_note(f"bit {bit} of octet {at} of {name} was flipped")
            raise
        shutil.rmtree(copy)
    # Else nothing was tested. The first page is in the log, too, if there is one.
    assert found["held"] + found["reported"] or (place == "header" and not sample.is_checkpointed)
