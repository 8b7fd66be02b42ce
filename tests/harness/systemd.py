"""A real systemd for the tests: process 1 in namespaces of its own, with an overlay of the host's root directory in memory.

    with Machine(directory) as machine:          # boots within a second
        machine.add_person("alice")              # an account with a user manager, settings, and a key for the host `post`
        machine.run("systemctl", "--version")    # as root
        machine.person("alice", "systemctl", "--user", "start", "mailrelay")

`post` is an SSH server in the machine, with a mail server behind it (`harness.mail_sink`).
`Machine` is "the machine"; the computer that runs the tests is "the host".
Promises: changes nothing on the host, except for one cgroup, which is removed at the end. Needs root with CAP_SYS_ADMIN,
overlayfs and cgroup2, and the packages systemd, dbus, dbus-user-session and libpam-systemd.
"""

import os
import shlex
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Self

import mailrelay
from harness.processes import PATIENCE, descendants, fail, missing, program, until
from harness.sshd import make_key

_ROOT = Path(__file__).parent.parent.parent
UNIT = _ROOT / "mailrelay/setup/mailrelay.service"
CONTRIB = tuple(sorted((_ROOT / "contrib/systemd").glob("*.*")))

BOOT = """
set -eu
directory=$1 shared=$2
root=$directory/memory/root
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$directory/memory"
mkdir "$directory/memory/upper" "$directory/memory/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$directory/memory/upper,workdir=$directory/memory/work" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
  number=${device#*:}
  mknod -m 666 "$root/dev/${device%%:*}" c "${number%:*}" "${number#*:}"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "$root/dev/${stream#*:}"; done
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# Every account must be able to reach the files of the programs under test, also those below a home directory of root.
IFS=:
for path in $shared; do
  mkdir -p "$root$path"
  mount --bind "$path" "$root$path"
  while [ "$path" != / ]; do path=$(dirname "$path"); chmod a+x "$root$path"; done
done
unset IFS
ip link set lo up
hostname machine
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
rm -rf "$root/var/log/journal"
mkdir -p "$root/var/log/journal" "$root/etc/systemd/journald.conf.d"
printf '[Journal]\\nStorage=persistent\\nRateLimitBurst=0\\n' >"$root/etc/systemd/journald.conf.d/test.conf"
# Only the services that a test enables run, not those of the host.
rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/user/*.wants/mailrelay* "$root/usr/sbin/policy-rc.d"
for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service \\
    systemd-remount-fs.service systemd-modules-load.service systemd-sysctl.service systemd-timesyncd.service \\
    systemd-random-seed.service systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-update-utmp.service \\
    dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \\
    sys-fs-fuse-connections.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cat >"$root/etc/systemd/system/test.target" <<END
[Unit]
Requires=basic.target
Wants=dbus.socket systemd-logind.service systemd-user-sessions.service
After=basic.target systemd-logind.service systemd-user-sessions.service
AllowIsolate=yes
END
cd "$root"
mkdir -p .old
pivot_root . .old
exec chroot . /bin/sh -c 'umount -l /.old; rmdir /.old; mount --make-rshared /; exec </dev/null; exec env -i \\
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=test LANG=C.UTF-8 \\
  /lib/systemd/systemd --unit=test.target --show-status=no --log-target=journal'
"""
"""The script that process 1 runs before it executes systemd. Arguments: a directory, and the paths to share, joined by
colons."""

OUTER = """
set -eu
mount --make-rprivate /
mkdir -p "$1/cgroup" "$1/memory"
mount -t cgroup2 none "$1/cgroup"
mkdir "$1/cgroup/$3"
# Process 1 enters the cgroup, and then makes it the root of what it sees.
status=0
unshare --mount --uts --ipc --net --pid --fork --kill-child sh -c '
  echo 0 >"$1/cgroup/$3/cgroup.procs"; exec unshare --cgroup sh "$1/boot" "$1" "$2"' sh "$@" || status=$?
find "$1/cgroup/$3" -depth -type d -exec rmdir {} +
exit $status
"""
"""The script that starts process 1, waits for its end and removes the cgroup, in a mount namespace of its own.
Arguments: those of BOOT, and the name of the cgroup."""

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
"""Options of nsenter(1): all namespaces, the root and the working directory of process 1."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
MAILRELAY = """\
#!{python}
import sys
sys.path.insert(0, {package!r})
from mailrelay.__main__ import main
main()
"""
SERVERS = """
set -eu
useradd --create-home --shell /bin/bash server
usermod --password '*' server
mkdir -p /etc/post /home/server/.ssh
cp {keys}/host /etc/post/host
cp {keys}/client.pub /home/server/.ssh/authorized_keys
chown -R server:server /home/server/.ssh
chmod 700 /home/server/.ssh
chmod 600 /etc/post/host
cat >/etc/post/sshd_config <<END
Port 2222
ListenAddress 127.0.0.1
HostKey /etc/post/host
UsePAM no
PasswordAuthentication no
MaxStartups 100
END
cat >/etc/systemd/system/post-ssh.service <<END
[Service]
RuntimeDirectory=sshd
ExecStart=/usr/sbin/sshd -D -e -f /etc/post/sshd_config
END
cat >/etc/systemd/system/post-mail.service <<END
[Service]
Type=notify
NotifyAccess=all
Environment=PYTHONPATH={package}:{tests}
ExecStart={python} -m harness.mail_sink
END
systemctl daemon-reload
systemctl start post-ssh post-mail
"""
PERSON = """
set -eu
useradd --create-home --shell /bin/bash {name}
cd /home/{name}
mkdir -p .ssh .local/bin .config/mailrelay
cp {keys}/client .ssh/id_ed25519
printf '[127.0.0.1]:2222 %s\\n' "$(cut -d' ' -f1,2 {keys}/host.pub)" >.ssh/known_hosts
cat >.ssh/config <<END
Host post
  HostName 127.0.0.1
  Port 2222
  User server
Host post-by-proxy
  HostName 127.0.0.1
  Port 2222
  User server
  ProxyCommand socat - TCP:%h:%p
END
cat >.config/mailrelay/config.toml
cp {keys}/mailrelay .local/bin/mailrelay
chmod 700 . .ssh .local/bin/mailrelay
chmod 600 .ssh/id_ed25519 .config/mailrelay/config.toml
chown -R {name}:{name} .
loginctl enable-linger {name}
"""
SETTINGS = """\
[relayhost.default]
ssh = "post"
[relayhost.proxy]
ssh = "post-by-proxy"
senders = ["*@proxy.example"]
[queue]
retry = ["2s"]
[notify]
desktop = false
mailbox = "~/Notices"
"""


class Machine:
    """A machine that has booted. Use it as a context manager, or call `close`. init: the process id of its process 1,
    as the host sees it; 0 before the boot."""

    def __init__(self, directory: Path) -> None:
        for name, package in (("unshare", "util-linux"), ("nsenter", "util-linux"), ("sshd", "openssh-server")):
            program(name, package)
        if not Path("/lib/systemd/systemd").exists() or not Path("/usr/bin/dbus-daemon").exists():
            missing("systemd or dbus")
        if os.geteuid() != 0:
            missing("the right to make namespaces")
        self.directory = directory
        directory.mkdir(mode=0o700)
        (directory / "boot").write_text(BOOT)
        self.package = str(Path(mailrelay.__file__).parent.parent)
        self._tests = str(Path(__file__).parent.parent)
        shared = (sys.base_prefix, sys.prefix, self.package, self._tests, str(directory))
        self.shared = tuple(dict.fromkeys(path for path in shared if not path.startswith("/usr")))
        make_key(directory / "client")
        make_key(directory / "host")
        (directory / "mailrelay").write_text(MAILRELAY.format(python=sys.executable, package=self.package))
        self._uids: dict[str, str] = {}
        self.init = 0
        self._outer = self._boot()
        try:
            self.init = until(self._find_init, "systemd is process 1")
            until(lambda: self.try_run("systemctl", "is-active", "test.target").returncode == 0, "the machine boots")
            self.shell(self._filled(SERVERS))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _filled(self, script: str, **more: str) -> str:
        return script.format(
            keys=self.directory, python=sys.executable, package=self.package, tests=self._tests, **more
        )

    def _boot(self) -> "subprocess.Popen[bytes]":
        with (self.directory / "console").open("wb") as console:
            return subprocess.Popen(
                [
                    "unshare",
                    "--mount",
                    "sh",
                    "-c",
                    OUTER,
                    "sh",
                    str(self.directory),
                    ":".join(self.shared),
                    f"test-{uuid.uuid4()}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def _find_init(self) -> int:
        if self._outer.poll() is not None:
            said = (self.directory / "console").read_text(errors="replace")
            missing(f"the right to boot a machine in namespaces ({said.strip()})")
        for pid in descendants(self._outer.pid):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
        return 0

    def close(self) -> None:
        """Powers the machine off."""
        if not self.init:
            self._outer.kill()
        else:
            with suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGRTMIN + 4)  # poweroff.target, see systemd(1)
        try:
            self._outer.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
            self._outer.wait(PATIENCE)

    @property
    def enter(self) -> list[str]:
        """The start of a command line that runs a program in the machine, as root."""
        return ["nsenter", "-t", str(self.init), *NAMESPACES]

    def try_run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a program in the machine, as root. It may fail."""
        return subprocess.run(
            [*self.enter, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=2 * PATIENCE,
            check=False,
        )

    def run(self, *argv: str, stdin: str = "") -> str:
        """The same for a program that must succeed; its stdout."""
        return _checked(self.try_run(*argv, stdin=stdin))

    def shell(self, script: str, stdin: str = "") -> str:
        """Runs a shell script as root, which must succeed; its stdout."""
        return self.run("sh", "-c", script, stdin=stdin)

    def add_person(self, name: str, settings: str = SETTINGS) -> None:
        """Makes an account that has mailrelay in ~/.local/bin, settings, a key for `post`, and a user manager."""
        self.shell(self._filled(PERSON, name=name), stdin=settings)
        self._uids[name] = self.run("id", "-u", name).strip()
        until(
            lambda: self.try_person(name, "systemctl", "--user", "is-active", "default.target").returncode == 0,
            f"the user manager of {name} has started",
        )

    def prefix(self, name: str) -> list[str]:
        """The start of a command line that runs a program as this person, as a login shell would."""
        uid, home = self._uids[name], f"/home/{name}"
        variables = (f"HOME={home}", f"USER={name}", f"LOGNAME={name}", f"XDG_RUNTIME_DIR=/run/user/{uid}")
        path = f"PATH={home}/.local/bin:/usr/local/bin:/usr/bin:/bin"
        bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"
        account = ["setpriv", "--reuid", uid, "--regid", uid, "--init-groups"]
        return [*account, "env", "--chdir", home, *variables, path, bus]

    def try_person(self, name: str, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a program as this person. It may fail."""
        return self.try_run(*self.prefix(name), *argv, stdin=stdin)

    def person(self, name: str, *argv: str, stdin: str = "") -> str:
        """The same for a program that must succeed; its stdout."""
        return _checked(self.try_person(name, *argv, stdin=stdin))

    def arrived(self, subject: str) -> int:
        """How many messages with this subject the mail server has taken."""
        return self._lines("/var/log/mail-sink").count(subject)

    def has_content(self, subject: str) -> bool:
        """Whether the mail server has read a message with this subject up to its final dot."""
        return subject in self._lines("/run/mail-sink-has")

    def _lines(self, path: str) -> list[str]:
        return self.shell(f"cat {path} 2>/dev/null || true").splitlines()

    def hold_replies(self, *, hold: bool) -> None:
        """hold: whether the mail server withholds its replies to content from now on."""
        self.run(*(("touch", "/run/mail-sink-holds") if hold else ("rm", "-f", "/run/mail-sink-holds")))

    def install(self, name: str, *, drop_in: str = "") -> None:
        """Installs and starts the service unit of this person as it is delivered. drop_in: further lines of [Service]."""
        units = f"/home/{name}/.config/systemd/user"
        self.person(name, "mkdir", "-p", f"{units}/mailrelay.service.d")
        for file in (UNIT, *CONTRIB):
            self.person(name, "tee", f"{units}/{file.name}", stdin=file.read_text())
        self.person(name, "tee", f"{units}/mailrelay.service.d/test.conf", stdin=f"[Service]\n{drop_in}\n")
        self.person(name, "systemctl", "--user", "daemon-reload")
        self.person(name, "systemctl", "--user", "enable", "--now", "mailrelay")

    def show(self, name: str, what: str, unit: str = "mailrelay") -> str:
        """A property of a unit of this person."""
        return self.person(name, "systemctl", "--user", "show", unit, "--property", what, "--value").strip()

    def journal(self, name: str, *options: str, unit: str = "mailrelay") -> list[str]:
        """The lines of this person's unit in the journal, as far as it is written."""
        self.run("journalctl", "--sync")
        return self.person(name, "journalctl", "--user", "-q", "--no-pager", "-u", unit, *options).splitlines()


def _checked(done: subprocess.CompletedProcess[str]) -> str:
    """The stdout of a program that `try_run` has run; fails the test if it did not succeed."""
    if done.returncode != 0:
        command = done.args[len(("nsenter", "-t", "PID", *NAMESPACES)) :]
        fail(f"{shlex.join(command)}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout
