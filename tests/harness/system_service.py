"""The system's mailrelay in a test machine (`harness.systemd`): /usr/local/bin/mailrelay for all accounts, and a key of root
for `post`."""

from harness.systemd import Machine

PROGRAM = "/usr/local/bin/mailrelay"
INSTALL = """
set -eu
cp {keys}/mailrelay {program}
chmod 755 {program}
cat >>/etc/ssh/ssh_config <<END
Host post
  HostName 127.0.0.1
  Port 2222
  User server
END
mkdir -p /root/.ssh
cp {keys}/client /root/key
chmod 600 /root/key
useradd --create-home --shell /bin/bash carol
useradd --create-home --shell /bin/bash erin
# As on a computer without another mail server.
rm -f /var/lib/dpkg/alternatives/sendmail-m* /usr/sbin/sendmail /usr/bin/mailq /usr/bin/newaliases /usr/sbin/newaliases
rm -f /etc/alternatives/sendmail /etc/alternatives/mailq /etc/alternatives/newaliases
mkdir -p /etc/mailrelay
printf '[127.0.0.1]:2222 %s\\n' "$(cut -d' ' -f1,2 {keys}/host.pub)" >/etc/mailrelay/known_hosts
for unit in mailrelay.service mailrelay-control@.service; do
  mkdir -p "/etc/systemd/system/$unit.d"
  cat >"/etc/systemd/system/$unit.d/test.conf" <<END
[Service]
# The program under test is not below /usr.
ProtectHome=tmpfs
BindReadOnlyPaths={paths}
END
done
"""


def prepare(machine: Machine) -> None:
    """Makes the accounts carol and erin, and what `mailrelay setup --system --key /root/key post` needs."""
    paths = " ".join(path for path in machine.shared if path)
    machine.shell(INSTALL.format(keys=machine.directory, program=PROGRAM, paths=paths))


def set_up(machine: Machine, *options: str) -> str:
    """Runs `mailrelay setup --system`; its stdout."""
    return machine.run(PROGRAM, "setup", "--system", "--yes", *options)


def as_account(machine: Machine, name: str, *argv: str, stdin: str = "", home: str = "") -> tuple[int, str, str]:
    """Runs a program as an account without a session, as cron does. Returns exit status, stdout and stderr."""
    fields = machine.run("getent", "passwd", name).strip().split(":")
    done = machine.try_run(
        "setpriv", "--reuid", fields[2], "--regid", fields[3], "--init-groups",
        "env", "-i", "--chdir=/", f"HOME={home or fields[5]}",
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin", "LANG=C.UTF-8", *argv, stdin=stdin,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr
