"""The answer of a relayhost about records: whole, cut anywhere, behind any output of a login shell, with hostile octets."""

from hypothesis import given
from hypothesis import strategies as st

from mailrelay.ssh.interface import RecordRead
from mailrelay.ssh.recorder import parse

MARK = "0123456789abcdef" * 2
TOKENS = st.text("0123456789abcdef", min_size=32, max_size=32).filter(lambda token: token != MARK)
TOKEN = "a" * 32
"""Also named in hostile octets."""
PARTS = st.sampled_from(
    [b"\n", b"\r\n", b"END", b"\nEND ", TOKEN.encode(), b" begin\n", b" done\n", b" record ", b" ended ", b"250 Ok\r\n"]
)
OCTETS = (
    st.lists(PARTS | st.binary(max_size=20), max_size=12).map(b"".join).filter(lambda each: MARK.encode() not in each)
)
RECORDS = st.dictionaries(
    TOKENS | st.just(TOKEN), st.tuples(OCTETS, st.sampled_from(["complete", "ended", "growing"])), max_size=4
)


def lines(records: dict[str, tuple[bytes, str]]) -> bytes:
    """What the script prints."""
    answer = b"\n%b begin\n" % MARK.encode()
    for token, (octets, state) in records.items():
        end = b"\nEND %b\n" % token.encode() if state == "complete" else b""
        word = b"growing" if state == "growing" else b"ended"
        answer += b"%b record %b\n123 123\n%b%b\n" % (MARK.encode(), token.encode(), octets, end)
        answer += b"%b %b %b\n" % (MARK.encode(), word, token.encode())
    return answer + b"%b done\n" % MARK.encode()


def expected(token: str, octets: bytes, state: str) -> RecordRead:
    end = b"\nEND %b\n" % token.encode()
    if state != "complete" and octets.endswith(end):
        return RecordRead(octets.removesuffix(end), True)
    return RecordRead(octets, state == "complete", is_growing=state == "growing")


@given(RECORDS, OCTETS, OCTETS)
def test_a_whole_answer_is_read_as_it_was_written_whatever_stands_around_it(
    records: dict[str, tuple[bytes, str]], before: bytes, behind: bytes
) -> None:
    assert parse(before + lines(records) + behind, MARK) == {
        token: expected(token, octets, state) for token, (octets, state) in records.items()
    }


@given(RECORDS, OCTETS, st.data())
def test_an_answer_that_is_cut_anywhere_is_none(
    records: dict[str, tuple[bytes, str]], before: bytes, data: st.DataObject
) -> None:
    answer = before + lines(records)
    assert parse(answer[: data.draw(st.integers(0, len(answer) - 1))], MARK) is None


@given(st.binary(max_size=200) | OCTETS)
def test_other_output_is_none(output: bytes) -> None:
    assert parse(output, MARK) is None


@given(RECORDS)
def test_the_answer_to_another_question_is_none(records: dict[str, tuple[bytes, str]]) -> None:
    assert parse(lines(records), "f" * 32) is None
