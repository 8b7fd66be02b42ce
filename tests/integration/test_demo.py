"""`mailrelay demo` prints what it promises, ends by itself, and leaves no file behind."""

import subprocess
import sys
from pathlib import Path

from mailrelay.demo.scenario import STEP_TIMEOUT


def test_the_demo_shows_a_delivery_a_refusal_and_a_delay_and_ends_with_status_0(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "mailrelay", "demo"],
        env={"HOME": str(home), "TMPDIR": str(temporary), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=4 * STEP_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = iter(done.stdout.splitlines())
    for expected in (
        "sent: 2.0.0 taken as 1",
        "gets: 550 5.1.1 <refused@example.net>: no such user",
        "queued: No SSH server answers",
        "the server is up again",
        "to=<carol@example.net>",
        "the report Maildir, which needs no network, contains: 'Mail to refused@example.net was refused",
        "to refused@example.net: bounced",
        "Everything happened as it should.",
    ):
        assert any(expected in line for line in lines), f"missing, or in the wrong order: {expected}\n{done.stdout}"
    assert done.stderr == ""
    assert list(home.iterdir()) == []
    assert list(temporary.iterdir()) == []
