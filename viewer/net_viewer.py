"""Desktop viewer: watches a training run or a finished avatar over the network.

python net_viewer.py [--ip IP] [--port PORT] [--token TOKEN] [--out_dir FOLDER]

The other side is train.py, or visualize.py with a finished avatar. This side needs a clone of the repository
and `pip install -r requirements.txt` in the viewer's folder; no torch and no GPU of NVIDIA's.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FONT_SIZE = 16  # pixels


def parse_arguments() -> argparse.Namespace:
    if __doc__ is None:
        raise ValueError("PYTHONOPTIMIZE=2 (-OO) takes out the texts that commands need; unset it")
    summary, usage = __doc__.strip().split("\n\n")[:2]
    parser = argparse.ArgumentParser(description=summary, usage=usage)
    parser.add_argument("--ip", default="127.0.0.1", help="the server's address (default: this machine)")
    parser.add_argument("--port", type=int, default=23456, help="the server's port")
    parser.add_argument("--token", default="", help="what the server printed when it started, if it did")
    parser.add_argument(
        "--out_dir",
        type=Path,
        default=ROOT / "output" / "viewer",
        help="where screenshots and cameras go (default: output/viewer of the repository)",
    )
    parser.add_argument("--font_size", type=int, default=FONT_SIZE, help="pixels; larger for small screens")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if not 1 <= args.port <= 65535:
        raise ValueError(f"--port: {args.port} is no port; 1 to 65535 are possible")
    try:  # after the arguments: --help works without them
        app, client, window = (
            importlib.import_module(f"viewer.{name}") for name in ("app", "client", "window")
        )
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed; cd {ROOT / 'viewer'} && pip install -r requirements.txt"
        ) from error
    network = client.Client(client.ServerAddress(args.ip, args.port, args.token))
    network.start()
    try:
        window.ViewerWindow(app.ViewerApp(network, args.out_dir), args.font_size).run()
    finally:
        network.stop()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:  # mmlphuman.command does the same, with torch
        sys.exit(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        pass
