"""A byte stream to the mail server or another endpoint: one channel of an SSH connection.

Promises: written data is sent in order. `drain` waits for the TCP connection, not only for the channel's window, so that
small data of other channels does not queue up behind large data. `acknowledged` counts no octet that still waits here.
"""

import asyncio
import contextlib
import re
from typing import cast

import asyncssh

from mailrelay.mail.quantity import size
from mailrelay.ssh import errors
from mailrelay.ssh.acknowledgement import Acknowledgement
from mailrelay.ssh.asyncssh_patches import send_window
from mailrelay.ssh.flow_control import FlowControl
from mailrelay.ssh.greeting import find_greeting

READ_SIZE = 65536
"""Octets of one read, at most."""
MAX_BEFORE_GREETING = 4 * 1024 * 1024
"""Octets that a command may send before its greeting."""
MAX_GREETING = 8192
"""Octets of the output that are kept, from its end: a greeting may have several lines."""
MAX_STDERR = 4 * 1024 * 1024
"""Octets that a command may send to its stderr. They use the window of its channel, so they cannot be left unread."""
STATUS_TIMEOUT = 5.0
"""Seconds for the status of a command after the end of its output."""
MAX_OUTPUT = 1024
"""Octets of the output of a failed command that are kept, from its end."""


class RelayhostChannel:
    """A byte stream to the mail server or another endpoint. Implements `interface.Channel` and `interface.Stream`."""

    def __init__(
        self,
        reader: asyncssh.SSHReader[bytes],
        writer: asyncssh.SSHWriter[bytes],
        stderr: asyncssh.SSHReader[bytes] | None,
        flow_control: FlowControl,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._connection: asyncssh.SSHClientConnection = writer.get_extra_info("connection")
        self._flow_control = flow_control
        self._read_ahead = b""
        self._error = ""
        self._acknowledgement = Acknowledgement(send_window(writer.channel))
        self.written = 0
        """As in `interface.Channel`."""
        self.is_ehlo_sent = False
        """As in `interface.RecordedChannel`."""
        self.must_succeed = False
        """The end of the stream counts only if the command has ended with status 0: otherwise, octets may be lost."""
        self._stderr_tail = asyncio.create_task(self._read_tail(stderr)) if stderr is not None else None

    async def read(self) -> bytes:
        """The next bytes, at most 64 KiB; b"" at the end. Raises ConnectionError once the SSH connection has ended:
        what the other side has sent may be lost then."""
        if self._read_ahead:
            data, self._read_ahead = self._read_ahead, b""
            return data
        if self._error:
            raise ConnectionResetError(self._error)
        try:
            data = await self._reader.read(READ_SIZE)
        except (asyncssh.Error, OSError) as error:
            # The reader raises the error only once and then reports the end of the stream.
            self._error = errors.message(error)
            raise ConnectionResetError(self._error) from error
        if not data and (self._error or self._connection.is_closed()):
            self._error = self._error or "the SSH connection was closed"
            raise ConnectionResetError(self._error)
        if not data and self.must_succeed and not await self._has_succeeded():
            self._error = "the command was ended on the relayhost"
            raise ConnectionResetError(self._error)
        return data

    async def _has_succeeded(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_TIMEOUT):
                await self._writer.channel.wait_closed()
        channel = cast(asyncssh.SSHClientChannel[bytes], self._writer.channel)
        return channel.get_exit_status() == 0

    def write(self, data: bytes) -> None:
        """Queues `data`. Raises ConnectionError if the channel has ended."""
        try:
            self._writer.write(data)
        except (asyncssh.Error, OSError) as error:
            raise ConnectionResetError(errors.message(error)) from error
        self.written += len(data)

    async def drain(self) -> None:
        """Waits until most of the written data has been sent. Raises ConnectionError."""
        try:
            await self._writer.drain()
            await self._flow_control.drain()
        except (asyncssh.Error, OSError) as error:
            raise ConnectionResetError(errors.message(error)) from error
        # The steps by which the server enlarges the window can be measured only while octets are being sent.
        self._acknowledgement.measure_step(self._sent, send_window(self._writer.channel))

    @property
    def acknowledged(self) -> int:
        """As in `interface.Channel`."""
        sent = self._sent
        return self._acknowledgement.octets(sent, send_window(self._writer.channel), self._flow_control.queued)

    @property
    def _sent(self) -> int:
        """Octets that the channel has passed to the connection."""
        return self.written - self._writer.channel.get_write_buffer_size()

    def write_eof(self) -> None:
        """Sends the end of the stream, after the written data. Raises ConnectionError if the channel has ended."""
        try:
            self._writer.write_eof()
        except (asyncssh.Error, OSError) as error:
            raise ConnectionResetError(errors.message(error)) from error

    def abort(self) -> None:
        """Closes the channel at once and drops unsent data. Does nothing if it is closed."""
        self._writer.channel.abort()

    async def wait_closed(self) -> None:
        """Waits until both sides have closed the channel, or the connection has ended."""
        await self._writer.wait_closed()

    def close(self) -> None:
        """Closes the channel after the written data has been sent."""
        if self._stderr_tail is not None:
            self._stderr_tail.cancel()
        self._writer.close()

    async def skip_to_greeting(self) -> bytes | None:
        """Reads up to the greeting of a command and drops the output of its shell before it (`ssh.greeting`).

        Returns None if it found a greeting, which is the next to be read. Otherwise the command has ended, or has sent more
        than MAX_BEFORE_GREETING octets: returns its last output. Raises ConnectionError.
        """
        output, octets, found = b"", 0, None
        while octets <= MAX_BEFORE_GREETING and (found is None or found.quiet):
            try:
                async with asyncio.timeout(found.quiet if found is not None else None):
                    data = await self.read()
            except TimeoutError:
                break
            except ConnectionError:
                if found is None:
                    raise
                break
            octets += len(data)
            output = _last_lines(output + data)
            found = find_greeting(output, is_complete=not data)
            if not data:
                break
        if found is not None:
            self._read_ahead = output[found.start : found.end]
            return None
        if octets > MAX_BEFORE_GREETING:
            return output[-MAX_OUTPUT:]
        return await self._last_output(output)

    async def skip_past(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | bytes:
        """Reads up to the end of the first match of `pattern`, of at most MAX_GREETING octets, and returns the match.

        Otherwise the command has ended, or has sent more than MAX_BEFORE_GREETING octets: returns its last output. Raises
        ConnectionError.
        """
        output, octets = b"", 0
        while octets <= MAX_BEFORE_GREETING:
            data = await self.read()
            octets += len(data)
            output += data
            found = pattern.search(output)
            if found is not None:
                self._read_ahead = output[found.end() :]
                return found
            output = _last_lines(output)
            if not data:
                return await self._last_output(output)
        return output[-MAX_OUTPUT:]

    async def _last_output(self, output: bytes) -> bytes:
        """The last output of a command that has ended: that of its stderr, if there is any."""
        return (await self._stderr_tail if self._stderr_tail is not None else b"") or output[-MAX_OUTPUT:]

    async def _read_tail(self, stderr: asyncssh.SSHReader[bytes]) -> bytes:
        """Reads `stderr` to its end and returns the last MAX_OUTPUT octets. Closes the channel after MAX_STDERR octets."""
        tail, octets = b"", 0
        with contextlib.suppress(asyncssh.Error, OSError):
            while data := await stderr.read(READ_SIZE):
                tail, octets = (tail + data)[-MAX_OUTPUT:], octets + len(data)
                if octets > MAX_STDERR:
                    self._error = f"the command sent more than {size(MAX_STDERR)} to its stderr"
                    self.abort()
                    break
        return tail


def _last_lines(output: bytes) -> bytes:
    """The last MAX_GREETING octets. A part of a line at their start is marked: it is not taken for a whole line."""
    return output if len(output) <= MAX_GREETING else b"." + output[1 - MAX_GREETING :]
