"""What a record says of an attempt, and what becomes of records that are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Reply
from mailrelay.mail.recorded import ReadExchange, RecordedExchange, UnreadExchange
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.ports import RelayPort
from mailrelay.relay.records import Reading, Records, judge
from mailrelay.relay.results import Results
from mailrelay.ssh.interface import Connection, NotRecorded, RecordRead

BEFORE = b"220 mail\r\n250 EHLO\r\n"
QUEUED = Reply(250, (b"2.0.0 queued as 4ABC",))
CONTENT = b"250 2.0.0 queued as 4ABC\r\n"


@pytest.mark.parametrize(
    ("said", "is_complete", "has_data", "sent", "not_taken", "reply"),
    [
        pytest.param(b"250 MAIL\r\n250 a\r\n250 b\r\n" + CONTENT, False, False, (7, 9), (), QUEUED, id="accepted"),
        pytest.param(
            b"250 MAIL\r\n250 a\r\n250 b\r\n354 go\r\n" + CONTENT, True, True, (7, 9), (), QUEUED, id="with DATA"
        ),
        pytest.param(
            b"250 MAIL\r\n550 a\r\n250 b\r\n" + CONTENT, False, False, (9,), (7,), QUEUED, id="for one of them"
        ),
        pytest.param(
            b"250 MAIL\r\n250 a\r\n250 b\r\n451 no\r\n",
            False,
            False,
            (),
            (7, 9),
            Reply(451, (b"no",)),
            id="deferred",
        ),
        pytest.param(b"250 MAIL\r\n250 a\r\n250 b\r\n", True, False, (), (7, 9), None, id="closed without a reply"),
        pytest.param(b"250 MAIL\r\n250 a\r\n250 b\r\n", False, False, (), (), None, id="the record was broken off"),
        pytest.param(b"250 MAIL\r\n250 a\r\n250 b\r\n250", True, False, (), (), None, id="a reply was broken off"),
        pytest.param(b"", True, True, (), (7, 9), None, id="closed before MAIL"),
    ],
)
def test_a_record_is_judged_for_each_recipient(
    said: bytes,
    sent: tuple[int, ...],
    not_taken: tuple[int, ...],
    reply: Reply | None,
    *,
    is_complete: bool,
    has_data: bool,
) -> None:
    unread = UnreadExchange(3, 4, "aaaa000001", RecordedExchange("0" * 32, 2, (7, 9), has_data, relays_dsn=False))
    read = judge(unread, RecordRead(BEFORE + said, is_complete))
    assert read == ReadExchange(3, 4, sent, not_taken, reply)


def test_without_a_record_nothing_is_known() -> None:
    unread = UnreadExchange(3, 4, "aaaa000001", RecordedExchange("0" * 32, 2, (7, 9), has_data=True, relays_dsn=False))
    assert judge(unread, None) == ReadExchange(3, 4)


class There:
    """A connection with one whole record of each token, or on which none can be read. removed: the tokens of those that
    were removed."""

    def __init__(self, error: Exception | None = None, *, is_up: bool = True) -> None:
        self.is_up = is_up
        self.removed: list[str] = []
        self._error = error

    async def read_records(self, tokens: Sequence[str]) -> Mapping[str, RecordRead]:
        if self._error is not None:
            raise self._error
        return {token: RecordRead(BEFORE + b"250 MAIL\r\n250 a\r\n250 b\r\n" + CONTENT, True) for token in tokens}

    async def remove_records(self, tokens: Sequence[str]) -> None:
        self.removed += tokens


class Written:
    """Takes what records say, or fails as the spool does."""

    def __init__(self, error: SpoolError | None) -> None:
        self._error = error
        self.read: list[ReadExchange] = []

    async def read_later(self, read: Sequence[ReadExchange]) -> None:
        if self._error is not None:
            raise self._error
        self.read += read


UNREAD = UnreadExchange(3, 4, "aaaa000001", RecordedExchange("0" * 32, 2, (7, 9), has_data=False, relays_dsn=False))


async def read_on(there: There, written: Written) -> Records:
    """The records after all were read that there are, as far as that is possible."""
    changes: list[str] = []
    relayhost = Relayhost(name="default", ssh="server", ssh_config=Path("/nowhere"))
    records = Records(
        relayhost, cast(RelayPort, None), cast(Results, written), lambda: changes.append("changed"), lambda: 0.0
    )
    records.is_reading, records.is_wanted = True, False
    await records.read(cast(Connection, there), Reading([UNREAD], ["1" * 32]))
    assert (records.is_reading, changes) == (False, ["changed"])
    return records


@pytest.mark.parametrize("error", [None, SpoolError("the disk is full")], ids=["written", "not written"])
async def test_records_are_removed_after_what_they_say_is_on_disk_and_else_read_again(
    error: SpoolError | None, caplog: pytest.LogCaptureFixture
) -> None:
    there, written = There(), Written(error)
    records = await read_on(there, written)
    if error is None:
        assert [one.sent for one in written.read] == [(7, 9)]
        assert there.removed == ["0" * 32, "1" * 32]
        assert (records.is_wanted, records.has_needless) == (False, False)
    else:
        assert there.removed == []
        assert (records.is_wanted, records.has_needless) == (True, True)
        assert "relay=default: records could not be used: the disk is full" in caplog.text


@pytest.mark.parametrize("is_up", [True, False])
async def test_where_no_record_can_be_read_messages_stay_uncertain_unless_the_connection_is_to_blame(
    is_up: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    there, written = There(NotRecorded("no\x1bperl", is_temporary=False), is_up=is_up), Written(None)
    records = await read_on(there, written)
    assert written.read == ([ReadExchange(3, 4)] if is_up else [])
    assert records.is_wanted is not is_up
    assert there.removed == (["1" * 32] if is_up else [])
    assert "relay=default: no record could be read: no\\x1bperl" in caplog.text
    assert ("aaaa000001: relay=default: there is no record of it" in caplog.text) == is_up
