"""Wrapped text: no line is too wide, and no word is broken, changed or lost."""

from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.cli.wrapping import cells, wrap

WORDS = st.one_of(
    st.text(alphabet="abcXYZ-./@<>:;,`'\"()", min_size=1, max_size=30),
    st.text(alphabet="漢字かな한글é\u0301👩\u200d💻", min_size=1, max_size=12),
    st.sampled_from(
        ["`mailrelay queue show 3KQ7Z`", "undo: rm -f /tmp/a b", "✓", "->", "\x1b[31mred\x1b[0m", "to       "]
    ),
)
TEXTS = st.lists(st.tuples(st.integers(0, 6), WORDS), max_size=25).map(
    lambda pairs: "".join(f" {' ' * gap}{word}" for gap, word in pairs)
)
WIDTHS = st.integers(-1, 120)
HANGS = st.none() | st.integers(0, 60)


@given(TEXTS, WIDTHS, HANGS)
def test_the_words_of_the_lines_are_the_words_of_the_text(text: str, width: int, hang: int | None) -> None:
    assert [word for line in wrap(text, width, hang) for word in line.split(" ") if word] == [
        word for word in text.split(" ") if word
    ]


@given(TEXTS, st.integers(1, 120), HANGS)
@example("    /a/path/that/is/as/wide/as/the/line", 35, None)
def test_a_line_that_is_too_wide_is_one_word(text: str, width: int, hang: int | None) -> None:
    for line in wrap(text, width, hang):
        assert cells(line) <= width or not line.strip(" ") or " " not in line


@given(TEXTS, st.integers(1, 120))
def test_no_line_but_the_only_one_is_empty(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert len(lines) == 1 or all(line.strip(" ") for line in lines)


@given(TEXTS, st.integers(-1, 0))
def test_without_a_width_text_is_as_it_was(text: str, width: int) -> None:
    assert wrap(text, width) == [text]
