"""The content of a message for the page: its text, its HTML, its attachments.

A message can be broken or hostile, so every function accepts any bytes; what cannot be decoded is shown with replacement
characters or as it is. The HTML is made safe in three ways: `tame` leaves out everything that loads or runs something, the
response has a policy of its own (`HTML_POLICY`), and the frame is sandboxed.
"""

import codecs
import html
import re
from dataclasses import dataclass
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message

from mailrelay.mail.printable import printable

MAX_TEXT = 200_000
"""Characters of a text that are shown, at most."""
MAX_HTML = 500_000
"""Characters of HTML that are read and shown, at most."""
MAX_PARTS = 200
"""Parts of a message that are read, at most."""
HTML_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none';"
    " frame-ancestors 'self'"
)
"""The Content-Security-Policy of the HTML of a message."""

_DROPPED = {
    "script", "iframe", "frame", "frameset", "object", "embed", "applet", "template", "noscript", "svg", "math", "title",
}  # fmt: skip
"""Elements that are left out with everything in them."""
_VOID_DROPPED = {"link", "meta", "base", "source", "track", "input", "param"}
"""Elements without an end tag that are left out."""
_URLS = {
    "href", "src", "srcset", "background", "poster", "action", "formaction", "ping", "data", "cite", "longdesc", "usemap",
    "lowsrc", "dynsrc", "manifest", "codebase", "archive", "profile", "xlink:href", "imagesrcset", "target",
}  # fmt: skip
"""Attributes that are left out: the browser may load their address, or show it in place of the page."""
_NO_CHARSETS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"}
"""Codecs of Python that are not charsets of mail; the time of the first two is not linear."""
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError)
"""The exceptions that Python's parser raises for hostile messages."""
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]*)([^<>]*)>")
_ATTRIBUTE = re.compile(r"""([^\s=/"'<>]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'<>]+))?""")


@dataclass(frozen=True, slots=True)
class Attachment:
    """number: of the part in the message. name: printable. kind: its media type. size: octets."""

    number: int
    name: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Content:
    """text: printable, with LF line ends; "" if there is none. is_cut: whether the text is longer than MAX_TEXT. has_html:
    whether the message has HTML, for `html_of`."""

    text: str
    is_cut: bool
    has_html: bool
    attachments: tuple[Attachment, ...]


def read(content: bytes) -> Content:
    """The text and the attachments of a message."""
    text, has_html = "", False
    attachments = []
    for number, part in enumerate(_parts(content)):
        if _is_shown(part) and part.get_content_type() == "text/html":
            has_html = True
        elif _is_shown(part) and not text:
            text = _text(part)
        else:
            attachments.append(Attachment(number, _name(part, number), _kind(part), len(octets_of(part))))
    shown = _lines(text[:MAX_TEXT])
    return Content(shown, len(text) > MAX_TEXT, has_html, tuple(attachments))


def html_of(content: bytes) -> str:
    """The HTML of a message, tamed; "" if there is none."""
    for part in _parts(content):
        if _is_shown(part) and part.get_content_type() == "text/html":
            return tame(_text(part)[:MAX_HTML])
    return ""


def part_of(content: bytes, number: int) -> tuple[str, bytes] | None:
    """The name and the octets of a part of the message; None if there is none."""
    parts = _parts(content)
    return (_name(parts[number], number), octets_of(parts[number])) if 0 <= number < len(parts) else None


def text_codec(name: str) -> str:
    """Python's name for a charset. Raises LookupError for one that Python does not know, or that is not a charset of
    mail."""
    codec = codecs.lookup(name).name
    if codec in _NO_CHARSETS:
        raise LookupError(name)
    return codec


def octets_of(part: Message) -> bytes:
    """The octets of a part without its transfer encoding; b"" if they cannot be decoded."""
    try:
        if part.get_content_maintype() == "message":
            inner = part.get_payload()
            return inner[0].as_bytes() if isinstance(inner, list) and inner and isinstance(inner[0], Message) else b""
        found = part.get_payload(decode=True)
    except _UNREADABLE:
        found = None
    return found if isinstance(found, bytes) else b""


def _parts(content: bytes) -> list[Message]:
    """The parts that hold no other parts, in order."""
    found: list[Message] = []
    try:
        waiting: list[Message] = [message_from_bytes(content)]
    except _UNREADABLE:
        return []
    while waiting and len(found) < MAX_PARTS:
        part = waiting.pop(0)
        inner = part.get_payload() if part.is_multipart() and part.get_content_maintype() == "multipart" else None
        if isinstance(inner, list):
            waiting[:0] = [one for one in inner if isinstance(one, Message)]
        else:
            found.append(part)
    return found


def _is_shown(part: Message) -> bool:
    """Whether a part is text that mail clients show in the message, not as an attachment."""
    try:
        return part.get_content_type() in ("text/plain", "text/html") and part.get_content_disposition() != "attachment"
    except _UNREADABLE:
        return False


def _text(part: Message) -> str:
    """The text of a part; as UTF-8 if its charset is not known."""
    octets = octets_of(part)
    try:
        return octets.decode(text_codec(str(part.get_content_charset() or "utf-8")), "replace")
    except _UNREADABLE:
        return octets.decode("utf-8", "replace")


def _name(part: Message, number: int) -> str:
    """A printable file name without directories."""
    try:
        given = str(make_header(decode_header(str(part.get_filename() or ""))))
    except _UNREADABLE:
        given = ""
    name = printable(given.replace("\\", "/").rpartition("/")[2].strip(), 150)
    return name or f"part {number + 1}"


def _kind(part: Message) -> str:
    try:
        return printable(part.get_content_type(), 80)
    except _UNREADABLE:
        return "unknown"


def _lines(text: str) -> str:
    """`text` with LF line ends, printable line by line; tabs stay."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines).rstrip("\n")


def tame(text: str) -> str:
    """The HTML without scripts, frames, links to style sheets, and addresses that a browser loads by itself.

    The address of a link becomes its title, because a browser may connect to the host of a link before the person follows
    it. Does not use Python's parser, because its time is not linear.
    """
    out: list[str] = []
    folded = text.lower()
    # A few characters are longer in lower case; then the positions in both texts would differ.
    if len(folded) != len(text):
        text = folded
    at = 0
    while (begin := text.find("<", at)) >= 0:
        out.append(text[at:begin])
        if text.startswith("<!--", begin):
            at = _end_of(text, "-->", begin + 4)
        elif text[begin + 1 : begin + 2] in ("!", "?"):
            at = _end_of(text, ">", begin)
        elif (tag := _TAG.match(text, begin)) is None:
            out.append("&lt;")
            at = begin + 1
        else:
            at = tag.end()
            name, is_end = tag[2].lower(), bool(tag[1])
            if name in _DROPPED and not is_end:
                at = _end_of(text, ">", _start_of(folded, f"</{name}", at))
            elif name == "style" and not is_end:
                end = _start_of(folded, "</style", at)
                out.append(f"<style>{text[at:end].replace('<', '')}</style>")
                at = _end_of(text, ">", end)
            elif name not in _DROPPED and name not in _VOID_DROPPED and name != "style":
                out.append(f"</{name}>" if is_end else f"<{name}{_attributes(name, tag[3])}>")
    out.append(text[at:])
    return "".join(out)


def _start_of(text: str, sought: str, at: int) -> int:
    """The position of `sought`; the end of the text if it is not found."""
    found = text.find(sought, at)
    return found if found >= 0 else len(text)


def _end_of(text: str, sought: str, at: int) -> int:
    """The position after `sought`; the end of the text if it is not found."""
    return min(len(text), _start_of(text, sought, at) + len(sought))


def _attributes(tag: str, given: str) -> str:
    """The attributes of a tag that load nothing, as HTML."""
    out = []
    for found in _ATTRIBUTE.finditer(given):
        name = found[1].lower()
        value = html.unescape((found[2] or "").strip("\"'"))
        if tag == "a" and name == "href":
            name = "title"
        if _is_tame(tag, name, value):
            out.append(f' {name}="{html.escape(value)}"')
    return "".join(out)


def _is_tame(tag: str, name: str, value: str) -> bool:
    if not name.replace("-", "").isalnum() or name.startswith("on"):
        return False
    if name == "src" and tag == "img":
        return value.strip().lower().startswith("data:image/")
    return name not in _URLS
