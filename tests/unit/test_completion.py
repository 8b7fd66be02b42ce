"""What bare addresses become: by the settings, and by the account on the relayhost."""

import pytest

from mailrelay.mail.completion import (
    Completion,
    account_address,
    completed,
    domain_of,
    has_bare,
    is_bare,
    is_domain,
)
from mailrelay.mail.envelope import Envelope, Recipient
from mailrelay.mail.routing import choose

ACCOUNTS = {b"root", b"taro", b"postmaster"}
FROM, DOMAIN, LOCAL, ACCOUNT = b"me@from.example", b"domain.example", b"box@local.example", b"me@account.example"


def knowing(known: str) -> Completion:
    """A completion that knows some of: f (from), d (domain), l (local), a (the account on the relayhost)."""
    values = (FROM, DOMAIN, LOCAL, ACCOUNT)
    given = (value if letter in known else b"" for letter, value in zip("fdla", values, strict=True))
    return Completion(*given, is_local_account=ACCOUNTS.__contains__)


@pytest.mark.parametrize(
    ("known", "sender", "root", "alice"),
    [
        ("", b"root", b"root", b"alice"),
        ("a", ACCOUNT, ACCOUNT, b"alice@account.example"),
        ("f", FROM, FROM, b"alice@from.example"),
        ("fa", FROM, FROM, b"alice@from.example"),
        ("d", b"root@domain.example", b"root", b"alice@domain.example"),
        ("da", b"root@domain.example", ACCOUNT, b"alice@domain.example"),
        ("l", b"root", LOCAL, b"alice"),
        ("la", ACCOUNT, LOCAL, b"alice@account.example"),
        ("fd", FROM, FROM, b"alice@domain.example"),
        ("fdla", FROM, LOCAL, b"alice@domain.example"),
    ],
)
def test_what_a_sender_a_local_account_and_another_name_become(
    known: str, sender: bytes, root: bytes, alice: bytes
) -> None:
    completion = knowing(known)
    assert completion.whole_sender(b"root") == sender
    assert completion.whole_recipient(b"root") == root
    assert completion.whole_recipient(b"alice") == alice


@pytest.mark.parametrize("name", [b"root", b"ROOT", b'"root"', b'"ro\\ot"', b"root+cron", b"Taro+a+b"])
def test_a_name_means_a_local_account_as_it_does_in_sendmail(name: bytes) -> None:
    assert knowing("fdla").whole_recipient(name) == LOCAL


@pytest.mark.parametrize("name", [b"roo", b"+root", b"root-x", b'"a root"', b'""', b"alice+root"])
def test_another_name_means_no_local_account(name: bytes) -> None:
    assert knowing("fdla").whole_recipient(name) == name + b"@domain.example"


@pytest.mark.parametrize("address", [b"me@example.org", b'"a b"@example.org', b'"a@b"@[127.0.0.1]', b"a@b"])
def test_a_whole_address_stays(address: bytes) -> None:
    assert not is_bare(address)
    assert knowing("fdla").whole_sender(address) == knowing("fdla").whole_recipient(address) == address


@pytest.mark.parametrize("address", [b"root", b'"a b"', b'"a@b"', "tarō".encode()])
def test_a_local_part_alone_is_bare(address: bytes) -> None:
    assert is_bare(address)
    assert domain_of(address) == b""
    assert knowing("d").whole_recipient(address + b"x"[: not address.endswith(b'"')]).endswith(b"@domain.example")


def test_the_null_reverse_path_and_postmaster_stay() -> None:
    envelope = Envelope(b"", (Recipient(b"postmaster"), Recipient(b"Postmaster")))
    assert not has_bare(envelope)
    assert completed(envelope, knowing("fdla")) == envelope


def test_an_envelope_keeps_the_order_and_the_parameters_of_its_recipients() -> None:
    envelope = Envelope(
        b"taro", (Recipient(b"root", b"NEVER"), Recipient(b"a@b", b"", b"rfc822;a@b"), Recipient(b"alice")), envid=b"x"
    )
    found = completed(envelope, knowing("fdla"))
    assert found.sender == FROM
    assert found.recipients == (
        Recipient(LOCAL, b"NEVER"),
        Recipient(b"a@b", b"", b"rfc822;a@b"),
        Recipient(b"alice@domain.example"),
    )
    assert found.envid == b"x"
    assert completed(found, knowing("a")) == found


@pytest.mark.parametrize(
    ("names", "host", "expected"),
    [
        ([b"mail.example.org", b"other.example"], "host.example", b"me@mail.example.org"),
        ([b"mail", b"mail.example.org"], "host.example", b"me@mail.example.org"),
        ([b"mail", b"mail"], "host.example", b"me@host.example"),
        ([b"mail", b"pi"], "192.0.2.1", b"me@mail"),
        ([b"***********", b""], "::1", b"me@localhost"),
        ([b"[192.0.2.1]", b"192.0.2.1"], "server", b"me@server"),
        ([b"localhost", b"localhost.localdomain"], "server", b"me@server"),
        ([b"localhost", b"localhost"], "127.0.0.1", b"me@localhost"),
        ([b"ESMTP", b"-x.example"], "", b"me@ESMTP"),
        ([], "host.example", b"me@host.example"),
        ([b"mail.example.org"], "host\udcff.example", b"me@mail.example.org"),
        ([], "host\udcff.example", b"me@localhost"),
    ],
)
def test_the_account_is_at_the_name_that_the_mail_server_gives_itself(
    names: list[bytes], host: str, expected: bytes
) -> None:
    assert account_address("me", names, host) == expected


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("tarō.y", "tarō.y@a.example".encode()),
        ("CORP\\alice", b'"CORP\\\\alice"@a.example'),
        ('a "b"', b'"a \\"b\\""@a.example'),
        ("a..b", b'"a..b"@a.example'),
        ("", b""),
        ("a\nb", b""),
    ],
)
def test_an_account_with_an_odd_name_is_quoted(account: str, expected: bytes) -> None:
    assert account_address(account, [b"a.example"], "") == expected


@pytest.mark.parametrize("name", [b"a", b"a-b.example", b"1a.example", b"xn--a.example", b"a" * 63, b"LOCALHOST"])
def test_names_that_are_domains(name: bytes) -> None:
    assert is_domain(name)


@pytest.mark.parametrize(
    "name",
    [
        *(b"", b".", b"a.", b".a", b"a..b", b"-a", b"a-", b"127.0.0.1", b"[::1]", b"a_b", b"a b", b"a" * 64, b"a.1"),
        "bücher.example".encode(),
        b"a." * 127 + b"aa",
    ],
)
def test_names_that_are_no_domains(name: bytes) -> None:
    assert not is_domain(name)


def test_the_whole_sender_chooses_the_relayhost() -> None:
    class Route:
        def __init__(self, name: str, *senders: str) -> None:
            self.name, self.senders = name, senders

    routes = [Route("default", "*"), Route("work", "*@from.example")]
    assert choose(b"root", routes) == "default"
    assert choose(knowing("f").whole_sender(b"root"), routes) == "work"
