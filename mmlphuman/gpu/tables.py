"""What the GPU kernels read of an avatar besides parameters, laid out for them.

Data path: Avatar -> FusedTables, once; plain twins: the avatar's buffers.

Shape letters: N Gaussians, the first P with property bases, C control points, A anchors, J joints, S joints that move a
Gaussian at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.neighbours import InterpolationTable
from mmlphuman.gpu.interpolation import TransposedInterpolation

BLOCK = 128  # Gaussians or control points a program; of 64 to 512 the fastest on an H200
MAX_JOINTS = 64
NEGLIGIBLE_WEIGHT = 1e-7  # of skinning; together they move a point by less than a micrometre


@dataclass(frozen=True)
class FusedTables:
    """What the kernels read besides parameters, laid out for them; made once, since training does not change it."""

    anchor_index: Tensor  # (3, P) int32
    anchor_weight: Tensor  # (3, P)
    anchor_transpose: TransposedInterpolation
    control_index: Tensor  # (3, N) int32
    control_weight: Tensor  # (3, N)
    control_transpose: TransposedInterpolation
    control_anchor_index: Tensor  # (3, C) int32
    control_anchor_weight: Tensor  # (3, C)
    control_anchor_transpose: TransposedInterpolation
    lbs_joints: Tensor  # (S, N) uint8, the strongest first
    lbs_weights: Tensor  # (S, N)
    lbs_counts: Tensor  # (blocks,) int32: joints that any Gaussian of the block needs
    parents: Tensor  # (J,) int32
    canonical_inverse: Tensor  # (J, 12)
    carried: Tensor  # (J, J) 1 where the row's joint carries the column's, itself included

    @classmethod
    @torch.no_grad()
    def of(cls, avatar: Avatar, negligible: float = NEGLIGIBLE_WEIGHT) -> FusedTables:
        """negligible: skinning weights up to this are left out, and the others sum to one again."""
        anchors, controls = len(avatar.bank.weights[0]), len(avatar.control_offsets)
        to_anchor, to_control, control_anchor = (
            avatar.gaussian_to_anchor, avatar.gaussian_to_control, avatar.control_to_anchor
        )  # fmt: skip
        weights, joints = avatar.lbs_weights.sort(1, descending=True)
        needed = (weights > negligible).sum(1).int()
        weights = weights * (weights > negligible)
        weights = weights / weights.sum(1, keepdim=True)
        most = int(needed.max())
        blocks = torch.nn.functional.pad(needed, (0, -len(needed) % BLOCK)).view(-1, BLOCK)
        assert len(avatar.joints) <= MAX_JOINTS
        return cls(
            *_columns(to_anchor), TransposedInterpolation.of(to_anchor.index, to_anchor.weight, anchors),
            *_columns(to_control), TransposedInterpolation.of(to_control.index, to_control.weight, controls),
            *_columns(control_anchor), TransposedInterpolation.of(control_anchor.index, control_anchor.weight, anchors),
            lbs_joints=joints[:, :most].t().to(torch.uint8).contiguous(),
            lbs_weights=weights[:, :most].t().contiguous(),
            lbs_counts=blocks.amax(1).contiguous(),
            parents=avatar.parents.int(),
            canonical_inverse=avatar.canonical_inverse[:, :3].reshape(-1, 12).contiguous(),
            carried=_carried(avatar.bone_parents).to(avatar.xyz),
        )  # fmt: skip


def _carried(parents: Sequence[int]) -> Tensor:
    carried = torch.eye(len(parents))
    for joint, parent in enumerate(parents):  # parents come first
        if parent >= 0:
            carried[:, joint] += carried[:, parent]
    return carried


def _columns(table: InterpolationTable) -> tuple[Tensor, Tensor]:
    return table.index.t().int().contiguous(), table.weight.t().contiguous()


def coalesced(bases: Tensor) -> Tensor:
    """(P, K, D) -> the same, lying in memory as (K, D, P): a kernel's neighbouring lanes read neighbouring numbers."""
    return bases.permute(1, 2, 0).contiguous().permute(2, 0, 1)
