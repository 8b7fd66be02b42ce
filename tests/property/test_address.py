"""The parser of paths with arbitrary octets, compared with the standard library's idea of a line."""

import contextlib

from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.mail.address import BadPath, parse_path

PIECES = st.lists(
    st.one_of(
        st.sampled_from([b"<", b">", b"@", b".", b'"', b"\\", b",", b":", b" ", b"[", b"]", b"\r\n", b"a", b"1.2.3.4"]),
        st.binary(max_size=3),
        st.text(max_size=2).map(lambda text: text.encode("utf-8", "surrogatepass")),
    ),
    max_size=20,
)
ATOM = st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~äß好", min_size=1, max_size=10)
LOCAL = st.one_of(
    st.lists(ATOM, min_size=1, max_size=3).map(".".join),
    st.text("ab <>@,:.()[]é", max_size=10).map(lambda text: f'"{text}"'),
    st.text(' "\\a', max_size=5).map(lambda text: '"' + "".join("\\" + char for char in text) + '"'),
)
LABEL = st.from_regex(r"[a-zA-Z0-9äю]([a-z0-9ä-]{0,20}[a-z0-9ю])?", fullmatch=True)
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


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
            assert text.startswith('"') or not set(text) & set(' <>"\\')
            assert arg.endswith(rest)


@given(LOCAL, DOMAIN)
def test_every_address_of_the_grammar_is_returned_unchanged(local: str, domain: str) -> None:
    mailbox = f"{local}@{domain}".encode()
    assert parse_path(b"<" + mailbox + b">", smtputf8=True, null=False) == (mailbox, b"")
    assert parse_path(b"<@x.example:" + mailbox + b"> A=B", smtputf8=True, null=True) == (mailbox, b"A=B")
