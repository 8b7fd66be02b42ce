"""Runs the mailrelay command as a process, against a remote in the process of the test."""

import asyncio
import os
import pty
import sys
from dataclasses import dataclass

from harness.person import Person
from harness.processes import free_port
from mailrelay.demo.remote import HOST, Remote


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


def person_of(remote: Remote, *lines: str, name: str = "default", desktop: bool = False) -> Person:
    """A person whose relayhost is `remote`. lines: more settings. desktop: whether notices also go to the desktop."""
    person = Person(remote.directory)
    relayhost = (f'relayhost.{name}.ssh = "{HOST}"', f'relayhost.{name}.ssh_config = "{remote.ssh_config}"')
    # A daemon of this machine may listen on the usual port.
    door = () if any("listen" in line for line in lines) else (f'listen.address = "localhost:{free_port()}"',)
    ours = (*door, f'queue.directory = "{person.spool}"', f"notify.desktop = {str(desktop).lower()}")
    person.config.write_text("\n".join((*relayhost, *ours, *lines)))
    return person


async def run(person: Person, *words: str, typed: str | None = None, env: dict[str, str] | None = None) -> Said:
    """Runs `mailrelay words` to its end. typed: the input at a terminal; None: stdin is /dev/null."""
    master, slave = pty.openpty()
    os.write(master, (typed or "").encode())
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mailrelay", *words),
            stdin=asyncio.subprocess.DEVNULL if typed is None else slave,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=person.environment | (env or {}),
        )
        out, err = await process.communicate()
    finally:
        os.close(master)
        os.close(slave)
    assert all(line.startswith("mailrelay: ") for line in err.decode().splitlines()), err
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())
