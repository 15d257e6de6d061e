"""Kills training runs of a tiny capture in every way known, and checks what is left: a developer's tool.

python -m tests.chaos [--faults 100] [--seed 0] [--json FILE]      about eight seconds a fault on two cores

Two campaigns go on beside each other: one with a single process whose parameters must end equal bit for bit, and one in
which a single process and two ranks take turns. "Disk full" needs root, for a small file system of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from mmlphuman.synthetic.body import write_body
from tests.chaos.campaign import DAMAGE, ITERATIONS, Campaign, Row, table, write_config
from tests.chaos.lives import FAULTS, Life, Place
from tests.tiny_run import make_tiny_capture

DISK = "200m"  # room for three checkpoints and a log


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A small file system at `folder`, if that may be made."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def shared_out(count: int, rng: random.Random, disk: bool) -> tuple[list[str], list[str]]:
    """All kinds of faults equally often, in random order: those of one process, and those of two ranks among others."""
    kinds = [name for name in (*FAULTS, *DAMAGE) if disk or name != "disk full"]
    names = [kinds[index % len(kinds)] for index in range(count)]
    rng.shuffle(names)
    of_two = [name for name in names if name in FAULTS and FAULTS[name].launcher]
    others = [name for name in names if name not in of_two]
    half = max(0, count // 2 - len(of_two))
    mixed = of_two + others[:half]
    rng.shuffle(mixed)
    return others[half:], mixed


def run_campaign(
    folder: Path, names: list[str], poses: int, seed: int, shared: tuple[Path, Path]
) -> list[Row]:
    body, capture = shared
    config = write_config(folder.with_suffix(".yaml"), body, ITERATIONS, poses)
    place = Place(config, capture, folder, folder.with_suffix(".log"))
    reference = folder.with_suffix(".reference")
    life = Life(place, reference)
    assert life.end() == 0, life.text()
    campaign = Campaign(place, reference, seed)
    campaign.suffer(names, say=lambda text: print(f"{poses} {text}", flush=True))
    return campaign.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="every fault and what came of it, as a file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        body, capture = root / "SMPLX_NEUTRAL.npz", root / "capture"
        write_body(body)
        make_tiny_capture(capture, body, novel_frames=2)
        with small_disk(root / "one") as disk, small_disk(root / "two"), ThreadPoolExecutor() as pool:
            alone, mixed = shared_out(args.faults, random.Random(args.seed), disk)
            if not disk:
                print("not root: no file system of its own to fill up")
            campaigns = [
                pool.submit(run_campaign, root / "one", alone, 1, args.seed, (body, capture)),
                pool.submit(run_campaign, root / "two", mixed, 2, args.seed, (body, capture)),
            ]
            rows = [row for campaign in campaigns for row in campaign.result()]
    print(table(rows))
    complete = sum(row.status == 0 for row in rows)
    print(
        f"{len(rows)} faults; {complete} fell on a run's last seconds; every run ended equal to an undisturbed one"
    )
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
