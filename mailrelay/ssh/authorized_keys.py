"""Keys for the login: those that we can offer to a hop, and changes to authorized_keys of the account on the relayhost.

    found = await offered_keys(hop)                    # what a login would offer
    failure = await try_login(relayhost)               # None: the login works
    await authorize(relayhost, line, password=…)       # like ssh-copy-id; without a password, the login is by key
    await withdraw(relayhost, line)

Promises: the host key is verified before a password is sent, as for every dial. Only the relayhost itself gets the password;
logins to jump hosts are by key. authorized_keys is replaced in one step; only lines with the same key are changed or
removed.
Never: a password that is stored, logged or put into a command line; a prompt.
"""

import asyncio
import base64
import contextlib
import dataclasses
import os
import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from mailrelay.config import Relayhost
from mailrelay.mail.outcome import Outcome
from mailrelay.mail.printable import printable
from mailrelay.ssh import errors, login_advice
from mailrelay.ssh.authentication import HopClient
from mailrelay.ssh.dial import read_hops
from mailrelay.ssh.hop_connection import HopConnection, connect, connected
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.identities import Obstacle
from mailrelay.ssh.interface import Fault

SCRIPT_TIMEOUT = 30.0
"""Seconds for the server to change authorized_keys."""

_DEFAULT_KEY = "~/.ssh/id_ed25519"

_SCRIPT = """\
cd || exit 1
umask 077
mkdir -p .ssh || exit 1
file=.ssh/authorized_keys new=.ssh/authorized_keys.mailrelay key={key} line={line}
touch "$file" && cp -p "$file" "$new" || exit 1
grep -vF -e "$key" "$file" >"$new"
[ $? -le 1 ] || exit 1
if [ -n "$line" ]; then printf '%s\\n' "$line" >>"$new" || exit 1; fi
mv -f "$new" "$file" || exit 1
if command -v restorecon >/dev/null 2>&1; then restorecon -F .ssh "$file"; fi
exit 0
"""
"""Input of sh on the server, which may be another shell than the account's: removes the lines with the key, then adds `line`
if it is not empty."""


@dataclass(frozen=True, slots=True)
class OfferedKeys:
    """What a login offers to a hop. user: the account there. login_command: as in `Hop`.

    lines: the usable keys as lines of authorized_keys, in the order in which they are offered. tried: keys and agents, as
    text for people. unusable: key files that cannot be used, each with the reason and the fix. fix: how to get a usable key.
    new_key_file: the file in which ssh(1) would look for a key that does not exist yet.
    """

    user: str
    login_command: str
    lines: tuple[str, ...]
    tried: tuple[str, ...]
    unusable: tuple[tuple[Path, str, str], ...]
    fix: str
    new_key_file: Path


@dataclass(frozen=True, slots=True)
class LoginFailure:
    """Why a login failed. at_relayhost: it failed at the relayhost itself, not at a jump host or before.

    key_is_unknown: a line in authorized_keys may help. password_was_sent: the server asked for the password, which was sent.
    """

    outcome: Outcome
    at_relayhost: bool
    key_is_unknown: bool = True
    password_was_sent: bool = False


class ChangeFailed(Exception):
    """authorized_keys was not changed. The text is the message of the server or of the connection, escaped."""


async def offered_keys(hop: Hop) -> OfferedKeys:
    """The keys of ssh_config, ~/.ssh and the agent. Nothing is sent to the hop.

    An agent that does not answer counts as one without keys.
    """
    client = HopClient(hop)
    chosen: list[asyncssh.SSHKeyPair] = []
    try:
        while pairs := await client.public_key_auth_requested():
            chosen += pairs
    finally:
        client.close_agent()
    usable = {pair.key_public_data: _public_line(pair) for pair in chosen}
    unusable = tuple(
        (one.file, one.note, login_advice.identity_fix(hop, client.progress, one))
        for one in hop.identities
        if one.note and one.obstacle is not Obstacle.MISSING and not one.public & usable.keys()
    )
    return OfferedKeys(
        user=hop.user,
        login_command=hop.login_command,
        lines=tuple(usable.values()),
        tried=tuple(client.progress.tried),
        unusable=unusable,
        fix=login_advice.no_key_fix(hop, client.progress),
        new_key_file=_new_key_file(hop),
    )


def _new_key_file(hop: Hop) -> Path:
    """~/.ssh/id_ed25519, or the first key file that ssh_config names if it does not name that one."""
    named = [name for name in hop.configuration.get("identityfile", ()) if "%" not in name and name != "none"]
    return Path(_DEFAULT_KEY if _DEFAULT_KEY in named or not named else named[0]).expanduser()


def make_key(file: Path, comment: str) -> str:
    """Makes an ed25519 key without a passphrase in `file` and its .pub, in OpenSSH's format. Returns its public line. Raises
    OSError, FileExistsError if `file` exists."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = asyncssh.generate_private_key("ssh-ed25519", comment=comment)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as private:
        private.write(key.export_private_key())
    line = key.export_public_key().decode("utf-8").strip()
    Path(f"{file}.pub").write_text(f"{line}\n", encoding="utf-8")
    return line


def read_key(file: Path) -> str:
    """The public line of a key file, from its .pub or from the file itself. Raises OSError and ValueError."""
    try:
        return asyncssh.read_public_key(f"{file}.pub").export_public_key().decode("utf-8").strip()
    except (OSError, ValueError):
        return asyncssh.read_private_key(file).export_public_key().decode("utf-8").strip()


async def try_login(relayhost: Relayhost) -> LoginFailure | None:
    """Logs in as a dial does. Returns why that failed, None if it worked."""
    try:
        async with _logged_in(relayhost, None):
            return None
    except _LoginFailed as failed:
        return failed.failure


async def authorize(relayhost: Relayhost, line: str, *, password: str | None = None) -> LoginFailure | None:
    """Puts `line` into the account's authorized_keys, in place of all lines with the same key.

    Logs in with the password if there is one, otherwise by key. Returns why the login failed, None if it worked and the file
    was changed. Raises ChangeFailed.
    """
    return await _change(relayhost, line, line, password)


async def withdraw(relayhost: Relayhost, line: str) -> LoginFailure | None:
    """Removes all lines with the key of `line` from the account's authorized_keys. Result and errors as in `authorize`."""
    return await _change(relayhost, line, "", None)


def key_in_base64(line: str) -> str:
    """The key in base64 of a public line or a line of authorized_keys, which must contain one."""
    return next(word for word in line.split() if word.startswith("AAAA"))


async def _change(relayhost: Relayhost, key: str, line: str, password: str | None) -> LoginFailure | None:
    script = _SCRIPT.format(key=shlex.quote(key_in_base64(key)), line=shlex.quote(line))
    try:
        async with _logged_in(relayhost, password) as connection, asyncio.timeout(SCRIPT_TIMEOUT):
            result = await connection.run("sh", input=script.encode(), encoding=None, env=None, send_env=None)
    except _LoginFailed as failed:
        return failed.failure
    except (asyncssh.Error, OSError) as error:
        raise ChangeFailed(errors.message(error)) from error
    if result.exit_status != 0:
        output = result.stderr or result.stdout or b""
        raise ChangeFailed(printable(output[-300:].strip()) or f"its shell ended with status {result.exit_status}")
    return None


class _LoginFailed(Exception):
    def __init__(self, failure: LoginFailure) -> None:
        super().__init__(failure.outcome.text)
        self.failure = failure


class _PasswordClient(HopClient):
    """Sends a password, once, and no key. was_sent: whether it was sent."""

    def __init__(self, hop: Hop, password: str) -> None:
        super().__init__(hop)
        self._password = password
        self.was_sent = False

    def begin_auth(self, username: str) -> None:
        # Overrides the shortcut of HopClient: the server must first say whether it takes passwords.
        pass

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        return None

    def password_auth_requested(self) -> str | None:
        return self._password_once()

    def kbdint_auth_requested(self) -> str | None:
        return None if self.was_sent else ""

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        if not prompts:
            return []
        # A single prompt without echo asks for the password. Other prompts cannot be answered.
        password = self._password_once() if len(prompts) == 1 and not prompts[0][1] else None
        return None if password is None else [password]

    def _password_once(self) -> str | None:
        if self.was_sent:
            return None
        self.was_sent = True
        return self._password


@contextlib.asynccontextmanager
async def _logged_in(relayhost: Relayhost, password: str | None) -> AsyncIterator[HopConnection]:
    """A connection to the relayhost, logged in. password: for the relayhost, None to log in by key. Raises _LoginFailed."""
    client: HopClient | None = None
    at_relayhost = False

    async def log_in(hop: Hop, through: HopConnection | None) -> HopConnection:
        nonlocal client, at_relayhost
        at_relayhost = hop is hops[-1]
        is_by_key = password is None or not at_relayhost
        client = HopClient(hop) if is_by_key else _PasswordClient(_with_password_login(hop), password or "")
        return await connect(client.hop, through, client)

    try:
        hops = await read_hops(relayhost)
        async with connected(hops, log_in) as connections:
            yield connections[-1]
    except Fault as fault:
        was_sent = isinstance(client, _PasswordClient) and client.was_sent
        key_is_unknown = client is None or client.progress.is_key_unknown
        raise _LoginFailed(LoginFailure(fault.outcome, at_relayhost, key_is_unknown, was_sent)) from fault


def _with_password_login(hop: Hop) -> Hop:
    """`hop` with a login by password only."""
    options = asyncssh.SSHClientConnectionOptions(
        options=hop.options,
        config=None,
        preferred_auth=["password", "keyboard-interactive"],
        public_key_auth=False,
        password_auth=True,
        kbdint_auth=True,
    )
    return dataclasses.replace(hop, options=options, identities=(), agent="")


def _public_line(pair: asyncssh.SSHKeyPair) -> str:
    """The public key as a line of authorized_keys, with its comment escaped."""
    data = pair.key_public_data
    kind = data[4 : 4 + int.from_bytes(data[:4], "big")].decode("ascii", "replace")
    comment = printable(pair.get_comment_bytes() or b"", 100)
    return f"{kind} {base64.b64encode(data).decode('ascii')} {comment}".rstrip()
