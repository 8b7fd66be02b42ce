"""ESMTP parameters of MAIL and RCPT (RFC 5321 section 4.1.2), and the values that RFC 3461 and RFC 4865 give to them.

Promises: what is accepted can be written into another command as it is, and decodes to printable text, so that a
parameter cannot smuggle a line end into a delivery status notification. Pure: no I/O.
"""

import re
from datetime import UTC, datetime

from mailrelay.mail.send_time import MAX_WAIT, SendTime

NOTIFY_WORDS = frozenset({b"SUCCESS", b"FAILURE", b"DELAY"})
MAX_ENVID = 100
"""Octets of ENVID (RFC 3461 section 4.4)."""
MAX_ORCPT = 500
"""Octets of ORCPT (RFC 3461 section 4.2)."""

_KEYWORD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9\-]*")
_VALUE = re.compile(rb"[!-<>-~\x80-\xff]+")
# Printable when decoded: +XX stands for 20 to 7E only.
_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))+")
_ATOM = re.compile(rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+")
_UTF8_ADDRESS = re.compile(rb"(?:[!-*,-<>-\[\]-~\x80-\xff]|\\x\{[0-9A-F]{2,6}\})+")
_RFC_3339 = re.compile(
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-5][0-9])"
)
_EMBEDDED = re.compile(rb"\\x\{([0-9A-F]{2,6})\}")


class BadParameter(ValueError):
    """A parameter that does not follow its RFC. The text names it and the reason, in ASCII."""


def parse_parameters(rest: bytes) -> dict[str, bytes]:
    """Maps keywords, in capitals, to values, b"" where there is none. rest: the octets behind the path. Raises
    BadParameter."""
    parameters: dict[str, bytes] = {}
    for parameter in filter(None, rest.split(b" ")):
        keyword, equals, value = parameter.partition(b"=")
        if _KEYWORD.fullmatch(keyword) is None or (equals and _VALUE.fullmatch(value) is None):
            raise BadParameter("a parameter does not follow RFC 5321")
        name = keyword.decode("ascii").upper()
        if name in parameters:
            raise BadParameter(f"{name} is given twice" if len(name) <= 20 else "a parameter is given twice")
        parameters[name] = value
    return parameters


def check_size(value: bytes) -> int:
    """The octets of content that the client announces (RFC 1870: up to 20 digits)."""
    if re.fullmatch(rb"[0-9]{1,20}", value) is None:
        raise BadParameter("SIZE must be a number of octets")
    return int(value)


def check_body(value: bytes) -> bytes:
    """b"7BIT" or b"8BITMIME" (RFC 6152)."""
    body = value.upper()
    if body not in (b"7BIT", b"8BITMIME"):
        raise BadParameter("BODY must be 7BIT or 8BITMIME")
    return body


def check_ret(value: bytes) -> bytes:
    """b"FULL" or b"HDRS" (RFC 3461 section 4.3)."""
    ret = value.upper()
    if ret not in (b"FULL", b"HDRS"):
        raise BadParameter("RET must be FULL or HDRS")
    return ret


def check_envid(value: bytes) -> bytes:
    """`value` itself: xtext (RFC 3461 section 4.4)."""
    if len(value) > MAX_ENVID or _XTEXT.fullmatch(value) is None:
        raise BadParameter(f"ENVID must be xtext of up to {MAX_ENVID} octets")
    return value


def check_hold_for(value: bytes, now: float) -> SendTime:
    """HOLDFOR: seconds, from 1 on (RFC 4865 section 4). now: epoch seconds."""
    if re.fullmatch(rb"[1-9][0-9]{0,8}", value) is None:
        raise BadParameter("HOLDFOR must be a number of seconds, from 1 on")
    if int(value) > MAX_WAIT:
        raise BadParameter(f"HOLDFOR is {MAX_WAIT} at most")
    return SendTime(now + int(value), by_clock=False)


def check_hold_until(value: bytes, now: float) -> SendTime:
    """HOLDUNTIL: a date and time (RFC 4865 section 4, RFC 3339 section 5.6), which has not passed. now: epoch seconds."""
    try:
        at = _rfc3339(value)
    except ValueError:
        raise BadParameter("HOLDUNTIL must be a date and time of RFC 3339, such as 2030-12-31T08:00:00Z") from None
    if at <= now:
        raise BadParameter("the time of HOLDUNTIL has passed")
    if at > now + MAX_WAIT:
        raise BadParameter(f"the time of HOLDUNTIL is more than {MAX_WAIT} seconds ahead")
    return SendTime(at, by_clock=True)


def future_release(now: float) -> str:
    """The keyword of RFC 4865 in the reply to EHLO, with the longest interval and the latest time. now: epoch seconds."""
    return f"FUTURERELEASE {MAX_WAIT} {datetime.fromtimestamp(int(now) + MAX_WAIT, UTC):%Y-%m-%dT%H:%M:%SZ}"


def check_notify(value: bytes) -> bytes:
    """`value` itself: NEVER, or a list of SUCCESS, FAILURE and DELAY (RFC 3461 section 4.1)."""
    if value.upper() != b"NEVER" and not NOTIFY_WORDS.issuperset(value.upper().split(b",")):
        raise BadParameter("NOTIFY must be NEVER, or some of SUCCESS,FAILURE,DELAY")
    return value


def check_orcpt(value: bytes, *, smtputf8: bool) -> bytes:
    """`value` itself: an address type and xtext (RFC 3461 section 4.2), or `utf-8` and the forms of RFC 6533 section 3.
    The form that contains UTF-8 is accepted only where the transaction has SMTPUTF8."""
    kind, semicolon, address = value.partition(b";")
    if kind.lower() == b"utf-8":
        fits = _is_utf8_address(address, smtputf8=smtputf8)
    else:
        fits = _ATOM.fullmatch(kind) is not None and _XTEXT.fullmatch(address) is not None
    if not semicolon or not fits or len(value) > MAX_ORCPT:
        raise BadParameter(f"ORCPT must be an address type, a semicolon and xtext, up to {MAX_ORCPT} octets")
    return value


def _is_utf8_address(address: bytes, *, smtputf8: bool) -> bool:
    if _UTF8_ADDRESS.fullmatch(address) is None or not (smtputf8 or address.isascii()):
        return False
    try:
        # Space and the characters that xtext escapes are printable. No real address holds an unprintable one.
        return _EMBEDDED.sub(_embedded, address).decode("utf-8").isprintable()
    except (UnicodeError, ValueError):
        return False


def _embedded(found: re.Match[bytes]) -> bytes:
    return chr(int(found[1], 16)).encode("utf-8")


def _rfc3339(value: bytes) -> float:
    """Epoch seconds of a date-time of RFC 3339 section 5.6; a fraction is ignored. Raises ValueError."""
    found = _RFC_3339.fullmatch(value)
    if found is None:
        raise ValueError("not a date-time")
    date, of_day, zone = (part.decode("ascii") for part in found.groups())
    if of_day.endswith(":60"):
        # A leap second is taken as the second before it.
        of_day = of_day[:-2] + "59"
    whole = datetime.fromisoformat(f"{date}T{of_day}{'+00:00' if zone in 'Zz' else zone}")
    return (whole - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
