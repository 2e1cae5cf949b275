"""A headless Chromium, driven through chromedriver with the standard library, for benchmarks and tests of pages."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def missing() -> str:
    """The program that is not installed; empty if all are."""
    if not shutil.which("chromedriver"):
        return "chromedriver (apt-get install chromium-driver)"
    return "" if any(map(shutil.which, PROGRAMS)) else "chromium (apt-get install chromium)"


class Browser:
    """A browser with one page, used in a `with` block."""

    def __init__(self, width: int = 1600, height: int = 1000, dark: bool = False, phone: bool = False):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.address = f"http://127.0.0.1:{port}/session"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        flags += [f"--window-size={width},{height}"]
        flags += ["--blink-settings=preferredColorScheme=0"] if dark else []
        options: dict[str, Any] = {"args": flags}
        if phone:
            metrics = {"width": width, "height": height, "pixelRatio": 2.0, "touch": True}
            options["mobileEmulation"] = {"deviceMetrics": metrics}
        asked = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            begun = self.ask("", {"capabilities": {"alwaysMatch": asked}}, patience=20)
        except BaseException:
            self.driver.kill()
            raise
        self.address += "/" + begun["sessionId"]

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: Any) -> None:
        with suppress(OSError):
            self.ask("", method="DELETE")
        self.driver.terminate()
        self.driver.wait()

    def ask(self, path: str, values: dict[str, Any] | None = None, method: str = "POST", patience: float = 0) -> Any:
        """Send a command of the WebDriver protocol; `patience` is how many seconds to wait for the driver."""
        data = json.dumps(values or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        end = time.monotonic() + patience
        while True:
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    return json.load(answer)["value"]
            except urllib.error.HTTPError as error:
                raise RuntimeError(json.load(error)["value"]["message"]) from None
            except urllib.error.URLError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def open(self, page: Path) -> None:
        self.ask("/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *values: Any) -> Any:
        """The result of an asynchronous function with this body, which can use `values`."""
        script = (
            f"const values = [...arguments], done = values.pop(); (async () => {{ {script} }})()"
            ".then(done, (error) => done('error: ' + error.stack))"
        )
        found = self.ask("/execute/async", {"script": script, "args": values})
        if isinstance(found, str) and found.startswith("error: "):
            raise RuntimeError(found)
        return found

    def said(self) -> list[str]:
        """The messages on the console, mostly errors."""
        return [entry["message"] for entry in self.ask("/se/log", {"type": "browser"})]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("/screenshot", method="GET")))
