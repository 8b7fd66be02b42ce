"""The Debian package: built, installed, used, upgraded, removed and purged on a machine that has booted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from harness.processes import missing, until
from harness.readme import ROOT
from harness.systemd import Machine

pytestmark = pytest.mark.system

SYSTEMCTL = ("systemctl", "--user")
# Its triggers would rebuild the index of all manual pages.
DPKG = ("dpkg", "--no-triggers")


def build(into: Path, *options: str) -> Path:
    """The package, made from the wheel of this checkout."""
    if shutil.which("dpkg-deb") is None or find_spec("hatchling") is None or find_spec("pip") is None:
        missing("dpkg-deb, hatchling or pip")
    python = Path("/usr/bin/python3").resolve()
    if subprocess.run(["dpkg-query", "--search", python], capture_output=True, check=False).returncode != 0:
        missing("a python3 of Debian")
    wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", into]
    subprocess.run(wheel, cwd=ROOT, check=True, capture_output=True)
    script = [python, ROOT / "contrib/debian/build.py", "--output", into, "--pip", sys.executable, "--quick", *options]
    environ = os.environ | {"SOURCE_DATE_EPOCH": "1800000000"}
    words = [*script, "--wheel", next(into.glob("*.whl"))]
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def older(package: Path) -> Path:
    """The same package with an older version, and a unit that differs."""
    tree, made = package.parent / "tree", package.parent / "older.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control, unit = tree / "DEBIAN/control", tree / "usr/lib/systemd/user/mailrelay.service"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 0~"))
    unit.write_text(unit.read_text().replace("WatchdogSec=30s", "WatchdogSec=60s"))
    init = next(tree.glob("usr/lib/mailrelay/lib/*/site-packages/mailrelay/__init__.py"))
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "0~'))
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made], check=True, capture_output=True
    )
    return made


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "it") as made:
        made.add_person("paul")
        # The command of the package is the only one.
        made.run("rm", "/home/paul/.local/bin/mailrelay", "/home/paul/.config/mailrelay/config.toml")
        yield made


def install(machine: Machine, package: Path) -> str:
    place = machine.directory / package.name
    shutil.copy(package, place)
    return machine.run(*DPKG, "--install", str(place))


def send(machine: Machine, subject: str) -> None:
    words = ("mailrelay", "sendmail", "-f", "me@example.org", "you@example.net")
    machine.person("paul", *words, stdin=f"Subject: {subject}\n\nhello\n")
    until(lambda: machine.arrived(subject) == 1, subject)


def test_a_person_uses_it_through_an_upgrade_until_it_is_purged(machine: Machine, package: Path, older: Path) -> None:
    install(machine, older)
    assert machine.person("paul", "mailrelay", "--version").startswith("mailrelay 0~")
    said = machine.person("paul", "mailrelay", "setup", "--yes", "post")
    assert "/usr/lib/systemd/user/mailrelay.service" not in said, "its unit differs from that of its own setup"
    machine.person("paul", *SYSTEMCTL, "disable", "--now", "mailrelay")
    machine.run("rm", "-r", "/home/paul/.config/systemd")
    machine.person("paul", *SYSTEMCTL, "daemon-reload")
    machine.person("paul", *SYSTEMCTL, "enable", "--now", "mailrelay", "mailrelay-watchdog.timer")
    assert machine.show("paul", "FragmentPath") == "/usr/lib/systemd/user/mailrelay.service"
    send(machine, "before the upgrade")
    before = machine.show("paul", "MainPID")
    machine.hold_replies(hold=True)
    words = ("mailrelay", "sendmail", "-f", "me@example.org", "you@example.net")
    machine.person("paul", *words, stdin="Subject: during the upgrade\n\nhello\n")
    until(lambda: machine.has_content("during the upgrade"), "it is at its final dot")

    install(machine, package)
    assert machine.show("paul", "MainPID") == before
    machine.hold_replies(hold=False)
    until(lambda: machine.show("paul", "MainPID") not in ("0", before), "the daemon of the new version runs")
    assert not machine.person("paul", "mailrelay", "--version").startswith("mailrelay 0~")
    assert machine.show("paul", "WatchdogUSec") == "30s"
    until(lambda: machine.show("paul", "ActiveState") == "active", "it is ready")
    said = machine.person("paul", "mailrelay", "setup", "--yes", "post")
    assert "/usr/lib/systemd/user/mailrelay.service" in said
    assert machine.try_run("test", "-e", "/home/paul/.config/systemd/user/mailrelay.service").returncode != 0
    send(machine, "after the upgrade")
    assert machine.arrived("during the upgrade") == 1
    assert machine.person("paul", *SYSTEMCTL, "start", "mailrelay-watchdog") == ""
    assert machine.shell("man -w mailrelay 2>/dev/null || true").strip() in ("", "/usr/share/man/man1/mailrelay.1.gz")
    assert machine.try_person("paul", "mailrelay", "check", "--offline").returncode in (0, 1)

    machine.run(*DPKG, "--remove", "mailrelay")
    assert machine.try_person("paul", *SYSTEMCTL, "is-active", "mailrelay").stdout.strip() != "active"
    machine.run(*DPKG, "--purge", "mailrelay")
    assert machine.shell("find /usr/lib/mailrelay /usr/bin/mailrelay* /usr/lib/systemd/user/mailrelay* || true") == ""
    assert machine.shell("dpkg-query --list 'mailrelay*' 2>/dev/null || true") == ""
    assert machine.try_run("test", "-s", "/home/paul/.local/state/mailrelay/spool.db").returncode == 0


def test_it_is_installed_and_removed_where_no_systemd_runs(machine: Machine, package: Path) -> None:
    place = machine.directory / package.name
    shutil.copy(package, place)
    steps = ("mount -t tmpfs tmpfs /run", f"{' '.join(DPKG)} --install {place}", "mailrelay --version")
    words = "; ".join((*steps, f"{' '.join(DPKG)} --purge mailrelay", "test ! -e /usr/lib/mailrelay"))
    said = machine.run("unshare", "--mount", "sh", "-ec", words)
    assert "mailrelay 0." in said


def test_a_second_build_has_the_same_octets(package: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == package.read_bytes()


def test_it_says_what_it_needs_and_has_each_file_at_its_place(package: Path) -> None:
    said = subprocess.run(["dpkg-deb", "--info", package], check=True, capture_output=True, text=True).stdout
    assert f"Depends: {Path('/usr/bin/python3').resolve().name}, libc6 (>= 2." in said
    listed = subprocess.run(["dpkg-deb", "--contents", package], check=True, capture_output=True, text=True).stdout
    files = {line.split()[5].removeprefix("."): line.split()[:2] for line in listed.splitlines()}
    assert {tuple(one)[1] for one in files.values()} == {"root/root"}
    for path in (
        "/usr/bin/mailrelay",
        "/usr/bin/mailrelay-watchdog",
        "/usr/lib/NetworkManager/dispatcher.d/90-mailrelay",
        "/usr/lib/systemd/user/mailrelay-watchdog.timer",
        "/usr/share/bash-completion/completions/mailrelay",
        "/usr/share/doc/mailrelay/copyright",
        "/usr/share/doc/mailrelay/changelog.Debian.gz",
        "/usr/share/man/man5/mailrelay.toml.5.gz",
        "/usr/share/man/man8/mailrelay-sendmail.8.gz",
    ):
        assert path in files
