"""The listener's own values: replies, parameters, command lines, limits of connections and log lines, inherited sockets."""

import asyncio
import ctypes
import logging
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mailrelay.config import Listen
from mailrelay.endpoint import Unix
from mailrelay.listener import access, activation, replies, server_state
from mailrelay.listener.access import Access, allowed_uids, check_access, is_on, owner
from mailrelay.listener.activation import inherited_sockets
from mailrelay.listener.command_line import LAST_IN_GROUP, LineError, check_in_session, check_line
from mailrelay.listener.parameters import (
    MAX_ENVID,
    MAX_ORCPT,
    BadParameter,
    check_body,
    check_envid,
    check_hold_for,
    check_hold_until,
    check_notify,
    check_orcpt,
    check_ret,
    check_size,
    future_release,
    parse_parameters,
)
from mailrelay.listener.peer_account import NoOwner
from mailrelay.listener.replies import MAX_LINE, encode, too_big
from mailrelay.listener.server_state import BETWEEN_COMMANDS, LogLimit, ServerState
from mailrelay.mail.outcome import Reply
from mailrelay.mail.send_time import MAX_WAIT, SendTime
from mailrelay.mail.sending import Sending, Stop, fraction, progress_text, seconds_left
from mailrelay.spool import stopping
from mailrelay.spool.stopping import MAX_KEY, answer, ask, key_of

# Replies.


@pytest.mark.parametrize(
    ("reply", "octets"),
    [
        (Reply(250, (b"2.1.0 ok",)), b"250 2.1.0 ok\r\n"),
        (Reply(250, (b"ok",)), b"250 2.0.0 ok\r\n"),
        (Reply(250), b"250 2.0.0 \r\n"),
        (Reply(354, (b"go",)), b"354 go\r\n"),
        (Reply(550, (b"5.1.1 a", b"b", b"5.7.1 c")), b"550-5.1.1 a\r\n550-5.1.1 b\r\n550 5.7.1 c\r\n"),
        (Reply(550, (b"4.1.1 a",)), b"550 5.0.0 4.1.1 a\r\n"),
        (Reply(550, (b"5.1.1",)), b"550 5.1.1 \r\n"),
        (Reply(550, (b"5.1.1   a",)), b"550 5.1.1 a\r\n"),
        (Reply(550, ("5.1.1 \u00fc\x1b\U0001f600".encode(),)), b"550 5.1.1 \\xfc\\x1b\\U0001f600\r\n"),
    ],
)
def test_a_reply_is_written_in_ascii_with_an_enhanced_code_in_each_line(reply: Reply, octets: bytes) -> None:
    assert encode(reply) == octets


@pytest.mark.parametrize("length", [0, 1, 495, 496, 497, 992, 993])
def test_a_long_line_of_a_reply_is_divided(length: int) -> None:
    lines = encode(Reply(550, (b"5.255.255 " + b"x" * length,))).split(b"\r\n")
    assert lines.pop() == b""
    assert len(lines) == max(1, -(-length // 496))
    assert max(map(len, lines)) + 2 <= MAX_LINE
    assert b"".join(line[len(b"550 5.255.255 ") :] for line in lines) == b"x" * length
    assert [line[:14] for line in lines] == [b"550-5.255.255 "] * (len(lines) - 1) + [b"550 5.255.255 "]


def test_every_reply_of_the_table_has_a_code_and_an_enhanced_code_that_fits() -> None:
    found = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}
    assert len(found) == 36
    for name, reply in found.items():
        (line,) = reply.lines
        status = reply.status.encode()
        if reply.code == 354:
            assert line == b"end with <CRLF>.<CRLF>"
        else:
            assert line.startswith(status + b" "), name
            assert reply.has_status, name
        assert len(encode(reply)) < MAX_LINE
        assert (b"closing" in line) is (name in CLOSING)
    assert too_big(1_500_000) == Reply(552, (b"5.3.4 the message is larger than 1.5 MB (listen.max_message_size)",))


CLOSING = {
    *("TOO_MANY_CONNECTIONS", "TOO_MANY_UNKNOWN", "IDLE_TOO_LONG", "CLOSED_BEFORE_CONTENT", "TOO_SLOW", "IDLE_CLOSED"),
    *("STOPPING", "LINE_TOO_LONG", "CONTENT_AFTER_REFUSAL", "DID_NOT_WAIT", "GO_AWAY"),
}


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ("SENDER_OK RECIPIENT_OK", 250),
        ("BYE", 221),
        ("HELP", 214),
        ("CANNOT_VERIFY", 252),
        ("START_CONTENT", 354),
        ("INTERNAL_ERROR", 451),
        ("TOO_MANY_RECIPIENTS", 452),
        (
            "TOO_MANY_CONNECTIONS TOO_MANY_UNKNOWN IDLE_TOO_LONG CLOSED_BEFORE_CONTENT TOO_SLOW IDLE_CLOSED STOPPING",
            421,
        ),
        ("BAD_COMMAND LINE_TOO_LONG UNKNOWN_COMMAND", 500),
        ("NO_ARGUMENT MAIL_SYNTAX RCPT_SYNTAX", 501),
        ("NO_ENCRYPTION NO_LOGIN", 502),
        ("NO_LOGIN_NOW HELLO_FIRST NESTED_MAIL MAIL_FIRST", 503),
        ("NO_RECIPIENTS CONTENT_AFTER_REFUSAL NOT_ALLOWED", 554),
        ("UNKNOWN_PARAMETER", 555),
        ("NEEDS_SMTPUTF8", 553),
        ("BARE_LINE_END NUL_IN_CONTENT", 550),
        ("DID_NOT_WAIT GO_AWAY", 521),
    ],
)
def test_each_reply_has_its_code(names: str, code: int) -> None:
    for name in names.split():
        assert encode(getattr(replies, name)).startswith(b"%d " % code)


# Parameters.


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_size, [b"0", b"9" * 20], [b"", b"9" * 21, b"-1", b"1k", b"+1"]),
        (check_body, [b"7BIT", b"8BITMIME", b"8bitmime"], [b"", b"BINARYMIME", b"8BIT"]),
        (check_ret, [b"FULL", b"HDRS", b"hdrs"], [b"", b"HEADERS"]),
        (
            check_envid,
            [b"a", b"x" * MAX_ENVID, b"+2B+7E+20"],
            [b"", b"x" * (MAX_ENVID + 1), b"+1F", b"+7F", b"+2b", b"a=b"],
        ),
        (check_notify, [b"NEVER", b"success,FAILURE,delay"], [b"", b"NEVER,DELAY", b"SUCCESS,", b"FAIL"]),
    ],
)
def test_the_values_of_parameters(check: Any, good: list[bytes], bad: list[bytes]) -> None:
    for value in good:
        expected = int(value) if check is check_size else value.upper() if check in (check_body, check_ret) else value
        assert check(value) == expected
    name = check.__name__.removeprefix("check_").upper()
    for value in bad:
        with pytest.raises(BadParameter, match=name):
            check(value)


@pytest.mark.parametrize(
    ("value", "smtputf8", "is_good"),
    [
        (b"rfc822;" + b"x" * (MAX_ORCPT - 7), False, True),
        (b"rfc822;" + b"x" * (MAX_ORCPT - 6), False, False),
        (b"rfc822x", False, False),
        (b";x", False, False),
        (b"rfc 822;x", False, False),
        (b"UTF-8;j\\x{F6}", False, True),
        (b"utf-8;j\\x{0A}", True, False),
        (b"utf-8;j\\x{D800}", True, False),
        (b"utf-8;j\\x{110000}", True, False),
        ("utf-8;jö".encode(), True, True),
        ("utf-8;jö".encode(), False, False),
        (b"utf-8;\xff", True, False),
        (b"utf-8;", True, False),
        (b"utf-8", True, False),
    ],
)
def test_an_original_recipient(value: bytes, smtputf8: bool, is_good: bool) -> None:
    if is_good:
        assert check_orcpt(value, smtputf8=smtputf8) == value
    else:
        with pytest.raises(BadParameter, match="ORCPT"):
            check_orcpt(value, smtputf8=smtputf8)


@pytest.mark.parametrize(
    ("name", "text"),
    [(b"A" * 20, "A" * 20 + " is given twice"), (b"a" * 21, "a parameter is given twice")],
)
def test_a_parameter_that_is_given_twice_is_named_if_it_is_short(name: bytes, text: str) -> None:
    with pytest.raises(BadParameter) as raised:
        parse_parameters(name + b"=1 " + name)
    assert str(raised.value) == text


NOW = 1_800_000_000.0


def test_a_length_of_time_and_a_time_to_hold_a_message() -> None:
    assert check_hold_for(b"1", NOW) == SendTime(NOW + 1, by_clock=False)
    assert check_hold_for(b"%d" % MAX_WAIT, NOW) == SendTime(NOW + MAX_WAIT, by_clock=False)
    for value in (b"0", b"01", b"", b"1.5", b"-1", b"9999999999", b"%d" % (MAX_WAIT + 1)):
        with pytest.raises(BadParameter, match="HOLDFOR"):
            check_hold_for(value, NOW)
    assert check_hold_until(b"2027-01-15T08:00:01Z", NOW) == SendTime(NOW + 1, by_clock=True)
    assert check_hold_until(b"2027-01-15t10:00:01.5+02:00", NOW) == SendTime(NOW + 1, by_clock=True)
    assert check_hold_until(b"2027-01-15T06:30:01-01:30", NOW) == SendTime(NOW + 1, by_clock=True)
    assert check_hold_until(b"2028-01-15T08:00:00z", NOW).at == NOW + MAX_WAIT
    for value in (
        b"2027-01-15T08:00:00Z",
        b"2028-01-15T08:00:01Z",
        b"2027-13-15T08:00:00Z",
        b"2027-01-15 08:00:01Z",
        b"",
    ):
        with pytest.raises(BadParameter, match="HOLDUNTIL"):
            check_hold_until(value, NOW)
    assert future_release(NOW) == f"FUTURERELEASE {MAX_WAIT} 2028-01-15T08:00:00Z"


# Command lines.


@pytest.mark.parametrize(
    "verb",
    [*["EHLO", "HELO", "DATA", "VRFY", "EXPN", "NOOP", "HELP", "QUIT", "AUTH", "STARTTLS"], "MAIL", "RCPT", "RSET"],
)
def test_a_client_waits_for_the_reply_to_commands_that_end_a_group(verb: str) -> None:
    is_last = verb not in ("MAIL", "RCPT", "RSET")
    assert check_line(b"x", verb.encode(), True, True) is (LineError.EARLY if is_last else None)
    assert check_line(b"x", verb.encode(), True, False) is None
    assert check_line(b"x", verb.encode(), False, False) is LineError.UNKNOWN
    assert len(LAST_IN_GROUP) == 10


@pytest.mark.parametrize("octet", [0, 9, 0x1B, 0x1F, 0x7F, 0x20, 0x7E, 0x80])
def test_a_control_character_makes_a_line_bad(octet: int) -> None:
    error = LineError.BAD if octet < 0x20 or octet == 0x7F else None
    assert check_line(b"a%cb" % octet, b"NOOP", True, False) is error


@pytest.mark.parametrize(
    "verb",
    [*["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH"], *["POST", "PRI", "PUT", "TRACE", "HOST:", "MAIL"]],
)
def test_another_protocol_is_known_by_its_verb_or_its_first_line(verb: str) -> None:
    is_http = verb != "MAIL"
    for error in (LineError.BAD, LineError.UNKNOWN):
        assert check_in_session(verb.encode(), error, False, False) is (LineError.NOT_SMTP if is_http else error)
        assert check_in_session(verb.encode(), error, True, False) is LineError.NOT_SMTP
        assert check_in_session(verb.encode(), error, True, True) is LineError.CONTENT
    assert check_in_session(verb.encode(), LineError.EARLY, True, True) is LineError.EARLY


# Connections and log lines.


class Client:
    """A connection of a client."""

    def __init__(self, idle_since: float | None = None, *, is_over: bool = False, wait: float = 5.0) -> None:
        self.idle_since, self.is_over, self.wait = idle_since, is_over, wait
        self.retired: list[Reply] = []
        self.checked: list[float] = []

    def check_timeouts(self, now: float) -> float:
        self.checked.append(now)
        return self.wait

    def retire(self, reply: Reply) -> None:
        self.retired.append(reply)


def state(*clients: Client, limit: int = 10) -> ServerState:
    settings = SimpleNamespace(max_connections=limit)
    found = ServerState(cast(Listen, settings), cast(Any, None), None)
    found.connections |= set(cast(Any, clients))
    return found


@pytest.mark.parametrize(
    ("busy", "over", "stays"),
    [
        (10, 0, True),
        (11, 0, True),
        (12, 0, False),
        (10, 10, True),
        (10, 11, False),
        (11, 9, True),
        (12, 8, False),
        (0, 20, True),
    ],
)
async def test_a_tenth_more_connections_may_be_busy_and_as_many_may_be_over(busy: int, over: int, stays: bool) -> None:
    clients = [*(Client() for _ in range(busy)), *(Client(is_over=True) for _ in range(over))]
    assert state(*clients).enforce_connection_limit() is stays
    assert not any(client.retired for client in clients)


@pytest.mark.parametrize(("others", "is_idle_for_long"), [(10, True), (10, False), (11, False)])
async def test_the_connection_that_was_idle_longest_is_closed_for_a_new_one(
    others: int, is_idle_for_long: bool
) -> None:
    now = asyncio.get_running_loop().time()
    since = now - BETWEEN_COMMANDS - 5 if is_idle_for_long else now + 60
    longest, shorter = Client(since), Client(since + 1)
    busy = [Client() for _ in range(others - 1)]
    assert state(longest, shorter, *busy).enforce_connection_limit()
    # A connection with a command just now is closed only if the tenth above the limit is used up.
    is_closed = is_idle_for_long or others == 11
    assert (longest.retired, shorter.retired) == ([replies.IDLE_CLOSED] if is_closed else [], [])


async def test_one_timer_checks_all_connections() -> None:
    first, second = Client(wait=0.0), Client(wait=1e6)
    found = state()
    found.add(cast(Any, first), 0.0)
    found.add(cast(Any, second), 1e6)
    assert found.accepted == 2
    async with asyncio.timeout(10):
        while len(first.checked) < 2:
            await asyncio.sleep(0)
    assert len(second.checked) == len(first.checked)
    found.connections.clear()
    count = len(first.checked)
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert len(first.checked) == count
    # The last check has left no timer.
    third = Client(wait=1e6)
    found.add(cast(Any, third), 0.0)
    async with asyncio.timeout(10):
        while not third.checked:
            await asyncio.sleep(0)
    assert found.accepted == 3


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the loop, for the limits of log lines alone."""
    clock = SimpleNamespace(now=600.0)
    loop = SimpleNamespace(time=lambda: clock.now)
    monkeypatch.setattr(server_state, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    return clock


def test_at_most_so_many_lines_of_a_kind_are_logged_in_a_minute(
    minute: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    limit = LogLimit(2, "%d more")
    assert [limit.count_one() for _ in range(5)] == [True, True, False, False, False]
    minute.now += 59
    assert not limit.count_one()
    assert caplog.records == []
    minute.now += 1
    assert [limit.count_one() for _ in range(2)] == [True, True]
    assert [(one.levelno, one.name, one.message) for one in caplog.records] == [
        (logging.WARNING, "mailrelay.listener", "4 more")
    ]
    minute.now += 60
    assert limit.count_one()
    assert len(caplog.records) == 1


def test_dropped_connections_and_refusals_have_limits_of_their_own(
    minute: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    found = state()
    for number in range(server_state.SECURITY_LINES + 3):
        found.log_dropped("speaks", b"x\x1b" + b"y" * 100 if number else b"")
    for _ in range(server_state.REFUSAL_LINES + 2):
        found.log_refusal("MAIL", replies.NESTED_MAIL, b"a@b")
        found.log_incomplete_content(5, "it closed", b"a@b")
    lines = [one.message for one in caplog.records]
    assert lines[0] == "security: connection dropped, the client speaks"
    assert lines[1] == "security: connection dropped, the client speaks: x\\x1b" + "y" * 78
    assert len(lines) == server_state.SECURITY_LINES + server_state.REFUSAL_LINES
    minute.now += 60
    found.log_dropped("speaks")
    found.log_refusal("MAIL", replies.NESTED_MAIL)
    later = [one.message for one in caplog.records][len(lines) :]
    assert later[0] == "security: 3 more connections were dropped"
    assert later[2] == f"{server_state.REFUSAL_LINES + 4} more refusals were not logged"
    assert later[3] == "NOQUEUE command=MAIL dsn=5.5.1 status=refused (503 5.5.1 there is a transaction already)"


# Accounts.


class Ends:
    """The transport of a connection. peer: whether the client is still connected."""

    def __init__(self, *, own: object, client: object, credentials: bytes = b"", peer: bool = True) -> None:
        def getpeername() -> object:
            if not peer:
                raise OSError
            return client

        options = SimpleNamespace(getsockopt=lambda *_: credentials, getpeername=getpeername)
        self._info = {"sockname": own, "peername": client, "socket": options}

    def get_extra_info(self, name: str) -> object:
        return self._info[name]


TCP = {"own": ("127.0.0.1", 7777, 0), "client": ("127.0.0.1", 5, 0)}


@pytest.mark.parametrize(
    ("found", "peer", "expected", "owned_by"),
    [
        (1000, True, Access.ALLOWED, 1000),
        (0, True, Access.REFUSED, 0),
        (NoOwner.CLOSED, True, Access.CLIENT_CLOSED, None),
        (NoOwner.UNKNOWN, True, Access.REFUSED, None),
        (NoOwner.UNKNOWN, False, Access.CLIENT_CLOSED, None),
    ],
)
def test_only_an_allowed_account_that_is_known_may_connect(
    monkeypatch: pytest.MonkeyPatch, found: int | NoOwner, peer: bool, expected: Access, owned_by: int | None
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    asked: list[tuple[object, object]] = []
    monkeypatch.setattr(access, "uid_of_connection", lambda near, far: asked.append((near, far)) or found)
    ends = cast(Any, Ends(**TCP, peer=peer))
    result, account = check_access(ends, frozenset({1000}))
    assert (result, asked) == (expected, [(("127.0.0.1", 5), ("127.0.0.1", 7777))])
    names = {0: "account root (uid 0)", NoOwner.UNKNOWN: "an unknown account"}
    assert account == (names[found] if expected is Access.REFUSED else "")
    assert owner(ends) == owned_by
    assert check_access(ends, None) == (Access.ALLOWED, "")
    assert check_access(cast(Any, Ends(own=TCP["own"], client=None)), frozenset({1000}))[0] is Access.CLIENT_CLOSED
    monkeypatch.setattr(sys, "platform", "darwin")
    assert (check_access(ends, frozenset()), owner(ends)) == ((Access.ALLOWED, ""), None)


@pytest.mark.parametrize("uid", [1000, 1001])
def test_the_client_of_a_unix_socket_has_its_credentials(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    ends = cast(Any, Ends(own="/run/x", client="", credentials=struct.pack("=iII", 5, uid, 7)))
    assert owner(ends) == uid
    assert check_access(ends, frozenset({1000}))[0] is (Access.ALLOWED if uid == 1000 else Access.REFUSED)
    assert is_on(ends, Unix("/run/x"))
    assert not is_on(ends, Unix("/run/y"))
    assert not is_on(ends, None)


def test_accounts_are_named_by_self_a_name_or_a_number() -> None:
    assert allowed_uids(["self", "root", "4711"]) == {os.getuid(), 0, 4711}
    assert allowed_uids(["root", "any"]) is None
    assert allowed_uids([]) == frozenset()
    with pytest.raises(KeyError, match="no-such-account"):
        allowed_uids(["no-such-account"])


# Inherited sockets.


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Descriptors in a row: a listening socket, a socket that does not listen, a datagram socket, a pipe, one that is
    closed."""
    first = next(start for start in range(200, 900) if not any(map(is_open, range(start, start + 5))))
    read, write = os.pipe()
    listening = socket.create_server(("127.0.0.1", 0))
    silent = socket.socket()
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    for number, opened in enumerate((listening.fileno(), silent.fileno(), datagrams.fileno(), read)):
        os.dup2(opened, first + number)
    os.close(read)
    os.close(write)
    monkeypatch.setattr(activation, "FIRST", first)
    yield list(range(first, first + 5))
    for one in (listening, silent, datagrams):
        one.close()
    for handle in range(first, first + 4):
        try:
            os.close(handle)
        except OSError:
            continue


def is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def test_only_listening_stream_sockets_are_inherited_and_the_others_closed(handles: list[int]) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "5", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    (found,) = inherited_sockets(environ)
    with closing(found):
        assert found.fileno() == handles[0]
        assert not found.get_inheritable()
        assert environ == {"HOME": "/"}
        assert [is_open(handle) for handle in handles] == [True, False, False, False, False]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
        {"LISTEN_PID": str(os.getpid())},
    ],
)
def test_what_another_process_was_given_is_left_alone(handles: list[int], environ: dict[str, str]) -> None:
    assert inherited_sockets(environ) == []
    assert environ == {}
    assert all(map(is_open, handles[:4]))


@pytest.mark.parametrize(("status", "is_old"), [(0, False), (3, False), (0, True)])
def test_launchd_hands_out_its_sockets_by_their_name(
    handles: list[int], monkeypatch: pytest.MonkeyPatch, status: int, is_old: bool
) -> None:
    asked: list[object] = []

    def launch_activate_socket(name: bytes, found: Any, count: Any) -> int:
        asked.append(name)
        numbers = (ctypes.c_int * 2)(handles[0], handles[3])
        asked.append(numbers)
        ctypes.memmove(ctypes.byref(found._obj), ctypes.byref(ctypes.pointer(numbers)), ctypes.sizeof(ctypes.c_void_p))
        count._obj.value = 2
        return status

    system = SimpleNamespace(free=lambda _pointer: asked.append("free"))
    if not is_old:
        system.launch_activate_socket = launch_activate_socket
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: system)
    monkeypatch.setattr(sys, "platform", "darwin")
    found = inherited_sockets({})
    if is_old or status:
        assert found == []
        assert "free" not in asked
    else:
        assert [one.fileno() for one in found] == [handles[0]]
        assert (asked[0], asked[-1]) == (b"Listeners", "free")
        assert not is_open(handles[3])
        found[0].close()


# The wish to stop a message.


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b"1\n", 1),
        (b"0\n", 0),
        (b"%d\n" % MAX_KEY, MAX_KEY),
        (b"%d\n" % (MAX_KEY + 1), None),
        (b"1", None),
        (b"\n", None),
        (b"-1\n", None),
        (b"1 \n", None),
        (b"x\n", None),
    ],
)
def test_a_key_is_a_whole_line_with_a_number(line: bytes, key: int | None) -> None:
    assert key_of(line) == key


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        *(([answer(stop)], stop) for stop in Stop),
        ([b"too l", b"ate\n"], Stop.TOO_LATE),
        ([b"too late"], Stop.TOO_LATE),
        ([b"what?\n"], None),
        ([b"\xff\n"], None),
        ([b""], None),
        ([b"x" * 100], None),
    ],
)
def test_the_daemon_answers_with_one_line(tmp_path: Path, parts: list[bytes], expected: Stop | None) -> None:
    asked: list[bytes] = []
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(tmp_path / stopping.FILE))
        listening.listen()

        def serve() -> None:
            client, _ = listening.accept()
            with closing(client):
                asked.append(client.recv(100))
                for part in parts:
                    client.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        assert ask(tmp_path, 4711, 30.0) is expected
        thread.join()
    assert asked == [b"4711\n"]
    assert ask(tmp_path, 4711, 30.0) is None


def test_each_wait_for_the_answer_ends_with_the_time_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    clock = SimpleNamespace(now=100.0)

    class Silent:
        def __init__(self, *_: object) -> None: ...
        def settimeout(self, seconds: float) -> None:
            waits.append(seconds)

        def connect(self, _address: object) -> None: ...
        def sendall(self, _octets: bytes) -> None: ...
        def recv(self, _octets: int) -> bytes:
            clock.now += 4.0
            return b"x" if clock.now < 110 else b""

        def close(self) -> None:
            waits.append(-1.0)

    monkeypatch.setattr(stopping, "socket", Silent)
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: clock.now))
    assert ask(tmp_path, 1, 5.0) is None
    assert waits == [5.0, 5.0, 1.0, 0.01, -1.0]


# Progress.


@pytest.mark.parametrize(
    ("octets", "size", "rate", "left"),
    [(0, 100, 10, 10.0), (50, 100, 1, 50.0), (50, 100, 0.9, None), (100, 100, 0, 0.0), (101, 100, 0, 0.0)],
)
def test_the_time_left_follows_from_the_rate(octets: int, size: int, rate: float, left: float | None) -> None:
    assert seconds_left(octets, size, rate) == left


@pytest.mark.parametrize(
    ("octets", "size", "rate", "left", "text", "part"),
    [
        (0, 999, 0.0, None, "0 of 999 B, 0 B/s", 0.0),
        (500, 1000, 999.9, 0.5, "0.5 of 1.0 kB, 999 B/s, 0 s left", 0.5),
        (1_999_999, 2_000_000, 9_999, 61.0, "1.9 of 2.0 MB, 10.0 kB/s, 1 min left", 1_999_999 / 2_000_000),
        (1, 5_000_000, 130_000, 38.0, "0.0 of 5.0 MB, 130 kB/s, 38 s left", 1 / 5_000_000),
        (5, 5, 1, 0.0, "5 of 5 B, the mail server's reply is awaited", 1.0),
        (6, 5, 1, 0.0, "6 of 5 B, the mail server's reply is awaited", 1.0),
        (-1, 5, 1, None, "-1 of 5 B, 1 B/s", 0.0),
        (0, 0, 1, None, "0 of 0 B, the mail server's reply is awaited", 1.0),
    ],
)
def test_the_progress_of_a_content(
    octets: int, size: int, rate: float, left: float | None, text: str, part: float
) -> None:
    sending = Sending("q", "home", octets, size, rate, left)
    assert progress_text(sending) == text
    assert fraction(sending) == part
    assert [stop.value for stop in Stop] == ["cancelled", "too late", "not sending"]
