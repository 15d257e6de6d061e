"""Backend: who poses, who draws, who steps. Plain: PyTorch for all but the rasteriser, which may be gsplat.

Data path: backend.choose_backend -> a Backend -> training and everybody who draws. gpu.backend.GpuBackend, its twin,
answers the same questions with GPU kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from mmlphuman.measures.comparison import painted_pair
from mmlphuman.render.shading import to_bytes, view_colors
from mmlphuman.types import Cameras, Pose, PosedGaussians, Render, Sample

if TYPE_CHECKING:
    from mmlphuman.avatar.avatar import ActiveParts, Avatar, AvatarOutput
    from mmlphuman.render.gsplat_rasterizer import FindPairs

    PoseAvatar = Callable[..., AvatarOutput]  # called like the avatar
    PoseFrame = Callable[[Pose, bool], PosedGaussians]  # (pose, project), as TrainedAvatar.pose
    # (Gaussians, one camera, background (3,)) -> (H, W, 3) uint8
    DrawFrame = Callable[[PosedGaussians, Cameras, Tensor], Tensor]
    PaintedPair = Callable[[Render, Sample, Tensor], tuple[Tensor, Tensor, Tensor]]
    Distance = Callable[[Tensor, Tensor], Tensor]  # of pictures (V, H, W, 3): render, target -> ()


class Backend:
    """The plain answers. None says that there is no faster way than the one that the caller has."""

    kernels = False  # whether GPU kernels pose and step

    def __init__(self, rasterizer: str):
        """rasterizer: gsplat or torch."""
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

    def painted_pair(self) -> PaintedPair:
        """Who paints what is compared."""
        return painted_pair

    def step_recorder(self) -> Callable | None:
        """Who makes of a training.pose_step.PoseStep and a stepper one that costs the host less: called like the
        first, it gives the pose's gradients to the second, and returns the loss terms. None: nobody."""
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
