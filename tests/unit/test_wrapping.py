"""Wrapped text: where lines begin, what stays together, and how wide characters are."""

import pytest

from mailrelay.cli.wrapping import cells, hanging, wrap


def test_text_that_fits_is_not_touched() -> None:
    assert wrap("held     3   of   4", 80) == ["held     3   of   4"]
    assert wrap("", 80) == [""]


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("pending  3, the oldest for 2 h", 9),
        ("not told yet by mailbox (failed): no space", 2),
        ("  the server has refused the login", 2),
        ("  → Add the key to the agent", 4),
        ("  -> Add the key to the agent", 5),
        ("\x1b[32m✓\x1b[0m spool: can be written", 2),
        ("ok spool: can be written", 3),
        ("           450 4.2.0 come back later", 11),
        ("to do      mailrelay queue edit 3KQ7Z   change it", 11),
        ("2026-11-27 10:00:00 AKST  sent  <bob@example.org>  2.0.0", 26),
        ("2026-11-27 10:00:00  sent  <bob@example.org>  2.0.0", 21),
        ("   0.5 s  attempt at RCPT", 10),
        ("mailrelay: the spool is full; make space", 2),
    ],
)
def test_the_layout_of_a_line_gives_the_column_of_the_next(text: str, column: int) -> None:
    assert hanging(text) == column


def test_further_lines_begin_below_the_text_and_less_far_in_where_there_is_no_room() -> None:
    text = "subject    a dinner that nobody on the whole of the coast will forget soon"
    assert wrap(text, 40) == [
        "subject    a dinner that nobody on the",
        "           whole of the coast will",
        "           forget soon",
    ]
    assert wrap(text, 20) == [
        "subject    a dinner",
        "    that nobody on",
        "    the whole of the",
        "    coast will",
        "    forget soon",
    ]


@pytest.mark.parametrize("width", [1, 2, 3, 5, 19])
def test_a_terminal_that_is_too_narrow_for_anything_breaks_no_word(width: int) -> None:
    assert "".join(wrap("    ✓ one-two three", width)).replace(" ", "") == "✓one-twothree"


@pytest.mark.parametrize(
    "command",
    [
        "`mailrelay trust me@mail.example.org`",
        "'ssh -p 2222 me@mail.example.org'",
        '"PubkeyAuthentication yes or no"',
        "try: ssh -p 2222 -l me mail.example.org",
        "undo: systemctl --user disable --now mailrelay",
        "a key (ssh-keygen -t ed25519 -f ~/.ssh/id_mail)",
        "the key: SSH_AUTH_SOCK=/run/agent ssh-add ~/.ssh/id",
        "an agent: ssh-agent -a /run/user/1000/agent",
    ],
)
def test_a_command_to_copy_stays_on_one_line_if_it_fits(command: str) -> None:
    copied = command.partition("(")[2] or command.partition(": ")[2] or command
    for before in range(60):
        lines = wrap(f"{'x' * before} {command}; then run `mailrelay setup` again", 60)
        assert sum(copied in line for line in lines) == 1
        assert all(cells(line) <= 60 for line in lines)
        assert sum("`mailrelay setup`" in line for line in lines) == 1


def test_a_command_that_is_wider_than_the_line_is_broken_at_spaces() -> None:
    assert wrap("By hand: ssh-copy-id -p 2222 me@a-long-name.example.org", 30) == [
        "By hand: ssh-copy-id -p 2222",
        "  me@a-long-name.example.org",
    ]


def test_an_apostrophe_quotes_nothing() -> None:
    assert wrap("the server's name and the person's name", 20) == ["the server's name", "  and the person's", "  name"]


def test_a_long_word_begins_further_left_before_it_is_wider_than_the_line() -> None:
    fingerprint = f"SHA256:{'a' * 43}"
    assert wrap(f"  offered   ssh-ed25519 {fingerprint}", 55) == ["  offered   ssh-ed25519", f"     {fingerprint}"]
    assert wrap(f"  offered   ssh-ed25519 {fingerprint}", 40) == ["  offered   ssh-ed25519", fingerprint]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("abc", 3),
        ("日本語", 6),
        ("한글", 4),
        ("e\u0301", 1),
        ("\x1b[1;31mred\x1b[0m", 3),
        ("…→✓", 3),
        ("👍", 2),
        ("ｱ", 1),
    ],
)
def test_characters_count_by_their_columns(text: str, columns: int) -> None:
    assert cells(text) == columns
