"""The parser of paths with arbitrary octets, compared with the standard library's idea of a line."""

import contextlib

from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.mail.address import BadPath, parse_path

PIECES = st.lists(
    st.one_of(
        st.sampled_from([b"<", b">", b"@", b".", b'"', b"\\", b",", b":", b" ", b"[", b"]", b"\r\n", b"a", b"1.2.3.4"]),
        st.sampled_from([b"..", b"\\a", b"\\\\", b'."', b'".', b"_", b"-", b"a@b."]),
        st.binary(max_size=3),
        st.text(max_size=2).map(lambda text: text.encode("utf-8", "surrogatepass")),
    ),
    max_size=20,
)
ATOM = st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~äß好", min_size=1, max_size=10)
DOTS = st.sampled_from(["", "", ".", ".."])
LOCAL = st.one_of(
    st.lists(ATOM, min_size=1, max_size=3).map(".".join),
    st.tuples(DOTS, ATOM, st.sampled_from([".", "..", "...", "\\", "\\\\", '."x y".']), ATOM, DOTS).map("".join),
    st.text("ab <>@,:.()[]é", max_size=10).map(lambda text: f'"{text}"'),
    st.text(' "\\a', max_size=5).map(lambda text: '"' + "".join("\\" + char for char in text) + '"'),
)
LABEL = st.from_regex(r"[a-zA-Z0-9äю]([a-z0-9ä-]{0,20}[a-z0-9ю])?|[a-z0-9_-]{1,20}", fullmatch=True)
DOMAIN = st.builds(str.__add__, st.lists(LABEL, min_size=1, max_size=4).map(".".join), st.sampled_from(["", "."]))


def outside_quotes(text: str, *, knows_backslash: bool) -> str:
    """The characters of an address that a reader sees outside quoted strings. Fails for a quoted string without an end.

    knows_backslash: whether the reader takes a backslash outside quoted strings as the beginning of a pair.
    """
    seen, is_quoted, chars = [], False, iter(text)
    for char in chars:
        if char == "\\" and (is_quoted or knows_backslash):
            pair = next(chars)
            seen += [] if is_quoted else [pair]
        elif char == '"':
            is_quoted = not is_quoted
        elif not is_quoted:
            seen.append(char)
    assert not is_quoted
    return "".join(seen)


@given(PIECES.map(b"".join), st.booleans(), st.booleans())
@example(b"a@b>\n", True, True)
def test_every_parsed_mailbox_can_be_written_into_a_command(octets: bytes, smtputf8: bool, null: bool) -> None:
    for arg in (octets, b"<" + octets, b"<" + octets + b">", b"<" + octets + b"@example.org>"):
        with contextlib.suppress(BadPath):
            mailbox, rest = parse_path(arg, smtputf8=smtputf8, null=null)
            text = mailbox.decode("utf-8" if smtputf8 else "ascii")
            assert mailbox in arg
            assert text.splitlines() in ([text], [])
            assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
            assert mailbox or null
            for knows_backslash in (True, False):
                assert not set(outside_quotes(text, knows_backslash=knows_backslash)) & set(' <>"')
            assert arg.endswith(rest)


@given(LOCAL, DOMAIN)
def test_every_address_of_the_grammar_is_returned_unchanged(local: str, domain: str) -> None:
    mailbox = f"{local}@{domain}".encode()
    assert parse_path(b"<" + mailbox + b">", smtputf8=True, null=False) == (mailbox, b"")
    assert parse_path(b"<@x.example:" + mailbox + b"> A=B", smtputf8=True, null=True) == (mailbox, b"A=B")
