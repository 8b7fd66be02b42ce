"""The way to a relayhost, as its settings and ssh_config tell it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.config import Relayhost
from mailrelay.ssh.hops import Hop, hops_of, parse_destination


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path


def way(home: Path, ssh: str, config: str) -> list[Hop]:
    file = home / "config"
    file.write_text(config)
    return hops_of(Relayhost(name="x", ssh=ssh, ssh_config=file))


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("host", ("", "host", None)),
        ("me@host", ("me", "host", None)),
        ("me@host:2222", ("me", "host", 2222)),
        ("ssh://me@host:2222", ("me", "host", 2222)),
        ("ssh://host/", ("", "host", None)),
        ("me@corp@host", ("me@corp", "host", None)),
        ("[::1]:22", ("", "::1", 22)),
        ("[fe80::1%eth0]", ("", "fe80::1%eth0", None)),
        ("2001:db8::1", ("", "2001:db8::1", None)),
        ("192.0.2.1:22", ("", "192.0.2.1", 22)),
    ],
)
def test_a_destination_is_read_as_ssh_reads_it(spec: str, found: tuple[str, str, int | None]) -> None:
    assert parse_destination(spec) == found


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "me@",
        "host:",
        "host:0",
        "host:65536",
        "host:ssh",
        "-oProxyCommand=x",
        "-l@host",
        "a b",
        "host/path",
        "[::1",
        "a\n",
        "[-oProxyCommand=x]:22",
        "me@[-F/etc/passwd]",
        "a;touch${IFS}x",
        "a`id`",
        "[a$(id)]",
        "*",
        "a,b",
        "me@!a",
    ],
)
def test_a_destination_that_makes_no_sense_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_destination(spec)


@given(st.text() | st.text(st.sampled_from("a-@:[]./1s\n %")))
def test_a_destination_never_begins_with_a_dash(spec: str) -> None:
    try:
        user, host, port = parse_destination(spec)
    except ValueError:
        return
    assert host and not host.startswith("-") and not user.startswith("-")
    assert port is None or 0 < port < 65536


def test_what_the_settings_name_outranks_ssh_config(home: Path) -> None:
    config = "Host mail\n  HostName mail.example.org\n  User there\n  Port 2222\n"
    [hop] = way(home, "mail", config)
    assert (hop.host, hop.port, hop.user) == ("mail.example.org", 2222, "there")
    [hop] = way(home, "me@mail:2223", config)
    assert (hop.host, hop.port, hop.user) == ("mail.example.org", 2223, "me")
    assert hop.login_command == f"ssh -F {home / 'config'} -p 2223 me@mail"


def test_proxy_jump_gives_the_hops_in_the_order_in_which_they_are_passed(home: Path) -> None:
    config = (
        "Host target\n  ProxyJump b,me@c:2222\nHost b\n  ProxyJump a\nHost c\n  ProxyJump a\nHost a\n  ProxyJump none\n"
    )
    assert [hop.place for hop in way(home, "target", config)] == ["a", "b", "me@c:2222", "target"]


def test_match_final_is_honoured(home: Path) -> None:
    config = "Host mail\n  HostName mail.example.org\nMatch final host *.example.org\n  User late\n"
    [hop] = way(home, "mail", config)
    assert hop.user == "late"


def test_nothing_is_forwarded_or_asked_for_whatever_ssh_config_says(home: Path) -> None:
    config = "ForwardAgent yes\nForwardX11Trusted yes\nCompression yes\nRemoteCommand rm -rf /\n"
    config += "UserKnownHostsFile none\nPasswordAuthentication yes\n"
    [hop] = way(home, "mail", config)
    options = hop.options
    assert options.agent_forward_path is None and options.x11_forwarding is False and options.command is None
    assert options.compression_algs == [b"none"]
    assert options.known_hosts is not None
    assert not options.password_auth and not options.kbdint_auth and not options.host_based_auth
    assert options.gss_host is None


@pytest.mark.parametrize(
    ("config", "interval", "silences"),
    [
        ("", 15, 3),
        ("ServerAliveInterval 0\nServerAliveCountMax 100\n", 15, 3),
        ("ServerAliveInterval 300\n", 15, 3),
        ("ServerAliveInterval 5\nServerAliveCountMax 2\n", 5, 2),
    ],
)
def test_a_silent_connection_is_never_trusted_longer_than_a_minute(
    home: Path, config: str, interval: int, silences: int
) -> None:
    [hop] = way(home, "mail", config)
    # The library gives up one interval after the last question, ssh(1) at its end.
    assert (hop.options.keepalive_interval, hop.options.keepalive_count_max + 1) == (interval, silences)


def test_key_files_that_are_missing_or_broken_do_not_keep_the_others_from_being_tried(home: Path) -> None:
    (home / "broken").write_text("not a key")
    [hop] = way(home, "mail", f"IdentityFile {home}/missing\nIdentityFile {home}/broken\n")
    assert [identity.file for identity in hop.identities] == [home / "missing", home / "broken"]
    assert all(identity.pairs == () and identity.note and identity.fix for identity in hop.identities)


def test_identity_agent_is_read_as_ssh_reads_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    assert way(home, "mail", "")[0].agent == "/run/agent"
    assert way(home, "mail", "IdentityAgent none\n")[0].agent == ""
    assert way(home, "mail", "IdentityAgent SSH_AUTH_SOCK\n")[0].agent == "/run/agent"
    assert way(home, "mail", f"IdentityAgent {home}/%r-agent\nUser me\n")[0].agent == str(home / "me-agent")
    monkeypatch.setenv("MY_AGENT", "/run/mine")
    assert way(home, "mail", "IdentityAgent $MY_AGENT\n")[0].agent == "/run/mine"


@pytest.mark.parametrize(("alias", "name"), [("", "mail"), ("HostKeyAlias letters\n", "letters")])
def test_a_file_is_found_by_the_alias_of_the_host_key_or_the_name_as_given(home: Path, alias: str, name: str) -> None:
    [hop] = way(home, "mail", f"HostName mail.example.org\n{alias}RevokedHostKeys {home}/revoked-%k\n")
    assert hop.policy.revoked is not None
    assert hop.policy.revoked.file == home / f"revoked-{name}"


def test_an_unknown_host_is_asked_for_the_key_that_ssh_would_show(home: Path) -> None:
    [hop] = way(home, "mail", "UserKnownHostsFile none\nGlobalKnownHostsFile none\n")
    assert next(iter(hop.options.server_host_key_algs)) == "ssh-ed25519"


@pytest.mark.parametrize(
    ("config", "key", "signature"),
    [
        ("", "ssh-ed25519", {"ssh-ed25519", "rsa-sha2-512", "sk-ssh-ed25519@openssh.com"}),
        ("PubkeyAcceptedAlgorithms ssh-rsa", "ssh-rsa", {"ssh-rsa"}),
        (
            "PubkeyAcceptedAlgorithms ssh-ed25519-cert-v01@openssh.com",
            "ssh-ed25519-cert-v01@openssh.com",
            {"ssh-ed25519"},
        ),
        (
            "PubkeyAcceptedAlgorithms sk-ssh-ed25519-cert-v01@openssh.com",
            "sk-ssh-ed25519-cert-v01@openssh.com",
            {"sk-ssh-ed25519@openssh.com"},
        ),
    ],
)
def test_keys_and_signatures_are_those_of_ssh_config(home: Path, config: str, key: str, signature: set[str]) -> None:
    [hop] = way(home, "mail", config)
    signatures = {name.decode() for name in hop.options.signature_algs}
    assert hop.key_algorithms is not None and key in hop.key_algorithms
    assert signature <= signatures and (config == "" or signature == signatures)
    assert "ssh-rsa" not in signatures or "ssh-rsa" in config
