"""What the stages of the program hand to each other.

Data path: capture -> Sample -> (pose) Avatar -> PosedGaussians -> (cameras) rasterize -> Render -> losses.

Shape letters used throughout the package:
    N Gaussians   C control points   A anchors (MLPs)   J joints (55)   B body vertices
    V views of one pose   H, W image height and width   K bases (15 of properties, 15 of positions)

Conventions, stated once:
    lengths are metres, angles radians, colours RGB in [0, 1] (uint8 in a Sample);
    quaternions are (w, x, y, z);
    cameras look along +z with x right and y down; `w2c` maps world to camera, `intrinsics` is in pixels,
    and pixel (row i, column j) has its centre at (j + 0.5, i + 0.5);
    a pose is 165 axis-angle numbers in SMPL-X order: global_orient 3 | body 63 | jaw 3 | eyes 6 |
    left hand 45 | right hand 45; and 10 numbers of the face's expression, which turn no joint.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from mmlphuman.pose_layout import BODY_POSE, EXPRESSION_DIM

# Spherical harmonics of colours, about 0.5.
SH_DEGREE_0 = 0.28209479177387814  # 1 / (2 sqrt(pi))
SH_DEGREE_1 = 0.4886025119029199  # sqrt(3 / (4 pi))


@dataclass(frozen=True)
class MovableToDevice:
    """`.to(device)` for a dataclass: moves every tensor (and nested dataclass), leaves the rest alone."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        moved = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor | MovableToDevice):
                moved[field.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)

    def pin_memory(self) -> Self:
        """A copy in memory that a GPU reads without waiting; called by PyTorch's DataLoader by this name."""
        pinned = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor | MovableToDevice):
                pinned[field.name] = value.pin_memory()
        return replace(self, **pinned)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tells the allocator that `stream` uses this too: its memory is not given away before it is done."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor | MovableToDevice):
                value.record_stream(stream)


@dataclass(frozen=True)
class Cameras(MovableToDevice):
    """V pinhole cameras of one image size."""

    w2c: Tensor  # (V, 4, 4) world to camera
    intrinsics: Tensor  # (V, 3, 3) pixels
    width: int
    height: int

    def __post_init__(self):
        views = self.w2c.shape[0]
        if self.w2c.shape != (views, 4, 4) or self.intrinsics.shape != (views, 3, 3):
            raise ValueError(
                f"Cameras need w2c (V, 4, 4) and intrinsics (V, 3, 3), got {tuple(self.w2c.shape)} "
                f"and {tuple(self.intrinsics.shape)}"
            )

    def __len__(self) -> int:
        return self.w2c.shape[0]

    @property
    def centers(self) -> Tensor:
        """(V, 3) camera centres in the world."""
        rotation, translation = self.w2c[:, :3, :3], self.w2c[:, :3, 3]
        return -(rotation.transpose(1, 2) @ translation[:, :, None])[:, :, 0]

    def __getitem__(self, views: slice) -> Cameras:
        return replace(self, w2c=self.w2c[views], intrinsics=self.intrinsics[views])


@dataclass(frozen=True)
class Pose(MovableToDevice):
    """One body pose in the world: x_world = Rh (skinning(x)) + Th."""

    joints: Tensor  # (165,) axis-angle, SMPL-X order
    translation: Tensor  # (3,) Th
    rotation: Tensor  # (3, 3) Rh, identity in the three captures
    expression: Tensor = dataclasses.field(
        default_factory=lambda: torch.zeros(EXPRESSION_DIM)
    )  # (10,) of the face

    @property
    def body(self) -> Tensor:
        """(63,) the numbers that the published method's MLPs see."""
        return self.joints[BODY_POSE]

    @property
    def features(self) -> Tensor:
        """(175,) joints and expression: what MLPs can see."""
        return torch.cat([self.joints, self.expression])


@dataclass(frozen=True)
class Box:
    """Whole pixels: rows top to bottom and columns left to right, the last ones not included."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class Sample(MovableToDevice):
    """One pose and V views of it, as read from a capture. Images stay uint8 until they are on the device."""

    frame: int
    camera_ids: tuple[int, ...]
    pose: Pose
    cameras: Cameras
    images: Tensor  # (V, H, W, 3) uint8
    masks: Tensor  # (V, H, W) bool, True on the person
    edges: Tensor  # (V, H, W) bool, True in the band around the mask's edge that is not to be trusted
    share: float = 1.0  # part of the whole images that these are windows of; the rest is background
    persons: tuple[Box, ...] = ()  # one a view: about the mask; found where it is read, once it is prepared

    def name(self) -> str:
        """For messages: which sample this is."""
        return f"frame {self.frame}, camera{'s' * (len(self.camera_ids) > 1)} " + ", ".join(
            map(str, self.camera_ids)
        )


@dataclass(frozen=True)
class CanonicalGaussians(MovableToDevice):
    """Gaussians in the canonical pose after the pose-dependent offsets, activations applied."""

    xyz: Tensor  # (N, 3)
    scales: Tensor  # (N, 3) metres
    quats: Tensor  # (N, 4) unit
    opacities: Tensor  # (N,) in (0, 1)
    sh: Tensor  # (N, 4, 3) degree 0 and 1; degree-1 part is zero until it is switched on


@dataclass(frozen=True)
class PosedGaussians(MovableToDevice):
    """Gaussians in the world. Colours depend on the camera: see render.shading."""

    xyz: Tensor  # (N, 3)
    covariances: Tensor  # (N, 6) upper triangles: xx, xy, xz, yy, yz, zz
    opacities: Tensor  # (N,)
    sh: Tensor  # (N, 4, 3)
    linear: Tensor  # (N, 3, 3) Rh T_n, the 3x3 part of the posing; turns view directions back
    unlit: Tensor | None = None  # (N, 4, 3) what `sh` was before the scene's light; None where there is none

    def __len__(self) -> int:
        return self.xyz.shape[0]

    def without_light(self) -> PosedGaussians:
        """As the avatar is without the scene's light; itself where there is none."""
        return self if self.unlit is None else replace(self, sh=self.unlit)


def upper_triangles(matrices: Tensor) -> Tensor:
    """(N, 3, 3) symmetric matrices -> (N, 6)."""
    return torch.stack([matrices[:, i, j] for i in range(3) for j in range(i, 3)], 1)


def symmetric_matrices(upper: Tensor) -> Tensor:
    """(N, 6) upper triangles -> (N, 3, 3)."""
    xx, xy, xz, yy, yz, zz = upper.unbind(1)
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).unflatten(1, (3, 3))


@dataclass(frozen=True)
class Render:
    """What the rasteriser draws for V cameras."""

    colors: Tensor  # (V, H, W, 3) composited on the background
    alphas: Tensor  # (V, H, W)
