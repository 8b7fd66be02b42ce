"""Exim from an unpacked package, with Debian's own ACLs, its queue and mailboxes in a directory, on a port of 127.0.0.1.

Exim and sendmail cannot both be installed, so its packages are unpacked into a folder and run from there: $MAILRELAY_EXIM if
it is set, else one that apt-get downloads if MAILRELAY_SYSTEM_TESTS=1.
"""

import os
import pwd
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.mailboxes import ACCOUNTS, DOMAIN, Boxes
from harness.processes import Child, free_port, missing, program

PACKAGES = ("exim4-daemon-light", "exim4-config")


@dataclass(frozen=True)
class EximPackage:
    """Where the packages were unpacked."""

    root: Path

    @property
    def binary(self) -> Path:
        return self.root / "usr/sbin/exim4"

    def acls(self) -> str:
        """The ACLs as Debian's package brings them."""
        files = sorted((self.root / "etc/exim4/conf.d/acl").iterdir())
        return "\n".join(path.read_text() for path in files if path.name[0] in "234")


def find_exim(cache: Path) -> EximPackage:
    """The packages, unpacked under `cache` if need be; skips or fails the test where there are none."""
    root = Path(os.environ.get("MAILRELAY_EXIM", "/nonexistent"))
    if (root / "usr/sbin/exim4").exists():
        return EximPackage(root)
    if os.environ.get("MAILRELAY_SYSTEM_TESTS") == "1" and shutil.which("apt-get") and shutil.which("dpkg"):
        cache.mkdir()
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=cache, capture_output=True, check=False)
        for archive in cache.glob("*.deb"):
            subprocess.run(["dpkg", "-x", archive, cache / "root"], check=True)
        if (cache / "root/usr/sbin/exim4").exists():
            return EximPackage(cache / "root")
    missing("Exim (unpack exim4-daemon-light and exim4-config and name the folder in MAILRELAY_EXIM)")
    raise AssertionError


CONFIG = """\
exim_path = {binary}
keep_environment =
primary_hostname = {domain}
domainlist local_domains = {domain}
domainlist relay_to_domains =
hostlist relay_from_hosts = 127.0.0.1
CONFDIR = {dir}
spool_directory = {dir}/spool
log_file_path = {dir}/log/%slog
pid_file_path = {dir}/pid
local_interfaces = 127.0.0.1.{port}
daemon_smtp_ports = {port}
exim_user = {user}
exim_group = {group}
never_users =
trusted_users = root
disable_ipv6
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
acl_smtp_mail = acl_check_mail
acl_smtp_rcpt = acl_check_rcpt
acl_smtp_data = acl_check_data

begin acl
{acls}

begin routers
closed:
  driver = redirect
  domains = +local_domains
  local_parts = closed
  allow_fail
  data = :fail: 5.2.1 Mailbox disabled
boxes:
  driver = accept
  domains = +local_domains
  local_parts = {accounts}
  transport = boxes

begin transports
boxes:
  driver = appendfile
  directory = {dir}/boxes/$local_part_data
  maildir_format
  create_directory
  user = {user}
  group = {group}

begin retry
* * F,2h,15m

begin rewrite
begin authenticators
"""


class Exim:
    """An Exim daemon that delivers at once."""

    def __init__(self, package: EximPackage, directory: Path) -> None:
        if os.getuid() != 0:
            missing("the right to run a stand-alone Exim (it needs root)")
        user = pwd.getpwnam("mail")
        directory.mkdir()
        directory.chmod(0o755)
        self.directory = directory
        self._binary = package.binary
        self.boxes = Boxes(directory / "boxes")
        self.port = free_port()
        for name in ("spool", "log"):
            (directory / name).mkdir()
        for name in ("spool", "log", "boxes"):
            shutil.chown(directory / name, user.pw_uid, user.pw_gid)
        self.config = directory / "exim.conf"
        self.config.write_text(
            CONFIG.format(
                dir=directory,
                binary=package.binary,
                domain=DOMAIN,
                port=self.port,
                user="mail",
                group="mail",
                accounts=" : ".join(ACCOUNTS),
                acls=package.acls(),
            )
        )
        self._accounts = {name: self._with_exim(name) for name in ("passwd", "group")}
        self.child = Child([*self._before(), package.binary, "-C", self.config, "-bdf", "-q1h"])
        self.child.wait_port(self.port)

    def _with_exim(self, name: str) -> Path:
        """A copy of /etc/passwd or /etc/group with the account that Debian's Exim does not start without."""
        lines = Path("/etc", name).read_text().splitlines()
        mail = next(line for line in lines if line.startswith("mail:"))
        copy = self.directory / name
        copy.write_text("\n".join((*lines, mail.replace("mail", "Debian-exim", 1), "")))
        return copy

    def _before(self) -> list[str]:
        """The command that shows Exim these copies, in a mount namespace."""
        mounts = " && ".join(
            f"mount --bind {shlex.quote(str(copy))} /etc/{name}" for name, copy in self._accounts.items()
        )
        return [program("unshare", "util-linux"), "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]

    @property
    def command(self) -> str:
        """The shell command that is this Exim; options follow."""
        return shlex.join([*self._before(), str(self._binary), "-C", str(self.config)])

    @property
    def log(self) -> str:
        path = self.directory / "log/mainlog"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        self.child.stop()
        panics = self.directory / "log/paniclog"
        # With a configuration of its own, Exim says that it delivers without being root.
        said = re.findall(".+", panics.read_text()) if panics.exists() else []
        faults = [line for line in said if "lost privilege for using -C" not in line]
        assert not faults, faults
