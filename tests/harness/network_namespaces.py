"""Network namespaces with a cable between them, so that a test can change a network without touching this machine's."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from harness.processes import missing, program

LAPTOP, SERVER = "10.77.0.1", "10.77.0.2"
"""Their addresses; the laptop's is not set at first."""
_CLONE_NEWNET = 0x40000000


class Networks:
    """A laptop and a server with a cable between them, as two network namespaces."""

    def __init__(self) -> None:
        self._ip = program("ip", "iproute2")
        self._names = {who: f"mailrelay-{os.getpid()}-{who}" for who in ("laptop", "server")}
        for name in self._names.values():
            if subprocess.run([self._ip, "netns", "add", name], capture_output=True, check=False).returncode:
                missing("the right to make network namespaces")
        ends = self._names["laptop"], self._names["server"]
        self._run("link", "add", "cable", "netns", ends[0], "type", "veth", "peer", "cable", "netns", ends[1])
        for who in self._names:
            self.ip(who, "link", "set", "lo", "up")
            self.ip(who, "link", "set", "cable", "up")
        self.ip("server", "addr", "add", f"{SERVER}/24", "dev", "cable")

    def within(self, who: str) -> tuple[str, ...]:
        """The start of a command line that runs a program in the network of the laptop or of the server."""
        return (self._ip, "netns", "exec", self._names[who])

    def ip(self, who: str, *words: str) -> None:
        self._run("-n", self._names[who], *words)

    def arrive(self, address: str = LAPTOP) -> None:
        """The laptop gets an address."""
        self.ip("laptop", "addr", "add", f"{address}/24", "dev", "cable")

    def leave(self) -> None:
        """The laptop loses its addresses."""
        self.ip("laptop", "addr", "flush", "dev", "cable")

    def cut(self) -> None:
        """From now on, all that the server sends to the laptop vanishes. No event of the kernel reports it to either."""
        self.ip("server", "route", "add", "blackhole", f"{LAPTOP}/32")

    def mend(self) -> None:
        """Ends `cut`."""
        self.ip("server", "route", "delete", "blackhole", f"{LAPTOP}/32")

    def close(self) -> None:
        for name in self._names.values():
            subprocess.run([self._ip, "netns", "delete", name], capture_output=True, check=False)

    def _run(self, *words: str) -> None:
        subprocess.run([self._ip, *words], check=True, capture_output=True)


def apart(story: Callable[[], None]) -> None:
    """Runs `story` on a thread in a new and empty network namespace, which ends with the thread."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                missing("the right to make network namespaces")
            story()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


TAKES_MAIL = """\
#!/bin/sh
# The least of a mail server that a message can be sent to.
end=$(printf '.\\r')
printf '220 here\\r\\n'
while read -r verb rest; do
  case $verb in
    EHLO*) printf '250 here\\r\\n' ;;
    DATA*)
      printf '354 go on\\r\\n'
      while read -r line && [ "$line" != "$end" ]; do :; done
      while [ -e "$0.is-slow" ]; do sleep 0.1; done
      printf '250 2.0.0 taken\\r\\n' ;;
    QUIT*) printf '221 bye\\r\\n'; exit ;;
    *) printf '250 ok\\r\\n' ;;
  esac
done
"""


def takes_mail(directory: Path) -> str:
    """A command that speaks SMTP as `sendmail -bs` does, and accepts every message; while there is a file with its name and
    `.is-slow` behind it, it gives no reply to content."""
    path = directory / "takes-mail"
    path.write_text(TAKES_MAIL)
    path.chmod(0o755)
    return str(path)
