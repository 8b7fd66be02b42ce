"""The urls backend, and the error that says how to install apprise."""

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from mailrelay import lazy
from mailrelay.config import Notify
from mailrelay.mail.notice import Concerned, Kind, Notice
from mailrelay.notify import urls as backend
from mailrelay.notify.backend import BackendFailed
from mailrelay.notify.notifier import Notifier
from mailrelay.notify.urls import urls

NOTICE = Notice(
    id=1,
    kind=Kind.FAILED,
    relayhost="default",
    created=0.0,
    message=1,
    queue_id="3KQ7Z",
    concerned=(Concerned(b"bob@example.net", "bounced", "5.1.1", b"550 no such user", "RCPT", True),),
)
with_apprise = pytest.mark.skipif(find_spec("apprise") is None, reason="needs the extra apprise")


class Hook(http.server.BaseHTTPRequestHandler):
    heard: list[dict[str, str]]
    status = 200

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hook() -> Iterator[tuple[str, type[Hook]]]:
    handler = type("Hook", (Hook,), {"heard": []})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"json://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def test_urls_without_the_library_fail_when_the_backend_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "apprise", None)
    with pytest.raises(BackendFailed, match=f"library: {sys.executable} -m pip install apprise"):
        Notifier(Notify(urls=("json://127.0.0.1",)), SimpleNamespace(), 900.0, lazy)  # type: ignore[arg-type]


@with_apprise
def test_an_invalid_url_fails_when_the_backend_is_built_and_is_not_shown() -> None:
    with pytest.raises(BackendFailed, match="number 2 is not a URL") as raised:
        urls(("json://127.0.0.1", "nonsense://secret"))
    assert "secret" not in str(raised.value)


@with_apprise
async def test_a_notice_reaches_the_service(hook: tuple[str, type[Hook]]) -> None:
    address, handler = hook
    await urls((address,))([NOTICE])
    assert handler.heard[0]["title"] == "Mail to bob@example.net was refused"
    assert "550 no such user" in handler.heard[0]["message"]


@with_apprise
async def test_a_service_that_refuses_fails_the_backend(hook: tuple[str, type[Hook]]) -> None:
    address, handler = hook
    handler.status = 500
    with pytest.raises(BackendFailed, match="number 1 of 1 did not accept the notice"):
        await urls((address,))([NOTICE])


async def test_an_exception_of_the_library_never_shows_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    class Service:
        def add(self, address: str) -> bool:
            self.address = address
            return True

        async def async_notify(self, **_rest: object) -> bool:
            raise ConnectionError(f"cannot reach {self.address}")

    kinds = SimpleNamespace(
        Apprise=Service, NotifyType=SimpleNamespace(FAILURE=1), NotifyFormat=SimpleNamespace(TEXT=1)
    )
    monkeypatch.setattr(backend, "apprise", kinds)
    with pytest.raises(BackendFailed, match="number 1 of 1 did not accept the notice") as raised:
        await urls(("https://secret@example.org",))([NOTICE])
    assert "secret" not in str(raised.value)
