"""A sample in one piece of memory, for its way from the process that reads it to the device.

Data path: Sample -> PackedSample -> another process -> pinned memory -> device -> Sample again, as views.
Each tensor that goes from process to process costs a handshake, and each copy to a device a launch: one is enough.
Shape letters: V views, H, W image height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmlphuman.pose_layout import POSE_DIM
from mmlphuman.types import Box, Cameras, MovableToDevice, Pose, Sample

POSE_NUMBERS = (POSE_DIM, 3, 9)  # joints, translation, rotation
CAMERA_NUMBERS = (16, 9)  # w2c, intrinsics


@dataclass(frozen=True)
class PackedSample(MovableToDevice):
    buffer: Tensor  # uint8: the pose's and cameras' numbers as float32, images, masks, edges
    frame: int
    camera_ids: tuple[int, ...]
    width: int
    height: int
    share: float
    persons: tuple[Box, ...]

    @classmethod
    def of(cls, sample: Sample) -> PackedSample:
        pose, cameras = sample.pose, sample.cameras
        numbers = (pose.joints, pose.translation, pose.rotation, cameras.w2c, cameras.intrinsics)
        floats = np.concatenate([tensor.numpy().ravel() for tensor in numbers])
        assert floats.dtype == np.float32
        parts = [floats, *(tensor.numpy() for tensor in (sample.images, sample.masks, sample.edges))]
        buffer = np.concatenate([part.view(np.uint8).ravel() for part in parts])
        return cls(
            torch.from_numpy(buffer), sample.frame, sample.camera_ids,
            cameras.width, cameras.height, sample.share, sample.persons,
        )  # fmt: skip

    def unpack(self) -> Sample:
        """Its tensors are views of `buffer`, where that is."""
        views, shape = len(self.camera_ids), (len(self.camera_ids), self.height, self.width)
        pixels = views * self.height * self.width
        sizes = [*POSE_NUMBERS, *(views * count for count in CAMERA_NUMBERS)]
        numbers, images, masks, edges = self.buffer.split([4 * sum(sizes), 3 * pixels, pixels, pixels])
        joints, translation, rotation, w2c, intrinsics = numbers.view(torch.float32).split(sizes)
        return Sample(
            frame=self.frame,
            camera_ids=self.camera_ids,
            pose=Pose(joints, translation, rotation.view(3, 3)),
            cameras=Cameras(w2c.view(-1, 4, 4), intrinsics.view(-1, 3, 3), self.width, self.height),
            images=images.view(*shape, 3),
            masks=masks.view(torch.bool).view(shape),
            edges=edges.view(torch.bool).view(shape),
            share=self.share,
            persons=self.persons,
        )
