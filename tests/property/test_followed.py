"""Whatever is found on the relayhost and whatever the person does: the state stays, content is kept while it may be needed,
and each bounce is told once."""

import tempfile
from contextlib import closing, suppress
from pathlib import Path

from harness.messages import LIMIT, NOW, TAKEN, letter
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrelay.mail.conclusion import RetryPolicy, conclude
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.notice import Backend
from mailrelay.mail.spool_errors import NotAllowed
from mailrelay.mail.there import Source, There, Verdict
from mailrelay.spool import actions, attempts, followed, listing, stored
from mailrelay.spool.accepting import accept
from mailrelay.spool.database import connect, rows, transaction
from mailrelay.tracking.followed import Found

POLICY = RetryPolicy((60.0,), 432_000.0, lambda *_: ())
RECIPIENTS = 3

verdicts = st.builds(
    Verdict,
    st.sampled_from(There),
    st.sampled_from(Source),
    st.binary(max_size=20),
    st.binary(max_size=5),
    st.none() | st.floats(0, 2e9),
)
questions = st.dictionaries(st.integers(0, RECIPIENTS - 1), st.tuples(verdicts, st.booleans()), min_size=1)


@given(st.lists(st.one_of(questions, st.sampled_from([Act.CANCEL, Act.DROP, Act.RESEND, Act.HOLD])), max_size=12))
@settings(deadline=None, max_examples=60)
def test_any_history_keeps_the_promises(events: list[dict[int, tuple[Verdict, bool]] | Act]) -> None:
    with tempfile.TemporaryDirectory() as directory, closing(connect(Path(directory) / "spool")) as db:
        with transaction(db):
            key = accept(db, letter(b"a@example.net", b"b@example.net", b"c@example.net"), LIMIT)
            (message,) = attempts.take(db, "default", (), 1, "node", NOW)
            record = conclude(
                message,
                (TAKEN,) * RECIPIENTS,
                POLICY,
                client_told=False,
                relays_dsn=True,
                now=NOW,
                chance=0.0,
                is_followed=True,
            )
            attempts.record(db, record, "node")
        told: list[int] = []
        bounced, over, dealt_with = set[int](), set[int](), set[int]()
        for step, event in enumerate(events, 1):
            with transaction(db), suppress(NotAllowed):
                if isinstance(event, Act):
                    actions.act(db, key, "id", event, NOW + step)
                else:
                    found = [Found(message.recipient_ids[n], *one) for n, one in event.items()]
                    followed.found(db, found, lambda *_: (Backend.MAILBOX,), NOW + step)
            if not isinstance(event, Act):
                new = {n for n, (one, _) in event.items() if one.state is There.BOUNCED} - bounced
                told += sorted(new)
                bounced |= new
                over |= {n for n, (_, is_over) in event.items() if is_over}
            elif event is not Act.HOLD:
                dealt_with |= bounced
                over |= bounced
            (listed,) = listing.everything(db)
            assert {to.state for to in listed.recipients} == {"sent"}
            assert {n for n, to in enumerate(listed.recipients) if to.is_dealt_with} == dealt_with
            assert (listed.queue_name == "failed") == bool(bounced - dealt_with) == bool(list(listing.live(db)))
            is_needed = bool(bounced - dealt_with) or len(over) < RECIPIENTS
            # What was deleted once does not come back.
            has_content = b"".join(stored.content(db, key)) != b""
            assert has_content or not is_needed or len(over) == RECIPIENTS
            assert is_needed or not has_content
            asked = {one.recipient for one in followed.followed(db, "default")}
            assert asked == {message.recipient_ids[n] for n in range(RECIPIENTS) if n not in over}
        keys = [one for (one,) in rows(db, "SELECT recipient FROM notice_recipient ORDER BY notice, recipient")]
        assert keys == [message.recipient_ids[n] for n in told]
