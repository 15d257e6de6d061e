"""The space of training poses: projection of novel poses into it (paper: novel poses, `--test`), and how far a
pose lies outside.

Shape letters: F training frames, M components, 21 body joints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmlphuman.body.kinematics import rotation_matrices

MIN_SIGMA = 1e-6  # radians: a component that training never moved stays unmoved


class PoseSpace(nn.Module):
    """PCA of the training frames' 63 body numbers, and these numbers. In the checkpoint: no capture is needed."""

    mean: Tensor
    components: Tensor
    sigmas: Tensor
    training_poses: Tensor

    def __init__(self, mean: Tensor, components: Tensor, sigmas: Tensor, training_poses: Tensor):
        """mean (63,), components (M, 63) orthonormal rows, sigmas (M,) standard deviations in radians,
        training_poses (F, 63)."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)
        self.register_buffer("sigmas", sigmas)
        self.register_buffer("training_poses", training_poses)

    @classmethod
    def fit(cls, body_poses: Tensor, components: int) -> PoseSpace:
        """body_poses: (F, 63) of the training frames; needs more frames than components."""
        frames = len(body_poses)
        if frames <= components:
            raise ValueError(
                f"pca_components: {components} needs more than {components} training frames, but there are "
                f"{frames}; lower pca_components or train on more frames (num_train_frame)"
            )
        mean = body_poses.double().mean(0)
        _, singular, rows = torch.linalg.svd(body_poses.double() - mean, full_matrices=False)
        sigmas = singular[:components] / (frames - 1) ** 0.5
        return cls(mean.float(), rows[:components].float(), sigmas.float(), body_poses.float())

    def project(self, body_pose: Tensor, limit: float = 2.0) -> Tensor:
        """(63,) -> (63,): each coefficient clamped to +-limit standard deviations, then rebuilt."""
        bound = limit * self.sigmas.clamp_min(MIN_SIGMA)
        coefficients = self.components @ (body_pose - self.mean)
        return self.mean + coefficients.clamp(-bound, bound) @ self.components

    def joint_angles(self, body_pose: Tensor) -> Tensor:
        """(F, 21) degrees between each body joint's rotation in `body_pose` (63,) and in each training pose."""
        here = rotation_matrices(body_pose.reshape(-1, 3))  # (21, 3, 3)
        training = rotation_matrices(self.training_poses.reshape(-1, 3)).view(-1, len(here), 3, 3)
        # |R - Q|^2 = 8 sin^2(angle / 2): exact near zero, where the trace's arc cosine has lost its digits.
        chord = (training - here).square().sum((-1, -2))
        return torch.rad2deg(2 * (chord / 8).sqrt().clamp(max=1).asin())

    def distance(self, body_pose: Tensor) -> Tensor:
        """() degrees: how far a pose (63,) is from the nearest training pose, root mean square over the joints."""
        return self.joint_angles(body_pose).square().mean(1).sqrt().min()

    def joint_distances(self, body_pose: Tensor) -> Tensor:
        """(21,) degrees: each joint's rotation from the nearest that it had in training, joint by joint."""
        return self.joint_angles(body_pose).min(0).values
