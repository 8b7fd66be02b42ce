"""A draft: a message as a text that the person changes in an editor, and the envelope with other addresses.

    # The envelope. …
    Envelope-From: <me@example.org>
    Envelope-To: <bob@example.net>
    ---- The message begins below this line ----
    Subject: …

Above the line of dashes, empty lines and lines that begin with # are ignored. The addresses above it are those of the
envelope: they decide where the message goes. The header fields below it do not.

Promises: `read_draft` returns the values that `draft` was given, octet for octet, for every content that is not blank. Every
address that it returns is one of `mail.address`. Drafts are bytes: a message has no single charset.
"""

from collections.abc import Sequence

from mailrelay.mail.address import BadPath, parse_path
from mailrelay.mail.envelope import Envelope, Recipient

_LINE = b"---- The message begins below this line ----"
_FROM, _TO = b"envelope-from", b"envelope-to"
_HINT = b"""\
# The envelope: it decides where the message goes. Change, add or remove lines. The message is below the line of dashes.
# If you save a change, the new message is sent and replaces the old one. Unchanged or empty, nothing happens.
"""


class BadDraft(ValueError):
    """A draft that cannot be sent. The text says what is wrong with it."""


def readdressed(envelope: Envelope, sender: bytes, to: Sequence[bytes]) -> Envelope:
    """The envelope with another reverse path and other recipients, each once. It keeps its send time.

    Recipients of the old envelope keep their DSN parameters (RFC 3461); new ones have none.
    """
    old = {recipient.address: recipient for recipient in envelope.recipients}
    return Envelope(
        sender,
        tuple(old.get(address, Recipient(address)) for address in dict.fromkeys(to)),
        envelope.body,
        envelope.smtputf8 or not all(address.isascii() for address in (sender, *to)),
        envelope.ret,
        envelope.envid,
        send_time=envelope.send_time,
        owner=envelope.owner,
    )


def draft(envelope: Envelope, content: bytes) -> bytes:
    """The text for the editor. content: with the line ends for the editor."""
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
