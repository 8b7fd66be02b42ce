"""The log lines about a message."""

from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.lifecycle import State
from mailrelay.mail.logline import recipient_status
from mailrelay.mail.outcome import Outcome, Reply, Stage
from mailrelay.mail.record import Record, Settled


def test_the_status_is_a_field_and_each_code_of_the_reply_is_read_once() -> None:
    envelope = Envelope(b"me@example.org", (Recipient(b"bob@example.net"),))
    message = Message(1, "aaaa000001", "default", envelope, (7,), 100, 10.0, 0)
    reply = Reply(550, (b"5.1.1 No such user. Please", b"5.1.1 check the address"))
    one = Settled(7, State.BOUNCED, Outcome(Stage.RCPT, reply), uncertain=False)
    record = Record(1, 12.0, (one,), None, (), dialled=0.5, transaction=0.25)
    assert recipient_status(message, record, one) == (
        "aaaa000001 to=<bob@example.net> relay=default delay=2 delays=1.2/0.5/0.25 dsn=5.1.1 status=bounced"
        " (550 5.1.1 No such user. Please check the address)"
    )
