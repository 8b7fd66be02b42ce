"""Which way leads to the mail server over there, found out by trying."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mailrelay.demo.remote import Remote
from mailrelay.endpoint import Tcp
from mailrelay.mail.outcome import Cause
from mailrelay.ssh import mail_path
from mailrelay.ssh.connection import RelayhostConnection
from mailrelay.ssh.dial import dial
from mailrelay.ssh.interface import Fault
from mailrelay.ssh.mail_path import find, try_path


@asynccontextmanager
async def linked(path: Path) -> AsyncIterator[tuple[Remote, RelayhostConnection]]:
    async with Remote(path) as remote:
        link = await dial(remote.relayhost())
        try:
            yield remote, link
        finally:
            await link.close()


async def test_forwarding_is_the_way_where_it_is_allowed(tmp_path: Path) -> None:
    async with linked(tmp_path) as (remote, link):
        way, failures = await find(link, remote.relayhost())
        assert way is not None and failures == []
        assert (way.command, way.greeting) == ("", "220 demo-remote ESMTP")
        assert way.extensions.pipelining and remote.channels == 1


async def test_where_forwarding_is_prohibited_a_command_is_found_whatever_its_shell_says_first(tmp_path: Path) -> None:
    async with linked(tmp_path) as (remote, link):
        remote.forbid_forwarding = True
        remote.noise = b"Welcome!\n"
        way, failures = await find(link, remote.relayhost())
        assert way is not None
        assert (way.command, way.greeting) == ("sendmail -bs", "220 demo-remote ESMTP")
        [(tried, outcome)] = failures
        assert (tried, outcome.cause) == ("", Cause.FORWARDING_PROHIBITED)


async def test_where_nothing_works_each_way_is_told_with_what_was_wrong(tmp_path: Path) -> None:
    async with linked(tmp_path) as (remote, link):

        async def unwilling(verb: str, argument: bytes) -> bytes | None:
            return b"554 5.3.2 not today" if verb == "GREETING" else None

        remote.policy = unwilling
        remote.forbid_forwarding = True
        way, failures = await find(link, remote.relayhost(smtp=Tcp("mail.internal", 2525)))
        assert way is None
        tried = dict(failures)
        assert list(tried)[:2] == ["", "sendmail -bs"]
        assert list(tried)[-3:] == [
            "nc mail.internal 2525",
            "ncat mail.internal 2525",
            "socat - TCP:mail.internal:2525",
        ]
        assert tried[""].cause is Cause.FORWARDING_PROHIBITED
        assert b"not today" in tried["sendmail -bs"].description
        assert all(outcome.cause is Cause.NOT_SMTP and "not found" in outcome.text for _, outcome in failures[2:])


async def test_a_mail_server_that_wants_nothing_of_us_is_no_way(tmp_path: Path) -> None:
    async with linked(tmp_path) as (remote, link):

        async def unwilling(verb: str, argument: bytes) -> bytes | None:
            return b"554 5.3.2 go away" if verb in ("EHLO", "HELO") else None

        remote.policy = unwilling
        with pytest.raises(Fault) as caught:
            await try_path(link, "")
        assert b"5.3.2 go away" in caught.value.outcome.description


async def test_a_way_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_path, "PATH_TIMEOUT", 0.2)

    async with linked(tmp_path) as (remote, link):

        async def never(verb: str, argument: bytes) -> bytes | None:
            await asyncio.Event().wait()
            return None

        remote.policy = never
        for command in ("", "sendmail -bs"):
            with pytest.raises(Fault) as caught:
                await try_path(link, command)
            assert caught.value.outcome.cause is Cause.LOST
        assert link.is_up


async def test_nothing_more_is_tried_once_the_connection_has_gone(tmp_path: Path) -> None:
    async with linked(tmp_path) as (remote, link):
        await remote.down()
        await link.wait_closed()
        way, failures = await find(link, remote.relayhost())
        assert way is None and len(failures) == 1
