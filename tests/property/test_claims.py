"""Messages that were taken together are dealt to the conversations that asked."""

from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.relay.claims import dealt

LIMITS = st.lists(st.integers(1, 9), min_size=1, max_size=9)


def message(key: int) -> Message:
    return Message(key, f"id{key}", "default", Envelope(b"", (Recipient(b"b@example.net"),)), (key,), 100, 0.0, 0)


@given(LIMITS, st.data())
def test_every_message_is_dealt_once_within_the_limits_and_nobody_gets_a_second_before_each_has_one(
    limits: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, sum(limits)))
    messages = [message(key) for key in range(count)]
    portions = dealt(messages, limits)
    assert sorted(one.id for portion in portions for one in portion) == list(range(count))
    assert all(len(portion) <= limit for portion, limit in zip(portions, limits, strict=True))
    assert count < len(limits) or all(portions)
