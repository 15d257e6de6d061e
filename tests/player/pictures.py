"""The player's pictures beside the package's own: a server of plain files, views, poses, PSNR.

    python -m tests.player.pictures AVATAR.safetensors POSES.npz [--up z] [--renderer webgl] [--size 540 960]

prints, of a compact file drawn by headless Chromium and by the package on the CPU, the PSNR from eight directions in
five poses, one of them seen from far away, and how many pictures a second the page draws.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.pose_file import PoseOptions, read_pose_file
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.export.compact_reader import load_compact
from mmlphuman.export.web import write_web
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.shading import to_bytes
from mmlphuman.types import Cameras, Pose
from tests.streaming.browser import OPTIONS, Browser, decode_png

DIRECTIONS, POSES, FAR, NEAR = 8, 5, 9.0, 2.8  # metres
FOVX = 30.0
BACKGROUND = (0.2, 0.5, 0.9)
# Chromium's own software renderers; a WebGPU canvas needs them in its compositor, too.
WEBGPU = tuple(option for option in OPTIONS if option != "--disable-gpu") + (
    "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--use-angle=swiftshader",
    "--enable-features=Vulkan", "--use-vulkan=swiftshader", "--disable-vulkan-surface",
    "--ignore-gpu-blocklist", "--disable-gpu-sandbox",
)  # fmt: skip
PICTURE = """
    const { player } = await import("/player.js");
    await player.ready;
    const blob = await player.picture(args[0]);
    const bytes = new Uint8Array(await blob.arrayBuffer());
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
"""
STEPS = """
    const { player } = await import("/player.js");
    player.stepped ??= player.step;
    player.step = args[0] ? player.stepped : () => {}; // whether the page draws by itself
"""
STATE = """
    const { player } = await import("/player.js");
    return player.ready.then(() => player.renderer.name, (error) => `failed: ${error.message}`);
"""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        self.server.seen.append(self.path)


@contextmanager
def served(folder: Path):
    """The address of a plain file server, as `python -m http.server` is one; and the paths that were asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}", server.seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def view_from(angle: float, center: np.ndarray, distance: float, size: tuple[int, int]) -> CameraView:
    """Level, y up, looking at `center` from `angle` radians about it, slightly from above."""
    width, height = size
    outward = np.array([np.sin(angle), 0.2, np.cos(angle)])
    forward = -outward / np.linalg.norm(outward)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    rows = np.stack([right, np.cross(forward, right), forward])
    w2c = np.eye(4)
    w2c[:3, :3] = rows
    w2c[:3, 3] = -rows @ (center - distance * forward)
    return CameraView(w2c, FOVX, width, height)


def native_picture(trained: TrainedAvatar, pose: Pose, project: bool, view: CameraView) -> np.ndarray:
    """(H, W, 3) uint8."""
    cameras = Cameras(
        torch.from_numpy(view.w2c[None]).float(),
        torch.from_numpy(view.intrinsics[None]).float(),
        view.width,
        view.height,
    )
    with torch.no_grad():
        render = rasterize(trained.pose(pose, project), cameras, torch.tensor(BACKGROUND))
    return to_bytes(render.colors)[0].numpy()


def player_picture(browser: Browser, pose: Pose, project: bool, view: CameraView) -> np.ndarray:
    frame = {
        "pose": message(pose),
        "project": project,
        "background": BACKGROUND,
        "view": {"w2c": view.w2c.ravel().tolist(), "fovx": view.fovx, "width": view.width, "height": view.height},
    }  # fmt: skip
    return decode_png(browser.run(PICTURE, frame))


def message(pose: Pose) -> dict:
    """As posing.js takes it."""
    return {
        "joints": pose.joints.tolist(),
        "expression": pose.expression.tolist(),
        "translation": pose.translation.tolist(),
        "rotation": pose.rotation.flatten().tolist(),
    }


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def compare(
    browser: Browser, trained: TrainedAvatar, poses: list[Pose], size: tuple[int, int]
) -> dict[tuple[int, int], tuple[float, float]]:
    """(pose, direction) -> PSNR of the whole picture, and of the pixels that show the person; the last pose from far.
    Every other pose is drawn in test mode."""
    scores = {}
    for i, pose in enumerate(poses):
        root = pose.rotation @ trained.avatar.joints[0] + pose.translation
        for k in range(DIRECTIONS):
            distance = FAR if i == len(poses) - 1 else NEAR
            view = view_from(2 * np.pi * k / DIRECTIONS, root.numpy(), distance, size)
            native = native_picture(trained, pose, bool(i % 2), view)
            ours = player_picture(browser, pose, bool(i % 2), view)
            assert ours.shape == native.shape
            empty = np.round(np.array(BACKGROUND) * 255)
            person = (np.abs(native - empty).max(-1) > 2) | (np.abs(ours - empty).max(-1) > 2)
            assert person.mean() > 0.002, "nobody is seen"
            scores[i, k] = psnr(ours, native), psnr(ours[person], native[person])
            print(
                f"pose {i}, direction {k}: {scores[i, k][0]:.1f} dB, person {scores[i, k][1]:.1f}", flush=True
            )
    return scores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("avatar", type=Path)
    parser.add_argument("poses", type=Path)
    parser.add_argument("--up", default="y")
    parser.add_argument("--renderer", choices=("webgl", "webgpu"), default="webgl")
    parser.add_argument("--size", type=int, nargs=2, default=(540, 960))
    parser.add_argument("--out", type=Path, help="folder for screenshots")
    args = parser.parse_args()
    trained = load_compact(args.avatar)
    sequence = read_pose_file(args.poses, PoseOptions(up=args.up, face=trained.config.face))
    sequence = sequence.about_pelvis(trained.avatar.joints[0].numpy())
    chosen = np.linspace(0, len(sequence) - 1, POSES).round().astype(int)
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        site.mkdir()
        write_web(site, args.avatar.read_bytes(), sequence, "measured")
        print(f"folder: {sum(file.stat().st_size for file in site.iterdir()) / 1e6:.2f} MB")
        options = WEBGPU if args.renderer == "webgpu" else OPTIONS
        browser = Browser(Path(folder) / "browser", options)
        try:
            with served(site) as (address, seen):
                browser.go(f"{address}/index.html?renderer={args.renderer}")
                print(f"renderer: {browser.run(STATE)}; files asked for: {len(seen)}", flush=True)
                browser.run(STEPS, False)
                scores = compare(browser, trained, [sequence.pose(i) for i in chosen], tuple(args.size))
                report(scores)
                print(json.dumps(pace(browser, args.size)))
                browser.run(STEPS, True)
                if args.out:
                    screenshots(browser, args.out, args.renderer)
                print("console:", browser.log("browser"))
        finally:
            browser.close()


def report(scores: dict) -> None:
    whole, person = np.array(list(scores.values())).T
    print(
        f"whole picture {whole.min():.1f} to {whole.max():.1f} dB, person {person.min():.1f} to {person.max():.1f} dB"
    )


PACE = """
    const { player } = await import("/player.js");
    const [width, height, seconds, still] = args;
    while (player.busy) await player.busy;
    let count = 0, posing = 0;
    const began = performance.now();
    while (performance.now() - began < 1000 * seconds) {
        if (still) player.move((camera) => camera.orbit(0.05, 0));
        else player.timeline.goTo(player.timeline.place + 1);
        posing += await player.renderer.draw({ ...player.frame(), view: player.camera.view(width, height) });
        count += 1;
    }
    const took = performance.now() - began;
    return [count * 1000 / took, posing / count];
"""


def pace(browser: Browser, size: tuple[int, int], seconds: float = 8) -> dict:
    """Pictures a second while the clip plays, and while only the camera turns."""
    found = {}
    for name, still in (("playing", False), ("turning", True)):
        rate, posing = browser.run(PACE, *size, seconds, still)
        found[name] = {"fps": round(rate, 2), "posing and sorting ms": round(posing, 1)}
    return found


def screenshots(browser: Browser, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, size in (("desktop", (1280, 720)), ("phone", (390, 844))):
        browser.resize(*size)
        if kind == "phone":
            browser.run("document.body.classList.add('folded')")
        time.sleep(3)
        browser.screenshot(folder / f"{name}_{kind}.png")
    browser.run("document.body.classList.remove('folded')")
    time.sleep(3)
    browser.screenshot(folder / f"{name}_phone_controls.png")


if __name__ == "__main__":
    main()
