"""View-dependent colour of posed Gaussians: degree-1 spherical harmonics in canonical space (paper sec. 3).

Data path: PosedGaussians + Cameras -> colours (V, N, 3), which the rasteriser blends.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlphuman.types import Cameras, PosedGaussians

SH_DEGREE_0 = 0.28209479177387814  # 1 / (2 sqrt(pi))
SH_DEGREE_1 = 0.4886025119029199  # sqrt(3 / (4 pi))


def view_colors(gaussians: PosedGaussians, cameras: Cameras) -> Tensor:
    """(V, N, 3) colours, non-negative.

    The direction to the camera is turned back into canonical space by the transpose of the posing's 3x3 part,
    so that a highlight learnt on an arm follows the arm.
    """
    to_camera = cameras.centers[:, None] - gaussians.xyz[None]  # (V, N, 3)
    canonical = (to_camera[..., None, :] @ gaussians.linear)[
        ..., 0, :
    ]  # row vector times M = M^T times column
    x, y, z = torch.nn.functional.normalize(canonical, dim=-1).unsqueeze(-2).unbind(-1)  # (V, N, 1) each
    sh = gaussians.sh
    color = SH_DEGREE_0 * sh[:, 0] + SH_DEGREE_1 * (-y * sh[:, 1] + z * sh[:, 2] - x * sh[:, 3])
    return (color + 0.5).clamp_min(0)


def kernel_colors(gaussians: PosedGaussians, cameras: Cameras) -> Tensor:
    """`view_colors` by a GPU kernel."""
    return _Colors.apply(gaussians.xyz, gaussians.linear, gaussians.sh, cameras.w2c)


class _Colors(torch.autograd.Function):
    @staticmethod
    def forward(ctx, xyz: Tensor, linear: Tensor, sh: Tensor, w2c: Tensor) -> Tensor:
        from mmlphuman.render.color_kernels import BLOCK, colors_forward

        xyz, linear, sh, w2c = xyz.contiguous(), linear.contiguous(), sh.contiguous(), w2c.contiguous()
        colors = torch.empty(len(w2c), len(xyz), 3, device=xyz.device)
        colors_forward[(-(-len(xyz) // BLOCK), len(w2c))](xyz, linear, sh, w2c, colors, len(xyz), BLOCK=BLOCK)
        ctx.save_for_backward(xyz, linear, sh, w2c, colors)
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        from mmlphuman.render.color_kernels import BLOCK, colors_backward

        xyz, linear, sh, w2c, colors = ctx.saved_tensors
        d_xyz, d_sh = torch.empty_like(xyz), torch.empty_like(sh)
        colors_backward[(-(-len(xyz) // BLOCK),)](
            xyz, linear, sh, w2c, colors, grad.contiguous(), d_xyz, d_sh, len(xyz), len(w2c), BLOCK=BLOCK
        )  # fmt: skip
        return d_xyz, None, d_sh, None
