"""Checksums of messages: each message, each of its recipients, and each piece of its content has one in its row.

Promises: a row whose checksum matches is as it was written for this message. A checksum covers the key of the message, so
that a row of another message does not match. That of a message covers the number of its recipients, so that a missing one is
noticed. A message that does not match is never sent: the caller holds it, with a notice to the person.

Rows of spools before format 5 have no checksum (null) and are not checked. Either all rows of a message have a
checksum, or none has: a row that lacks one among others that have one does not match.
"""

# Not hashlib: it loads OpenSSL, which takes 5 ms in each command.
try:
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

SIZE = 16
"""Octets of a checksum (BLAKE2b, RFC 7693)."""
_STEP = 2047
"""Octets that are hashed at once. For more, CPython releases the GIL, and in a busy process gets it back up to 5 ms
later."""


def of_message(
    message: int,
    relayhost: bytes,
    sender: bytes,
    body: bytes,
    smtputf8: int,
    ret: bytes,
    envid: bytes,
    size: int,
    bare_header: int,
    recipients: int,
) -> bytes:
    """The checksum of a row of `message`. message: its key. recipients: the number of all its recipients.

    Raises TypeError for values of other types, which a damaged row may have; `of_recipient` and `of_piece` do so, too."""
    return _of(
        b"message %d %d %d %d %d %d:%b%d:%b%d:%b%d:%b%d:%b"
        % (
            message,
            smtputf8,
            size,
            bare_header,
            recipients,
            len(relayhost),
            relayhost,
            len(sender),
            sender,
            len(body),
            body,
            len(ret),
            ret,
            len(envid),
            envid,
        )
    )


def of_recipient(message: int, address: bytes, notify: bytes, orcpt: bytes) -> bytes:
    """The checksum of a row of `recipient`. message: the key of its message."""
    return _of(
        b"recipient %d %d:%b%d:%b%d:%b" % (message, len(address), address, len(notify), notify, len(orcpt), orcpt)
    )


def of_piece(message: int, seq: int, data: bytes | memoryview) -> bytes:
    """The checksum of a row of `content`. message: the key of its message."""
    found = blake2b(b"piece %d %d %d:" % (message, seq, len(data)), digest_size=SIZE)
    octets = memoryview(data)
    for start in range(0, len(octets), _STEP):
        found.update(octets[start : start + _STEP])
    return found.digest()


def _of(octets: bytes) -> bytes:
    return blake2b(octets, digest_size=SIZE).digest()
