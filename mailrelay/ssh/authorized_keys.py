"""Who is let in at a relayhost: the keys that we can offer there, and the account's authorized_keys, changed when told to.

    found = await keys(relayhost)                      # what a dial would offer
    shut = await knock(relayhost)                      # None: we are let in
    await authorize(relayhost, line, password=…)       # ssh-copy-id's job; without a password, over a login by key
    await withdraw(relayhost, line)

Promises: the host key is verified before a password is sent, as it is for every dial, and nobody but the relayhost itself
ever gets it: jump hosts are passed by key. authorized_keys changes in one step, only in lines that hold the very same key,
and is never left without a line that was there.
Never: a password that is kept, logged or put into a command line; a prompt.
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
from mailrelay.ssh import errors
from mailrelay.ssh.connection import LOGIN, Client, close, connect, read_way
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.interface import Fault

SCRIPT = 30.0
"""Seconds for the remote to change its file."""

_USUAL = "~/.ssh/id_ed25519"

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
"""For sh on the far side, whatever the account's own shell is: takes the lines with the key out, and puts one in instead."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What a dial would offer to the relayhost. user: the account there. by_hand: the ssh(1) command that goes there.

    tried: keys and agents, for people to read. lines: the public halves of those that can be used, best first, as
    authorized_keys has them. locked: key files that cannot be used, each with why and with the step that fixes it.
    place: the file in which ssh(1) would look for a key that is not there yet.
    """

    user: str
    by_hand: str
    tried: tuple[str, ...]
    lines: tuple[str, ...]
    locked: tuple[tuple[Path, str, str], ...]
    place: Path


@dataclass(frozen=True, slots=True)
class Shut:
    """Why we are not let in. at_relayhost: it was the relayhost itself that said so, no jump host. asked: it asked for the
    password that we had for it."""

    outcome: Outcome
    at_relayhost: bool
    asked: bool = False


class NotDone(Exception):
    """The remote did not change its authorized_keys. The text is its own words, escaped."""


async def keys(relayhost: Relayhost) -> Keys:
    """The keys of ssh_config, ~/.ssh and the agent. Raises Fault."""
    hop = (await read_way(relayhost))[-1]
    client = Client(hop)
    try:
        async with asyncio.timeout(LOGIN):
            chosen = await client.public_key_auth_requested() or []
    except TimeoutError:
        chosen = []
    finally:
        client.auth_completed()
    usable = {pair.key_public_data: _line(pair) for pair in chosen}
    locked = tuple(
        (one.file, one.note, one.fix) for one in hop.identities if one.note and not one.public & usable.keys()
    )
    return Keys(hop.user, hop.by_hand, tuple(client.seen.tried), tuple(usable.values()), locked, _place(hop))


def _place(hop: Hop) -> Path:
    named = [name for name in hop.configuration.get("identityfile", ()) if "%" not in name and name != "none"]
    return Path(_USUAL if _USUAL in named or not named else named[0]).expanduser()


def make_key(file: Path, comment: str) -> str:
    """Makes an ed25519 key without a passphrase, in OpenSSH's format; its public line. Raises FileExistsError, OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = asyncssh.generate_private_key("ssh-ed25519", comment=comment)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as private:
        private.write(key.export_private_key())
    line = key.export_public_key().decode("utf-8").strip()
    Path(f"{file}.pub").write_text(f"{line}\n", encoding="utf-8")
    return line


def read_key(file: Path) -> str:
    """The public line of a key file, from the file itself or its .pub. Raises OSError, and ValueError."""
    try:
        return asyncssh.read_public_key(f"{file}.pub").export_public_key().decode("utf-8").strip()
    except (OSError, ValueError):
        return asyncssh.read_private_key(file).export_public_key().decode("utf-8").strip()


async def knock(relayhost: Relayhost) -> Shut | None:
    """Why a dial would not be let in, None if it is."""
    try:
        async with _entered(relayhost, None):
            return None
    except _Refused as refused:
        return refused.shut


async def authorize(relayhost: Relayhost, line: str, *, password: str | None = None) -> Shut | None:
    """Puts `line` into the account's authorized_keys, in the place of every line with the same key.

    Logs in with the password if there is one, by key if not. Returns why we were not let in. Raises NotDone.
    """
    return await _change(relayhost, line, line, password)


async def withdraw(relayhost: Relayhost, line: str) -> Shut | None:
    """Takes every line with the key of `line` out of the account's authorized_keys. As `authorize`."""
    return await _change(relayhost, line, "", None)


def blob(line: str) -> str:
    """The key itself, in base64, of a public or an authorized_keys line."""
    return next(word for word in line.split() if word.startswith("AAAA"))


async def _change(relayhost: Relayhost, key: str, line: str, password: str | None) -> Shut | None:
    script = _SCRIPT.format(key=shlex.quote(blob(key)), line=shlex.quote(line))
    try:
        async with _entered(relayhost, password) as connection, asyncio.timeout(SCRIPT):
            done = await connection.run("sh", input=script.encode(), encoding=None, env=None, send_env=None)
    except _Refused as refused:
        return refused.shut
    except (asyncssh.Error, OSError) as error:
        raise NotDone(errors.words(error)) from error
    if done.exit_status != 0:
        said = done.stderr or done.stdout or b""
        raise NotDone(printable(said[-300:].strip()) or f"its shell ended with status {done.exit_status}")
    return None


class _Refused(Exception):
    def __init__(self, shut: Shut) -> None:
        super().__init__(shut.outcome.text)
        self.shut = shut


class _Guest(Client):
    """Offers a password, once, and no key."""

    def __init__(self, hop: Hop, password: str) -> None:
        super().__init__(hop)
        self._password = password
        self.asked = False

    def begin_auth(self, username: str) -> None:
        # The server is asked by what it lets anybody in.
        pass

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        return None

    def password_auth_requested(self) -> str | None:
        return self._once()

    def kbdint_auth_requested(self) -> str | None:
        return None if self.asked else ""

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        if not prompts:
            return []
        # One question that is not echoed is the password's; of anything else we know no answer.
        password = self._once() if len(prompts) == 1 and not prompts[0][1] else None
        return None if password is None else [password]

    def _once(self) -> str | None:
        if self.asked:
            return None
        self.asked = True
        return self._password


@contextlib.asynccontextmanager
async def _entered(relayhost: Relayhost, password: str | None) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection to the relayhost, logged in. Raises _Refused."""
    connections: list[asyncssh.SSHClientConnection] = []
    guest: _Guest | None = None
    at_relayhost = False
    try:
        way = await read_way(relayhost)
        for hop in way:
            at_relayhost = hop is way[-1]
            through = connections[-1] if connections else None
            if password is not None and at_relayhost:
                guest = _Guest(_for_a_password(hop), password)
                connections.append(await connect(guest.hop, through, guest))
            else:
                connections.append(await connect(hop, through))
        yield connections[-1]
    except Fault as fault:
        asked = guest is not None and guest.asked
        raise _Refused(Shut(fault.outcome, at_relayhost, asked)) from fault
    finally:
        await close(connections)


def _for_a_password(hop: Hop) -> Hop:
    options = asyncssh.SSHClientConnectionOptions(
        options=hop.options,
        config=None,
        preferred_auth=["password", "keyboard-interactive"],
        public_key_auth=False,
        password_auth=True,
        kbdint_auth=True,
    )
    return dataclasses.replace(hop, options=options, identities=(), agent="")


def _line(pair: asyncssh.SSHKeyPair) -> str:
    data = pair.key_public_data
    kind = data[4 : 4 + int.from_bytes(data[:4], "big")].decode("ascii", "replace")
    comment = printable(pair.get_comment_bytes() or b"", 100)
    return f"{kind} {base64.b64encode(data).decode('ascii')} {comment}".rstrip()
