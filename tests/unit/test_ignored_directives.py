"""What of ssh_config is not followed is named, and nothing else is."""

import shutil
from pathlib import Path

import pytest

from mailrelay.config import Relayhost
from mailrelay.ssh.hops import hops_of
from mailrelay.ssh.ignored_directives import ignored

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's ssh")


def named(directory: Path, config: str) -> list[str]:
    file = directory / "config"
    file.write_text(config)
    return ignored(hops_of(Relayhost(name="x", ssh="mail", ssh_config=file)))


def test_what_ssh_does_by_itself_is_not_named(tmp_path: Path) -> None:
    assert named(tmp_path, "") == []
    assert named(tmp_path, "GSSAPIAuthentication yes\nHashKnownHosts yes\nSendEnv LANG\nForwardAgent yes\n") == []
    assert named(tmp_path, "StrictHostKeyChecking yes\nLocalCommand true\nControlPath none\n") == []


@pytest.mark.parametrize(
    "directive",
    [
        *("StrictHostKeyChecking no", "StrictHostKeyChecking accept-new", "NoHostAuthenticationForLocalhost yes"),
        *("VerifyHostKeyDNS ask", "PubkeyAuthentication no", "PKCS11Provider /lib.so"),
        *("HostbasedAuthentication yes", "ControlPath ~/.ssh/%C", "ProxyUseFdpass yes", "BindInterface eth0"),
        *("Compression yes", "PreferredAuthentications password,keyboard-interactive"),
    ],
)
def test_what_is_not_followed_is_named_with_the_host_for_which_it_holds(tmp_path: Path, directive: str) -> None:
    [sentence] = named(tmp_path, f"Host mail\n  {directive}\n")
    assert sentence.startswith(f"{directive.split(maxsplit=1)[0]} ")
    assert "(for mail)" in sentence and sentence.endswith(".")


def test_commands_of_ssh_are_named_only_where_ssh_would_run_them(tmp_path: Path) -> None:
    [sentence] = named(tmp_path, "PermitLocalCommand yes\nLocalCommand true\n")
    assert sentence == "LocalCommand true (for mail): it is not run."
    [sentence] = named(tmp_path, "KnownHostsCommand /bin/true\n")
    assert sentence.startswith("KnownHostsCommand /bin/true")


def test_a_jump_host_is_looked_at_too(tmp_path: Path) -> None:
    config = "Host mail\n  ProxyJump hop\nHost hop\n  StrictHostKeyChecking no\n"
    [sentence] = named(tmp_path, config)
    assert "(for hop)" in sentence
