"""What an SSH server may send, before and after its login."""

from mailrelay.ssh.flood import (
    MAX_BEFORE_LOGIN,
    MAX_IN_PERIOD,
    MAX_PACKETS_BEFORE_LOGIN,
    MAX_UNTAKEN,
    MAX_WAITING,
    PERIOD,
    FloodGuard,
)

IGNORE, KEXINIT, GLOBAL_REQUEST, WINDOW_ADJUST, DATA, SUCCESS = 2, 20, 80, 93, 94, 99


def logged_in() -> FloodGuard:
    guard = FloodGuard()
    guard.logged_in()
    return guard


def count(guard: FloodGuard, kind: int, times: int, *, octets: int = 16, now: float = 0.0, sent: int = 0) -> bool:
    """Whether the connection goes on after so many packets."""
    return not any(guard.packet(kind, octets, sent, now) for _ in range(times))


def test_octets_before_the_login_have_a_bound_that_the_login_lifts() -> None:
    guard = FloodGuard()
    assert guard.received(MAX_BEFORE_LOGIN, 0, 0) == ""
    assert guard.received(1, 0, 0) == "it sent more than 1 MB before the login was complete"
    guard = logged_in()
    assert guard.received(10 * MAX_BEFORE_LOGIN, 0, 0) == ""


def test_packets_before_the_login_have_a_bound() -> None:
    guard = FloodGuard()
    assert count(guard, KEXINIT, MAX_PACKETS_BEFORE_LOGIN)
    assert not count(guard, KEXINIT, 1)


def test_what_waits_for_the_end_of_a_step_has_a_bound() -> None:
    assert logged_in().received(0, MAX_WAITING, 0) == ""
    assert "in the middle of one step" in logged_in().received(0, MAX_WAITING + 1, 0)


def requests_for_an_hour(guard: FloodGuard, unsent: int) -> str:
    for number in range(MAX_UNTAKEN + 1):
        if reason := guard.received(16, 0, unsent) or guard.packet(GLOBAL_REQUEST, 16, number, number * 0.1):
            return reason
    return ""


def test_requests_whose_replies_are_never_taken_have_a_bound() -> None:
    assert "does not take the replies" in requests_for_an_hour(logged_in(), unsent=1)
    assert requests_for_an_hour(logged_in(), unsent=0) == ""


def test_mail_that_waits_on_a_slow_network_is_no_fault_of_the_server() -> None:
    assert logged_in().received(0, 0, 1 << 30) == ""


def test_packets_without_mail_have_a_rate() -> None:
    guard = logged_in()
    assert count(guard, GLOBAL_REQUEST, MAX_IN_PERIOD)
    assert not count(guard, GLOBAL_REQUEST, 1)


def test_a_keepalive_request_now_and_then_is_in_order_for_ever() -> None:
    guard = logged_in()
    assert all(count(guard, GLOBAL_REQUEST, MAX_IN_PERIOD, now=period * PERIOD) for period in range(5))


def test_long_packets_without_mail_count_by_their_length() -> None:
    assert not count(logged_in(), IGNORE, MAX_IN_PERIOD // 20, octets=32_768)


def test_an_empty_message_beside_each_packet_of_a_channel_is_in_order() -> None:
    guard = logged_in()
    assert all(count(guard, DATA, 1, octets=32_768) and count(guard, IGNORE, 1) for _ in range(3 * MAX_IN_PERIOD))


def test_replies_to_our_requests_are_not_counted() -> None:
    assert count(logged_in(), SUCCESS, 3 * MAX_IN_PERIOD)


def test_more_room_for_each_packet_that_we_send_is_in_order_and_without_end_it_is_not() -> None:
    guard = logged_in()
    assert all(count(guard, WINDOW_ADJUST, 1, sent=number) for number in range(3 * MAX_IN_PERIOD))
    assert not count(logged_in(), WINDOW_ADJUST, MAX_IN_PERIOD + 1)


def test_new_keys_without_end_are_worth_more_than_other_packets() -> None:
    assert count(logged_in(), KEXINIT, 100)
    assert not count(logged_in(), KEXINIT, 1000)
