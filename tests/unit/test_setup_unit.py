"""The service units that setup installs: their content, and the command line in it."""

import os
import plistlib
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from mailrelay import config
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
    assert b"\nExecReload=/opt/bin/mailrelay reload\n" in found.text
    assert b"Type=notify" in found.text
    assert b"RestartPreventExitStatus=78" in found.text
    assert b"\nNotifyAccess=main\nWatchdogSec=30s\n" in found.text


def test_a_packaged_unit_that_says_the_same_is_used_and_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged, words, environ = tmp_path / "packaged", ["/usr/bin/mailrelay", "serve"], {"HOME": str(tmp_path)}
    monkeypatch.setattr(unit, "PACKAGED", packaged)
    own = unit.systemd(words, environ)
    assert not own.is_installed
    packaged.write_bytes(own.text)
    found = unit.systemd(words, environ)
    assert (found.file, found.is_installed) == (packaged, True)
    assert found.undo == "systemctl --user disable --now mailrelay"
    # Another program, other settings, a packaged unit of another version: a unit of one's own.
    assert unit.systemd(["/opt/bin/mailrelay", "serve"], environ).file == own.file
    assert unit.systemd(["/usr/bin/mailrelay", "--config", "/a", "serve"], environ).file == own.file
    packaged.write_bytes(own.text + b"# new\n")
    assert unit.systemd(words, environ).file == own.file
    # One that is there already is kept up to date, since it comes before the packaged one.
    packaged.write_bytes(own.text)
    own.file.parent.mkdir(parents=True)
    own.file.write_bytes(b"old")
    assert unit.systemd(words, environ).file == own.file


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
    assert (agent["ExitTimeOut"], agent["StandardErrorPath"]) == (40, "/home/you/Library/Logs/mailrelay.log")
    assert "/opt/homebrew/bin" in agent["EnvironmentVariables"]["PATH"].split(":")


LAUNCHCTL = """\
#!/bin/sh
# Like launchctl(1): `list` succeeds for a loaded agent and names its process if it runs; no agent is loaded twice.
here={directory}
echo "$*" >>"$here/calls"
case $1 in
  list) test -e "$here/loaded" || exit 113
    echo '{{'; test -e "$here/runs" && echo '	"PID" = 4711;'; echo '	"LastExitStatus" = 256;'; echo '}};' ;;
  bootstrap) test -e "$here/loaded" && {{ echo 'Bootstrap failed: 5: Input/output error' >&2; exit 5; }}
    touch "$here/loaded" "$here/runs" ;;
  bootout) test -e "$here/loaded" || exit 3
    rm -f "$here/runs"; (sleep 0.3; rm "$here/loaded") & exit 36 ;;
esac
"""


def test_an_agent_that_is_loaded_but_has_no_process_does_not_run_and_is_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launchctl = tmp_path / "launchctl"
    launchctl.write_text(LAUNCHCTL.format(directory=tmp_path))
    launchctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = unit.launchd(["/opt/bin/mailrelay", "serve"], {"HOME": str(tmp_path)})
    (tmp_path / "loaded").touch()
    assert not unit.is_running(found)
    assert unit.install(found, restart=False)
    assert unit.is_running(found)
    assert not unit.install(found, restart=False)
    assert unit.install(found, restart=True)
    assert unit.is_running(found)
    calls = (tmp_path / "calls").read_text().splitlines()
    domain = f"gui/{os.getuid()}"
    assert [call for call in calls if not call.startswith("list")] == 2 * [
        f"bootout {domain}/mailrelay",
        f"enable {domain}/mailrelay",
        f"bootstrap {domain} {tmp_path}/Library/LaunchAgents/mailrelay.plist",
    ]


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


def test_on_demand_the_socket_unit_names_the_addresses_of_the_settings_and_the_trigger(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    settings = config.parse(
        f"""
        [listen]
        address = "127.0.0.1:2525"
        idle_exit = "10m"
        [relayhost.default]
        ssh = "me@mail.example.org"
        [queue]
        directory = "{tmp_path}/50% spool"
        [[forward]]
        listen = "unix:{tmp_path}/imap"
        to = "localhost:143"
        """,
        "test",
        environ,
    )
    found = unit.systemd(["/opt/bin/mailrelay", "serve"], environ, unit.on_demand(settings))
    (socket_file, socket_unit), (drop_in, text) = found.more
    units = tmp_path / ".config/systemd/user"
    assert (socket_file, drop_in) == (units / "mailrelay.socket", units / "mailrelay.service.d/on-demand.conf")
    lines = socket_unit.decode().splitlines()
    assert [line for line in lines if line.startswith("Listen")] == [
        "ListenStream=127.0.0.1:2525",
        f"ListenStream={tmp_path}/imap",
        f"ListenFIFO={tmp_path}/50%% spool/trigger",
    ]
    assert b"RestartPreventExitStatus=0" in text
    # Without idle_exit, what an earlier setup has left goes.
    for file, content in found.more:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    always = unit.systemd(["/opt/bin/mailrelay", "serve"], environ)
    assert (always.stale, always.is_installed) == ((socket_file, drop_in), False)
    assert unit.on_demand(config.parse(config.EXAMPLE, "test", environ)) is None
