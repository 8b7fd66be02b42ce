"""A web server on loopback for tests of forwards, and a client for it.

python3 tests/harness/webserver.py PORT     the server alone, until it is ended
"""

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = random.Random(7).randbytes(20_000)


class _Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None: ...


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


@contextmanager
def web() -> Iterator[str]:
    """A server of `PAGE`: its address, as a forward names it."""
    server = _Server(("127.0.0.1", 0), _Web)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def get(address: str) -> bytes:
    """The page at "host:port", through a new connection. Raises OSError and http.client.HTTPException."""
    client = HTTPConnection(address, timeout=20)
    try:
        client.request("GET", "/")
        return client.getresponse().read()
    finally:
        client.close()


if __name__ == "__main__":
    _Server(("127.0.0.1", int(sys.argv[1])), _Web).serve_forever()
