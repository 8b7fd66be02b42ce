"""A message as a form: what is not changed stays, and what is changed arrives as it was written."""

from email import message_from_bytes
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.common_domains import at_common_domain
from mailrelay.page.editing import editable, names_address, with_address, with_source, with_subject, with_text

PLAIN = b"From: me@example.org\r\nTo: Bob <bob@exmaple.org>, bob@exmaple.org.uk\r\nSubject: hello\r\n\r\nHello.\r\n"
BASE64 = b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: base64\r\n\r\nR3L832U=\r\n"
TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc"), whitelist_characters="\n\t"), max_size=300)


def parsed(content: bytes) -> tuple[str, str]:
    message = message_from_bytes(content, policy=default)
    return str(message["Subject"]), str(message.get_content()).replace("\r\n", "\n")


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda octets: b"Subject: x\r\n\r\n" + octets))
def test_what_is_not_changed_stays_octet_for_octet(content: bytes) -> None:
    found = editable(content)
    assert not (found.text is not None and found.source is not None)
    if found.text is not None:
        assert with_text(content, found.text) == content
    if found.source is not None:
        assert with_source(content, found.source) == content
    assert with_subject(content, found.subject) == content


@given(TEXTS)
def test_a_changed_text_arrives_as_it_was_written(text: str) -> None:
    content = with_text(PLAIN, text)
    assert parsed(content)[1] == (text if text.endswith("\n") else f"{text}\n")
    assert content.isascii()
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    assert b"\n" not in content.replace(b"\r\n", b"")
    # And it can be changed once more.
    assert editable(content).text == (text if text.endswith("\n") else f"{text}\n")


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=150))
def test_a_changed_subject_is_one_field(subject: str) -> None:
    content = with_subject(PLAIN, subject)
    header, _, body = content.partition(b"\r\n\r\n")
    assert body == b"Hello.\r\n"
    assert [line.partition(b":")[0] for line in header.split(b"\r\n") if line[:1] not in (b" ", b"\t")] == [
        b"From",
        b"To",
        b"Subject",
    ]


def test_a_subject_cannot_add_a_field() -> None:
    content = with_subject(PLAIN, "x\r\nBcc: eve@example.org\n\nbody")
    assert message_from_bytes(content)["Bcc"] is None


def test_a_text_of_another_charset_and_encoding_is_shown_and_changed() -> None:
    assert editable(BASE64).text == "Grüße"
    assert parsed(with_text(BASE64, "Größe 木\n"))[1] == "Größe 木\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace(b"Hello.", b"a\0b"),
        PLAIN.replace(b"Hello.", b"a\rb"),
        PLAIN.replace(b"Hello.", b"x" * 600_000),
        b"no header\r\n\r\na\0\r\n",
    ],
    ids=["NUL", "bare CR", "large", "malformed"],
)
def test_what_a_form_does_not_give_back_cannot_be_changed(content: bytes) -> None:
    found = editable(content)
    assert found.text is None
    assert found.source is None


@pytest.mark.parametrize(
    "kind", [b"text/html", b"multipart/mixed; boundary=x", b"text/plain; charset=idna", b"text/plain; charset=none"]
)
def test_of_what_is_not_plain_text_the_source_can_be_changed(kind: bytes) -> None:
    content = b"Content-Type: %s\r\n\r\nHello \xff\r\n" % kind
    found = editable(content)
    assert found.text is None
    assert found.source is not None
    assert with_source(content, found.source.replace("Hello", "Bye")) == content.replace(b"Hello", b"Bye")
    with pytest.raises(ValueError, match="charset"):
        with_source(content, found.source + "木")
    with pytest.raises(ValueError, match="no message"):
        with_source(content, " \n")


def test_a_corrected_address_is_corrected_in_the_header_and_no_similar_one_is() -> None:
    assert names_address(PLAIN, b"bob@exmaple.org")
    assert not names_address(PLAIN, b"ob@exmaple.org")
    changed = with_address(PLAIN, b"bob@exmaple.org", b"bob@example.org")
    assert b"To: Bob <bob@example.org>, bob@exmaple.org.uk\r\n" in changed
    assert with_address(PLAIN.replace(b"Hello.", b"To: bob@exmaple.org"), b"x@y", b"z") == PLAIN.replace(
        b"Hello.", b"To: bob@exmaple.org"
    )


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        (b"bob@gmial.com", b"bob@gmail.com"),
        (b"bob@GMX.dee", b"bob@gmx.de"),
        (b"bob@gmail.com", b""),
        (b"bob@example.org", b""),
        (b"bob", b""),
        (b"@gmial.com", b""),
    ],
)
def test_a_mistyped_common_domain_is_suggested(address: bytes, meant: bytes) -> None:
    assert at_common_domain(address) == meant


@pytest.mark.parametrize(
    ("written", "subject"),
    [
        ("hello, Bob", "hello, Bob"),
        ("Grüße", "Grüße"),
        ("  two   words ", "two words"),
        ("word " * 39 + "word", "word " * 39 + "word"),
    ],
)
def test_a_changed_subject_arrives_as_it_was_written_but_for_its_blanks(written: str, subject: str) -> None:
    assert parsed(with_subject(PLAIN, written)) == (subject, "Hello.\n")
    assert parsed(with_subject(PLAIN.replace(b"Subject: hello\r\n", b""), written)) == (subject, "Hello.\n")
