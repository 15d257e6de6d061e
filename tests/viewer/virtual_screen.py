"""A screen that exists in memory only, with a mouse and a keyboard: Xvfb and xdotool."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from pathlib import Path

import numpy as np

# The X window dump that Xvfb keeps its screen in: 25 big-endian words, a name, a colour table, then the pixels.
XWD_WORDS = struct.Struct(">25I")
XWD_COLOR_BYTES = 12


class VirtualScreen:
    """1280 x 800; a context manager."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> VirtualScreen:
        reading, writing = os.pipe()
        command = [
            "Xvfb",
            "-displayfd",
            str(writing),
            "-screen",
            "0",
            "1280x800x24",
            "-fbdir",
            str(self.folder),
        ]
        self.process = subprocess.Popen(
            [*command, "-nolisten", "tcp"],
            pass_fds=(writing,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        with os.fdopen(reading) as numbers:
            self.display = f":{numbers.readline().strip()}"  # written once the screen is there
        self.environment = {**os.environ, "DISPLAY": self.display, "LIBGL_ALWAYS_SOFTWARE": "1"}
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)

    def do(self, *words: object) -> str:
        """An xdotool command."""
        command = ["xdotool", *map(str, words)]
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=20)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def place(self, window: str) -> tuple[int, int, int, int]:
        """Left, top, width, height."""
        found = dict(
            line.split("=")
            for line in self.do("getwindowgeometry", "--shell", window).splitlines()
            if "=" in line
        )
        return tuple(int(found[name]) for name in ("X", "Y", "WIDTH", "HEIGHT"))

    def click(self, x: int, y: int, button: int = 1, times: int = 1) -> None:
        self.do("mousemove", x, y)
        time.sleep(0.1)
        self.do("click", "--repeat", times, "--delay", 60, button)

    def drag(self, x: int, y: int, right: int, down: int, button: int = 1, steps: int = 5) -> None:
        self.do("mousemove", x, y)
        time.sleep(0.1)
        self.do("mousedown", button)
        for step in range(1, steps + 1):
            self.do("mousemove", x + right * step // steps, y + down * step // steps)
            time.sleep(0.03)
        time.sleep(0.1)
        self.do("mouseup", button)

    def type(self, text: str) -> None:
        self.do("type", "--delay", 25, text)

    def picture(self) -> np.ndarray:
        """(800, 1280, 3) uint8 RGB: what is on the screen."""
        data = (self.folder / "Xvfb_screen0").read_bytes()
        header = XWD_WORDS.unpack_from(data)
        start, width, height = header[0] + XWD_COLOR_BYTES * header[19], header[4], header[5]
        rows = np.frombuffer(data, np.uint8, count=header[12] * height, offset=start).reshape(height, -1, 4)
        return rows[:, :width, 2::-1].copy()
