"""A robust visual hull in canonical space: which points near the body the masks of nearly all frames allow.

Data path: CaptureDataset -> MaskView per (frame, camera), read once and kept small; Body -> Grid -> BodyDistance, which
says where to carve and what to fall back on; both and WeightVolume -> Hull -> template.
Shape letters: P, M points (M: nodes of the band), J joints, H, W image size, X, Y, Z grid nodes along the axes,
S surface samples, B bins. All distances are positive inside: those to the body and those to a mask's contour.

In one frame the person is rigid, and the hull is strict: a point lies as deep inside as the least favourable camera
says, as signed distance to the mask's contour in metres (pixels times depth over focal length). Over frames cloth
moves by centimetres and fits err, and a strict intersection would keep only where cloth always is: a low quantile
over frames is taken. It errs inwards where cloth moves and outwards in hollows, which no camera looks along; measured
on the synthetic subject, 0.1 balances the two (0.3 puts 5 % less of the surface within 1.5 cm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor
from tqdm import tqdm

from mmlphuman.body.kinematics import canonical_pose, forward_kinematics, rigid_inverse
from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_volume import WeightVolume
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.types import Pose

NEAREST_DEPTH = 0.1  # metres in front of a camera
SAMPLES_PER_NODE_AREA = 4  # of the body's surface, so that the nearest sample is nearer than half a spacing
MAX_SAMPLES = 600_000
CARVED_DEPTH = 0.06  # metres inside the body; what is deeper is the person, whatever the masks say
LIMIT = 0.05  # metres; hull distances are clipped here
NUM_BINS = 20  # of their histogram over frames, 5 mm each; read with interpolation
FAR_BINS = 5  # the lowest, 2.5 cm outside and more
FRAMES_TO_SORT_OUT = 4  # after so many frames, points that are surely far outside are no longer asked about
DECIDING = 0.015  # metres
QUANTILE = 0.1  # share of the frames that may see a point outside


@dataclass(frozen=True)
class MaskView:
    """One camera's mask of one frame."""

    frame: int
    pose: Pose
    w2c: Tensor  # (4, 4)
    intrinsics: Tensor  # (3, 3)
    shape: tuple[int, int]  # (H, W)
    bits: np.ndarray  # the mask, eight pixels a byte

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        height, width = self.shape
        return np.unpackbits(self.bits, count=height * width).reshape(self.shape).astype(bool)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points (P, 3) -> pixels (P, 2) and depths (P,); pixels mean nothing where depth is not positive."""
        local = points @ self.w2c[:3, :3].T + self.w2c[:3, 3]
        pixels = local @ self.intrinsics.T
        return pixels[:, :2] / local[:, 2:].clamp_min(NEAREST_DEPTH), local[:, 2]

    def metres(self, distance: np.ndarray, points: Tensor) -> Tensor:
        """A map (H, W) of lengths in pixels, read at world points (P, 3) and turned into metres at their depth.

        Points that the camera does not see (beside the picture, behind it) get NaN.
        """
        pixels, depth = self.project(points)
        size = pixels.new_tensor(self.shape[::-1])
        # grid_sample without aligned corners has pixel centres at +0.5, as the cameras have.
        read = F.grid_sample(
            torch.from_numpy(distance)[None, None],
            (2 * pixels / size - 1)[None, None],
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )[0, 0, 0]
        seen = (depth > NEAREST_DEPTH) & (pixels >= 0).all(1) & (pixels <= size).all(1)
        return torch.where(seen, read * depth / self.intrinsics[[0, 1], [0, 1]].mean(), torch.nan)


def read_mask_views(dataset: CaptureDataset, frames: Sequence[int]) -> tuple[list[MaskView], int]:
    """The masks of `frames` in all of the data set's cameras, by frame, and how many were empty or full.

    Those are left out. Raises ValueError or OSError naming frame, camera and file if one cannot be read.
    """
    chosen = set(frames)
    pairs = [pair for pair in dataset.pairs if pair[0] in chosen]
    views = []
    for frame, camera_id in tqdm(pairs, desc="reading masks", unit="mask", disable=None):
        sample = dataset.sample(frame, (camera_id,))
        mask = sample.masks[0].numpy()
        if mask.any() and not mask.all():
            w2c, intrinsics = sample.cameras.w2c[0], sample.cameras.intrinsics[0]
            views.append(MaskView(frame, sample.pose, w2c, intrinsics, mask.shape, np.packbits(mask)))
    return views, len(pairs) - len(views)


def contour_distance(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool -> (H, W) float32 pixels from each pixel's centre to the contour, positive inside.

    The image's border is no contour: a person cut off by it goes on beyond.
    """
    inside = mask.astype(np.uint8)
    to_outside = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_inside = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Centres of neighbouring pixels on both sides of the contour are one apart.
    return np.where(mask, to_outside - 0.5, 0.5 - to_inside).astype(np.float32)


def canonical_to_world(pose: Pose, body: Body) -> Tensor:
    """(J, 3, 4) transforms of the joints from the canonical pose to the world, Rh and Th included."""
    canonical = forward_kinematics(canonical_pose(), body.joints, body.parents)
    joints = forward_kinematics(pose.joints, body.joints, body.parents) @ rigid_inverse(canonical)
    world = pose.rotation @ joints[:, :3]
    world[:, :, 3] += pose.translation  # weights sum to one, so each joint may carry the whole translation
    return world


def pose_points(points: Tensor, weights: Tensor, transforms: Tensor) -> tuple[Tensor, Tensor]:
    """Canonical points (P, 3), weights (P, J), transforms (J, 3, 4) -> world (P, 3), linear parts (P, 3, 3)."""
    blended = (weights @ transforms.flatten(1)).unflatten(1, (3, 4))
    return (blended[:, :, :3] @ points[:, :, None])[:, :, 0] + blended[:, :, 3], blended[:, :, :3]


@dataclass(frozen=True)
class Grid:
    """A regular grid of canonical space; node (0, 0, 0) lies at `origin`."""

    origin: np.ndarray  # (3,) metres
    spacing: float  # metres
    shape: tuple[int, int, int]

    def positions(self, nodes: np.ndarray) -> np.ndarray:
        """(M,) flat node numbers -> (M, 3) float32 metres."""
        return (self.origin + self.spacing * np.stack(np.unravel_index(nodes, self.shape), 1)).astype(
            np.float32
        )

    def coordinates(self, points: np.ndarray) -> np.ndarray:
        """(P, 3) metres -> (3, P) in nodes, as scipy.ndimage wants them."""
        return ((points - self.origin) / self.spacing).T


@dataclass(frozen=True)
class BodyDistance:
    """The body's surface as seen from the grid."""

    grid: Grid
    values: np.ndarray  # (X, Y, Z) float32 metres, positive inside; +-reach beyond the band
    band: np.ndarray  # (M,) numbers of the nodes to carve: up to reach outside and CARVED_DEPTH inside


def grid_around(body: Body, spacing: float, reach: float) -> Grid:
    """A grid over the canonical body and `reach` metres around it."""
    vertices = body.canonical_vertices.numpy().astype(np.float64)
    margin = reach + 2 * spacing
    low, high = vertices.min(0) - margin, vertices.max(0) + margin
    return Grid(low, spacing, tuple(math.ceil(length / spacing) + 1 for length in high - low))


def body_distance(body: Body, grid: Grid, reach: float) -> BodyDistance:
    """Distance from nodes to the canonical body's surface, exact to a fraction of the spacing within `reach`."""
    mesh = trimesh.Trimesh(body.canonical_vertices.numpy(), body.faces.numpy(), process=False)
    count = min(int(SAMPLES_PER_NODE_AREA * mesh.area / grid.spacing**2), MAX_SAMPLES)
    samples, faces = trimesh.sample.sample_surface(mesh, count, seed=0)[:2]
    normals = mesh.face_normals[faces]
    touched = np.zeros(grid.shape, bool)
    touched[tuple(grid.coordinates(samples).round().astype(int))] = True
    rough = np.asarray(ndimage.distance_transform_edt(~touched)) * grid.spacing
    band = np.flatnonzero(rough.ravel() < reach)
    points = grid.positions(band)
    distance, nearest = KDTree(samples).query(points, workers=-1)
    along_normal = -((points - samples[nearest]) * normals[nearest]).sum(1)
    # The surface's nearest point lies up to a sample's spacing beside the nearest sample.
    beside = np.minimum(distance**2 - along_normal**2, mesh.area / count)
    signed = np.copysign(np.sqrt(np.maximum(distance**2 - beside, 0)), along_normal)
    values = np.full(grid.shape, -reach, np.float32)
    values.ravel()[band] = signed
    _fill_inside(values, reach)
    band = band[signed < CARVED_DEPTH]
    return BodyDistance(grid, values, band)


def _fill_inside(values: np.ndarray, reach: float) -> None:
    """Nodes farther inside than the band, which begin as outside, become inside."""
    outside = np.empty(values.shape, np.int32)
    ndimage.label(values < 0, output=outside)
    open_air = outside[0, 0, 0]  # the grid's corner lies outside the band
    values[(outside != open_air) & (values <= -reach)] = reach


@dataclass(frozen=True)
class Hull:
    """What the masks say about M canonical points."""

    distance: np.ndarray  # (M,) float32 metres to the hull's surface, positive inside, within +-LIMIT
    deciding: np.ndarray  # (M,) float32 number of frames that put the point within DECIDING of their surface


def carve(views: Sequence[MaskView], body: Body, volume: WeightVolume, points: np.ndarray) -> Hull:
    """Ask the masks about canonical points (M, 3). views: grouped by frame.

    A camera that does not see a point has no say; a point that none saw in any frame counts as inside.
    """
    xyz = torch.from_numpy(points)
    weights = volume.query(xyz)
    histogram = torch.zeros(len(xyz), NUM_BINS)
    frames = [list(group) for _, group in groupby(views, key=lambda view: view.frame)]
    enough = QUANTILE * len(frames)
    open_nodes = torch.arange(len(xyz))  # whose quantile is not yet known to be far outside
    for number, frame in enumerate(tqdm(frames, desc="carving", unit="frame", disable=None)):
        if number % FRAMES_TO_SORT_OUT == FRAMES_TO_SORT_OUT - 1:
            open_nodes = open_nodes[histogram[open_nodes, :FAR_BINS].sum(1) <= enough]
        posed, _ = pose_points(xyz[open_nodes], weights[open_nodes], canonical_to_world(frame[0].pose, body))
        hull = torch.full((len(posed),), torch.inf)
        for view in frame:
            hull = torch.fmin(hull, view.metres(contour_distance(view.mask), posed))  # ignores NaN
        _count_frame(histogram, open_nodes, hull)
    reach = round(NUM_BINS * DECIDING / (2 * LIMIT))
    near_zero = histogram[:, NUM_BINS // 2 - reach : NUM_BINS // 2 + reach]
    return Hull(read_quantile(histogram, QUANTILE, LIMIT).numpy(), near_zero.sum(1).numpy())


def _count_frame(histogram: Tensor, nodes: Tensor, hull: Tensor) -> None:
    """Add one frame's distances at `nodes` to the histogram (M, B); infinite ones are no observation."""
    seen = hull.isfinite().nonzero()[:, 0]
    count = histogram.shape[1]
    bins = ((hull[seen] + LIMIT) * (count / (2 * LIMIT))).long().clamp(0, count - 1)
    histogram.view(-1)[nodes[seen] * count + bins] += 1  # a point appears once in a frame: nothing is lost


def read_quantile(histogram: Tensor, level: float, limit: float) -> Tensor:
    """(M, B) counts of values in -limit..limit -> (M,) their quantile; limit where nothing was counted."""
    cumulated = histogram.cumsum(1)
    target = level * cumulated[:, -1:]
    last = histogram.shape[1] - 1
    index = (cumulated < target).sum(1, keepdim=True).clamp(max=last)
    content = histogram.gather(1, index)
    share = (target - cumulated.gather(1, index) + content) / content.clamp_min(1e-12)
    value = (2 * (index + share.clamp(0, 1)) / (last + 1) - 1) * limit
    return torch.where(cumulated[:, -1] > 0, value[:, 0], limit)
