"""Changes to the content of a message by the form of `mend_form`. Pure, on bytes: a message has no single charset.

    editable(content)                what the page can change: subject and text, or the source
    with_subject / with_text / with_source / with_address      the content with one change

The text can be changed if the message is one plain text in a charset that Python knows. Otherwise the source can be changed,
unless it has characters that a browser's form changes, or more than MAX_EDITED octets.

Promises: a part that the person does not change keeps its octets. A changed text is ASCII if possible, otherwise UTF-8, in
lines of at most 998 octets.
"""

import binascii
import re
from dataclasses import dataclass
from email.header import Header

from mailrelay.mail.printable import printable
from mailrelay.mail.trace import MAX_HEADER, MAX_SUBJECT, is_signed, subject
from mailrelay.page.content import text_codec

MAX_EDITED = 500_000
"""Octets of a content that is put into a form, at most."""
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)")
_CHARSET = re.compile(r"""charset\s*=\s*"?([^\s";]+)""", re.IGNORECASE)
_FORMAT = re.compile(r"""format\s*=\s*"?flowed""", re.IGNORECASE)
_UNKEPT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
"""Characters that a browser's form drops or changes."""
_LONGEST_LINE = 998
"""Octets of a line without its line end (RFC 5322 section 2.1.1)."""
_ADDRESSES = (b"from", b"sender", b"reply-to", b"to", b"cc")
"""The fields of the header in which a changed address is changed, too; lower case."""


@dataclass(frozen=True, slots=True)
class Editable:
    """What of a content can be changed. subject: as shown. text, source: with LF line ends; None if it cannot be changed. At
    most one of the two is not None; if both are None, the subject cannot be changed either.

    charset: by which the source is decoded. is_signed: whether a change makes a signature invalid.
    """

    subject: str
    text: str | None
    source: str | None
    charset: str
    is_signed: bool


def editable(content: bytes) -> Editable:
    """What of a message can be changed on the page."""
    text = _plain_text(content)
    charset, source = _source(content) if text is None else ("utf-8", None)
    return Editable(subject(content), text, source, charset, is_signed(content))


def with_subject(content: bytes, new: str) -> bytes:
    """The content with another subject; unchanged if `new` is the subject of `editable`."""
    if new == subject(content):
        return content
    line = " ".join(printable(new[: 5 * MAX_SUBJECT]).split())
    charset = "us-ascii" if line.isascii() else "utf-8"
    value = Header(line, charset, header_name="Subject", maxlinelen=76).encode(linesep="\r\n")
    header, rest = _split(content)
    return _with_field(header, b"Subject", value.encode("ascii")) + rest


def with_text(content: bytes, new: str) -> bytes:
    """The content with another text; unchanged if `new` is the text of `editable`."""
    if new == _plain_text(content):
        return content
    kind = _field(content, b"content-type")
    flowed = "; format=flowed" if _FORMAT.search(kind) else ""
    text = new if new.endswith("\n") else f"{new}\n"
    octets = text.encode("utf-8", "replace")
    if octets.isascii() and max(map(len, octets.split(b"\n"))) <= _LONGEST_LINE:
        charset, encoding, body = "us-ascii", "7bit", octets
    else:
        charset, encoding, body = "utf-8", "quoted-printable", binascii.b2a_qp(octets, istext=True)
    header, _ = _split(content)
    header = _with_field(header, b"Content-Type", f"text/plain; charset={charset}{flowed}".encode())
    header = _with_field(header, b"Content-Transfer-Encoding", encoding.encode())
    if not _field(header, b"mime-version"):
        header = _with_field(header, b"MIME-Version", b"1.0")
    return header + b"\r\n" + body.replace(b"\n", b"\r\n")


def with_source(content: bytes, new: str) -> bytes:
    """The content with the source `new`; unchanged if `new` is the source of `editable`. Raises ValueError, with a
    sentence."""
    charset, shown = _source(content)
    if new == shown:
        return content
    if not new.strip():
        raise ValueError("there is no message in the source; write one, or go back")
    try:
        octets = new.encode(charset)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the character {printable(error.object[error.start])} is not in the charset of this message ({charset})"
        ) from None
    octets = octets.replace(b"\n", b"\r\n")
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def names_address(content: bytes, address: bytes) -> bool:
    """Whether `with_address` finds this address in the header."""
    return with_address(content, address, b"") != content


def with_address(content: bytes, old: bytes, new: bytes) -> bytes:
    """The content with the address `new` in place of `old` in the fields From, Sender, Reply-To, To and Cc."""
    if not old:
        return content
    whole = re.compile(rb"(?<![^\s<,;:\"(])" + re.escape(old) + rb"(?![^\s>,;\")])", re.IGNORECASE)
    header, rest = _split(content)
    at = 0
    fields = []
    while field := _FIELD.match(header, at):
        is_address = field[1].lower() in _ADDRESSES
        fields.append(whole.sub(lambda _: new, field[0]) if is_address else field[0])
        at = field.end()
    return b"".join((*fields, header[at:], rest))


def _split(content: bytes) -> tuple[bytes, bytes]:
    """The header with the line end of its last field, and the rest: an empty line and the body."""
    if content.startswith(b"\r\n"):
        return b"", content
    end = content.find(b"\r\n\r\n", 0, MAX_HEADER)
    return (content[: end + 2], content[end + 2 :]) if end >= 0 else (content, b"\r\n")


def _field(content: bytes, name: bytes) -> str:
    """The value of the first field with this name in lower case, unfolded; "" if there is none."""
    header, _ = _split(content)
    at = 0
    while field := _FIELD.match(header, at):
        if field[1].lower() == name:
            return " ".join(field[2].decode("utf-8", "replace").split())
        at = field.end()
    return ""


def _with_field(header: bytes, name: bytes, value: bytes) -> bytes:
    """The header with this field in place of the first one with its name; if there is none, after the last field."""
    line = b"%s: %s\r\n" % (name, value)
    at = 0
    while field := _FIELD.match(header, at):
        if field[1].lower() == name.lower():
            return header[: field.start()] + line + header[field.end() :]
        at = field.end()
    return header[:at] + line + header[at:]


def _is_well_formed(header: bytes) -> bool:
    """Whether all lines of the header belong to fields."""
    at = 0
    while field := _FIELD.match(header, at):
        at = field.end()
    return at == len(header)


def _plain_text(content: bytes) -> str | None:
    """The text of a message that is one plain text, with LF line ends; None for other messages."""
    header, rest = _split(content)
    kind = _field(content, b"content-type")
    if (
        len(content) > MAX_EDITED
        or not _is_well_formed(header)
        or not (not kind or kind.lower().split(";")[0].strip() == "text/plain")
        or "attachment" in _field(content, b"content-disposition").lower()
    ):
        return None
    named = _CHARSET.search(kind)
    try:
        octets = _decoded(rest.removeprefix(b"\r\n"), _field(content, b"content-transfer-encoding").lower())
        text = octets.decode(text_codec(named[1]) if named else "utf-8")
    except (ValueError, LookupError):
        return None
    return None if _UNKEPT.search(text) else text.replace("\r\n", "\n")


def _decoded(body: bytes, encoding: str) -> bytes:
    """The body without its transfer encoding. Raises ValueError."""
    match encoding:
        case "" | "7bit" | "8bit" | "binary":
            return body
        case "quoted-printable":
            return binascii.a2b_qp(body)
        case "base64":
            return binascii.a2b_base64(body)
        case _:
            raise ValueError(encoding)


def _source(content: bytes) -> tuple[str, str | None]:
    """The charset of the source, and the source with LF line ends; None if a form would change it, or if it is too long."""
    if len(content) > MAX_EDITED:
        return "utf-8", None
    charset = "utf-8"
    try:
        text = content.decode(charset)
    except UnicodeDecodeError:
        charset = "latin-1"
        text = content.decode(charset)
    return charset, None if _UNKEPT.search(text) else text.replace("\r\n", "\n")
