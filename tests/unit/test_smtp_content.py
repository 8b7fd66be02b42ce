"""Content for DATA and BDAT, by example."""

import pytest

from mailrelay.smtp.content import BareNewline, LineEnds, Stuffer


def data(*chunks: bytes) -> bytes:
    stuffer = Stuffer()
    return b"".join([*map(stuffer.feed, chunks), stuffer.end()])


def bdat(*chunks: bytes) -> bytes:
    line_ends = LineEnds()
    return b"".join([*map(line_ends.feed, chunks), line_ends.end()])


@pytest.mark.parametrize(
    ("chunks", "wire"),
    [
        ([], b".\r\n"),
        ([b"a\r\n"], b"a\r\n.\r\n"),
        ([b"a"], b"a\r\n.\r\n"),
        ([b"."], b"..\r\n.\r\n"),
        ([b".\r\n"], b"..\r\n.\r\n"),
        ([b".\r\n.\r\n.\r\n"], b"..\r\n..\r\n..\r\n.\r\n"),
        ([b"a.b\r\n..c\r\n"], b"a.b\r\n...c\r\n.\r\n"),
        ([b"a\r\n", b".", b"\r\n"], b"a\r\n..\r\n.\r\n"),
        ([b"a\r", b"\n.", b"\r", b"\n"], b"a\r\n..\r\n.\r\n"),
        ([b"a", b".b"], b"a.b\r\n.\r\n"),
        ([b"", b".", b"", b"a"], b"..a\r\n.\r\n"),
    ],
)
def test_leading_dots_are_doubled_and_a_dot_alone_ends(chunks: list[bytes], wire: bytes) -> None:
    assert data(*chunks) == wire


@pytest.mark.parametrize(
    "chunks", [[b"a\nb"], [b"a\rb"], [b"a\r", b"b"], [b"a\r\r\n"], [b"\n"], [b"a\r"], [b"\r", b"\r\n"]]
)
def test_a_bare_cr_or_lf_is_refused_for_data_and_bdat(chunks: list[bytes]) -> None:
    with pytest.raises(BareNewline):
        data(*chunks)
    with pytest.raises(BareNewline):
        bdat(*chunks)


def test_bdat_content_is_untouched() -> None:
    assert bdat(b".\r", b"\n.\r\n\x00\xff") == b".\r\n.\r\n\x00\xff"
