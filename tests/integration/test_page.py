"""Who may use the page of `mailrelay web`, over plain HTTP: what a browser never sends, and other accounts."""

import asyncio
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.command import person_of
from harness.daemon import served, stopping_at_content
from harness.page import Page, page, read_as
from harness.person import BOUNCED, DEFERRED, SENT, Person
from harness.processes import Child
from harness.waiting import until

from mailrelay.config import load
from mailrelay.control.daemon import wake
from mailrelay.demo.remote import Remote
from mailrelay.page import server
from mailrelay.page.entry import Entry
from mailrelay.page.guard import HEADERS

TOLD = ("3aaaaaa3", "bob@exmaple.org")
"""Of each page that is refused, nothing of this may be in the answer."""


@pytest.fixture
def person(tmp_path: Path) -> Person:
    person = Person(tmp_path)
    person.put("3aaaaaa1", (b"bob@example.org",), age=90_000)
    person.attempt(SENT)
    person.put("3aaaaaa2", (b"bob@exmaple.org",), age=900)
    person.attempt(BOUNCED)
    person.put("3aaaaaa3", (b"carol@example.org",), age=600)
    person.attempt(DEFERRED)
    return person


@pytest.fixture
def at(person: Person) -> Iterator[Page]:
    with page(person.config, person.environment) as at:
        yield at


def test_the_page_is_for_the_session_that_used_the_token_first(at: Page) -> None:
    assert at.ask("/").status == 403
    first = at.enter()
    assert first.status == 200
    flags = first.headers["set-cookie"].lower()
    assert "httponly" in flags and "samesite=strict" in flags and "path=/" in flags
    seen = at.ask("/")
    assert seen.status == 200
    assert HEADERS.items() <= seen.headers.items()
    assert "unsafe" not in seen.headers["content-security-policy"]
    # Once more with the cookie, as with the button for reloading; then by somebody else.
    assert at.ask(at.url.removeprefix(at.origin)).status == 200
    at.cookie = ""
    again = at.ask(at.url.removeprefix(at.origin))
    assert again.status == 403
    assert "set-cookie" not in again.headers
    for cookie in ("x=y", f"mailrelay-{at.port}=", f"mailrelay-{at.port}=é", ";;=", "a" * 5000):
        at.cookie = cookie.encode().decode("latin-1")
        refused = at.ask("/")
        assert refused.status == 403
        assert not any(word in refused.text for word in TOLD)


def test_another_name_for_this_computer_opens_nothing(at: Page) -> None:
    token = at.url.removeprefix(at.origin)
    at.enter()
    for host in ("evil.example", f"localhost:{at.port}", "127.0.0.1", "127.0.0.1:1", f"[::1]:{at.port}", ""):
        for path in ("/", "/static/page.css", token):
            answer = at.ask(path, host=host)
            assert answer.status in (400, 421), host
            assert not any(word in answer.text for word in TOLD)


def test_a_form_is_taken_only_from_a_page_of_this_session(person: Person, at: Page) -> None:
    at.enter()
    hold = {"verb": "hold", "id": "3aaaaaa3"}
    assert at.post("/act", hold, origin="").status == 403
    assert at.post("/act", hold, origin="null").status == 403
    assert at.post("/act", hold, origin="http://evil.example").status == 403
    assert at.post("/act", hold, origin=at.origin.replace("127.0.0.1", "localhost")).status == 403
    for site in ("cross-site", "same-site"):
        assert at.post("/act", hold, sec_fetch_site=site).status == 403
        assert at.ask("/", sec_fetch_site=site).status == 403
    for token in ("", "stale", "é"):
        answer = at.post("/act", hold | {"token": token})
        assert answer.status == 403
        assert "Load the page again" in answer.text
    assert at.ask("/act?verb=hold&id=3aaaaaa3").status == 405
    assert at.ask("/", "PUT").status == 405
    assert at.ask("/", "DELETE").status == 405
    assert person.states()["3aaaaaa3"] == "deferred"
    assert at.post("/act", hold).status == 303
    assert person.states()["3aaaaaa3"] == "held"


def test_a_token_of_an_earlier_page_does_nothing(person: Person, at: Page) -> None:
    at.enter()
    with page(person.config, person.environment) as later:
        later.enter()
        stale = at.form_token
        answer = later.post("/act", {"verb": "hold", "id": "3aaaaaa3", "token": stale})
        assert answer.status == 403
        later.cookie = at.cookie
        assert later.ask("/").status == 403
    assert person.states()["3aaaaaa3"] == "deferred"


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="becomes another account, and needs the kernel's word"
)
def test_another_account_gets_nothing_even_with_the_cookie(at: Page) -> None:
    at.enter()
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{at.port}\r\nCookie: {at.cookie}\r\n\r\n".encode()
    assert read_as(0, at.port, request).startswith(b"HTTP/1.1 200")
    assert read_as(65534, at.port, request) == b""
    assert at.ask("/").status == 200


def test_hostile_requests_are_answered_with_a_sentence(at: Page) -> None:
    at.enter()
    for path in (
        "/message/none",
        "/message/%00",
        "/message/..%2f..%2fetc%2fpasswd",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/message/3aaaaaa2/part/99",
        "/message/3aaaaaa2/part/99999999999999999999999",
        "/host-key/--help",
        "/nowhere",
        "/live.json?id=none",
    ):
        answer = at.ask(path)
        assert answer.status == 404, path
        assert "Traceback" not in answer.text
    for query in ("page=99999", "page=-1", "page=x", "age=x&state=x", "from=%00%ff&to=%3Cscript%3E", "a=b&" * 5000):
        answer = at.ask(f"/?{query}")
        assert answer.status == 200, query
        assert "<script>" not in answer.text
    assert at.post("/act", {"verb": "resend", "id": "3aaaaaa2"}).status == 400
    assert at.post("/act", {"verb": "hold", "id": [str(n) for n in range(12_100)]}).status == 413
    assert at.ask("/?" + "a&" * 12_100).status == 413
    assert at.post("/message/3aaaaaa2/send", {"text": "x" * 4_100_000}).status == 413
    elsewhere = at.post("/act", {"verb": "hold", "id": "none", "back": "//evil.example/"})
    assert elsewhere.headers["location"] == "/"


def test_the_address_is_in_no_argument_of_a_process(person: Person) -> None:
    entry = Entry()
    file = entry.write_file(f"http://127.0.0.1:1/enter/{entry.token}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert entry.token in file.read_text()
    assert not entry.redeem("x")
    assert entry.redeem(entry.token)
    assert not file.parent.exists()


def test_the_browser_is_given_a_file_with_the_address(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    said: list[tuple[str, bool]] = []

    def open_browser(address: str) -> bool:
        opened.append(Path(address.removeprefix("file://")).read_text())
        return True

    monkeypatch.setattr(server.webbrowser, "open", open_browser)
    before = os.umask(0o022)
    try:
        server.run(
            load(person.config),
            (),
            "/",
            opens_browser=True,
            say=lambda url, is_open: said.append((url, is_open)),
            idle=0.2,
        )
    finally:
        os.umask(before)
    ((url, is_open),) = said
    assert is_open
    assert url in opened[0]


def test_the_file_with_the_token_is_gone_when_the_page_was_ended(person: Person, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "mailrelay", "--config", str(person.config), "web"]
    # A browser that does nothing.
    child = Child(argv, env=person.environment | {"BROWSER": "true", "TMPDIR": str(tmp_path)})
    child.wait_line("^http://")
    (file,) = tmp_path.glob("mailrelay-web-*/open.html")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    arguments = b"".join(path.read_bytes() for path in Path("/proc").glob(f"{child.pid}/cmdline"))
    assert b"enter" not in arguments
    child.process.terminate()
    assert child.ended() == 0
    assert not file.parent.exists()


def test_a_page_without_a_reader_ends_by_itself(person: Person) -> None:
    said: list[str] = []
    before = os.umask(0o022)
    try:
        server.run(load(person.config), (), "/", opens_browser=False, say=lambda url, _: said.append(url), idle=0.1)
    finally:
        os.umask(before)
    assert said[0].startswith("http://127.0.0.1:")


def test_a_refused_message_is_sent_again_without_a_daemon(person: Person, at: Page) -> None:
    at.enter()
    shown = at.ask("/message/3aaaaaa2").text
    assert 'data-value="bob@example.org"' in shown
    fields = {
        "was": "bob@exmaple.org",
        "to": "bob@exmaple.org",
        "sender": "me@example.org",
        "subject": "hello",
        "text": "Hello.\n",
    }
    # The button of the suggestion, as it works without script.
    filled = at.post("/message/3aaaaaa2/send", fields | {"meant": "bob@exmaple.org"})
    assert 'value="bob@example.org"' in filled.text
    for wrong, why in (
        ({"to": "no address"}, "is not an address"),
        ({"to": " "}, "There is no recipient"),
        ({"was": "eve@example.org"}, "has changed since"),
        ({"sender": "a b"}, "is not an address"),
    ):
        refused = at.post("/message/3aaaaaa2/send", fields | wrong | {"text": "My <long> text"})
        assert refused.status == 422
        assert why in refused.text
        assert "My &lt;long&gt; text" in refused.text
    assert person.states()["3aaaaaa2"] == "bounced"
    before = person.run("queue", "show", "--content", "3aaaaaa2").stdout
    sent = at.post("/message/3aaaaaa2/send", fields | {"to": "bob@example.org"})
    assert sent.status == 303
    newer = sent.headers["location"].rpartition("/")[2].partition("?")[0]
    states = person.states()
    assert states["3aaaaaa2"] == "cancelled"
    assert states[newer] == "queued"
    # The text and the subject are as they were: so is the content, octet for octet.
    assert person.run("queue", "show", "--content", newer).stdout == before
    again = at.post("/message/3aaaaaa2/send", fields)
    assert again.status == 303
    assert len(person.states()) == len(states)
    assert f"It was replaced by {newer}" in at.ask("/message/3aaaaaa2").text


async def test_the_progress_of_what_is_being_sent_is_shown(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote, 'relayhost.default.record = "off"', 'relayhost.default.track = "off"')
        reached, go_on = stopping_at_content(remote)
        async with served(load(person.config)):
            queue_id = person.put("3aaaaaa1", (b"bob@example.org",))
            wake(person.spool)
            await reached.wait()

            def look() -> tuple[str, str, str]:
                with page(person.config, person.environment) as at:
                    at.enter()
                    return (
                        at.ask("/").text,
                        at.ask(f"/message/{queue_id}").text,
                        at.ask(f"/live.json?id={queue_id}").text,
                    )

            queue, message, mark = await asyncio.to_thread(look)
            for shown in (queue, message):
                assert "<progress" in shown
                assert "the mail server&#39;s reply is awaited" in shown
            assert "is being sent at this moment" in message
            assert 'value="cancel"' in message and "Send again" not in message
            go_on.set()
            await remote.arrived(1)
            await until(lambda: person.states()[queue_id] == "sent")
            assert (await asyncio.to_thread(look))[2] != mark


async def test_a_host_key_that_has_changed_is_shown_beside_the_known_one(tmp_path: Path) -> None:
    async with Remote(tmp_path) as remote:
        person = person_of(remote)
        known = remote.host_key.get_fingerprint()
        await remote.change_host_key()

        def look() -> str:
            with page(person.config, person.environment) as at:
                at.enter()
                return at.ask("/host-key/default").text

        shown = await asyncio.to_thread(look)
        assert known in shown and remote.host_key.get_fingerprint() in shown
        assert shown.count("[ED25519 256]") == 2
        assert "mailrelay trust default" in shown
        # Nothing was accepted.
        assert remote.host_key.export_public_key().decode().split()[1] not in remote.known_hosts.read_text()


def test_all_messages_of_a_filter_are_changed_after_a_question(person: Person, at: Page) -> None:
    for number in range(4, 9):
        person.put(f"3aaaaab{number}", (b"dave@example.org",))
    at.enter()
    question = at.post("/act", {"verb": "cancel", "all": "yes", "to": "dave", "back": "/?to=dave"})
    assert "Cancel 5 messages?" in question.text
    ids = re.findall(r'name="id" value="([^"]+)"', question.text)
    assert len(ids) == 5
    assert {person.states()[one] for one in ids} == {"queued"}
    at.post("/act", {"verb": "cancel", "id": ids, "sure": "yes", "back": "/"})
    assert {person.states()[one] for one in ids} == {"cancelled"}
    assert "5 messages are cancelled." in at.ask("/").text


def test_the_page_of_a_spool_that_does_not_exist_or_is_broken_says_so(tmp_path: Path) -> None:
    person = Person(tmp_path)
    with page(person.config, person.environment) as at:
        at.enter()
        assert "The queue is empty." in at.ask("/").text
        assert at.ask("/days").status == 200
        assert at.ask("/message/3aaaaaa1").status == 404
        person.put("3aaaaaa1")
        (person.spool / "spool.db").write_bytes(b"no database" * 1000)
        for file in person.spool.glob("spool.db-*"):
            file.unlink()
        answer = at.ask("/")
        assert answer.status in (200, 503)
        assert "database" in answer.text or "spool" in answer.text


def test_a_wrong_id_and_wrong_settings_end_the_command_with_a_line(person: Person) -> None:
    done = person.run("web", "--no-browser", "none")
    assert done.returncode == 1
    assert "no message has the id none" in done.stderr
