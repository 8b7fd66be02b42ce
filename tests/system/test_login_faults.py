"""A login that fails, as the person hears of it: from the client's reply to the notice, `status` and `check`."""

import asyncio
import json
from collections.abc import Callable

import pytest
from harness.daemon_process import Relay
from harness.login import Scene
from harness.login import at as at
from harness.mail_clients import message, submit
from harness.mailboxes import DOMAIN
from harness.processes import until
from harness.sendmail import Sendmail
from harness.silent_agent import silent_agent

pytestmark = pytest.mark.system


def told(relay: Relay, words: str) -> None:
    """One setup notice, `status` and `check` name the cause."""
    notice = until(relay.notices, "the person is told")[0]
    assert notice["kind"] == "setup" and words in json.dumps(notice, ensure_ascii=False)
    status = relay.run("status")
    assert status.returncode == 2 and words in " ".join(status.stdout.split())
    found = [json.loads(line) for line in relay.run("check", "--json").stdout.splitlines()]
    assert any(
        words in line["text"] and line["ok"] is False and line["fix"] for line in found if line["check"] == "login"
    )


def test_a_second_factor_that_is_wanted_is_one_notice_and_mail_goes_once_it_is_not(
    at: Scene, sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    at.server(AuthenticationMethods="publickey,password", PasswordAuthentication="yes")
    relay = relays(sendmail.port)
    relay.start()
    code, words = submit(relay.port, [f"alice@{DOMAIN}"], message(token))
    assert code == 250 and "queued" in words and "wants a password too" in words
    told(relay, "accepts the key of")
    at.server()
    relay.do("queue", "retry", "--all")
    assert sendmail.boxes.wait("alice", token)


async def test_mail_goes_in_spite_of_an_agent_that_hangs(
    at: Scene, sendmail: Sendmail, relays: Callable[..., Relay], token: str
) -> None:
    at.client(f"IdentityAgent {at.socket}", identities=[at.public, at.key])
    relay = relays(sendmail.port)
    async with silent_agent(at.socket):
        await asyncio.to_thread(relay.start)
        code, words = await asyncio.to_thread(submit, relay.port, [f"alice@{DOMAIN}"], message(token))
    assert code == 250 and " sent: " in words, words
    assert sendmail.boxes.wait("alice", token)


async def test_an_agent_that_hangs_without_a_key_file_is_one_notice_that_names_it(
    at: Scene, relays: Callable[..., Relay], token: str
) -> None:
    at.client(f"IdentityAgent {at.socket}", identities=[at.public])
    relay = relays(1)
    async with silent_agent(at.socket):
        await asyncio.to_thread(relay.start)
        code, words = await asyncio.to_thread(submit, relay.port, [f"alice@{DOMAIN}"], message(token))
        assert code == 250 and "queued" in words and "does not answer" in words, words
        await asyncio.to_thread(told, relay, f"The agent at {at.socket} accepts connections and does not answer")
