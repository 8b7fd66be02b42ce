"""The watchdog and the line for prompts: they speak while mailrelay is dead or gone, and are silent while all is well.

The scripts are the real ones, under the real shells. What they run is ours: a `mailrelay` that says what the test wants, and
backends that keep what they were given.
"""

import os
import pty
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

CONTRIB = Path(__file__).parents[2] / "contrib"
WATCHDOG = CONTRIB / "shell" / "mailrelay-watchdog"
LINE = CONTRIB / "shell" / "mailrelay-line"
NETWORK = CONTRIB / "networkmanager" / "90-mailrelay"

PATIENCE = 30
HOUR = 3600


def until(true: Callable[[], object]) -> None:
    """Waits for what another process does."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Desk:
    """A person's PATH, home and runtime directory; what mailrelay says there, and what the person was told."""

    def __init__(self, directory: Path) -> None:
        self.home = directory
        self.bin = directory / "bin"
        self.runtime = directory / "runtime"
        self.bin.mkdir()
        self.runtime.mkdir(mode=0o700)
        self.told = directory / "told"
        self.environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.runtime),
        }
        self.backend("notify-send", "shift; shift; shift; printf 'desktop|%s|%s\\n' \"$@\"")
        self.backend("osascript", "exit 1")
        self.backend("wall", "tr '\\n' '|' | sed 's/^/terminals|/'; echo")

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(script)
        path.chmod(0o700)

    def backend(self, name: str, script: str) -> None:
        self.program(name, f"#!/bin/sh\nexec >>'{self.told}'\n{script}\n")

    def mailrelay(self, status: int, brief: str, screen: str = "") -> None:
        """From now on `mailrelay status --brief` prints `brief`, and without the option `screen`."""
        self.program(
            "mailrelay",
            f"#!/bin/sh\necho >>'{self.home}/asked'\n"
            f"case $* in 'status --brief') echo '{brief}' ;; *) echo '{screen}' ;; esac\nexit {status}\n",
        )

    def asked(self) -> int:
        """How often mailrelay was run."""
        path = self.home / "asked"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def run(self, *argv: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, env=self.environment, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=True
        )

    def look(self) -> list[str]:
        """One run of the watchdog; what the person was told by it."""
        self.told.write_text("")
        done = self.run(WATCHDOG)
        assert done.stdout == ""
        told = self.told.read_text().splitlines()
        # stderr always says it too, for cron and the journal.
        assert bool(done.stderr) == bool(told)
        return told

    def earlier(self, seconds: int) -> None:
        """Makes the watchdog's last word that much older."""
        memory = self.runtime / "mailrelay-watchdog"
        told, rest = memory.read_text().split(" ", 1)
        memory.write_text(f"{int(told) - seconds} {rest}")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_watchdog_is_silent_while_all_is_fine(desk: Desk) -> None:
    desk.mailrelay(0, "")
    assert desk.look() == desk.look() == []


def test_a_trouble_is_told_once_with_what_status_says_although_its_numbers_grow(desk: Desk) -> None:
    desk.mailrelay(1, "✉ 1 waiting 59min", "late: <b> & co")
    assert desk.look() == ["desktop|mailrelay: 1 waiting 59min|late: &lt;b&gt; &amp; co"]
    desk.mailrelay(1, "✉ 12 waiting 2h")
    assert desk.look() == []


def test_another_trouble_is_told_although_the_status_is_the_same(desk: Desk) -> None:
    desk.mailrelay(2, "✉ 1 failed")
    assert len(desk.look()) == 1
    desk.mailrelay(2, "mail: nobody serves, 1 failed", "failed")
    assert desk.look() == ["desktop|mailrelay: nobody serves, 1 failed|failed"]


def test_a_trouble_that_lasts_is_told_at_growing_distances_up_to_a_day(desk: Desk) -> None:
    desk.mailrelay(2, "✉ nobody serves")
    assert len(desk.look()) == 1
    for hours in (1, 2, 4, 8, 16, 24, 24):
        desk.earlier(hours * HOUR - 60)
        assert desk.look() == []
        desk.earlier(60)
        assert len(desk.look()) == 1


def test_a_clock_that_was_set_back_does_not_silence_it(desk: Desk) -> None:
    desk.mailrelay(2, "✉ nobody serves")
    assert len(desk.look()) == 1
    desk.earlier(-1000 * HOUR)
    assert len(desk.look()) == 1


def test_that_all_is_well_again_is_told_once_and_the_next_trouble_at_once(desk: Desk) -> None:
    desk.mailrelay(2, "✉ 1 failed")
    desk.look()
    desk.mailrelay(0, "")
    (line,) = desk.look()
    assert line.startswith("desktop|mailrelay: all is well again|")
    assert desk.look() == []
    desk.mailrelay(2, "✉ 1 failed")
    assert len(desk.look()) == 1


@pytest.mark.parametrize("script", [None, "#!/nonexistent/python\n", "#!/bin/sh\necho ImportError >&2\nexit 1\n"])
def test_a_mailrelay_that_is_gone_or_broken_is_told(desk: Desk, script: str | None) -> None:
    if script:
        desk.program("mailrelay", script)
    told = desk.look()
    assert told[0].startswith("desktop|mailrelay: it cannot be run (status ")
    assert "mailrelay" in told[0].rpartition("|")[2] or "ImportError" in told[0]
    assert desk.look() == []
    desk.mailrelay(0, "")
    assert len(desk.look()) == 1


@pytest.mark.parametrize("script", ["exit 1", None])
def test_without_a_desktop_the_terminals_and_stderr_hear_it(desk: Desk, script: str | None) -> None:
    if script:
        desk.backend("notify-send", script)
    else:
        desk.program("notify-send", "#!/nonexistent/sh\n")
    desk.mailrelay(3, "✉ cannot tell", "mailrelay: no settings; write some")
    assert desk.look() == ["terminals|mailrelay: cannot tell|mailrelay: no settings; write some|"]


def test_it_tells_every_time_where_it_cannot_remember(desk: Desk) -> None:
    desk.environment["XDG_RUNTIME_DIR"] = str(desk.told)
    desk.mailrelay(2, "✉ 1 failed")
    assert len(desk.look()) == len(desk.look()) == 1


@pytest.mark.parametrize("memory", ["", "nonsense", "1 2 3 4", "x 1 failed"])
def test_a_memory_that_makes_no_sense_is_none(desk: Desk, memory: str) -> None:
    (desk.runtime / "mailrelay-watchdog").write_text(memory)
    desk.mailrelay(2, "✉ 1 failed")
    assert len(desk.look()) == 1
    assert desk.look() == []


def cache(desk: Desk) -> Path:
    return desk.runtime / "mailrelay-line"


def cached(desk: Desk, text: str, age: int = 0) -> None:
    cache(desk).write_text(f"{text}\n")
    os.utime(cache(desk), (time.time() - age,) * 2)


def test_the_line_is_printed_from_the_cache_and_mailrelay_is_not_run(desk: Desk) -> None:
    cached(desk, "✉ 1 failed", age=50)
    desk.mailrelay(0, "")
    assert desk.run(LINE).stdout == "✉ 1 failed\n"
    assert desk.asked() == 0


def test_a_line_older_than_a_minute_is_fetched_anew_by_one_and_nobody_waits_for_it(desk: Desk) -> None:
    cached(desk, "✉ 1 failed", age=70)
    gate = desk.home / "gate"
    os.mkfifo(gate)
    # Answers when the test lets it, not before.
    desk.program(
        "mailrelay", f"#!/bin/sh\necho >>'{desk.home}/asked'\nread -r answer <'{gate}'\necho \"$answer\"\nexit 2\n"
    )
    assert [desk.run(LINE).stdout for _ in range(3)] == ["✉ 1 failed\n"] * 3
    gate.write_text("✉ 2 failed\n")
    until(lambda: cache(desk).read_text() == "✉ 2 failed\n")
    assert desk.run(LINE).stdout == "✉ 2 failed\n"
    assert desk.asked() == 1


def test_nothing_is_printed_at_first_nor_while_all_is_fine(desk: Desk) -> None:
    desk.mailrelay(0, "")
    assert desk.run(LINE).stdout == ""
    until(lambda: cache(desk).read_text() == "\n")
    done = desk.run(LINE)
    assert (done.stdout, done.stderr, desk.asked()) == ("", "", 1)


def test_the_line_says_that_mailrelay_cannot_be_run(desk: Desk) -> None:
    desk.run(LINE)
    until(lambda: cache(desk).read_text())
    assert desk.run(LINE).stdout == "mailrelay cannot be run (status 127)\n"


def test_the_cache_falls_back_to_a_directory_that_it_makes(desk: Desk) -> None:
    del desk.environment["XDG_RUNTIME_DIR"]
    desk.mailrelay(2, "✉ 1 failed")
    desk.run(LINE)
    until(lambda: (desk.home / ".cache" / "mailrelay-line").read_text() == "✉ 1 failed\n")


def converse(desk: Desk, shell: str, typed: str) -> str:
    """What stands on the terminal in the end of a person who starts `shell` and types, without its control sequences."""
    ours, its = pty.openpty()
    # A session without a terminal gets the one that it opens first, and with that the signals and the jobs of a terminal.
    argv = ["sh", "-c", 'exec "$1" -i <"$2" >"$2" 2>&1', "sh", shell, os.ttyname(its)]
    env = desk.environment | {"TERM": "xterm"}
    process = subprocess.Popen(argv, env=env, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    os.write(ours, typed.encode())
    seen = b""
    # Linux says EIO when the last one has closed the terminal.
    with suppress(OSError):
        while more := os.read(ours, 4096):
            seen += more
    os.close(ours)
    assert process.wait(PATIENCE) == 0
    return re.sub(r"\x1b[\[\]()][0-9;?>]*[A-Za-z]|\r", "", seen.decode())


SHELLS = {"bash": ".bashrc", "zsh": ".zshrc", "fish": ".config/fish/config.fish"}


@pytest.mark.parametrize("shell", SHELLS)
def test_in_a_shell_the_line_stands_above_the_prompt_without_noise_and_the_status_is_kept(
    desk: Desk, shell: str
) -> None:
    if not shutil.which(shell, path=desk.environment["PATH"]):
        pytest.skip(f"{shell} is not installed")
    (desk.bin / LINE.name).symlink_to(LINE)
    (snippet,) = re.findall(rf"^```{shell}\n(.*?)^```", (CONTRIB / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    settings = desk.home / SHELLS[shell]
    settings.parent.mkdir(parents=True, exist_ok=True)
    # A hook that is there already, and its semicolon, do no harm; it sees the status of the person's command.
    settings.write_text(("PROMPT_COMMAND='echo hook $?;'\n" if shell == "bash" else "") + snippet)
    cached(desk, "✉ 1 failed", age=70)
    desk.mailrelay(2, "✉ 1 failed")
    status = "$status" if shell == "fish" else "$?"
    screen = converse(desk, shell, f"sh -c 'exit 7'\necho status {status}\nexit 0\n")
    assert screen.count("✉ 1 failed\n") == 3
    assert "status 7\n" in screen
    assert ("hook 7\n" in screen) == (shell == "bash")
    assert not re.search(r"\[1\]|[Dd]one|syntax|not found", screen)
    until(lambda: cache(desk).stat().st_mtime > time.time() - 60)
    until(desk.asked)
    assert desk.asked() == 1


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    done = subprocess.run(
        ["shellcheck", WATCHDOG, LINE, NETWORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("action", "state", "told"),
    [
        ("connectivity-change", "FULL", True),
        ("connectivity-change", "PORTAL", False),
        ("vpn-up", "", True),
        ("up", "", False),
    ],
)
def test_the_hook_of_networkmanager_tells_everybodys_mailrelay_when_there_is_a_way(
    tmp_path: Path, action: str, state: str, told: bool
) -> None:
    heard = tmp_path / "heard"
    for name, script in (
        ("loginctl", "printf '%s\\n' '1000 ann yes' ' 1001 bob no'"),
        ("runuser", f'echo "$2 $6" >>{heard}'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CONNECTIVITY_STATE": state}
    subprocess.run([NETWORK, "wlan0", action], env=environment, check=True)
    asked = "PATH=$PATH:$HOME/.local/bin; exec mailrelay queue retry --network"
    assert (heard.read_text() if heard.exists() else "") == (f"ann {asked}\nbob {asked}\n" if told else "")
