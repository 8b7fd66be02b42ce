"""A real Chromium without a screen, driven through ChromeDriver, for tests of `mailrelay web`.

What Chromium does by itself is off, and no name leads out of this machine: `evil.example` is 127.0.0.1, as an attacker who
rebinds a name would have it.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.processes import PATIENCE, missing, program

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--host-resolver-rules=MAP evil.example 127.0.0.1", "--window-size=1100,900",
)  # fmt: skip


class Browser:
    """driver: of Selenium."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def one(self, css: str) -> Any:
        """The element, as soon as it is there."""
        return self.wait(lambda: (self.driver.find_elements("css selector", css) or [None])[0], f"there is {css}")

    def write(self, css: str, text: str) -> None:
        """Types a text into a field, in place of what is in it."""
        field = self.one(css)
        field.clear()
        field.send_keys(text)

    def text(self, css: str = "body") -> str:
        """The text that a person sees in an element; "" if it was just replaced."""
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            return str(self.one(css).text)
        except StaleElementReferenceException:
            return ""

    def wait(self, holds: Any, what: str) -> Any:
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: holds(), what)

    def shows(self, text: str, css: str = "body") -> None:
        """Waits until an element shows a text, without a step of the person."""
        self.wait(lambda: text in self.text(css), f"{css} shows {text!r}; it shows {self.text(css)!r}")

    def emulate(self, **media: str) -> None:
        """prefers_color_scheme="dark" and the like."""
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def resize(self, width: int, *, is_phone: bool = False) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": is_phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    @property
    def width(self) -> tuple[int, int]:
        """Pixels of the page, and of the window."""
        script = "return [document.documentElement.scrollWidth, window.innerWidth]"
        page, window = self.driver.execute_script(script)
        return int(page), int(window)

    def complaints(self, axe: str) -> list[str]:
        """What axe-core finds wrong on the page. axe: its source."""
        run = "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(done)"
        self.driver.execute_script(f"{axe}; return null")
        found = self.driver.execute_async_script(run)["violations"]
        return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]

    def errors(self) -> list[str]:
        """What the browser has written to its console since the last call."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for the tests of one file, with an empty profile."""
    with _started(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def browser_without_script(tmp_path: Path) -> Iterator[Browser]:
    """A browser in which the person has switched off JavaScript."""
    with _started(tmp_path / "chromium", {"profile.managed_default_content_settings.javascript": 2}) as started:
        yield started


@contextmanager
def _started(profile: Path, preferences: Mapping[str, object] | None = None) -> Iterator[Browser]:
    binary, driver_binary = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        missing("selenium (from PyPI)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.add_experimental_option("prefs", dict(preferences or {}))
    driver = webdriver.Chrome(options=options, service=Service(driver_binary))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core: the file that MAILRELAY_AXE names, or else from the npm registry."""
    named = os.environ.get("MAILRELAY_AXE")
    if named:
        return Path(named).read_text("utf-8")
    directory = tmp_path_factory.mktemp("axe")
    install = [program("npm", "npm"), "install", "--no-save", "--prefix", str(directory), "axe-core@4"]
    if subprocess.run(install, capture_output=True, check=False, timeout=60).returncode:
        missing("axe-core (from the npm registry)")
    return (directory / "node_modules/axe-core/axe.min.js").read_text("utf-8")
