"""The scene's light: a few numbers, the same for all Gaussians and learnt with them.

Data path: posed Gaussians + their rest normals + the pose's translation -> the same Gaussians, brighter or darker.

A surface that turns towards a lamp, or walks away from a window, changes its brightness in a way that no pose of the
body tells: MLPs see neither the root's turn nor the place, and learn it by heart. Here a Gaussian's colour is
multiplied by a smooth function of its normal and place in the world, 1 at the start. It is written into the
spherical harmonics, so that no rasteriser and no file format needs to know of it.
Shape letters: N Gaussians, K functions.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mmlphuman.types import SH_DEGREE_0, PosedGaussians

OF_NORMALS, OF_PLACE_TOO = 8, 20  # functions: harmonics of degrees 1 and 2; and place times (1, normal)
FUNCTIONS = {"none": 0, "normal": OF_NORMALS, "place": OF_PLACE_TOO}
DARKEST = 0.05  # a shade never falls below
GREY = 0.5 / SH_DEGREE_0  # what colours lie about, in the unit of degree-0 harmonics


class SceneLight(nn.Module):
    """Shade of a Gaussian = 1 + its functions times the coefficients, one for each colour channel."""

    lowest: Tensor
    highest: Tensor

    def __init__(self, functions: int, lowest: Tensor, highest: Tensor):
        """lowest, highest: (3,) metres, of the training poses' translations. A pose outside is lit as at the nearest
        place that training has seen: a person who stood still has told nothing of the room."""
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(functions, 3))
        self.register_buffer("lowest", lowest)
        self.register_buffer("highest", highest)

    def forward(self, posed: PosedGaussians, normals: Tensor, translation: Tensor) -> PosedGaussians:
        """normals: (N, 3) unit, in the canonical pose, turned by the skinning's 3x3 part; translation: (3,).

        The functions get no gradient: light does not move Gaussians.
        """
        shade = 1 + self.functions(posed, normals, translation).T @ self.coefficients
        shade = shade.clamp_min(DARKEST)[:, None]
        about_grey = nn.functional.pad(GREY * (shade - 1), (0, 0, 0, 3))  # of degree 0 alone
        return replace(posed, sh=posed.sh * shade + about_grey, unlit=posed.sh)

    @torch.no_grad()
    def functions(self, posed: PosedGaussians, normals: Tensor, translation: Tensor) -> Tensor:
        """(K, N)."""
        world = torch.einsum("nij,nj->in", posed.linear, normals)
        x, y, z = world / torch.linalg.vector_norm(world, dim=0).clamp_min(1e-12)
        found = [x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
        if len(self.coefficients) == OF_PLACE_TOO:
            middle = (self.lowest + self.highest) / 2
            place = posed.xyz + (translation.clamp(self.lowest, self.highest) - translation - middle)
            for along in place.T.contiguous():
                found += [along, along * x, along * y, along * z]
        return torch.stack(found)
