"""A message fixed by its sender: another envelope, and envelope and content as a text that can be changed in an editor.

    # Where it goes …
    Envelope-From: <me@example.org>
    Envelope-To: <bob@example.net>
    ---- The message begins below this line ----
    Subject: …

Above the line, empty lines and those that begin with # mean nothing. The addresses there are those of the envelope; the
fields of the message below it are only what its readers see.

Promises: `read_draft` gives back what `draft` was given, octet for octet, whatever the content is as long as it is not
blank; every address it gives is one of `mail.address`. All of it is bytes: a message has no charset of its own.
"""

from collections.abc import Sequence

from mailrelay.mail.address import BadPath, parse_path
from mailrelay.mail.envelope import Envelope, Recipient

_LINE = b"---- The message begins below this line ----"
_FROM, _TO = b"envelope-from", b"envelope-to"
_HINT = b"""\
# Where it goes: change these lines, add some or take some out. The message itself stands below the line of dashes.
# Saved and changed, it is sent in the place of the old one; unchanged or empty, nothing happens.
"""


class BadDraft(ValueError):
    """A draft that cannot be sent as it is. The text says what is wrong with it."""


def readdressed(envelope: Envelope, sender: bytes, to: Sequence[bytes]) -> Envelope:
    """The envelope with another reverse path and other recipients, each once.

    DSN parameters (RFC 3461) go with the recipient they were given for; new ones have none.
    """
    old = {recipient.address: recipient for recipient in envelope.recipients}
    return Envelope(
        sender,
        tuple(old.get(address, Recipient(address)) for address in dict.fromkeys(to)),
        envelope.body,
        envelope.smtputf8 or not all(address.isascii() for address in (sender, *to)),
        envelope.ret,
        envelope.envid,
    )


def draft(envelope: Envelope, content: bytes) -> bytes:
    """The text for the editor. content: with the line ends that the editor is to see."""
    to = b"".join(b"Envelope-To: <%s>\n" % recipient.address for recipient in envelope.recipients)
    return b"%sEnvelope-From: <%s>\n%s%s\n%s" % (_HINT, envelope.sender, to, _LINE, content)


def read_draft(text: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Reverse path, recipients (at least one) and content of a text from the editor. Raises BadDraft."""
    senders: list[bytes] = []
    recipients: list[bytes] = []
    at = number = 0
    while True:
        end = text.find(b"\n", at)
        if end < 0:
            raise BadDraft(f'the line "{_LINE.decode()}" is missing')
        line = text[at:end].strip()
        at, number = end + 1, number + 1
        if line == _LINE:
            break
        if not line or line.startswith(b"#"):
            continue
        name, _, value = line.partition(b":")
        if name.lower() not in (_FROM, _TO):
            raise BadDraft(f"line {number} is neither Envelope-From nor Envelope-To")
        found = senders if name.lower() == _FROM else recipients
        found.append(_address(value, number, null=found is senders))
    if len(senders) != 1:
        raise BadDraft("there must be one line Envelope-From")
    if not recipients:
        raise BadDraft("there is no line Envelope-To")
    if not text[at:].strip():
        raise BadDraft("there is no message below the line of dashes")
    return senders[0], recipients, text[at:]


def _address(value: bytes, number: int, *, null: bool) -> bytes:
    value = value.strip()
    try:
        address, rest = parse_path(value if value.startswith(b"<") else b"<%s>" % value, smtputf8=True, null=null)
    except BadPath as error:
        raise BadDraft(f"line {number}: {error}") from None
    if rest:
        raise BadDraft(f"line {number}: there is more than one address; give each a line of its own")
    return address
