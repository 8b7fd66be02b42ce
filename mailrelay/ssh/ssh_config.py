"""What ssh_config says of one host, as ssh(1) understands it: keywords in lower case, each with its values.

    configuration = read(Path("~/.ssh/config"), "me", "mail", None)
    configuration["hostname"]          # ("mail.example.org",)
    configuration["identityfile"]      # ("~/.ssh/id_ed25519", "~/.ssh/work")

ssh(1) evaluates it itself (`ssh -G`, ten milliseconds): Host, Match, Include, the system's own file, canonical names and
time formats mean here what they mean there, whatever its version. Where no ssh(1) is installed the SSH library's parser
stands in, which knows the commoner half of it.
Promises: an end within EVALUATION seconds, whatever a Match exec does; nothing it started outlives it.
Never: a connection, a prompt, a name that is looked up (but where CanonicalizeHostname asks for it). It blocks, and so
belongs on a thread.
"""

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from asyncssh.config import SSHClientConfig

Configuration = Mapping[str, tuple[str, ...]]

EVALUATION = 30.0
"""Seconds for ssh(1) to say what it makes of the files."""
SYSTEM = Path("/etc/ssh/ssh_config")

_OWN = Path(".ssh/config")
_OF_LIBRARY = (
    *("AddressFamily", "BindAddress", "CertificateFile", "ConnectTimeout", "GlobalKnownHostsFile", "HostKeyAlias"),
    *("Hostname", "IdentitiesOnly", "IdentityAgent", "IdentityFile", "Port", "ProxyCommand", "ProxyJump"),
    *("PubkeyAuthentication", "ServerAliveCountMax", "ServerAliveInterval", "User", "UserKnownHostsFile"),
)


def arguments(file: Path) -> tuple[str, ...]:
    """What ssh(1) is to be given to read `file`: nothing for its own, beside which it reads the system's."""
    file = file.expanduser()
    if file == Path(pwd.getpwuid(os.getuid()).pw_dir, _OWN):
        return ()
    # ssh(1) does not believe $HOME; for us the file of that home may be missing just as well.
    return ("-F", "none" if file == Path.home() / _OWN and not file.exists() else str(file))


def read(file: Path, user: str, host: str, port: int | None) -> Configuration:
    """All that holds for a host, with `hostname`, `user` and `port` always there. user: "" where none is named.

    Values are as `ssh -G` prints them: tokens and tildes may still be in them. Raises ValueError with ssh(1)'s own words
    (file, line, what is wrong), TimeoutError, and OSError for files that cannot be read.
    """
    ssh = shutil.which("ssh")
    if ssh is None:
        return _by_library(file, user, host, port)
    place = ("-p", str(port)) if port else ()
    argv = (ssh, "-T", "-G", *arguments(file), *place, f"{user}@{host}" if user else host)
    # In a session of its own: no terminal to ask on, and one signal for all that a Match exec starts.
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            said, complaint = process.communicate(timeout=EVALUATION)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            _end(process)
    if process.returncode != 0:
        words = complaint.decode(errors="replace").strip().splitlines() or [f"ssh -G ended with {process.returncode}"]
        raise ValueError(next((line for line in words if not line.endswith("bad configuration options")), words[0]))
    return parse(said.decode(errors="surrogateescape"))


def parse(text: str) -> Configuration:
    """What `ssh -G` printed. Pure, and total."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.split("\n"):
        keyword, _, value = line.partition(" ")
        found[keyword] = (*found.get(keyword, ()), value)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _by_library(file: Path, user: str, host: str, port: int | None) -> Configuration:
    ours = arguments(file)
    candidates = [file.expanduser(), SYSTEM] if not ours else [Path(ours[1])] if ours[1] != "none" else []
    # A file that was asked for by name must be there.
    files = [str(each) for each in candidates if ours or each.exists()]

    def evaluate(*, final: bool) -> SSHClientConfig:
        who, where = user or (), port or ()
        return SSHClientConfig.load(None, files, False, False, final, getpass.getuser(), who, host, where)  # type: ignore[return-value]

    config = evaluate(final=False)
    if config.has_match_final():
        config = evaluate(final=True)
    found: dict[str, tuple[str, ...]] = {"hostname": (host,), "user": (getpass.getuser(),), "port": ("22",)}
    for keyword in _OF_LIBRARY:
        value = config.get(keyword, ...)
        if value is ...:
            continue
        match value:
            case None | []:
                values: tuple[str, ...] = ("none",)
            case bool(yes):
                values = ("yes" if yes else "no",)
            case socket.AddressFamily() as family:
                values = ({socket.AF_INET: "inet", socket.AF_INET6: "inet6"}.get(family, "any"),)
            case list(several) if keyword.endswith("KnownHostsFile"):
                values = (" ".join(several),)
            case list(several):
                values = tuple(several)
            case _:
                values = (str(value),)
        found[keyword.lower()] = values
    return found
