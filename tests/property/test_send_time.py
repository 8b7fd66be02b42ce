"""Times of `sendmail --at` in any zone, at any moment; and any text in place of a time."""

import contextlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.cli import send_time
from mailrelay.cli.send_time import BadTime
from mailrelay.listener.parameters import BadParameter, check_hold_for, check_hold_until
from mailrelay.mail.send_time import MAX_WAIT

# Half an hour of daylight saving time, none, a day that was left out (Apia 2011), and both hemispheres.
ZONES = st.sampled_from(
    [
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Asia/Kolkata",
        "UTC",
        "Africa/Casablanca",
    ]
).map(ZoneInfo)
MOMENTS = st.integers(1_300_000_000, 1_900_000_000).map(float)
DAYS = ("", "today ", "tomorrow ", "Monday ", "tue ", "WEDNESDAY ", "thu ", "friday ", "Sat ", "sunday ")
WEEKDAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def shown(moment: float, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(moment, UTC).astimezone(zone).replace(tzinfo=None, fold=0)


@given(MOMENTS, ZONES, st.sampled_from(DAYS), st.integers(0, 86_399))
def test_the_clock_shows_the_time_that_was_given_or_the_end_of_a_gap(
    now: float, zone: ZoneInfo, day: str, second: int
) -> None:
    of_day = f"{second // 3600}:{second // 60 % 60:02}:{second % 60:02}"
    try:
        found = send_time.parse_at(day + of_day, now, zone).at
    except BadTime:
        assert day == "today "
        assert f"{shown(now, zone):%H:%M:%S}" >= of_day.zfill(8)
        return
    assert now < found <= now + 9 * 86_400
    sent = shown(found, zone)
    if f"{sent:%H:%M:%S}" != of_day.zfill(8):
        # In a gap: a second before, the clock showed an earlier time, and now it shows a later one.
        assert sent - shown(found - 1, zone) > timedelta(seconds=1)
    elif day.strip().lower()[:3] in WEEKDAYS:
        assert sent.weekday() == WEEKDAYS.index(day.strip().lower()[:3])


@given(MOMENTS, ZONES, st.integers(1, MAX_WAIT))
def test_a_date_with_a_zone_is_that_moment_and_one_without_is_local(now: float, zone: ZoneInfo, ahead: int) -> None:
    moment = datetime.fromtimestamp(now + ahead, UTC)
    for text in (
        f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        moment.astimezone(zone).isoformat(" "),
        moment.astimezone(zone).isoformat(),
    ):
        assert send_time.parse_at(text, now, zone).at == now + ahead
    assert check_hold_until(f"{moment:%Y-%m-%dT%H:%M:%SZ}".encode(), now).at == now + ahead
    local = moment.astimezone(zone)
    # One that comes twice may be meant for the other time.
    found = send_time.parse_at(f"{local:%Y-%m-%d %H:%M:%S}", now, zone).at
    assert shown(found, zone) == local.replace(tzinfo=None, fold=0)


LIKELY = st.lists(
    st.sampled_from(
        [
            "8",
            ":",
            "00",
            "2026",
            "-",
            "12",
            "01",
            " ",
            "T",
            "Z",
            "+01:00",
            "tomorrow",
            "monday",
            "today",
            ".5",
            "99",
            "0000",
        ]
    ),
    max_size=9,
).map("".join)


@given(st.one_of(st.text(), LIKELY), MOMENTS, ZONES)
@example("0001-01-01T00:00:00+23:59", 1.9e9, ZoneInfo("UTC"))
@example("9999-12-31 23:59:59", 1.9e9, ZoneInfo("America/New_York"))
def test_any_text_is_a_time_in_the_future_or_an_error_of_one_line(text: str, now: float, zone: ZoneInfo) -> None:
    for read in (lambda: send_time.parse_at(text, now, zone), lambda: send_time.parse_in(text, now)):
        try:
            assert now < read().at <= now + MAX_WAIT
        except BadTime as error:
            assert str(error).isprintable()


@given(st.one_of(st.binary(), LIKELY.map(str.encode)), MOMENTS)
def test_any_octets_are_a_time_in_the_future_or_refused(octets: bytes, now: float) -> None:
    for check in (check_hold_for, check_hold_until):
        with contextlib.suppress(BadParameter):
            assert now < check(octets, now).at <= now + MAX_WAIT
