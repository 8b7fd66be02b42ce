"""What ssh_config says of a host: by ssh(1) where it is installed, by the SSH library's parser where it is not."""

import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.ssh import ssh_config
from mailrelay.ssh.ssh_config import arguments, parse, read

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's ssh")


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "config"


@pytest.fixture(params=[pytest.param("ssh", marks=needs_ssh), "library"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with ssh(1), once as if it were not installed."""
    if request.param == "library":
        monkeypatch.setattr(shutil, "which", lambda _name: None)


CONFIG = """\
Host mail
  HostName %h.example.org
  User there
  Port 2222
  IdentityFile ~/.ssh/one
  IdentityFile "/with blank/%r"
  CertificateFile none
  ProxyJump me@a:23,b
  UserKnownHostsFile /a ~/b
  GlobalKnownHostsFile none
  IdentitiesOnly yes
  IdentityAgent none
  AddressFamily inet
  ConnectTimeout 7
Match final host *.example.org
  HostKeyAlias late
"""


@pytest.mark.usefixtures("either")
def test_either_reader_gives_what_a_dial_needs(file: Path) -> None:
    file.write_text(CONFIG)
    found = read(file, "", "mail", None)
    assert found["hostname"] == ("mail.example.org",)
    assert (found["user"], found["port"], found["addressfamily"]) == (("there",), ("2222",), ("inet",))
    assert found["proxyjump"] == ("me@a:23,b",)
    assert len(found["identityfile"]) == 2 and found["identityfile"][0] == "~/.ssh/one"
    assert found["identitiesonly"] == ("yes",)
    assert found["identityagent"] == ("none",)
    assert found["globalknownhostsfile"] == ("none",)
    assert found["userknownhostsfile"][0].startswith("/a ")
    assert (found["connecttimeout"], found["hostkeyalias"]) == (("7",), ("late",))


@pytest.mark.usefixtures("either")
def test_user_and_port_of_the_settings_outrank_the_file(file: Path) -> None:
    file.write_text(CONFIG)
    found = read(file, "me", "mail", 22)
    assert (found["user"], found["port"]) == (("me",), ("22",))


@pytest.mark.usefixtures("either")
def test_an_error_is_told_with_file_and_line(file: Path) -> None:
    file.write_text("\nPort many\n")
    with pytest.raises(ValueError, match=rf"{file} line 2"):
        read(file, "", "mail", None)


@pytest.mark.usefixtures("either")
def test_a_file_that_is_not_there_is_an_error_unless_it_is_the_homes_own(file: Path) -> None:
    with pytest.raises((OSError, ValueError), match="No such file"):
        read(file, "", "mail", None)
    assert read(Path("~/.ssh/config"), "me", "mail", None)["hostname"] == ("mail",)


@needs_ssh
def test_what_only_ssh_understands_is_understood(file: Path) -> None:
    file.with_name("more").write_text("Host mail\n  ConnectTimeout 1m   # a minute\n")
    file.write_text(f'Include {file.with_name("more")}\nMatch exec "test %h = mail"\n  User matched\n')
    found = read(file, "", "mail", None)
    assert (found["connecttimeout"], found["user"]) == (("60",), ("matched",))


def ends(gate: Path) -> None:
    """Waits until no process has the FIFO open for reading."""
    end = time.monotonic() + 20
    with pytest.raises(OSError):
        while time.monotonic() < end:
            os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
            time.sleep(0.01)


@needs_ssh
def test_a_file_that_hangs_is_ended_with_all_that_it_started(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = file.with_name("gate")
    os.mkfifo(gate)
    file.write_text(f'Match exec "exec 3<>{gate}; read line <&3"\n  User never\n')
    monkeypatch.setattr(ssh_config, "EVALUATION_TIMEOUT", 0.2)
    with pytest.raises(TimeoutError):
        read(file, "", "mail", None)
    ends(gate)


@needs_ssh
def test_a_process_that_outlives_ssh_is_ended_with_the_time_for_the_files(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = file.with_name("gate")
    os.mkfifo(gate)
    # It keeps the stderr of ssh(1), which ends at once.
    file.write_text(f'Match exec "(exec 3<>{gate}; read line <&3) &"\n  User never\n')
    monkeypatch.setattr(ssh_config, "EVALUATION_TIMEOUT", 0.5)
    with pytest.raises(TimeoutError):
        read(file, "", "mail", None)
    ends(gate)


def test_ssh_is_given_any_file_but_its_own(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    assert arguments(file) == ("-F", str(file))
    assert arguments(Path("~/.ssh/config")) == ("-F", "none")
    monkeypatch.delenv("HOME")
    assert arguments(Path("~/.ssh/config")) == ()


@given(st.text())
def test_nothing_that_ssh_prints_is_beyond_reading(text: str) -> None:
    assert sum(len(values) for values in parse(text).values()) == len(text.split("\n"))
