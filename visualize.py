"""Shows a trained avatar to viewers: a browser at the address that it prints, or viewer/net_viewer.py.

python visualize.py --model_dir MODEL [--data_dir CAPTURE] [--player] [--ip IP] [--port PORT] [--token TOKEN]

It runs until it is interrupted (Ctrl-C).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmlphuman.command import choose_device, run_command
from mmlphuman.streaming.server import add_viewer_arguments, viewer_address

WAIT_SECONDS = 1.0  # asleep at a time while nobody asks for a picture


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model_dir", type=Path, required=True, help="what train.py wrote, or a compact .safetensors file"
    )
    parser.add_argument(
        "--data_dir", type=Path, help="the model's capture: its photographs can be seen beside the renders"
    )
    parser.add_argument(
        "--player",
        action="store_true",
        help="serve the page that draws the avatar in the browser itself, too (docs/web_player.md); for a model folder "
        "a compact file is made first",
    )
    add_viewer_arguments(parser)
    parser.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:N")
    parser.add_argument(
        "--rasterizer",
        default="auto",
        choices=("auto", "gsplat", "torch"),
        help="auto: gsplat where there is a GPU",
    )
    return parser.parse_args()


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

from mmlphuman.backend import choose_backend
from mmlphuman.capture.formats import open_capture
from mmlphuman.export.compact_model import ModelToCompact
from mmlphuman.export.web import web_contents
from mmlphuman.model_folder import is_compact, load_model
from mmlphuman.streaming.live_scene import Answers, scene_of_model
from mmlphuman.streaming.photographs import Photographs


def main(args: argparse.Namespace) -> None:
    device = choose_device(args.device)
    backend = choose_backend(args.rasterizer, "auto", device)
    viewer_address(args).check()
    photographs = None if args.data_dir is None else Photographs(open_capture(args.data_dir))
    trained = load_model(args.model_dir)
    player = None
    if args.player:
        compact = is_compact(args.model_dir)
        avatar = (
            args.model_dir.read_bytes()
            if compact
            else ModelToCompact(args.model_dir, trained.to(device)).at("high").content
        )
        player = web_contents(avatar, None, args.model_dir.resolve().stem)
    trained = trained.prepared(device, backend)
    scene = scene_of_model(args.model_dir, trained, backend, photographs)
    server = viewer_address(args).serve(scene.welcome(training=False), player)
    answers = Answers(server, scene)
    try:
        while True:
            job = server.next_request(timeout=WAIT_SECONDS)
            if job is not None:
                answers.answer(job)
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.stop()


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
