"""The conversations on one connection: how many there are, and how far each is."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mailrelay.config import Relayhost
from mailrelay.relay import conversations
from mailrelay.relay.connector import Connector
from mailrelay.relay.conversations import Conversations
from mailrelay.relay.delivery import ConversationEnd, JobSource
from mailrelay.relay.jobs import Job
from mailrelay.relay.mail_channel import MailChannel
from mailrelay.relay.plan import ConversationProgress
from mailrelay.relay.records import Records
from mailrelay.relay.results import Results
from mailrelay.ssh.interface import Channel


class Talks:
    """Takes the place of `converse`: its conversations last until `over` is set. sources: theirs, as they began."""

    def __init__(self) -> None:
        self.sources: list[JobSource] = []
        self.over = asyncio.Event()

    async def __call__(
        self, _channel: Channel, _name: bytes, source: JobSource, *_: object, **__: object
    ) -> ConversationEnd:
        self.sources.append(source)
        await self.over.wait()
        return ConversationEnd(None, ConversationProgress.NOTHING)


async def opened(*_: object) -> MailChannel:
    return MailChannel(cast(Channel, None))


async def nothing(_limit: int) -> list[Job]:
    return []


def three(heard: list[object] | None = None) -> Conversations:
    """Those of a relayhost that allows three, and nine with one message each, on a connection that is up. heard: what the
    scheduler and the connector hear of them."""
    hears = (heard if heard is not None else []).append
    connector = SimpleNamespace(
        connection=SimpleNamespace(is_up=True),
        retired=None,
        conversation_begun=lambda: None,
        fault=SimpleNamespace(mail_server_ready=lambda: hears("the mail server is ready")),
    )
    return Conversations(
        Relayhost(
            name="default", ssh="server", ssh_config=Path("/nowhere"), channels=3, backlog_channels=9, linger=3600.0
        ),
        cast(Connector, connector),
        cast(Results, None),
        cast(Records, SimpleNamespace(connected=lambda: None)),
        nothing,
        hears,
        lambda: hears("changed"),
    )


async def test_a_conversation_is_ready_with_the_reply_to_ehlo_and_idle_without_mail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talks, held = Talks(), three()
    monkeypatch.setattr(conversations, "open_channel", opened)
    monkeypatch.setattr(conversations, "converse", talks)
    async with asyncio.TaskGroup() as group:
        assert (held.count, held.all_ready, held.more_allowed) == (0, True, 1)
        held.open(1, group)
        assert (held.count, held.all_ready, held.idle) == (1, False, 0)
        await asyncio.sleep(0)
        talks.sources[0].ready(8, ())
        assert (held.all_ready, held.idle) == (True, 0)
        asks = group.create_task(_next(talks.sources[0]))
        await asyncio.sleep(0)
        assert (held.all_ready, held.idle) == (True, 1)
        held.open(1, group)
        assert (held.count, held.all_ready, held.idle) == (2, False, 1)
        asks.cancel()
        talks.over.set()
    assert (held.count, held.all_ready, held.idle) == (0, True, 0)


async def _next(source: JobSource) -> None:
    await source.next(1)


async def test_beside_a_mail_server_that_is_not_proven_there_is_one_conversation_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talks, held = Talks(), three()
    monkeypatch.setattr(conversations, "open_channel", opened)
    monkeypatch.setattr(conversations, "converse", talks)
    async with asyncio.TaskGroup() as group:
        held.open(1, group)
        await asyncio.sleep(0)
        assert held.more_allowed == 0
        talks.sources[0].judged(cast(Job, SimpleNamespace(queue_id="bcdfghjk")))
        assert held.more_allowed == 2
        talks.over.set()


@pytest.mark.parametrize(("in_flight", "channels"), [(8, 3), (1, 9)])
async def test_the_reply_to_ehlo_is_told_and_with_one_message_at_a_time_more_conversations_are_allowed(
    in_flight: int, channels: int
) -> None:
    heard: list[object] = []
    held = three(heard)
    held.ready(in_flight, (b"mx.example.org",))
    assert heard == [(b"mx.example.org",), "the mail server is ready", "changed"]
    assert held.channels == channels


async def test_conversations_that_are_cancelled_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    talks, held = Talks(), three()
    monkeypatch.setattr(conversations, "open_channel", opened)
    monkeypatch.setattr(conversations, "converse", talks)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        held.open(1, group)
        await asyncio.sleep(0)
        held.cancel()
    assert len(talks.sources) == 1
    assert not talks.over.is_set()
    assert held.count == 0
