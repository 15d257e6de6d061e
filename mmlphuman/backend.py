"""What differs between machines, decided once: who poses, who draws, who steps.

Data path: settings, device, whether Triton is installed -> `choose_backend` -> a Backend, which training and everybody
who draws asks. Backend itself is plain: PyTorch for all but the rasteriser, which may be gsplat. GpuBackend (gpu/)
answers the same questions with GPU kernels; nobody but `choose_backend` knows of it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmlphuman.render.shading import to_bytes, view_colors
from mmlphuman.types import Cameras, Pose, PosedGaussians

if TYPE_CHECKING:
    from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarOutput
    from mmlphuman.render.gsplat_rasterizer import FindPairs

    PoseAvatar = Callable[..., AvatarOutput]  # called like the avatar
    PoseFrame = Callable[[Pose, bool], PosedGaussians]  # (pose, project), as TrainedAvatar.pose
    # (Gaussians, one camera, background (3,)) -> (H, W, 3) uint8
    DrawFrame = Callable[[PosedGaussians, Cameras, Tensor], Tensor]
    Distance = Callable[[Tensor, Tensor], Tensor]  # of pictures (V, H, W, 3): render, target -> ()

RASTERIZERS = ("gsplat", "torch")

log = logging.getLogger(__name__)


class Backend:
    """The plain answers. None says that there is no faster way than the one that the caller has."""

    kernels = False  # whether GPU kernels pose and step

    def __init__(self, rasterizer: str):
        """rasterizer: of RASTERIZERS."""
        self.rasterizer = rasterizer

    # Training.

    def training_avatar(self, avatar: Avatar) -> PoseAvatar:
        """Who poses the avatar, with gradients."""
        return avatar

    def pair_finder(self) -> FindPairs | None:
        """Who finds which Gaussian touches which tile, in a series of similar pictures; None: the rasteriser."""
        return None

    def perceptual_loss(self, lpips: Distance) -> Distance:
        """Who computes LPIPS; lpips: on its device."""
        return lpips

    def stepper(self, pose_avatar: PoseAvatar) -> Callable | None:
        """What makes a training.optimisers.Stepper for what `training_avatar` gave; None: torch.optim steps."""
        return None

    # Drawing a finished avatar.

    def frame_poser(
        self, avatar: Avatar, active: ActiveParts, features: Callable[[Pose, bool], Tensor]
    ) -> PoseFrame | None:
        """Who poses it; features: of TrainedAvatar. None: the avatar."""
        return None

    def frame_drawer(self) -> DrawFrame | None:
        """Who draws what `frame_poser` gave. None: `rasterize` and `to_bytes`."""
        return None

    # Both.

    def view_colors(self, gaussians: PosedGaussians, cameras: Cameras) -> Tensor:
        return view_colors(gaussians, cameras)

    def to_bytes(self, image: Tensor) -> Tensor:
        return to_bytes(image)


PYTORCH = Backend("torch")  # runs anywhere


def choose_backend(rasterizer: str, kernels: str, device: torch.device | str) -> Backend:
    """The only place that looks at the settings `rasterizer` and `kernels`, the device and whether Triton is there.

    rasterizer: `auto` is gsplat on a GPU and torch elsewhere; anything else is taken by name.
    kernels: `auto`, or `plain` for PyTorch alone. Says so where `auto` finds a GPU but no Triton.
    Raises ValueError for unknown rasterisers and for gsplat without a GPU.
    """
    on_gpu = torch.device(device).type == "cuda"
    if rasterizer == "auto":
        rasterizer = "gsplat" if on_gpu else "torch"
    if rasterizer not in RASTERIZERS:
        raise ValueError(f"rasterizer: '{rasterizer}' is none of auto, {', '.join(RASTERIZERS)}")
    if rasterizer == "gsplat" and not on_gpu:
        raise ValueError("rasterizer: gsplat needs an NVIDIA GPU; use rasterizer: torch (or auto) on a CPU")
    if kernels == "plain" or not on_gpu:
        return Backend(rasterizer)
    if importlib.util.find_spec("triton") is None:  # PyTorch's CUDA builds for Linux bring it along
        log.warning("Triton is not installed: the avatar is posed by plain PyTorch, several times slower")
        return Backend(rasterizer)
    from mmlphuman.gpu.backend import GpuBackend

    return GpuBackend(rasterizer)
