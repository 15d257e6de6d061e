"""The space of training poses: projection of novel poses into it (paper: novel poses, `--test`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_SIGMA = 1e-6  # radians: a component that training never moved stays unmoved


class PoseSpace(nn.Module):
    """PCA of the training frames' 63 body numbers. Saved in the checkpoint; projecting needs no capture."""

    def __init__(self, mean: Tensor, components: Tensor, sigmas: Tensor):
        """mean (63,), components (M, 63) orthonormal rows, sigmas (M,) standard deviations in radians."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)
        self.register_buffer("sigmas", sigmas)

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
        return cls(mean.float(), rows[:components].float(), sigmas.float())

    def project(self, body_pose: Tensor, limit: float = 2.0) -> Tensor:
        """(63,) -> (63,): each coefficient clamped to +-limit standard deviations, then rebuilt."""
        bound = limit * self.sigmas.clamp_min(MIN_SIGMA)
        coefficients = self.components @ (body_pose - self.mean)
        return self.mean + coefficients.clamp(-bound, bound) @ self.components
