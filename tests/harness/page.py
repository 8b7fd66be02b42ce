"""`mailrelay web` as a process, and requests to it as a browser or an attacker sends them."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

from harness.processes import PATIENCE, Child


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str


@dataclass
class Page:
    """A running page. url: the address with its one-time token. cookie: "" until `enter`."""

    child: Child
    url: str
    cookie: str = ""
    _form_token: str = field(default="", repr=False)

    @property
    def origin(self) -> str:
        return self.url.partition("/enter/")[0]

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        """One request with the cookie, if there is one. headers: names with _ for -; "" leaves a header out."""
        sent = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie}
        sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        client = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            client.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value:
                    client.putheader(name, value)
            octets = (body or "").encode()
            client.putheader("Content-Length", str(len(octets)))
            client.endheaders(octets)
            answer = client.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
        finally:
            client.close()

    def enter(self) -> Answer:
        """Uses the one-time token, as the person's browser does."""
        answer = self.ask(self.url.removeprefix(self.origin))
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    @property
    def form_token(self) -> str:
        if not self._form_token:
            self._form_token = re.findall(r'name="token" value="([^"]+)"', self.ask("/").text)[0]
        return self._form_token

    def post(self, path: str, fields: Mapping[str, str | list[str]], **headers: str) -> Answer:
        """A form as a page of ours sends it. headers: in place of those of a browser."""
        body = urlencode({"token": self.form_token} | dict(fields), doseq=True)
        ours = {
            "origin": self.origin,
            "sec_fetch_site": "same-origin",
            "content_type": "application/x-www-form-urlencoded",
        }
        return self.ask(path, "POST", body, **(ours | headers))


@contextmanager
def page(config: Path, environment: Mapping[str, str], *words: str) -> Iterator[Page]:
    """A page with these settings. words: more arguments of `mailrelay web`."""
    argv = [sys.executable, "-m", "mailrelay", "--config", str(config), "web", "--no-browser", *words]
    child = Child(argv, env=environment)
    try:
        yield Page(child, child.wait_line("^http://"))
    finally:
        child.stop()


def read_as(uid: int, port: int, request: bytes) -> bytes:
    """What another account of this machine gets for a request; b"" if its connection is closed."""
    script = (
        "import os, socket, sys\n"
        f"os.setgid({uid}); os.setuid({uid})\n"
        f"s = socket.socket(); s.settimeout(10); s.connect(('127.0.0.1', {port}))\n"
        "try:\n"
        f"    s.sendall({request!r})\n"
        "    sys.stdout.buffer.write(s.recv(4096))\n"
        "except ConnectionError:\n"
        "    pass\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=PATIENCE).stdout


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


class _Watched(ThreadingHTTPServer):
    """A connection alone tells a sender that the message was opened."""

    connected: list[object]

    def verify_request(self, request: object, client_address: object) -> bool:
        self.connected.append(client_address)
        return True


@contextmanager
def _serving(directory: Path) -> Iterator[_Watched]:
    server = _Watched(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    server.connected = []
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


@contextmanager
def site(directory: Path) -> Iterator[str]:
    """A web server of an attacker, on this machine: its address."""
    with _serving(directory) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def trap() -> Iterator[tuple[str, list[object]]]:
    """A web server that must not be asked for anything: its address, and the connections to it."""
    with _serving(Path("/nonexistent")) as server:
        yield f"http://127.0.0.1:{server.server_port}", server.connected
