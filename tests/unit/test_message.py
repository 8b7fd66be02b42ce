"""What a message that is due says of itself."""

from dataclasses import replace

import pytest

from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.send_time import SendTime

MESSAGE = Message(
    1, "aaaa000001", "default", Envelope(b"me@example.org", (Recipient(b"bob@example.net"),)), (7,), 100, 10.0, 0
)


@pytest.mark.parametrize(
    ("message", "is_only"),
    [
        (MESSAGE, True),
        (replace(MESSAGE, waiting=1), True),
        (replace(MESSAGE, later=1), False),
        (replace(MESSAGE, is_continued=True), False),
    ],
    ids=["whole", "some were deferred", "the first of several", "a later one"],
)
def test_a_transaction_is_the_only_one_of_its_round_if_none_was_before_and_none_follows(
    message: Message, is_only: bool
) -> None:
    assert message.is_only_transaction is is_only


def test_the_age_of_a_message_counts_from_its_send_time_where_it_has_one() -> None:
    assert MESSAGE.waits_since == 10.0
    later = replace(MESSAGE.envelope, send_time=SendTime(500.0, by_clock=False))
    assert replace(MESSAGE, envelope=later).waits_since == 500.0
