"""How well a weight volume continues the body's skinning weights: the numbers that judge it.

Data path: WeightVolume, Body -> VolumeErrors -> printed by script/gen_weight_volume.py, bounded by tests.
Shape letters: B body vertices, P points.

A difference of weights is the L1 norm: absolute differences summed over the joints, at most 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.body.canonical_surface import nearest_surface_weights, vertex_normals, weight_gradients
from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_volume import WeightVolume
from mmlphuman.pose_layout import HAND_JOINTS
from mmlphuman.text import aligned

OFFSET = 0.02  # metres off the surface


@dataclass(frozen=True)
class VolumeErrors:
    """For every vertex; differences are L1 over the joints, gradients Frobenius norms over axes and joints."""

    at_surface: Tensor  # (B,) difference from the vertex's own weights
    outside: Tensor  # (B,) OFFSET along the normal: difference from the weights of the nearest surface point
    inside: Tensor  # (B,) the same against the normal
    gradient: Tensor  # (B,) per metre, central differences over one voxel
    own_gradient: Tensor  # (B,) of the body's own weights, along the surface
    is_hand: Tensor  # (B,) bool: hands, whose fingers are about a voxel wide at 128 nodes

    def table(self) -> str:
        columns = {
            "all": torch.ones_like(self.is_hand),
            "hands": self.is_hand,
            "all but hands": ~self.is_hand,
        }

        def tail(values: Tensor) -> Tensor:
            return values.quantile(0.95) if len(values) else values.new_tensor(torch.nan)

        measures = (
            ("difference at the vertices, mean", self.at_surface, Tensor.mean),
            ("difference at the vertices, 95th percentile", self.at_surface, tail),
            ("difference 2 cm outside, mean", self.outside, Tensor.mean),
            ("difference 2 cm inside, mean", self.inside, Tensor.mean),
            ("gradient at the vertices, mean, per metre", self.gradient, Tensor.mean),
            ("  of the body's own weights", self.own_gradient, Tensor.mean),
        )
        rows = [["vertices", *columns]]
        for label, values, measure in measures:
            rows.append([label, *(f"{measure(values[chosen]):.4f}" for chosen in columns.values())])
        return "\n".join(aligned(rows))


def measure_weight_volume(volume: WeightVolume, body: Body) -> VolumeErrors:
    """Compare trilinear reading of the volume with the body's own weights, at every vertex and beside it."""
    vertices, normals = body.canonical_vertices, vertex_normals(body)
    beside = []
    for offset in (OFFSET, -OFFSET):
        points = vertices + offset * normals
        beside.append((volume.query(points) - nearest_surface_weights(body, points)).abs().sum(1))
    return VolumeErrors(
        at_surface=(volume.query(vertices) - body.lbs_weights).abs().sum(1),
        outside=beside[0],
        inside=beside[1],
        gradient=gradient_norm(volume, vertices),
        own_gradient=weight_gradients(body).flatten(1).norm(dim=1),
        is_hand=body.lbs_weights[:, HAND_JOINTS].sum(1) > 0.5,
    )


def gradient_norm(volume: WeightVolume, points: Tensor) -> Tensor:
    """(P,) Frobenius norm over axes and joints of the weights' gradient, per metre."""
    voxel = (volume.bbox_max - volume.bbox_min) / (torch.tensor(volume.grid.shape[:3]) - 1)
    squared = torch.zeros(len(points))
    for axis in range(3):
        half = torch.zeros(3)
        half[axis] = voxel[axis] / 2
        squared += ((volume.query(points + half) - volume.query(points - half)) / voxel[axis]).square().sum(1)
    return squared.sqrt()
