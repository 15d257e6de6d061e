"""Whether a run's bookkeeping keeps its memory over a hundred thousand steps: a developer's tool, and a quick test.

python -m tests.training.long_run [--steps 100000]      minutes on one core; the test takes FEW_STEPS

Everything of the loop goes on as it does in a run (samples, random draws, numbers on their way, guard, clock, log,
progress bar, requests to stop), with a step that computes nothing.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import tracemalloc
from pathlib import Path

import torch

from mmlphuman.config import Config
from mmlphuman.synthetic.body import write_body
from mmlphuman.training.loop import Trainer
from mmlphuman.training.monitor import Monitor
from mmlphuman.training.run_setup import build_scene
from tests.tiny_run import make_tiny_capture, tiny_settings

FEW_STEPS = 3000
LOOKS = 10  # at the memory, evenly spread; the first is warm-up, the last comes after a checkpoint
PAGE = 4096  # bytes
MOST_GROWTH = 64 * 1024  # bytes of Python's own objects, from the second look to the last but one
MOST_RESIDENT_GROWTH = 4 << 20  # bytes of the process


class MemoryWatcher:
    """The loop's Watcher: notes the memory every so many steps."""

    def __init__(self, every: int):
        self.every = every
        self.traced: list[int] = []
        self.resident: list[int] = []

    def note_loss(self, iteration: int, loss: float) -> None: ...

    def after_step(self, iteration: int) -> None:
        if iteration % self.every == 0:
            gc.collect()
            self.traced.append(tracemalloc.get_traced_memory()[0])
            self.resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)


def long_run_config(body: Path, steps: int) -> Config:
    """Everything that is prepared fits in memory and is read once."""
    return tiny_settings(
        body,
        num_train_frame=4,
        train_cam_ids=[0, 1],
        data_in_memory=True,
        num_workers=0,
        test=dict(cam_ids=[3], num_frame=1),
        init_num_gs=200,
        num_verts=40,
        pca_components=3,
        iterations=steps,
        test_every=0,
        checkpoint_every=steps,
        log_every=10,
    )


def memory_over(steps: int, body: Path, capture: Path, folder: Path) -> MemoryWatcher:
    trainer = Trainer(
        config := long_run_config(body, steps),
        build_scene(config, capture, say=lambda text: None),
        None,
        torch.device("cpu"),
    )

    def step(*samples):
        value = torch.rand((), generator=trainer.draws)
        return {"l1": value, "smooth": value, "total": value}, value

    trainer.step = step
    watcher = MemoryWatcher(steps // LOOKS)
    tracemalloc.start()
    try:
        with Monitor(folder, 0, steps, quiet=True) as monitor:
            assert trainer.run(folder, monitor, watcher)
    finally:
        tracemalloc.stop()
    return watcher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        body, capture = folder / "SMPLX_NEUTRAL.npz", folder / "capture"
        write_body(body)
        make_tiny_capture(capture, body, frames=4, novel_frames=2)
        watcher = memory_over(args.steps, body, capture, folder / "model")
    for look, (traced, resident) in enumerate(zip(watcher.traced, watcher.resident, strict=True), start=1):
        steps = look * watcher.every
        print(
            f"{steps:9,d} steps: {traced / 1024:10.1f} KiB of Python's, {resident / 2**20:8.2f} MiB resident"
        )


if __name__ == "__main__":
    main()
