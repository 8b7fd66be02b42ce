"""Bounds what an SSH server may send: an endless stream from it costs a few megabytes at most, and little processor time.

Before the login is complete, a server needs a few kilobytes for its keys and its banner. After it, octets that belong to
no channel are rare: keepalive requests, new keys, and the empty messages with which some servers hide the lengths of others.
The octets of channels are bounded by the window of each channel (RFC 4254 section 5.2).

Promises: a connection beyond a bound ends at once, with a reason that says which bound it was.
Pure: no I/O. The caller gives the time.
"""

from mailrelay.mail.quantity import size

MAX_BEFORE_LOGIN = 1024 * 1024
"""Octets that a server may send before the login is complete. A banner and the keys of a host are far smaller."""
MAX_PACKETS_BEFORE_LOGIN = 1000
"""Packets that it may send until then. A login with twenty keys has fewer than a hundred."""
MAX_WAITING = 16 * 1024 * 1024
"""Octets that may wait for the end of one step, such as a key exchange, during which no others are processed. The
windows of several forwards have as many together."""
MAX_UNTAKEN = 50_000
"""Packets that belong to no channel, received since our output buffer was last empty. Each may add a reply of a hundred
octets to it. The size of the buffer is no measure: on a slow network, it holds mail."""
PERIOD = 10.0
"""Seconds over which packets are counted after the login."""
MAX_IN_PERIOD = 10_000
"""Packets in a period that belong to no channel, in addition to one for each packet with octets of a
channel. A long packet counts once more for each PACKET_UNIT octets, a key exchange KEY_EXCHANGE_UNITS times."""
PACKET_UNIT = 1024
"""Octets."""
KEY_EXCHANGE_UNITS = 30
"""A key exchange takes milliseconds. A server that wants new keys after each megabyte stays below the bound."""
MAX_FIRST_DATA = 1024
"""Octets of `FloodGuard.first_data`, at most."""

_KEXINIT, _DATA, _WINDOW_ADJUST = 20, (94, 95), 93
"""Message numbers: SSH_MSG_KEXINIT; data and extended data of a channel; window adjust (RFC 4250 section 4.1.2)."""
_REPLIES = (52, 81, 82, 91, 92, 96, 97, 99, 100)
"""Replies to our own requests, and the ends of our channels. The SSH library refuses those without a request."""


class FloodGuard:
    """What one server has sent. Each method that counts returns why the connection must end, "" if it may go on: a text that
    follows the name of the server.

    first_data: the first octets that it sent; the caller sets it, up to MAX_FIRST_DATA octets.
    """

    def __init__(self) -> None:
        self.first_data = b""
        self._is_logged_in = False
        self._octets = self._packets = 0
        self._period_end = 0.0
        # Counted in the period: units of packets that belong to no channel; packets with octets of a channel; window
        # adjusts; packets that we sent.
        self._idle = self._useful = self._adjusted = self._sent = 0
        # `sent` at the last call of `packet`; packets counted for MAX_UNTAKEN.
        self._last_sent = self._untaken = 0

    def logged_in(self) -> None:
        """The login is complete."""
        self._is_logged_in = True

    def received(self, octets: int, waiting: int, unsent: int) -> str:
        """Counts octets. waiting: octets that could not be processed yet. unsent: octets that wait to be sent."""
        self._octets += octets
        if not unsent:
            self._untaken = 0
        if not self._is_logged_in and self._octets > MAX_BEFORE_LOGIN:
            return f"it sent more than {size(MAX_BEFORE_LOGIN)} before the login was complete"
        if waiting > MAX_WAITING:
            return f"it sent more than {size(MAX_WAITING)} in the middle of one step"
        return ""

    def packet(self, kind: int, octets: int, sent: int, now: float) -> str:
        """Counts a packet. kind: its message number (RFC 4250 section 4.1.2). octets: its length. sent: packets that we have
        sent; may begin at 0 again. now: any clock, seconds."""
        if not self._is_logged_in:
            self._packets += 1
            if self._packets > MAX_PACKETS_BEFORE_LOGIN:
                return f"it sent more than {MAX_PACKETS_BEFORE_LOGIN} packets before the login was complete"
            return ""
        if now >= self._period_end:
            self._period_end = now + PERIOD
            self._idle = self._useful = self._adjusted = self._sent = 0
        self._sent += max(0, sent - self._last_sent)
        self._last_sent = sent
        if kind in _DATA:
            self._useful += 1
        elif kind == _WINDOW_ADJUST:
            self._adjusted += 1
        elif kind not in _REPLIES:
            self._untaken += 1
            self._idle += KEY_EXCHANGE_UNITS if kind == _KEXINIT else 1 + octets // PACKET_UNIT
        if self._idle > MAX_IN_PERIOD + self._useful or self._adjusted > MAX_IN_PERIOD + self._sent:
            return f"it sent more than {MAX_IN_PERIOD} packets without mail within {PERIOD:g} s"
        if self._untaken > MAX_UNTAKEN:
            return f"it sends requests and does not take the replies: {MAX_UNTAKEN} wait"
        return ""
