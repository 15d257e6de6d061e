"""Scoring sets of pictures with every metric whose network weights are there.

Data path: ImagePairs -> score_pictures (FrameScore each; Inception features for FID) -> ScoreTable -> scores.json.

Several processes share the pictures (shares.py); the means and FID are computed on rank 0, in the pictures' order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mmlphuman.command import versions
from mmlphuman.evaluation.fid import (
    OTHER_NAME,
    WEIGHTS_NAME,
    Inception,
    bias_note,
    frechet_distance,
    load_inception,
)
from mmlphuman.evaluation.metrics import ImagePair, person_pair, score_picture
from mmlphuman.evaluation.score_table import ScoreTable
from mmlphuman.evaluation.shares import Scored, gathered, shown
from mmlphuman.files import atomic_write
from mmlphuman.measures.comparison import EDGE_WIDTH, PERCEPTUAL_SIZE
from mmlphuman.measures.lpips import LPIPS, load_lpips
from mmlphuman.processes import Ranks

# What to fetch where a network's weights are missing, and the setting that says where they lie.
FILES = {
    "lpips": "torchvision's vgg16-397923af.pth (or name another place: vgg_path=FILE)",
    "fid": f"{WEIGHTS_NAME} of the pytorch-fid project, which is {OTHER_NAME} in the torch-fidelity project's release "
    "v0.2.0 on GitHub (or name another place: --inception_path FILE)",
}
# How the sha256 of the published files begins: their authors put it into the names.
PUBLISHED_SHA256 = {"lpips": "397923af", "fid": "6726825d"}

DEFINITIONS = {
    "psnr": "dB, mean of the images' PSNR; 8-bit colours, whole image",
    "psnr_inside": f"dB, pixels of the person more than {EDGE_WIDTH} px from the mask's edge",
    "psnr_edge": f"dB, pixels within {EDGE_WIDTH} px of the mask's edge",
    "edge_share": "share of the squared error within that band",
    "ssim": "Gaussian window 11, sigma 1.5, borders mirrored, mean over all pixels (torchmetrics' rule)",
    "crop": f"mask's bounding square, white outside the image, bilinear with antialiasing to {PERCEPTUAL_SIZE}",
    "lpips": "VGG, on the crop",
    "sharpness": "sum of |gradient| / sum of grey over the pixels inside, render's over truth's",
    "fid": "Inception of 2015-12-05, pool3, TensorFlow 1's resizing to 299, on the crop rounded to 8 bits",
}


@dataclass(frozen=True)
class Networks:
    """The metrics that need weights; a network is None if its file is not there."""

    lpips: LPIPS | None
    inception: Inception | None
    weights: dict[str, dict] = field(default_factory=dict)  # what was loaded, by metric
    left_out: dict[str, str] = field(default_factory=dict)  # why, by metric
    notes: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Networks:
        """Moves them (in place, as modules move) and returns itself."""
        for network in (self.lpips, self.inception):
            if network is not None:
                network.to(device)
        return self


def load_networks(vgg_path: Path, inception_path: Path) -> Networks:
    """Loads what is there, onto the CPU. ValueError for a file that is there and does not fit."""
    loaders = {"lpips": (load_lpips, Path(vgg_path)), "fid": (load_inception, Path(inception_path))}
    networks, weights, left_out, notes = {}, {}, {}, []
    for metric, (load, path) in loaders.items():
        if not path.is_file():
            networks[metric] = None
            left_out[metric] = f"its network's weights are not at {path}; put there {FILES[metric]}"
            continue
        networks[metric] = load(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        weights[metric] = {"file": str(path), "sha256": digest}
        if not digest.startswith(PUBLISHED_SHA256[metric]):
            notes.append(
                f"WARNING: {path} is not the published file (its sha256 begins with {digest[:8]}, not "
                f"{PUBLISHED_SHA256[metric]}): {metric.upper()} cannot be compared with others' scores"
            )
    return Networks(networks["lpips"], networks["fid"], weights, left_out, tuple(notes))


def score_pictures(
    pictures: Iterable[ImagePair],
    count: int,
    networks: Networks,
    ranks: Ranks,
    training_cameras: Iterable[int] = (),
    title: str = "scoring",
    quiet: bool = False,
) -> ScoreTable | None:
    """pictures: this rank's share (share_of); count: how many those are, for the progress bar.

    The networks are on the rank's device. Rank 0 gets the table of all ranks' pictures, the others None.
    """
    share = [
        score_by_all(picture, networks, ranks.device)
        for picture in shown(pictures, count, title, ranks, quiet)
    ]
    everybodys = gathered(share, ranks)
    if everybodys is None:
        return None
    features: dict[int | str, list[np.ndarray]] = {}
    for scored in everybodys:
        if scored.features is not None:
            features.setdefault(scored.score.camera, []).append(scored.features)
    return ScoreTable.of([scored.score for scored in everybodys], training_cameras, fid_of_cameras(features))


def score_by_all(picture: ImagePair, networks: Networks, device: torch.device | str) -> Scored:
    """One picture by every metric; its features for FID where a mask shows somebody."""
    score = score_picture(picture, networks.lpips, device)
    if networks.inception is None or (crops := person_pair(picture, device)) is None:
        return Scored(score)
    return Scored(score, networks.inception((crops * 255).round().to(torch.uint8)).cpu().numpy())


def fid_of_cameras(features: dict[int | str, list[np.ndarray]]) -> dict[int | str | None, float]:
    """Pairs (2, 2048) of true and rendered pictures by camera -> FID by camera, and by None over all."""
    sets: dict[int | str | None, np.ndarray] = {camera: np.stack(pairs) for camera, pairs in features.items()}
    if sets:
        sets[None] = np.concatenate(list(sets.values()))
    distances = {camera: frechet_distance(pairs[:, 0], pairs[:, 1]) for camera, pairs in sets.items()}
    return {camera: distance for camera, distance in distances.items() if distance is not None}


def metric_notes(networks: Networks, table: ScoreTable) -> list[str]:
    """What has to be said about a table's columns: what is left out and why, what FID is worth."""
    if table.mean()["psnr_crop"] is None:
        return ["no masks: only the whole images are scored"]
    notes = [f"{metric.upper()} is left out: {reason}" for metric, reason in networks.left_out.items()]
    notes += networks.notes
    if table.fid:
        measured = min(len(table.scores), *(len(scores) for scores in table.per_camera().values()))
        note = bias_note(measured)
        notes += [note] if note else []
    return notes


def write_score_tables(
    path: Path, settings: dict, tables: dict[str, ScoreTable], networks: Networks, notes: Iterable[str]
) -> None:
    """scores.json: what was scored and how, versions and commit, and the tables by part or program."""
    content = {
        **settings,
        "metrics": DEFINITIONS,
        "weights": networks.weights,
        "left_out": networks.left_out,
        "notes": list(notes),
        "versions": versions(),
        "results": {name: table.to_json() for name, table in tables.items()},
    }
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1, allow_nan=False).encode())
