"""`mailrelay demo` prints what it promises, ends by itself, and leaves no file behind."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from harness.page import Page
from harness.processes import Child, until

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
        "mailrelay demo --web",
    ):
        assert any(expected in line for line in lines), f"missing, or in the wrong order: {expected}\n{done.stdout}"
    assert done.stderr == ""
    assert list(home.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_the_demo_stays_up_for_its_page_on_which_a_refused_message_is_sent_again(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin", "BROWSER": "true"}
    child = Child(
        [sys.executable, "-m", "mailrelay", "demo", "--web"], env=environment | {"PYTHONPATH": ":".join(sys.path)}
    )
    try:
        at = Page(child, child.wait_line("^http://", 4 * STEP_TIMEOUT))
        started = at.enter().text
        (path,) = set(re.findall("/message/[a-z0-9]+", started))
        fields = {"was": "refused@example.net", "to": "dave@example.net", "sender": "you@example.org"}
        sent = at.post(f"{path}/send", fields)
        assert sent.status == 303
        until(lambda: "was sent: your server has accepted it" in at.ask(sent.headers["location"]).text, "it is sent")
        at.child.process.send_signal(signal.SIGINT)
        assert child.ended() == 0
    finally:
        child.stop()
