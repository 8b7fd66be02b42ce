"""`mailrelay web` in a real Chromium, before a real SSH server and a real mail server."""

from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
from harness.browser import Browser
from harness.browser import axe as axe
from harness.browser import browser as browser
from harness.browser import browser_without_script as browser_without_script
from harness.daemon_process import Relay
from harness.mailboxes import DOMAIN
from harness.page import Page, page, site, trap
from harness.person import BOUNCED, DEFERRED, SENT, Person
from harness.processes import until
from harness.sendmail import Sendmail

pytestmark = pytest.mark.system

ME = f"me@{DOMAIN}"
LETTER = b"From: me@%D\nTo: Bob <bbo@%D>\nSubject: Dinner %T\n\nHello Bob,\n\nshall we have dinner?\n"


@pytest.fixture
def relay(sendmail: Sendmail, relays: Callable[..., Relay]) -> Relay:
    relay = relays(sendmail.port)
    relay.start()
    return relay


def refused(relay: Relay, token: str, letter: bytes = LETTER) -> str:
    """The id of a message to an address that is mistyped, after one to the right one."""
    for to, text in ((f"bob@{DOMAIN}", b"Subject: %T first\n\nhello\n"), (f"bbo@{DOMAIN}", letter)):
        stdin = text.replace(b"%D", DOMAIN.encode()).replace(b"%T", token.encode())
        assert relay.run("sendmail", "-f", ME, to, stdin=stdin).returncode == 0
    wanted = {f"bob@{DOMAIN}": "sent", f"bbo@{DOMAIN}": "bounced"}
    until(lambda: wanted.items() <= relay.states("--all").items(), "one is sent, one refused")
    return next(message["queue_id"] for message in relay.queue() if message["queue_name"] == "failed")


def test_a_refused_message_is_mended_and_followed_to_its_end_on_the_page(
    relay: Relay, sendmail: Sendmail, token: str, browser: Browser, axe: str
) -> None:
    queue_id = refused(relay, token)
    with page(relay.config, relay.environment, queue_id) as at:
        browser.open(at.url)
        browser.shows("This message was refused.")
        assert "550 5.1.1" in browser.text(".recipients")
        assert "The mailbox does not exist. Check the spelling of the address." in browser.text(".recipients")
        assert browser.complaints(axe) == []

        browser.one("button[name=meant]").click()
        assert browser.one("input[name=to]").get_attribute("value") == f"bob@{DOMAIN}"
        browser.write("#subject", f"Supper {token}")
        browser.write("#text", "Hello Bob,\n\nshall we have söme supper?")
        browser.one("button.main").click()
        browser.shows("is sent again as")
        # Nothing is clicked from here on.
        browser.shows("was sent", ".headline")
        assert browser.complaints(axe) == []
        assert queue_id not in browser.driver.current_url
        assert browser.errors() == []
    first, second = sendmail.boxes.wait("bob", token, 2)
    assert b"first" in first
    arrived = message_from_bytes(second)
    assert arrived["To"] == f"Bob <bob@{DOMAIN}>"
    assert arrived["Subject"] == f"Supper {token}"
    text = arrived.get_payload(decode=True)
    assert isinstance(text, bytes)
    # sendmail's mailer adds an empty line.
    assert text.decode().rstrip() == "Hello Bob,\r\n\r\nshall we have söme supper?"
    assert relay.queue() == []


def test_all_of_it_works_without_script(
    relay: Relay, sendmail: Sendmail, token: str, browser_without_script: Browser
) -> None:
    browser = browser_without_script
    queue_id = refused(relay, token)
    with page(relay.config, relay.environment, queue_id) as at:
        browser.open(at.url)
        browser.one("button[name=meant]").click()
        browser.wait(
            lambda: browser.one("input[name=to]").get_attribute("value") == f"bob@{DOMAIN}", "the address is filled in"
        )
        relay.stop()
        browser.one("button.main").click()
        browser.shows("This message waits to be sent.", ".headline")
        relay.start()
        # The page is loaded again until the message is sent.
        browser.shows("was sent", ".headline")
    sendmail.boxes.wait("bob", token, 2)


HOSTILE_HTML = """\
<link rel=preconnect href="TRAP"><link rel=stylesheet href="TRAP/style">
<meta http-equiv=refresh content="0;url=TRAP/refresh"><base href="TRAP/">
<script src="TRAP/script"></script><script>top.document.title='taken'; fetch('TRAP/fetch')</script>
<img src="TRAP/image"><img srcset="TRAP/set 1x">
<svg><image href="TRAP/svg"/><script>top.document.title='taken'</script></svg>
<style>@import "TRAP/import"; body {background: url(TRAP/background)}</style>
<p style="background: url(TRAP/inline)">Hello</p>
<iframe src="TRAP/frame"></iframe><object data="TRAP/object"></object><video poster="TRAP/poster" src="TRAP/video"></video>
<form action="TRAP/form"><input autofocus onfocus="top.document.title='taken'"></form>
<body onload="top.document.title='taken'"><a id="out" href="TRAP/link">Go</a>
"""
SCRIPTED = f"""\
From: "<script>document.title='taken'</script>" <me@example.org>
Subject: <img src=x onerror="document.title='taken'"> <script>document.title='taken'</script>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=B

--B
Content-Type: text/plain

</pre></textarea><script>document.title='taken'</script>
--B
Content-Type: text/html

{HOSTILE_HTML}
--B
Content-Type: text/html
Content-Disposition: attachment; filename="</a><script>document.title='taken'<script>.html"

<script>opener.document.title='taken'</script>
--B--
"""


@pytest.fixture
def seeded(tmp_path: Path) -> Person:
    """Messages in several states."""
    person = Person(tmp_path)
    person.put("3aaaaaa1", (b"bob@example.org",), age=90_000)
    person.attempt(SENT, is_followed=True)
    person.put("3aaaaaa2", (b"bob@exmaple.org", b'"<script>document.title=1</script>"@example.org'), age=900)
    person.attempt(BOUNCED, BOUNCED)
    person.put("3aaaaaa3", (b"carol@example.org",), age=600)
    person.attempt(DEFERRED)
    return person


@pytest.fixture
def at(seeded: Person, browser: Browser) -> Iterator[Page]:
    """The page of that person, entered with the browser."""
    with page(seeded.config, seeded.environment) as at:
        browser.open(at.url)
        browser.one(".standing")
        yield at


def test_a_message_full_of_script_runs_nothing_and_loads_nothing(seeded: Person, at: Page, browser: Browser) -> None:
    with trap() as (address, asked):
        seeded.put("3aaaaaa9", content=SCRIPTED.replace("TRAP", address).replace("\n", "\r\n").encode())
        browser.open(f"{at.origin}/")
        browser.shows("<script>document.title='taken'</script>")
        browser.one("a[href='/message/3aaaaaa9']").click()
        for summary in browser.driver.find_elements("css selector", "summary"):
            summary.click()
        frame = browser.one("iframe")
        browser.driver.execute_script("arguments[0].scrollIntoView()", frame)
        browser.driver.switch_to.frame(frame)
        browser.shows("Hello")
        # The link may lead nowhere within the page.
        browser.one("#out").click()
        browser.driver.switch_to.default_content()
        browser.shows("The message")
        assert "taken" not in browser.driver.title.replace("document.title='taken'", "")
        assert asked == []


def test_another_page_reads_nothing_and_does_nothing(
    seeded: Person, at: Page, browser: Browser, tmp_path: Path
) -> None:
    attack = f"""<!doctype html><title>attack</title><iframe name=f src="{at.origin}/"></iframe>
<form id=form method=post action="{at.origin}/act" target=f name=form>
<input name=token value=x><input name=id value=3aaaaaa3><input name=verb value=hold></form><script>
const got = [];
const tries = [fetch("{at.origin}/live.json", {{credentials: "include"}}).then((r) => r.text()),
  fetch("{at.origin}/act", {{method: "POST", mode: "no-cors", credentials: "include",
    body: new URLSearchParams("token=x&id=3aaaaaa3&verb=hold")}}).then((r) => r.type)];
Promise.allSettled(tries).then((all) => {{
  form.submit(); document.title = JSON.stringify(all.map((one) => one.value ?? "refused"));
}});</script>"""
    (tmp_path / "attack.html").write_text(attack)
    with site(tmp_path) as address:
        # The same host as the page, on another port: a browser sends it our cookie. And another host.
        for origin in (address, address.replace("127.0.0.1", "evil.example")):
            browser.open(f"{origin}/attack.html")
            browser.wait(lambda: browser.driver.title.startswith("["), "all was tried")
            assert browser.driver.title == '["refused","refused"]'
            browser.driver.switch_to.frame("f")
            assert "queue" not in browser.driver.page_source
            browser.driver.switch_to.default_content()
    assert seeded.states()["3aaaaaa3"] == "deferred"


def test_a_name_that_an_attacker_leads_to_this_computer_opens_nothing(at: Page, browser: Browser) -> None:
    browser.open(f"http://evil.example:{at.port}/")
    assert browser.text() == "This is not the address of the page."
    browser.open(f"http://localhost:{at.port}/")
    assert browser.text() == "This is not the address of the page."


def test_nothing_is_wrong_for_a_screen_reader_in_light_and_dark_and_on_a_phone(
    at: Page, browser: Browser, axe: str
) -> None:
    try:
        for scheme in ("light", "dark"):
            browser.emulate(prefers_color_scheme=scheme)
            for path in ("/", "/days", "/message/3aaaaaa1", "/message/3aaaaaa2", "/message/3aaaaaa3", "/message/none"):
                browser.open(at.origin + path)
                for summary in browser.driver.find_elements("css selector", "summary"):
                    summary.click()
                assert browser.complaints(axe) == [], (path, scheme)
        browser.resize(360, is_phone=True)
        for path in ("/", "/days", "/message/3aaaaaa2"):
            browser.open(at.origin + path)
            page_width, window_width = browser.width
            assert page_width <= window_width == 360, path
            assert browser.complaints(axe) == [], path
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.emulate(prefers_color_scheme="light")


def test_messages_are_held_released_and_cancelled_after_a_question(seeded: Person, at: Page, browser: Browser) -> None:
    browser.one("input[name=id][value='3aaaaaa3']").click()
    browser.one("button[value=hold]").click()
    browser.shows("1 message is held.")
    assert seeded.states()["3aaaaaa3"] == "held"
    # Another program changes it: the page follows.
    assert seeded.run("queue", "release", "3aaaaaa3").returncode == 0
    browser.shows("queued", ".rows")
    browser.one("input[name=id][value='3aaaaaa3']").click()
    browser.one("button[value=cancel]").click()
    browser.shows("Cancel 1 message?")
    browser.one("a.button").click()
    browser.one(".rows")
    assert seeded.states()["3aaaaaa3"] == "queued"
    browser.one("input[name=id][value='3aaaaaa3']").click()
    browser.one("button[value=cancel]").click()
    browser.one("button.danger").click()
    browser.shows("1 message is cancelled.")
    assert seeded.states()["3aaaaaa3"] == "cancelled"


def test_a_page_whose_process_has_ended_says_so(at: Page, browser: Browser) -> None:
    at.child.stop()
    browser.shows("This page has ended.")
