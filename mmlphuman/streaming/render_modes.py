"""The render modes: an avatar in its colours, or something else to be seen of it; `show` of a RenderRequest.

Data path: posed Gaussians + one camera -> colours given to the Gaussians -> rasterize -> picture.

Every mode draws through the one rasteriser, with the Gaussians' colours replaced by what is to be seen of them.
Shape letters: N Gaussians, A anchors, H, W image height and width.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from mmlphuman.animation.pose_bar import COLOURS
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import Backend
from mmlphuman.render.projection import NEAR_PLANE
from mmlphuman.render.rasterize import rasterize
from mmlphuman.streaming.messages import RenderMode
from mmlphuman.types import SH_DEGREE_0, Cameras, Pose, PosedGaussians, Render, symmetric_matrices

MIN_ALPHA = 1e-4  # a pixel below shows the background only; what it holds is not divided by its alpha
GOLDEN = 0.618034  # turns of hue from one anchor to the next: any few consecutive ones lie far apart
SHADES = ((0.75, 0.95), (0.45, 0.85), (0.9, 0.6))  # saturation and value, in turns, for more than hue tells
UNLED = 0.6  # grey of Gaussians without an anchor
DARK_LEVELS = 20  # of 256, at either end of the map for depth
DOUBLINGS = 6  # the smallest variance wins by its ratio to the next one to the power 2^6


@dataclass(frozen=True)
class PosedView:
    """What is looked at, from where."""

    trained: TrainedAvatar
    pose: Pose
    gaussians: PosedGaussians
    cameras: Cameras  # one
    background: Tensor  # (3,)
    backend: Backend

    def draw(self, colors: Tensor | None = None, background: Tensor | None = None) -> Render:
        """With the Gaussians' own colours or with these (N, 3)."""
        gaussians = self.gaussians if colors is None else with_colors(self.gaussians, colors)
        background = self.background if background is None else background
        return rasterize(gaussians, self.cameras, background, self.backend)

    def over_background(self, image: Tensor, alpha: Tensor) -> Tensor:
        """(H, W, 3) colours of the person, alpha (H, W) -> (H, W, 3)."""
        return torch.lerp(self.background, image, alpha[..., None])


def draw_mode(mode: RenderMode, view: PosedView) -> Tensor:
    """(H, W, 3) picture in [0, 1] or a little beyond."""
    return MODES[mode](view)


def with_colors(gaussians: PosedGaussians, colors: Tensor) -> PosedGaussians:
    """The same Gaussians with the given colours (N, 3), 0 or more, from wherever they are seen."""
    sh = torch.zeros_like(gaussians.sh)
    sh[:, 0] = (colors - 0.5) / SH_DEGREE_0
    return replace(gaussians, sh=sh)


# --- the modes ---------------------------------------------------------------------------------------------


def show_color(view: PosedView) -> Tensor:
    return view.draw().colors[0]


def show_alpha(view: PosedView) -> Tensor:
    """White where the person hides everything behind it."""
    return view.draw().alphas[0, ..., None].expand(-1, -1, 3)


def show_depth(view: PosedView) -> Tensor:
    """Expected distance along the optical axis, from red (the person's nearest Gaussian) to blue (its farthest)."""
    depths = _camera_xyz(view)[:, 2]
    depth, alpha = expected_depth(view)
    in_front = depths > NEAR_PLANE
    near = torch.where(in_front, depths, torch.inf).amin()
    far = torch.where(in_front, depths, -torch.inf).amax()
    nearness = ((far - depth) / (far - near)).nan_to_num().clamp(0, 1)
    colors = turbo().to(depth)
    return view.over_background(colors[(nearness * (len(colors) - 1)).round().long()], alpha)


def show_normals(view: PosedView) -> Tensor:
    """Each Gaussian's shortest axis, towards the camera: red to the right, green up, blue towards the viewer."""
    normals = shortest_axes(symmetric_matrices(view.gaussians.covariances))
    to_camera = view.cameras.centers - view.gaussians.xyz
    towards = (normals * to_camera).sum(1, keepdim=True) >= 0
    normals = torch.where(towards, normals, -normals) @ view.cameras.w2c[0, :3, :3].T
    zero = torch.zeros_like(view.background)
    render = view.draw((normals + 1) / 2, background=zero)
    alpha = render.alphas[0]
    blended = 2 * render.colors[0] - alpha[..., None]  # alpha-weighted sum of normals
    seen = torch.nn.functional.normalize(blended, dim=-1)
    seen = seen * seen.new_tensor([1.0, -1.0, -1.0])  # camera axes are right, down, forward
    return view.over_background((seen + 1) / 2, alpha)


def show_anchors(view: PosedView) -> Tensor:
    """Each Gaussian in the colour of the anchor, and so the MLP, that it follows most; grey where it follows none,
    as those of a compact avatar that hardly changed."""
    table = view.trained.avatar.gaussian_to_anchor
    nearest = table.index.gather(1, table.weight.argmax(1, keepdim=True))[:, 0]
    colors = torch.full_like(view.gaussians.xyz, UNLED)
    colors[: len(nearest)] = anchor_colors(view.trained.config.num_features).to(colors)[nearest]
    return view.draw(colors).colors[0]


def show_distance(view: PosedView) -> Tensor:
    """Where the pose lies outside training, region by region: TrainedAvatar.distances. Test mode or not, it is the
    pose itself that is judged; root and eyes, which no MLP sees, do not count."""
    return view.draw(distance_colors(view.trained.distances(view.pose))).colors[0]


MODES: dict[RenderMode, Callable[[PosedView], Tensor]] = {
    "color": show_color,
    "depth": show_depth,
    "alpha": show_alpha,
    "normals": show_normals,
    "anchors": show_anchors,
    "distance": show_distance,
}


# --- what they are made of ---------------------------------------------------------------------------------


def expected_depth(view: PosedView) -> tuple[Tensor, Tensor]:
    """(H, W) metres along the optical axis, of what alpha (H, W) there is."""
    depths = _camera_xyz(view)[:, 2]
    zero = torch.zeros_like(view.background)
    render = view.draw(depths.clamp_min(0)[:, None].expand(-1, 3), background=zero)
    alpha = render.alphas[0]
    return render.colors[0, ..., 0] / alpha.clamp_min(MIN_ALPHA), alpha


def _camera_xyz(view: PosedView) -> Tensor:
    """(N, 3) centres in the camera's axes, metres."""
    w2c = view.cameras.w2c[0]
    return view.gaussians.xyz @ w2c[:3, :3].T + w2c[:3, 3]


def turbo() -> Tensor:
    """(P, 3) OpenCV's map of that name from blue to red, without its ends, which are nearly black."""
    levels = np.arange(256, dtype=np.uint8)[DARK_LEVELS:-DARK_LEVELS]
    bgr = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO).reshape(-1, 3)
    return torch.from_numpy(bgr[:, ::-1] / np.float32(255))


def shortest_axes(covariances: Tensor) -> Tensor:
    """(N, 3, 3) covariances -> (N, 3) unit eigenvectors of the smallest eigenvalue, of either sign.

    The adjugate has the same eigenvectors, and this one's eigenvalue, the product of the two others, is its
    largest: squared again and again it becomes the projection onto that axis. Plain products never stop a GPU's
    queue, as an eigensolver's check does; where axes are equally short some direction among them comes out.
    """
    a, b, c = covariances.double().unbind(1)
    adjugate = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    axis = adjugate / _trace(adjugate)
    for _ in range(DOUBLINGS):
        axis = axis @ axis
        axis = axis / _trace(axis)
    longest = axis.diagonal(dim1=1, dim2=2).argmax(1)
    column = axis.gather(2, longest[:, None, None].expand(-1, 3, 1))[..., 0]
    return torch.nn.functional.normalize(column, dim=1).to(covariances.dtype)


def _trace(matrices: Tensor) -> Tensor:
    """(N, 1, 1), kept from zero for Gaussians without any extent."""
    return matrices.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp_min(torch.finfo(torch.float64).tiny)


def anchor_colors(count: int) -> Tensor:
    """(A, 3) colours, as different as so many can be."""
    return torch.tensor(
        [colorsys.hsv_to_rgb(GOLDEN * anchor % 1, *SHADES[anchor % len(SHADES)]) for anchor in range(count)]
    )


def distance_colors(degrees: Tensor) -> Tensor:
    """(N,) degrees -> (N, 3), calm to alarming, on the scale of the bar under videos."""
    at, colors = (degrees.new_tensor(column) for column in zip(*COLOURS, strict=True))
    return interpolate(degrees, at, colors / 255)


def interpolate(values: Tensor, at: Tensor, colors: Tensor) -> Tensor:
    """(N,) values -> (N, 3), linear between colours (P, 3) that stand at rising values (P,)."""
    below = (torch.bucketize(values, at, right=True) - 1).clamp(0, len(at) - 2)
    share = ((values - at[below]) / (at[below + 1] - at[below])).clamp(0, 1)
    return torch.lerp(colors[below], colors[below + 1], share[:, None])
