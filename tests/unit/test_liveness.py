"""The daemon's answer fits into the buffer of a socket, whatever it is sending."""

from mailrelay.mail.sending import Sending
from mailrelay.spool.liveness import MAX_ANSWER, Answer, _decoded, line


def test_an_answer_with_too_many_messages_keeps_those_with_most_to_send() -> None:
    sending = tuple(Sending(f"id{number:06}", "default", 0, number * 1000, 1e6, 0.1) for number in range(1000))
    encoded = line(Answer(1, "", "", sending=sending))
    assert len(encoded) <= MAX_ANSWER
    kept = _decoded(encoded).sending
    assert len(kept) > 20
    assert set(kept) == set(sending[-len(kept) :])


def test_an_answer_of_an_older_daemon_says_nothing_of_progress() -> None:
    older = b'{"pid":1,"full":"","failure":""'
    assert _decoded(older + b"}").sending == ()


def test_an_answer_of_a_newer_daemon_is_read_as_far_as_it_is_understood() -> None:
    sending = b'[["id","default",1,2,3.5,null],["id","default",1,2,3.5,0.5,"more"],["id"],7,{"queue_id":"id"}]'
    found = _decoded(b'{"pid":1,"full":"","failure":"","sending":%s}' % sending).sending
    assert found == (Sending("id", "default", 1, 2, 3.5), Sending("id", "default", 1, 2, 3.5, 0.5))
    assert _decoded(b'{"pid":1,"full":"","failure":"","sending":"none"}').sending == ()
