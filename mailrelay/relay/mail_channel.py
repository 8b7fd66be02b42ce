"""Opens the channel of a conversation: through a recorder where that is possible (`records`), else by forwarding."""

import asyncio
from dataclasses import dataclass

from mailrelay.relay.records import Records
from mailrelay.ssh.interface import Channel, Connection, NotRecorded, RecordedChannel


@dataclass(frozen=True, slots=True)
class MailChannel:
    """token: of the record, "" if there is none. is_ehlo_sent: the recorder sends EHLO behind the greeting."""

    channel: Channel
    token: str = ""
    is_ehlo_sent: bool = False


async def open_channel(connection: Connection, records: Records) -> MailChannel:
    """A channel to the mail server. With a token, the caller calls `Records.ended` at the end. Raises Fault."""
    token = records.begin()
    if not token:
        return MailChannel(await connection.open_channel())
    try:
        channel = await _recorded(connection, token, must_check=not records.is_possible)
    except NotRecorded as error:
        records.refused(error)
        return MailChannel(await connection.open_channel())
    except BaseException:
        records.ended(token, leaves_doubt=False)
        raise
    records.started()
    return MailChannel(channel, token, channel.is_ehlo_sent)


async def _recorded(connection: Connection, token: str, *, must_check: bool) -> RecordedChannel:
    """must_check: whether to find out, at the same time, that the server permits forwarding too: conversations beyond those
    that can be recorded need it. Raises Fault and NotRecorded."""
    opening = connection.open_recorded(token, with_ehlo=True)
    if not must_check:
        return await opening
    permitted, channel = await asyncio.gather(connection.check_forwarding(), opening, return_exceptions=True)
    if isinstance(permitted, BaseException):
        if not isinstance(channel, BaseException):
            channel.close()
        raise permitted
    if isinstance(channel, BaseException):
        raise channel
    return channel
