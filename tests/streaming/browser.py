"""For tests of the browser's page: headless Chromium, driven through the WebDriver protocol of chromedriver."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.local_processes import free_port

PROGRAMS = ("chromium", "chromedriver")
START_SECONDS = 20
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name for an element's id
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Browser:
    """One window. `folder` (new, empty) takes the browser's own files and, in downloads/, what pages save."""

    def __init__(self, folder: Path, options: Sequence[str] = OPTIONS):
        self.downloads = folder / "downloads"
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        port = free_port()
        self._address = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._session = ""
        try:
            self._start(folder, options)
        except BaseException:
            self.close()
            raise

    def _start(self, folder: Path, options: Sequence[str]) -> None:
        wait_for(self._driver_answers, START_SECONDS)
        settings = {
            "browserName": "chrome",
            "goog:chromeOptions": {
                "binary": shutil.which("chromium"),
                "args": [*options, f"--user-data-dir={folder / 'profile'}"],
                "prefs": {"download.default_directory": str(self.downloads)},
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": settings}})
        self._session = f"/session/{answer['sessionId']}"

    def close(self) -> None:
        if self._session:
            self._call("DELETE", self._session)
        self._driver.terminate()
        self._driver.wait()

    def _driver_answers(self) -> bool:
        try:
            return self._call("GET", "/status")["ready"]
        except OSError:
            return False

    def _call(self, method: str, path: str, content: dict | None = None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with self._open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"].splitlines()[0]) from error

    def _post(self, path: str, **content):
        return self._call("POST", self._session + path, content)

    # --- what a person does ------------------------------------------------------------------------------

    def go(self, address: str) -> None:
        if "#" in address:  # one that differs only behind it would not be loaded anew
            self._post("/url", url="about:blank")
        self._post("/url", url=address)

    def resize(self, width: int, height: int) -> None:
        """Of the page itself."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)

    def click(self, selector: str) -> None:
        self._post(f"/element/{self._find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        """Into a field; a path, into one for files."""
        self._post(f"/element/{self._find(selector)}/value", text=text)

    def choose(self, selector: str, value: str) -> None:
        """An entry of a list."""
        self.click(f"{selector} option[value='{value}']")

    def press(self, key: str) -> None:
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keys", "actions": actions})

    def drag(self, begin: tuple[int, int], end: tuple[int, int], button: int = 0) -> None:
        """Pixels of the page; button 0 left, 2 right."""
        self._act(_pointer("mouse", "mouse", begin, end, button))

    def pinch(self, begin: list[tuple[int, int]], end: list[tuple[int, int]]) -> None:
        """Two fingers at once."""
        self._act(
            *(
                _pointer(f"finger{i}", "touch", *path, 0)
                for i, path in enumerate(zip(begin, end, strict=True))
            )
        )

    def wheel(self, at: tuple[int, int], pixels: int) -> None:
        scroll = {"type": "scroll", "x": at[0], "y": at[1], "deltaX": 0, "deltaY": pixels, "duration": 0}
        self._act({"type": "wheel", "id": "wheel", "actions": [scroll]})

    # --- what a person sees ------------------------------------------------------------------------------

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the window, also written to `path`."""
        encoded = self._call("GET", f"{self._session}/screenshot")
        if path is not None:
            path.write_bytes(base64.b64decode(encoded))
        return decode_png(encoded)

    def pixel(self, x: int, y: int) -> np.ndarray:
        """(3,) RGB of one pixel of the window; much faster than the whole."""
        clip = {"x": x, "y": y, "width": 1, "height": 1, "scale": 1}
        return decode_png(self._devtools("Page.captureScreenshot", {"clip": clip})["data"])[0, 0]

    def text(self, selector: str) -> str:
        """What is to be read there; nothing of what is hidden."""
        return self._call("GET", f"{self._session}/element/{self._find(selector)}/text")

    def shown(self, selector: str) -> bool:
        return self._call("GET", f"{self._session}/element/{self._find(selector)}/displayed")

    # --- behind the page ---------------------------------------------------------------------------------

    def run(self, script: str, *arguments):
        """What the asynchronous function with this body returns."""
        wrapped = f"""
            const done = arguments[arguments.length - 1];
            (async (...args) => {{ {script} }})(...arguments).then(done, (error) => done(`${{error}}`));
        """
        return self._post("/execute/async", script=wrapped, args=list(arguments))

    def log(self, kind: str) -> list[dict]:
        """New entries, "browser": the page's errors, or "performance": what it loaded, among others."""
        return self._post("/se/log", type=kind)

    def _devtools(self, command: str, parameters: dict):
        return self._post("/goog/cdp/execute", cmd=command, params=parameters)

    def _find(self, selector: str) -> str:
        return self._post("/element", using="css selector", value=selector)[ELEMENT]

    def _act(self, *sources: dict) -> None:
        self._post("/actions", actions=list(sources))


def decode_png(encoded: str) -> np.ndarray:
    """Base64 -> (H, W, 3) uint8 RGB."""
    return cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def _pointer(name: str, kind: str, begin: tuple[int, int], end: tuple[int, int], button: int) -> dict:
    middle = [round((a + b) / 2) for a, b in zip(begin, end, strict=True)]
    moves = [{"type": "pointerMove", "duration": 20, "x": at[0], "y": at[1]} for at in (begin, middle, end)]
    down, up = ({"type": kind, "button": button} for kind in ("pointerDown", "pointerUp"))
    return {
        "type": "pointer", "id": name, "parameters": {"pointerType": kind}, "actions": [moves[0], down, *moves[1:], up],
    }  # fmt: skip


def wait_for(condition, seconds: float = 10):
    """The first true value of `condition()`; AssertionError if there is none in time."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value
