"""Postfix from an unpacked package: smtp-sink, smtp-source, and a real Postfix that uses nothing of this machine's.

Postfix and sendmail cannot both be installed, so the package is unpacked into a folder and run from there:
$MAILRELAY_POSTFIX if it is set, else one that apt-get downloads if MAILRELAY_SYSTEM_TESTS=1.
"""

import grp
import os
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.mailboxes import ACCOUNTS, DOMAIN, Boxes, unstamped
from harness.processes import Child, free_port, missing, until


@dataclass(frozen=True)
class Package:
    """Where Postfix is: `root` is / if it is installed, or the folder into which it was unpacked."""

    root: Path

    @property
    def libraries(self) -> Path:
        return self.root / "usr/lib/postfix"

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LANG": "C", "LD_LIBRARY_PATH": str(self.libraries)}

    def program(self, name: str) -> Path:
        return self.root / "usr/sbin" / name


def find_package(cache: Path) -> Package:
    """The package, unpacked under `cache` if need be; skips or fails the test where there is none."""
    candidates = [Path(os.environ.get("MAILRELAY_POSTFIX", "/")), Path("/")]
    for root in candidates:
        if (root / "usr/sbin/smtp-sink").exists():
            return Package(root)
    if os.environ.get("MAILRELAY_SYSTEM_TESTS") == "1" and shutil.which("apt-get") and shutil.which("dpkg"):
        cache.mkdir()
        got = subprocess.run(["apt-get", "download", "postfix"], cwd=cache, capture_output=True, check=False)
        for archive in cache.glob("postfix_*.deb"):
            subprocess.run(["dpkg", "-x", archive, cache / "root"], check=True)
            return Package(cache / "root")
        missing(f"Postfix ({got.stderr.decode(errors='replace').strip().splitlines()[-1:]})")
    missing("Postfix (unpack its package and name the folder in MAILRELAY_POSTFIX)")
    raise AssertionError


class Sink:
    """smtp-sink: takes all mail and dumps each message that was ended by its dot, or refuses what `options` say."""

    def __init__(
        self, package: Package, directory: Path, *options: str, port: int | None = None, before: Sequence[str] = ()
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.port = port or free_port()
        as_root = ["-u", "root"] if os.getuid() == 0 else []
        words = [*as_root, "-d", "%s.", *options, f"127.0.0.1:{self.port}", "100"]
        self.child = Child([*before, package.program("smtp-sink"), *words], env=package.environment, cwd=directory)
        self.child.wait_port(self.port, before=before)

    def messages(self) -> list[bytes]:
        """Every message that has arrived, with the X- lines of smtp-sink before it, with CRLF line ends.

        smtp-sink makes the file at DATA and writes it when its buffer is full or the dot has come, so a small message whose
        dot has not come is an empty file; it is gone once the connection is.
        """
        raw = [path.read_bytes() for path in sorted(self.directory.iterdir())]
        return [unstamped(message) for message in raw if message]

    def wait(self, count: int) -> list[bytes]:
        """Waits until so many messages have arrived."""
        return until(
            lambda: found if len(found := self.messages()) >= count else [], f"{count} message(s) reach the sink"
        )

    def stop(self) -> None:
        self.child.stop()


def send_with_source(
    package: Package,
    port: int,
    *,
    messages: int,
    sessions: int,
    size: int = 2000,
    reuse: bool = False,
    patience: float = 100,
) -> None:
    """Feeds messages to 127.0.0.1:`port` with smtp-source; fails if one of them gets no 250.

    reuse: many over one connection. patience: seconds for all of it.
    """
    who = ["-f", f"me@{DOMAIN}", "-t", f"alice@{DOMAIN}"]
    load = ["-m", str(messages), "-s", str(sessions), "-l", str(size), *(["-d"] if reuse else [])]
    argv = [str(package.program("smtp-source")), *who, *load, f"127.0.0.1:{port}"]
    subprocess.run(argv, env=package.environment, check=True, timeout=patience)


MAIN_CF = """\
compatibility_level = 3.6
myhostname = {domain}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
queue_directory = {dir}/queue
data_directory = {dir}/data
daemon_directory = {libraries}/sbin
command_directory = {commands}
shlib_directory = {libraries}
meta_directory = {dir}/etc
mail_owner = {owner}
setgid_group = {group}
import_environment = MAIL_CONFIG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH={libraries}
export_environment = MAIL_CONFIG TZ LANG=C LD_LIBRARY_PATH={libraries}
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {dir}/boxes
virtual_mailbox_maps = inline:{{{boxes}}}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_recipient_restrictions = check_recipient_access inline:{{
    {{later@{domain} = 450 4.2.1 Mailbox busy}}, {{closed@{domain} = 550 5.2.1 Mailbox disabled}}}},
  permit_mynetworks, reject_unauth_destination
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
"""

MASTER_CF = """\
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 1 1 pickup
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
smtp unix - - n - - smtp
scache unix - - n - 1 scache
showq unix n - n - - showq
flush unix n - n 1000? 0 flush
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
"""

QUEUE = "active bounce corrupt defer deferred flush hold incoming maildrop private public saved trace"


class Postfix:
    """master, smtpd, cleanup, qmgr, virtual and smtp, started without Postfix's own scripts, which want it installed."""

    def __init__(self, package: Package, directory: Path, settings: str = "", *, before: Sequence[str] = ()) -> None:
        """settings: more lines for main.cf. before: the command that runs it, where that is to be elsewhere."""
        if os.getuid() != 0:
            missing("the right to run a stand-alone Postfix (it needs root)")
        # Each account must be one that Debian always has, that is not root, and that is not its other one.
        owner, group = pwd.getpwnam("mail"), grp.getgrnam("daemon")
        directory.mkdir()
        self.directory = directory
        self._package = package
        self.boxes = Boxes(directory / "boxes")
        self.port = free_port()
        for name in ("etc", "queue", "data", "queue/pid"):
            (directory / name).mkdir()
        for name in QUEUE.split():
            (directory / "queue" / name).mkdir(mode=0o710 if name == "public" else 0o700)
        for path in (directory / "data", directory / "boxes", *(directory / "queue" / name for name in QUEUE.split())):
            shutil.chown(path, owner.pw_name)
        main_cf = MAIN_CF.format(
            dir=directory,
            domain=DOMAIN,
            libraries=package.libraries,
            commands=package.root / "usr/sbin",
            owner=owner.pw_name,
            group=group.gr_name,
            uid=owner.pw_uid,
            gid=owner.pw_gid,
            boxes=", ".join(f"{{{name}@{DOMAIN} = {name}/}}" for name in ACCOUNTS),
        )
        # What is set twice makes each program of Postfix warn; postlogd, which takes the warnings, can then wait for itself.
        for name in re.findall(r"(?m)^(\w+) *=", settings):
            main_cf = re.sub(rf"(?m)^{name} *=.*\n([ \t].*\n)*", "", main_cf)
        (directory / "etc/main.cf").write_text(main_cf + settings)
        (directory / "etc/master.cf").write_text(MASTER_CF.format(port=self.port))
        master = package.libraries / "sbin/master"
        environment = {**package.environment, "MAIL_CONFIG": str(directory / "etc")}
        self.child = Child([*before, master, "-c", directory / "etc", "-d"], env=environment)
        self.child.wait_port(self.port, before=before)

    @property
    def submission(self) -> list[str]:
        """The command by which a program hands a message to this Postfix; options and addresses follow."""
        return self.command("sendmail")

    def command(self, name: str) -> list[str]:
        """The command that is a program of this Postfix; options follow."""
        where = {"MAIL_CONFIG": self.directory / "etc", "LD_LIBRARY_PATH": self._package.libraries}
        variables = [f"{variable}={value}" for variable, value in where.items()]
        return ["env", *variables, str(self._package.program(name))]

    @property
    def on_stdin(self) -> str:
        """The shell command by which this Postfix speaks SMTP on its stdin and stdout."""
        return shlex.join([*self.submission, "-bs"])

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        self.child.stop()
        faults = re.findall(r".*\b(?:fatal|panic): .*", self.log)
        assert not faults, faults
