"""The space of training poses: how novel poses are brought into it, and how far a pose lies outside.

Shape letters: F training frames, M components, 21 body joints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmlphuman.body.kinematics import rotation_matrices
from mmlphuman.pose_layout import BODY_DIM, BODY_POSE, EXPRESSION_DIM, POSE_DIM

MIN_SIGMA = 1e-6  # radians: a component that training never moved stays unmoved


class PoseSpace(nn.Module):
    """The training poses, and PCA of their 63 body numbers. In the checkpoint: no capture is needed."""

    mean: Tensor
    components: Tensor
    sigmas: Tensor
    training_poses: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, mean: Tensor, components: Tensor, sigmas: Tensor, training_poses: Tensor):
        """mean (63,), components (M, 63) orthonormal rows, sigmas (M,) standard deviations in radians,
        training_poses (F, 175), joints and expression; of former versions (F, 165), without expression, or
        (F, 63), the body's alone."""
        super().__init__()
        if training_poses.shape[1] == BODY_DIM:
            behind = POSE_DIM - BODY_POSE.stop
            training_poses = nn.functional.pad(training_poses, (BODY_POSE.start, behind))
        if training_poses.shape[1] == POSE_DIM:
            training_poses = nn.functional.pad(training_poses, (0, EXPRESSION_DIM))
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)
        self.register_buffer("sigmas", sigmas)
        self.register_buffer("training_poses", training_poses)
        self.register_buffer("lowest", training_poses.amin(0), persistent=False)
        self.register_buffer("highest", training_poses.amax(0), persistent=False)

    @classmethod
    def fit(cls, poses: Tensor, components: int) -> PoseSpace:
        """poses: (F, 175) of the training frames, or (F, 165); needs more frames than components."""
        frames = len(poses)
        if frames <= components:
            raise ValueError(
                f"pca_components: {components} needs more than {components} training frames, but there are "
                f"{frames}; lower pca_components or train on more frames (num_train_frame)"
            )
        body_poses = poses[:, BODY_POSE].double()
        mean = body_poses.mean(0)
        _, singular, rows = torch.linalg.svd(body_poses - mean, full_matrices=False)
        sigmas = singular[:components] / (frames - 1) ** 0.5
        return cls(mean.float(), rows[:components].float(), sigmas.float(), poses.float())

    def clamp(self, features: Tensor) -> Tensor:
        """(175,) -> (175,): each number clamped to its range in training, which new combinations do not leave."""
        return features.clamp(self.lowest, self.highest)

    def project(self, features: Tensor, limit: float = 2.0) -> Tensor:
        """(175,) -> (175,): each coefficient of the body's 63 numbers clamped to +-limit standard deviations, then
        rebuilt (paper: novel poses); the others are left as they are."""
        bound = limit * self.sigmas.clamp_min(MIN_SIGMA)
        coefficients = self.components @ (features[BODY_POSE] - self.mean)
        body = self.mean + coefficients.clamp(-bound, bound) @ self.components
        return torch.cat([features[: BODY_POSE.start], body, features[BODY_POSE.stop :]])

    def joint_angles(self, body_pose: Tensor) -> Tensor:
        """(F, 21) degrees between each body joint's rotation in `body_pose` (63,) and in each training pose."""
        return angles_between(body_pose, self.training_poses[:, BODY_POSE])

    def distance(self, body_pose: Tensor) -> Tensor:
        """() degrees: how far a pose (63,) is from the nearest training pose, root mean square over the joints."""
        return self.joint_angles(body_pose).square().mean(1).sqrt().min()


def angles_between(one: Tensor, other: Tensor) -> Tensor:
    """(..., 3 J) axis-angle numbers, twice -> (..., J) degrees between the rotations of each joint."""
    here, there = (rotation_matrices(each.unflatten(-1, (-1, 3))) for each in (one, other))
    # |R - Q|^2 = 8 sin^2(angle / 2): exact near zero, where the trace's arc cosine has lost its digits.
    chord = (there - here).square().sum((-1, -2))
    return torch.rad2deg(2 * (chord / 8).sqrt().clamp(max=1).asin())
