"""The service units that setup installs: their content, and the command line in it."""

import plistlib
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from mailrelay.setup import unit

ENVIRON = {"HOME": "/home/you"}
USUAL = Path("/home/you/.config/mailrelay/config.toml")


def exec_start(words: list[str]) -> str:
    parser = ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.systemd(words, ENVIRON).text.decode())
    return parser["Service"]["ExecStart"]


def test_the_systemd_unit_runs_the_command_line() -> None:
    found = unit.systemd(["/opt/bin/mailrelay", "serve"], ENVIRON)
    assert found.file == Path("/home/you/.config/systemd/user/mailrelay.service")
    assert exec_start(["/opt/bin/mailrelay", "serve"]) == "/opt/bin/mailrelay serve"
    assert b"Type=notify" in found.text
    assert b"RestartPreventExitStatus=78" in found.text
    assert b"\nNotifyAccess=main\nWatchdogSec=30s\n" in found.text


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/a b/c", '"/a b/c"'),
        ("/a%h", "/a%%h"),
        ("/a$HOME", "/a$HOME"),
        ("/a\\x", "/a\\\\x"),
        ('/a"b', '"/a\\"b"'),
        ("/it's", '"/it\'s"'),
    ],
)
def test_special_characters_in_a_command_line_are_escaped_for_systemd(word: str, written: str) -> None:
    assert exec_start([word, "serve"]) == f"{written} serve"
    assert exec_start(["serve", word]) == f"serve {written.replace('$', '$$')}"


def test_systemd_analyze_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is missing")
    program = tmp_path / "a $b %h" / "mailrelay"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "mailrelay.service"
    file.write_bytes(unit.systemd([str(program), "serve"], ENVIRON).text)
    done = subprocess.run([analyze, "verify", "--man=no", file], capture_output=True, text=True, check=False)
    assert "mailrelay.service" not in done.stderr, done.stderr


def test_the_launchd_agent_runs_the_command_line_and_keeps_the_other_keys() -> None:
    found = unit.launchd(["/opt/bin/mailrelay", "serve"], ENVIRON)
    agent = plistlib.loads(found.text)
    assert agent["ProgramArguments"] == ["/opt/bin/mailrelay", "serve"]
    assert (agent["Label"], agent["RunAtLoad"], agent["Umask"]) == ("mailrelay", True, 0o077)
    assert found.file == Path("/home/you/Library/LaunchAgents/mailrelay.plist")


def test_the_command_line_names_settings_in_an_unusual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/nowhere/__main__.py"])
    assert unit.command_line(USUAL, ENVIRON) == (sys.executable, "-m", "mailrelay", "serve")
    assert unit.command_line(Path("/x/y.toml"), ENVIRON)[-3:] == ("--config", "/x/y.toml", "serve")
    script = tmp_path / "mailrelay"
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert unit.command_line(USUAL, ENVIRON) == (str(script), "serve")


def test_the_error_quotes_the_service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text('#!/bin/sh\n[ "$2" = daemon-reload ] || { echo "no \033 such unit" >&2; exit 4; }\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = unit.systemd(["/bin/true"], {"HOME": str(tmp_path)})
    with pytest.raises(
        unit.NotInstalled, match=r"`systemctl --user enable --now mailrelay` failed: no \\x1b such unit"
    ):
        unit.install(found, restart=False)
    assert found.is_installed
