"""What programs pipe in, against what sendmail and Postfix make of the same octets, and what goes out after a release."""

import subprocess
from collections.abc import Callable

import pytest
from harness.daemon_process import Relay
from harness.mailboxes import DOMAIN
from harness.postfix import Postfix
from harness.processes import until
from harness.sendmail import Sendmail

pytestmark = pytest.mark.system

ME = f"me@{DOMAIN}"
Remote = Sendmail | Postfix


@pytest.fixture(params=["sendmail", "postfix"])
def remote(request: pytest.FixtureRequest) -> Remote:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def relay(remote: Remote, relays: Callable[..., Relay]) -> Relay:
    relay = relays(remote.port)
    relay.start()
    return relay


def fields(content: bytes) -> list[bytes]:
    """The names of the fields that the test has written, in order, in lower case, and the words of their values."""
    header = content.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    names = (b"to", b"cc", b"bcc", b"subject", b"from", b"x-a")
    # A CR that sendmail has kept is a blank to mailrelay.
    written = [line.replace(b"\r", b" ").split() for line in header.split(b"\r\n")]
    return sorted(b" ".join(words) for words in written if words and words[0].lower().rstrip(b":") in names)


@pytest.mark.parametrize(
    ("letter", "accounts"),
    [
        (b"To: alice@%D\nSubject: %T a\rb\nFrom: me@%D\nBcc: bob@%D\n\nbody\n", "alice bob"),
        (b"To: alice@%D\nSubject: %T\r\rb\rBcc: u1@%D\nFrom: me@%D\nBcc: bob@%D\n\nbody\n", "alice bob"),
        (
            b"To: alice@%D\r\r\nSubject: %T\r\r\nFrom: me@%D\r\r\nBcc: bob@%D\r\r\n\r\r\nbody\r\r\n",
            "alice bob",
        ),
        (b"To: alice@%D\r\nSubject: %T\nFrom: me@%D\r\r\nBcc: bob@%D\n\r\nbody\n", "alice bob"),
        (
            b"To: alice@%D\nBcc: u2@%D,\r\r\n bob@%D\r\nSubject: %T\n \nX-A: b\nFrom: me@%D\n\nbody\n",
            "alice bob u2",
        ),
        (
            b"To: alice@%D,\r u2@%D\nSubject: %T\nFrom: me@%D\nBcc: bob@%D\r, u1@%D\n\nbody\n",
            "alice bob u1 u2",
        ),
        (
            b"From me@%D Sat Nov 28 01:22:21 2026\nBcc: bob@%D\nTo: alice@%D\nSubject: %T\nFrom: me@%D\n\nbody\n",
            "alice bob",
        ),
        (b"To: alice@%D\nBcc: bob@%D u1@%D\nSubject: %T\nFrom: me@%D\n\nx\n", "alice bob u1"),
        (b'To: \\"Al\\" <alice@%D>\nBcc: Bob\\, B <bob@%D>\nSubject: %T\nFrom: me@%D\n\nx\n', "alice bob"),
        (
            b"Resent-To: bob@%D\nResent-Bcc: u1@%D\nResent-From: me@%D\nTo: alice@%D\nSubject: %T\nFrom: me@%D\n\nx\n",
            "bob u1",
        ),
    ],
)
@pytest.mark.parametrize("words", [("-t",), ("-t", f"u3@{DOMAIN}"), (f"u3@{DOMAIN}",)])
def test_who_gets_a_message_and_what_it_says_is_the_same(
    remote: Remote, relay: Relay, token: str, letter: bytes, accounts: str, words: tuple[str, ...]
) -> None:
    options = ["-i", f"-f{ME}", *words]
    expected = {*(accounts.split() if "-t" in words else []), *(["u3"] if len(words) == 2 or "-t" not in words else [])}
    found = []
    for place in ("1st", "2nd"):
        octets = letter.replace(b"%D", DOMAIN.encode()).replace(b"%T", f"{token}-{place}".encode())
        if place == "1st":
            subprocess.run([*remote.submission, *options], input=octets, capture_output=True, timeout=60, check=True)
        else:
            assert relay.run("sendmail", *options, stdin=octets).returncode == 0
        for account in expected:
            remote.boxes.wait(account, f"{token}-{place}")
        found.append(
            {
                account: [
                    fields(one.replace(place.encode(), b"")) for one in remote.boxes.read(account, f"{token}-{place}")
                ]
                for account in ("alice", "bob", "u1", "u2", "u3")
            }
        )
    assert found[0] == found[1]
    assert {account for account, letters in found[1].items() if letters} == expected
    assert not any(name.startswith(b"bcc") for letters in found[1].values() for names in letters for name in names)


def test_a_nul_goes_out_after_its_release(remote: Remote, relay: Relay, token: str) -> None:
    letter = f"To: alice@{DOMAIN}\nFrom: {ME}\nSubject: {token}\n\na\0b\n".encode()
    assert relay.run("sendmail", "-t", "-i", f"-f{ME}", stdin=letter).returncode == 0
    (message,) = relay.queue()
    assert [one["state"] for one in message["recipients"]] == ["held"]
    (notice,) = until(lambda: relay.notices(token), "the notice is delivered")
    assert (notice["kind"], notice["queue_id"]) == ("held", message["queue_id"])
    relay.do("queue", "release", message["queue_id"])
    (arrived,) = remote.boxes.wait("alice", token)
    assert arrived.endswith(b"\r\n\r\na\0b\r\n")


def test_the_good_recipients_get_it_and_the_sender_is_told_of_the_bad_one(
    remote: Remote, relay: Relay, token: str
) -> None:
    letter = f"To: alice@{DOMAIN}, a b@c\nFrom: {ME}\nSubject: {token}\n\nx\n".encode()
    assert relay.run("sendmail", "-t", "-i", f"-f{ME}", stdin=letter).returncode == 0
    remote.boxes.wait("alice", token)
    (report,) = remote.boxes.wait("me", token)
    assert b"\r\nFinal-Recipient: rfc822; a b@c\r\nAction: failed\r\nStatus: 5.1.3\r\n" in report
    (notice,) = relay.notices(token)
    assert notice["kind"] == "failed"
    assert relay.states()["a b@c"] == "bounced"
