"""What the GPU kernels read besides parameters, laid out for them.

Interpolations are turned round for the backward pass (`Takers`): every anchor and control point sums what its takers
pass back, in a fixed order, so that gradients do not depend on the order of atomic additions.

Shape letters: N Gaussians, the first P with property bases, C control points, A anchors, J joints, S joints that move a
Gaussian at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mmlphuman.avatar.avatar import Avatar
from mmlphuman.avatar.kernels.blending import gather_back
from mmlphuman.avatar.neighbours import InterpolationTable

BLOCK = 128  # Gaussians or control points a program; of 64 to 512 the fastest on an H200
WARPS = 4
MAX_JOINTS = 64
NEGLIGIBLE_WEIGHT = 1e-7  # of skinning; together they move a point by less than a micrometre


@dataclass(frozen=True)
class Takers:
    """The transpose of an interpolation: who takes from each point, and with what weight."""

    starts: Tensor  # (points + 1,) int32
    takers: Tensor  # (entries,) int32
    weights: Tensor  # (entries,)

    @classmethod
    def of(cls, index: Tensor, weight: Tensor, points: int) -> Takers:
        flat = index.flatten()
        order = flat.argsort(stable=True)
        starts = flat.new_zeros(points + 1, dtype=torch.int32)
        starts[1:] = torch.bincount(flat, minlength=points).cumsum(0)
        return cls(starts, (order // index.shape[1]).int(), weight.flatten()[order].contiguous())

    def sum_back(
        self, values: Tensor, taker_stride: int, channel_stride: int, out: Tensor, first: int, channels: int
    ):
        """Adds up per-taker values into columns `first`... of `out` (points, width)."""
        gather_back[(len(out),)](
            self.starts, self.takers, self.weights, values, taker_stride, channel_stride, out, out.shape[1], first,
            D=channels, BLOCK_D=triton.next_power_of_2(channels), BLOCK=128 if channels > 4 else 64, num_warps=WARPS,
        )  # fmt: skip


@dataclass(frozen=True)
class FusedTables:
    """What the kernels read besides parameters, laid out for them; made once, since training does not change it."""

    anchor_index: Tensor  # (3, P) int32
    anchor_weight: Tensor  # (3, P)
    anchor_takers: Takers
    control_index: Tensor  # (3, N) int32
    control_weight: Tensor  # (3, N)
    control_takers: Takers
    control_anchor_index: Tensor  # (3, C) int32
    control_anchor_weight: Tensor  # (3, C)
    control_anchor_takers: Takers
    lbs_joints: Tensor  # (S, N) uint8, the strongest first
    lbs_weights: Tensor  # (S, N)
    lbs_counts: Tensor  # (blocks,) int32: joints that any Gaussian of the block needs
    parents: Tensor  # (J,) int32
    canonical_inverse: Tensor  # (J, 12)

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
            *_columns(to_anchor), Takers.of(to_anchor.index, to_anchor.weight, anchors),
            *_columns(to_control), Takers.of(to_control.index, to_control.weight, controls),
            *_columns(control_anchor), Takers.of(control_anchor.index, control_anchor.weight, anchors),
            lbs_joints=joints[:, :most].t().to(torch.uint8).contiguous(),
            lbs_weights=weights[:, :most].t().contiguous(),
            lbs_counts=blocks.amax(1).contiguous(),
            parents=avatar.parents.int(),
            canonical_inverse=avatar.canonical_inverse[:, :3].reshape(-1, 12).contiguous(),
        )  # fmt: skip


def _columns(table: InterpolationTable) -> tuple[Tensor, Tensor]:
    return table.index.t().int().contiguous(), table.weight.t().contiguous()


def lanes_together(bases: Tensor) -> Tensor:
    """(P, K, D) -> the same, lying in memory as (K, D, P): a kernel's neighbouring lanes read neighbouring numbers."""
    return bases.permute(1, 2, 0).contiguous().permute(2, 0, 1)
