"""Estimates how many octets of a channel have arrived at the mail server, from TCP and from SSH flow control. Pure.

- TCP acknowledges the octets that the first hop has received. They may still wait there for the next hop or the mail server.
- The window of the SSH channel is the number of octets that the SSH server still accepts. The server enlarges the window
  after it has passed octets on (RFC 4254 section 5.2), in steps: OpenSSH after about 100 kB, other servers after a
  megabyte.

So the octets that have arrived are at least those that the server has added to the window ("granted"), and at most one step
more.
"""


class Acknowledgement:
    """The estimate for one channel. window: the first window of the channel in octets, None if it is not known."""

    def __init__(self, window: int | None) -> None:
        self._first_window = window
        # Servers enlarge the window when half of it is used up, or earlier.
        self._first_step = (window or 0) // 2
        self._step = 0
        self._granted = 0
        self._octets = 0

    def measure_step(self, sent: int, window: int | None) -> None:
        """Measures the step by which the server enlarges the window. Call it often while octets are sent. sent: octets of
        the channel that were passed to the connection. window: the window now, in octets; None if it is not known."""
        granted = self._granted_of(sent, window)
        self._step = max(self._step, granted - self._granted)
        self._granted = granted

    def octets(self, sent: int, window: int | None, queued: int) -> int:
        """How many octets have arrived, as far as is known; never fewer than before, never more than `sent`.

        queued: octets, of this channel or others, that were sent and not acknowledged by TCP. sent, window: as in
        `measure_step`.
        """
        arrived = max(0, sent - queued)
        if window is not None and self._first_window is not None:
            granted = self._granted_of(sent, window)
            arrived = min(max(granted, arrived), granted + (self._step or self._first_step))
        self._octets = max(self._octets, min(arrived, sent))
        return self._octets

    def _granted_of(self, sent: int, window: int | None) -> int:
        """Octets that the server has added to the window by now."""
        if window is None or self._first_window is None:
            return 0
        return max(self._granted, window - self._first_window + sent)
