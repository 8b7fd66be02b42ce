"""Reads the ssh_config directives that hold for one host: keywords in lower case, each with its values.

    configuration = read(Path("~/.ssh/config"), "me", "mail", None)
    configuration["hostname"]          # ("mail.example.org",)
    configuration["identityfile"]      # ("~/.ssh/id_ed25519", "~/.ssh/work")

ssh(1) evaluates the files (`ssh -G`, ten milliseconds). So Host, Match, Include, the system's own file, canonical names and
time formats mean the same here as there, whatever its version. If ssh(1) is not installed, or refuses to run because
the account has no name, asyncssh's parser is used, which knows the more common half of the directives.
Promises: an end within EVALUATION_TIMEOUT seconds, also if a Match exec hangs; no process that it started is left.
Never: a connection, a prompt, a DNS query (except for CanonicalizeHostname). It blocks, so it must run on a thread.
"""

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from asyncssh.config import SSHClientConfig

from mailrelay.process_group import signal_group
from mailrelay.submission import login

Configuration = Mapping[str, tuple[str, ...]]

EVALUATION_TIMEOUT = 30.0
"""Seconds for ssh(1) to evaluate the files."""
SYSTEM = Path("/etc/ssh/ssh_config")

_OWN = Path(".ssh/config")
_OF_ASYNCSSH = (
    *("AddressFamily", "BindAddress", "CertificateFile", "ConnectTimeout", "GlobalKnownHostsFile", "HostKeyAlias"),
    *("Hostname", "IdentitiesOnly", "IdentityAgent", "IdentityFile", "Port", "ProxyCommand", "ProxyJump"),
    *("PubkeyAuthentication", "ServerAliveCountMax", "ServerAliveInterval", "User", "UserKnownHostsFile"),
)
"""The directives that are taken from asyncssh's parser."""


def _has_name() -> bool:
    """Whether this account has a name. If not, as in containers, asyncssh gets one by the environment: it needs one."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("LOGNAME", login().decode())
        return False
    return True


def arguments(file: Path) -> tuple[str, ...]:
    """The arguments for ssh(1) to read `file`: () for the person's own file, so that the system's file is read too."""
    file = file.expanduser()
    with suppress(KeyError):
        if file == Path(pwd.getpwuid(os.getuid()).pw_dir, _OWN):
            return ()
    # ssh(1) ignores $HOME: it must get the path of ~/.ssh/config if $HOME is another directory. That file may be missing.
    return ("-F", "none" if file == Path.home() / _OWN and not file.exists() else str(file))


def read(file: Path, user: str, host: str, port: int | None) -> Configuration:
    """All directives that hold for a host; `hostname`, `user` and `port` are always there. user: "" if none is given.

    The values are as `ssh -G` prints them and may contain tokens and tildes. Raises ValueError with the message of ssh(1)
    (file, line, what is wrong), TimeoutError, and OSError for files that cannot be read.
    """
    ssh = shutil.which("ssh")
    if not _has_name() or ssh is None:
        return _by_asyncssh(file, user, host, port)
    port_option = ("-p", str(port)) if port else ()
    argv = (ssh, "-T", "-G", *arguments(file), *port_option, f"{user}@{host}" if user else host)
    # In a session of its own: ssh has no terminal for a prompt, and one signal reaches all that a Match exec starts.
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            output, complaint = process.communicate(timeout=EVALUATION_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            # Not after a `poll`: the end of ssh(1) is not that of the processes which it started.
            signal_group(process, signal.SIGKILL)
    if process.returncode != 0:
        lines = complaint.decode(errors="replace").strip().splitlines() or [f"ssh -G ended with {process.returncode}"]
        raise ValueError(next((line for line in lines if not line.endswith("bad configuration options")), lines[0]))
    return parse(output.decode(errors="surrogateescape"))


def parse(text: str) -> Configuration:
    """Parses the output of `ssh -G`. Pure; accepts any text."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.split("\n"):
        keyword, _, value = line.partition(" ")
        found[keyword] = (*found.get(keyword, ()), value)
    return found


def _by_asyncssh(file: Path, user: str, host: str, port: int | None) -> Configuration:
    match arguments(file):
        case ():
            files = [str(each) for each in (file.expanduser(), SYSTEM) if each.exists()]
        case (_, "none"):
            files = []
        case (_, named):
            # It must exist: if it does not, `load` raises.
            files = [named]

    def evaluate(*, final: bool) -> SSHClientConfig:
        found = SSHClientConfig.load(None, files, False, False, final, getpass.getuser(), user or (), host, port or ())
        return cast(SSHClientConfig, found)

    config = evaluate(final=False)
    if config.has_match_final():
        config = evaluate(final=True)
    found: dict[str, tuple[str, ...]] = {"hostname": (host,), "user": (getpass.getuser(),), "port": ("22",)}
    for keyword in _OF_ASYNCSSH:
        value = config.get(keyword, ...)
        if value is not ...:
            found[keyword.lower()] = _as_printed(keyword, value)
    return found


def _as_printed(keyword: str, value: object) -> tuple[str, ...]:
    """A value of asyncssh's parser in the notation of `ssh -G`."""
    match value:
        case None | []:
            return ("none",)
        case bool(yes):
            return ("yes" if yes else "no",)
        case socket.AddressFamily() as family:
            return ({socket.AF_INET: "inet", socket.AF_INET6: "inet6"}.get(family, "any"),)
        case list(several) if keyword.endswith("KnownHostsFile"):
            return (" ".join(several),)
        case list(several):
            return tuple(several)
        case _:
            return (str(value),)
