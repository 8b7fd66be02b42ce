"""A real sendmail with its own configuration, queue, aliases and mailboxes, on a port of 127.0.0.1.

It asks no name server and touches nothing under /etc/mail or /var. Unknown accounts are refused by sendmail itself.
"""

import os
import shlex
import socket
import subprocess
from pathlib import Path

from harness.mailboxes import ACCOUNTS, DOMAIN, Boxes
from harness.processes import Child, free_port, missing, program

CF_DIR = Path("/usr/share/sendmail/cf")

MC = """\
divert(-1)
include(`{cf}/m4/cf.m4')
divert(0)
OSTYPE(`linux')
define(`confDOMAIN_NAME', `{domain}')
define(`ALIAS_FILE', `stab:{dir}/aliases')
define(`HELP_FILE', `')
define(`STATUS_FILE', `')
define(`QUEUE_DIR', `{dir}/queue')
define(`confPID_FILE', `{dir}/pid')
define(`confCW_FILE', `/dev/null')
define(`confDONT_PROBE_INTERFACES', `true')
define(`confSERVICE_SWITCH_FILE', `{dir}/switch')
define(`confTO_IDENT', `0s')
define(`confQUEUE_LA', `1000')
define(`confREFUSE_LA', `1000')
define(`confDEF_USER_ID', `{user}:{group}')
define(`confTRUSTED_USER', `{user}')
define(`confDONT_BLAME_SENDMAIL', `MapInUnsafeDirPath,RunProgramInUnsafeDirPath')
define(`LOCAL_SHELL_PATH', `/bin/sh')
FEATURE(`nocanonify')
FEATURE(`accept_unresolvable_domains')
FEATURE(`no_default_msa')
FEATURE(`access_db', `hash -T<TMPF> {dir}/access')
FEATURE(`blocklist_recipients')
DAEMON_OPTIONS(`Name=MTA, Addr=127.0.0.1, Port={port}, Family=inet')
MAILER(`local')
MAILER(`smtp')
"""

DELIVER = """\
#!/bin/sh
new=$(mktemp "{dir}/incoming/XXXXXXXX") && cat >"$new" && mkdir -p "{dir}/boxes/$1" && mv "$new" "{dir}/boxes/$1/"
"""


class Sendmail:
    def __init__(self, directory: Path, *options: str) -> None:
        """options: more words for its command line."""
        self.binary = program("sendmail-mta", "sendmail-bin")
        makemap = program("makemap", "sendmail-bin")
        m4 = program("m4", "m4")
        if not (CF_DIR / "m4/cf.m4").exists():
            missing("sendmail's configuration macros (Debian package sendmail-cf)")
        if os.getuid() != 0:
            missing("the right to run a stand-alone sendmail (it needs root)")
        directory.mkdir()
        self.directory = directory
        self.boxes = Boxes(directory / "boxes")
        self.port = free_port()
        for name in ("queue", "incoming"):
            (directory / name).mkdir(mode=0o700)
        (directory / "switch").write_text("hosts files\naliases files\npasswd files\n")
        deliver = directory / "deliver"
        deliver.write_text(DELIVER.format(dir=directory))
        deliver.chmod(0o755)
        (directory / "aliases").write_text("".join(f'{name}: "|{deliver} {name}"\n' for name in ACCOUNTS))
        access = (
            f"To:later@{DOMAIN}\tERROR:4.2.1:450 Mailbox busy\nTo:closed@{DOMAIN}\tERROR:5.2.1:550 Mailbox disabled\n"
        )
        subprocess.run([makemap, "hash", directory / "access"], input=access.encode(), capture_output=True, check=True)
        mc = directory / "test.mc"
        mc.write_text(MC.format(cf=CF_DIR, dir=directory, domain=DOMAIN, port=self.port, user="root", group="root"))
        self.cf = directory / "test.cf"
        made = subprocess.run([m4, f"-D_CF_DIR_={CF_DIR}/", mc], capture_output=True, check=True)
        self.cf.write_bytes(made.stdout)
        self.child = Child([*self._named(), self.binary, "-C", self.cf, *options, "-bD"])
        # Without a UTS namespace of its own, sendmail sleeps a minute over a host name that has no dot.
        self.child.wait_port(self.port, patience=100)

    def _named(self) -> list[str]:
        """What to put before sendmail so that it finds a dot in the host name, and no name server to ask about it."""
        alone = ["unshare", "--uts", "sh", "-c", 'echo 127.0.0.1 >/proc/sys/kernel/hostname && exec "$@"', "sh"]
        if "." in socket.gethostname() or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
            return []
        return alone

    @property
    def submission(self) -> list[str]:
        """The command by which a program hands a message to this sendmail; options and addresses follow."""
        return [*self._named(), self.binary, "-C", str(self.cf), "-odi"]

    @property
    def command(self) -> str:
        """The shell command that is this sendmail; options follow."""
        return shlex.join([*self._named(), str(self.binary), "-C", str(self.cf)])

    @property
    def on_stdin(self) -> str:
        """The shell command by which this sendmail speaks SMTP on its stdin and stdout."""
        return shlex.join([*self._named(), self.binary, "-C", str(self.cf), "-bs"])

    def stop(self) -> None:
        self.child.stop()
