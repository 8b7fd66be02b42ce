"""mailrelay as in a container (docs/containers.md): process 1 of namespaces of its own, a user without a name, and a root
filesystem that is read-only and holds only the program."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.processes import descendants, until
from harness.system_service import prepare
from harness.systemd import Machine

pytestmark = pytest.mark.system

UID = "10001"
IMAGE = """
set -eu
cd /
mkdir -p image/config image/spool image/proc image/dev image/usr srv/config srv/spool
for directory in bin sbin lib lib64; do ln -s usr/$directory image/$directory; done
for path in {paths}; do mkdir -p "image$path"; done
cp {keys}/mailrelay image/mailrelay
chmod 755 image/mailrelay
touch image/dev/null image/dev/urandom
cp /etc/mailrelay/known_hosts /root/key srv/config/
chown root:{uid} srv/config/key srv/spool
chmod 440 srv/config/key
# As a volume of Kubernetes with fsGroup.
chmod 2775 srv/spool
"""
RUN = """
set -eu
mount --bind /image /image
mount --rbind /usr /image/usr
for path in {paths}; do mount --rbind "$path" "/image$path"; done
mount --bind /srv/config /image/config
mount --bind {spool} /image/spool
mount -t proc proc /image/proc
for device in null urandom; do mount --bind /dev/$device /image/dev/$device; done
for path in / /usr /config; do mount -o remount,bind,ro /image$path; done
exec chroot /image {as_user} /mailrelay serve --verbose
"""
AS_USER = (
    "/bin/env", "-i", "MAILRELAY_CONFIG=/config/config.toml", "HOME=/spool", "PATH=/bin", "PYTHONDONTWRITEBYTECODE=1",
    "/bin/setpriv", "--reuid", UID, "--regid", UID, "--clear-groups", "--no-new-privs", "--bounding-set=-all",
)  # fmt: skip
SEND = """
import smtplib, sys
with smtplib.SMTP("localhost", 7777) as client:
    client.sendmail("shop@example.org", "you@example.net", f"Subject: {sys.argv[1]}\\r\\n\\r\\nhello\\r\\n")
"""


def block(language: str) -> str:
    """The first block in this language in the document."""
    text = (Path(__file__).parents[2] / "docs/containers.md").read_text()
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


class Container:
    """The daemon in the machine, as process 1 of a container."""

    def __init__(self, machine: Machine, spool: str = "/srv/spool") -> None:
        self.machine = machine
        script = RUN.format(paths=" ".join(machine.shared), spool=spool, as_user=" ".join(AS_USER))
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
        self.process = subprocess.Popen(
            [*machine.enter, *namespaces, "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.said = []
        for line in self.process.stderr:
            self.said.append(line)
            if "ready" in line:
                break
        assert "ready, listening on 127.0.0.1:7777" in self.said[-1]
        # Process 1 in there is the last of unshare's descendants: the shell and chroot have become it.
        self.pid = descendants(self.process.pid)[-1]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `mailrelay` in the container."""
        within = ("nsenter", "-t", str(self.pid), "--mount", "--pid", "--net", "--root", "--wd")
        return subprocess.run([*within, *AS_USER, "/mailrelay", *words], capture_output=True, text=True, check=False)

    def signal(self, name: str) -> None:
        subprocess.run(["kill", "-s", name, str(self.pid)], check=True)

    def end(self) -> int:
        self.signal("TERM")
        assert self.process.stderr is not None
        self.said += self.process.stderr
        return self.process.wait(50)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine") / "it") as made:
        prepare(made)
        made.shell(IMAGE.format(paths=" ".join(made.shared), keys=made.directory, uid=UID))
        made.run("tee", "/srv/config/config.toml", stdin=block("toml"))
        host = (
            block("sshconfig").replace("mail.example.org", "127.0.0.1\n  Port 2222").replace("User me", "User server")
        )
        made.run("tee", "/srv/config/ssh_config", stdin=host)
        yield made


@pytest.fixture
def container(machine: Machine) -> Iterator[Container]:
    started = Container(machine)
    yield started
    if started.process.poll() is None:
        assert started.end() == 0


def send(machine: Machine, subject: str) -> None:
    """As the application beside it, which is another user."""
    words = ("setpriv", "--reuid", "33", "--regid", "33", "--clear-groups", "python3", "-c", SEND, subject)
    machine.run(*words)


def test_mail_of_the_application_is_sent_and_the_health_check_answers(container: Container) -> None:
    send(container.machine, "from the shop")
    assert container.machine.arrived("from the shop") == 1
    status = container.run("status", "--json")
    # The check of the document: it looks for these octets.
    assert '"answers": true' in status.stdout
    assert json.loads(status.stdout)["pid"] == 1
    assert status.returncode == 0
    for word in ("Uid", "CapEff"):
        value = re.search(rf"^{word}:\t(\S+)", Path(f"/proc/{container.pid}/status").read_text(), re.MULTILINE)
        assert value
        assert value[1] in (UID, "0" * 16)


def test_nothing_is_written_but_the_spool(container: Container) -> None:
    send(container.machine, "with a read-only root")
    for path in ("/x", "/config/x", "/usr/x"):
        within = ("nsenter", "-t", str(container.pid), "--mount", "--root", "touch", path)
        assert "Read-only file system" in subprocess.run(within, capture_output=True, text=True, check=False).stderr
    assert container.machine.run("stat", "--format=%a %u", "/srv/spool/mailrelay") == f"2700 {UID}\n"


def test_a_new_container_sends_what_the_old_one_left_in_the_volume(machine: Machine) -> None:
    old = Container(machine)
    machine.run("systemctl", "stop", "post-ssh")
    try:
        send(machine, "left in the volume")
        old.signal("KILL")
        old.process.wait(30)
    finally:
        machine.run("systemctl", "start", "post-ssh")
    new = Container(machine)
    assert new.run("queue", "retry", "--all").returncode == 0
    until(lambda: machine.arrived("left in the volume") == 1, "the message arrives")
    assert new.end() == 0


def test_sighup_reads_the_settings_again_and_a_reload_says_what_is_wrong(container: Container) -> None:
    settings = block("toml")
    container.machine.run("tee", "/srv/config/config.toml", stdin=settings + "wrong = 1\n")
    refused = container.run("reload")
    assert refused.returncode == 78
    container.machine.run(
        "tee", "/srv/config/config.toml", stdin=settings.replace("[queue]", '[queue]\nretry = ["1s"]')
    )
    container.signal("HUP")
    until(lambda: container.run("reload").returncode == 0, "it has the new settings")
    assert container.end() == 0
    assert any("has the settings of the file now" in line for line in container.said)


def test_a_second_daemon_on_the_same_volume_ends_at_once(container: Container) -> None:
    done = container.run("serve")
    assert done.returncode == 1
    assert "another mailrelay serves this spool" in done.stderr
