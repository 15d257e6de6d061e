"""The rasteriser's CUDA backend: a thin call of gsplat, imported on use so that machines without it run."""

from __future__ import annotations

from torch import Tensor

from mmlphuman.render.projection import BLUR, NEAR_PLANE
from mmlphuman.types import Cameras


def rasterize_gsplat(
    xyz: Tensor, covariances: Tensor, opacities: Tensor, colors: Tensor, cameras: Cameras
) -> tuple[Tensor, Tensor]:
    """Same contract as `rasterize_torch`."""
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise ValueError(
            "the gsplat rasteriser is not installed; `pip install gsplat==1.5.3`, or set rasterizer: torch"
        ) from error
    image, alphas, _ = rasterization(
        means=xyz,
        quats=None,
        scales=None,
        covars=covariances,
        opacities=opacities,
        colors=colors,
        viewmats=cameras.w2c,
        Ks=cameras.intrinsics,
        width=cameras.width,
        height=cameras.height,
        near_plane=NEAR_PLANE,
        eps2d=BLUR,
        packed=False,
    )
    return image, alphas[..., 0]
