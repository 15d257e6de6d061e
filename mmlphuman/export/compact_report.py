"""What a compact model saves and what it costs, in numbers for a person.

Data path: full and compact TrainedAvatar -> sizes of their parts, differences over the training poses -> text.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import choose_backend
from mmlphuman.export.packing import Packed
from mmlphuman.export.pruning import Probe, probes
from mmlphuman.render.rasterize import rasterize
from mmlphuman.text import aligned
from mmlphuman.types import PosedGaussians, Render

COMPARED = 16  # pictures
MEGABYTE = 1e6
# Part of an avatar -> its tensors, by their names up to the first dot.
PARTS = {
    "MLPs": ("bank", "mlp_inputs"),
    "bases of Gaussians": ("property_bases", "sh1_bases", "gaussian_to_anchor"),
    "Gaussians": (
        "xyz", "xyz_offsets", "sh0", "sh1", "log_scales", "quats", "opacity_logits", "gaussian_to_control",
        "normals", "shift",
    ),
    "skinning weights": ("lbs_weights",),
    "control points": ("control_offsets", "position_bases", "control_to_anchor", "control_neighbours"),
    "skeleton, training poses, light": (
        "light", "joints", "parents", "canonical_inverse", "pose_space", "frames",
    ),
    "template mesh": ("template",),
}  # fmt: skip


def full_tensors(trained: TrainedAvatar) -> dict[str, Tensor]:
    """What a checkpoint holds of an avatar for rendering."""
    poses = {f"pose_space.{name}": value for name, value in trained.pose_space.state_dict().items()}
    return {**trained.avatar.state_dict(), **poses}


def part_sizes(tensors: Mapping[str, Tensor | Packed]) -> dict[str, int]:
    """Bytes of each of PARTS. Every tensor belongs to one."""
    part_of = {name: part for part, names in PARTS.items() for name in names}
    sizes = dict.fromkeys(PARTS, 0)
    for name, tensor in tensors.items():
        sizes[part_of[name.split(".")[0]]] += tensor.nbytes
    return sizes


def size_table(before: dict[str, int], after: dict[str, int]) -> str:
    sizes = [(part, before[part], after[part]) for part in PARTS]
    sizes.append(("together", sum(before.values()), sum(after.values())))
    rows = [["megabytes", "full", "compact", ""]]
    rows += [
        [part, f"{old / MEGABYTE:.2f}", f"{new / MEGABYTE:.2f}", f"{new / old:.1%}" if old else ""]
        for part, old, new in sizes
    ]
    return "\n".join(aligned(rows))


@dataclass(frozen=True)
class Reconstruction:
    """The compact avatar against the full one in training poses, each seen from another side."""

    psnr: float  # dB over the person's pixels of all pictures
    worst_psnr: float  # dB of the worst picture
    position_rms: float  # metres, over Gaussians and poses
    position_max: float
    full_ms: float  # median time to pose and draw one picture
    compact_ms: float

    def text(self) -> str:
        return (
            f"against the full avatar in training poses: {self.psnr:.1f} dB on the person (worst picture "
            f"{self.worst_psnr:.1f} dB), centres {1000 * self.position_rms:.3f} mm off (at most "
            f"{1000 * self.position_max:.2f} mm)\n"
            f"a picture of the person here: full {self.full_ms:.1f} ms, compact {self.compact_ms:.1f} ms"
        )


@torch.no_grad()
def compare(
    full: TrainedAvatar, compact: TrainedAvatar, order: Tensor, count: int = COMPARED
) -> Reconstruction:
    """order: (N,) the full avatar's index of every Gaussian of the compact one. Both on one device."""
    errors, distances, times = [], [], {"full": [], "compact": []}
    for trained in (full, compact):
        _draw(trained, next(probes(full, 1)))  # the first is slower
    for probe in probes(full, count):
        drawn = {}
        for name, trained in (("full", full), ("compact", compact)):
            begin = time.perf_counter()
            drawn[name] = _draw(trained, probe)
            times[name].append(1000 * (time.perf_counter() - begin))
        (posed, truth), (compact_posed, image) = drawn["full"], drawn["compact"]
        squared = (image.colors.clamp(0, 1) - truth.colors.clamp(0, 1)).square().sum()
        errors.append(float(squared) / max(3 * float(truth.alphas.sum()), 1.0))
        distances.append((compact_posed.xyz - posed.xyz[order]).square().sum(-1))
    squared = torch.stack(distances)
    return Reconstruction(
        psnr=_decibels(float(np.mean(errors))),
        worst_psnr=_decibels(max(errors)),
        position_rms=float(squared.mean().sqrt()),
        position_max=float(squared.max().sqrt()),
        full_ms=float(np.median(times["full"])),
        compact_ms=float(np.median(times["compact"])),
    )


def _draw(trained: TrainedAvatar, probe: Probe) -> tuple[PosedGaussians, Render]:
    """Poses and draws one picture, to the end of the work on the device."""
    device = trained.device
    posed = trained.avatar(probe.pose, trained.active).posed
    backend = choose_backend(trained.config.rasterizer, trained.config.kernels, trained.device)
    render = rasterize(posed, probe.cameras, torch.ones(3, device=device), backend)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return posed, render


def _decibels(error: float) -> float:
    return -10 * math.log10(error) if error > 0 else math.inf
