"""xtext: the form of ENVID and ORCPT on the wire (RFC 3461 section 4)."""

import re

_XTEXT = re.compile(rb"\+([0-9A-F]{2})")


def unxtext(xtext: bytes) -> bytes:
    """RFC 3461 section 4: +HH is an octet."""
    return _XTEXT.sub(lambda found: bytes.fromhex(found[1].decode("ascii")), xtext)
