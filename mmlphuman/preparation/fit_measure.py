"""One (frame, camera) of a capture, read at a reduced size, and how the projected body lies in its mask.

Data path: Body -> SurfacePoints -> (pose) world points -> (camera) Projection -> silhouette; files -> ReducedMask
(undistorted); both -> Fit (numbers).
Shape letters: P points, J joints, h, w of the reduced mask.

Points instead of triangles, because thousands of silhouettes are needed and a cloud denser than the pixels gives
the same outline in two milliseconds. Depth plays no part: hidden parts project into the mask as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import trimesh
from torch import Tensor

from mmlphuman.body.kinematics import apply_transforms, blend_transforms, forward_kinematics
from mmlphuman.body.smplx_model import Body
from mmlphuman.capture.images import (
    MASK_THRESHOLD,
    decode_image,
    decode_mask,
    has_distortion,
    opencv_intrinsics,
)
from mmlphuman.capture.layout import CalibratedCamera, CaptureLayout
from mmlphuman.capture.masks import MaskMeasures
from mmlphuman.pose_layout import LEFT_FINGERS, RIGHT_FINGERS

NUM_POINTS = 40_000  # over 2 m^2: one every 7 mm
NEAR = 0.05  # metres in front of the camera
REDUCED_SIDE = 512  # pixels, longest side of the masks that are measured: 4-5 mm a pixel for a whole person
TOLERANCE = 0.01  # metres by which the body may stick out of the mask: fits are not better
FAR = 0.3  # metres from the projected body: no clothes
REACHED = 0.06  # metres from the projected body's outline within which the mask's is looked for
HAND_WINDOW = 0.13  # metres either side of a hand's middle


@dataclass(frozen=True)
class SurfacePoints:
    """Points spread evenly over the shaped T-pose surface, with their skinning weights."""

    points: Tensor  # (P, 3)
    lbs_weights: Tensor  # (P, J)
    joints: Tensor  # (J, 3)
    parents: tuple[int, ...]
    hands: dict[str, np.ndarray]  # side -> (P,) bool, points that move with its fingers

    def posed(self, pose: Tensor, translation: np.ndarray) -> np.ndarray:
        """(165,) axis-angle and (3,) -> (P, 3) float32 in the world."""
        transforms = forward_kinematics(pose, self.joints, self.parents)
        posed = apply_transforms(blend_transforms(self.lbs_weights, transforms), self.points)
        return posed.numpy() + translation


def spread_points(body: Body, count: int = NUM_POINTS) -> SurfacePoints:
    """The same points every time for the same body."""
    mesh = trimesh.Trimesh(body.vertices.numpy(), body.faces.numpy(), process=False)
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=0)[:2]
    corners = trimesh.triangles.points_to_barycentric(mesh.triangles[faces], points)
    corner_weights = body.lbs_weights[body.faces[torch.from_numpy(faces)]]
    weights = (torch.from_numpy(corners).float()[:, :, None] * corner_weights).sum(1)
    hands = {
        side: (weights[:, fingers.start : fingers.stop].sum(1) > 0.5).numpy()
        for side, fingers in (("left", LEFT_FINGERS), ("right", RIGHT_FINGERS))
    }
    return SurfacePoints(
        torch.from_numpy(np.asarray(points)).float(), weights, body.joints, body.parents, hands
    )


@dataclass(frozen=True)
class Projection:
    """Points as one camera sees them."""

    columns: np.ndarray  # (P,) int, of the pixel each falls into
    rows: np.ndarray  # (P,) int
    in_view: np.ndarray  # (P,) bool: in front of the camera and inside the picture
    pixels_per_metre: float  # at the points' mean depth; 0 if none is in front
    size: tuple[int, int]  # (w, h)

    def silhouette(self) -> np.ndarray:
        """(h, w) bool: pixels that hold a point, with the gaps between points closed."""
        drawn = np.zeros(self.size[::-1], np.uint8)
        drawn[self.rows[self.in_view], self.columns[self.in_view]] = 1
        # Pixels between neighbours on 2 m^2 of skin.
        spacing = self.pixels_per_metre * np.sqrt(2.0 / NUM_POINTS)
        reach = min(1 + 2 * int(np.ceil(spacing)), 15)
        return cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8)) > 0


def project_points(points: np.ndarray, w2c: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> Projection:
    """(P, 3) world points into a (w, h) picture of a pinhole camera."""
    camera = points @ w2c[:3, :3].T.astype(np.float32) + w2c[:3, 3].astype(np.float32)
    depth = camera[:, 2]
    in_front = depth > NEAR
    homogeneous = camera @ K.T.astype(np.float32)
    pixels = homogeneous[:, :2] / np.where(in_front, depth, 1)[:, None]
    inside = in_front & (pixels >= 0).all(1) & (pixels < size).all(1)
    whole = np.where(inside[:, None], pixels, 0).astype(np.int32)
    scale = float(abs(K[0, 0]) / depth[in_front].mean()) if in_front.any() else 0.0
    return Projection(whole[:, 0], whole[:, 1], inside, scale, size)


@dataclass(frozen=True)
class ReducedMask:
    """One picture's mask and camera, reduced."""

    frame: int
    camera: int
    mask: np.ndarray  # (h, w) bool
    w2c: np.ndarray  # (4, 4)
    K: np.ndarray  # (3, 3) of the reduced picture
    measures: MaskMeasures

    @property
    def size(self) -> tuple[int, int]:
        return self.mask.shape[1], self.mask.shape[0]


@dataclass(frozen=True)
class Fit:
    """How the body lies in one mask. Shares are NaN where there is nothing to take a share of."""

    frame: int
    camera: int
    mask_share: float  # of the picture
    in_view: float  # share of the body's surface points inside the picture
    inside: float  # share of those that fall into the mask, TOLERANCE allowed
    overlap: float  # intersection over union of mask and projected body
    far: float  # share of the mask farther than FAR from the projected body
    holes: float  # share of the projected body in holes that the mask encloses
    size_ratio: float  # root of mask area over body area; NaN unless the whole body is in view
    turn: tuple[
        float, float
    ]  # degrees by which the person appears to the right of and below the projected body
    hand_gain: tuple[float, ...]  # cm^2 by which the mean hand pose fits each visible hand better


class SizeMismatch(ValueError):
    """Image, mask and calibration disagree about the picture's size."""


def load_reduced_mask(layout: CaptureLayout, frame: int, camera: int) -> ReducedMask:
    """Read one pair of files. SizeMismatch, or another ValueError or an OSError where they cannot be read."""
    calibrated = layout.cameras[camera]
    image_path, mask_path = layout.image_path(camera, frame), layout.mask_path(camera, frame)
    image = decode_image(image_path, cv2.IMREAD_GRAYSCALE)
    alpha = decode_mask(mask_path, image_path)
    sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (image, alpha)]
    if image.shape != alpha.shape:
        raise SizeMismatch(f"image {image_path} is {sizes[0]} but its mask {mask_path} is {sizes[1]}")
    expected = calibrated.image_size
    if expected is not None and image.shape[::-1] != tuple(expected):
        raise SizeMismatch(f"image {image_path} is {sizes[0]} but its camera is {expected[0]}x{expected[1]}")
    reduced, K = reduce_picture(alpha, calibrated.K, REDUCED_SIDE)
    reduced = undistort_picture(reduced, K, calibrated)
    mask = reduced > MASK_THRESHOLD
    return ReducedMask(frame, camera, mask, calibrated.w2c, K, MaskMeasures.of(mask))


def reduce_picture(pixels: np.ndarray, K: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture with its longest side at most `side`, and its K."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return pixels, K
    reduced = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return reduced, np.array([size[0] / width, size[1] / height, 1.0])[:, None] * K


def undistort_picture(pixels: np.ndarray, K: np.ndarray, camera: CalibratedCamera) -> np.ndarray:
    """The pinhole camera's picture with the same K: the camera's own, scaled as the picture is."""
    if not has_distortion(camera):
        return pixels
    return cv2.undistort(pixels, opencv_intrinsics(camera, K), camera.dist)


def measure_fit(
    view: ReducedMask, points: np.ndarray, mean_hand_points: np.ndarray | None, hands: dict[str, np.ndarray]
) -> Fit:
    """points: (P, 3) posed in the world; mean_hand_points: the same with the mean hand added to the pose."""
    projection = project_points(points, view.w2c, view.K, view.size)
    silhouette = projection.silhouette()
    grown = cv2.dilate(view.mask.view(np.uint8), _disk(TOLERANCE * projection.pixels_per_metre)) > 0
    seen = projection.in_view
    inside = grown[projection.rows[seen], projection.columns[seen]]
    mask_area, body_area = int(view.mask.sum()), int(silhouette.sum())
    whole = seen.all() and mask_area > 0 and view.measures.border_share == 0
    gains = ()
    if mean_hand_points is not None and seen.any():
        other = project_points(mean_hand_points, view.w2c, view.K, view.size)
        gains = _hand_gains(view.mask, projection, other, hands)
    return Fit(
        frame=view.frame,
        camera=view.camera,
        mask_share=view.measures.share,
        in_view=float(seen.mean()),
        inside=float(inside.mean()) if seen.any() else float("nan"),
        overlap=overlap(view.mask, silhouette),
        far=_far_share(view.mask, silhouette, projection.pixels_per_metre),
        holes=_hole_share(view.mask, silhouette),
        size_ratio=float(np.sqrt(mask_area / body_area)) if whole else float("nan"),
        turn=_turn(view, silhouette, projection.pixels_per_metre),
        hand_gain=gains,
    )


def _turn(view: ReducedMask, silhouette: np.ndarray, pixels_per_metre: float) -> tuple[float, float]:
    """Degrees about the picture's axes by which the mask is displaced against the silhouette; NaN if they hardly meet.

    Every point of the silhouette's outline says how far the mask's is along the outline's normal; clothes, which are
    wider all around, are a constant beside the displacement. Iteratively reweighted, as arms may be anywhere.
    """
    inside = cv2.distanceTransform(view.mask.view(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~view.mask).view(np.uint8), cv2.DIST_L2, 5)
    smooth = cv2.GaussianBlur(silhouette.astype(np.float32), (0, 0), 2)
    uphill = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)], -1)
    outlines, _ = cv2.findContours(silhouette.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    nowhere = float("nan"), float("nan")
    if not outlines:
        return nowhere
    columns, rows = np.concatenate([outline[:, 0] for outline in outlines]).T
    beyond = (inside - outside)[rows, columns]
    normals = -uphill[rows, columns]
    lengths = np.linalg.norm(normals, axis=1)
    width, height = view.size
    usable = (lengths > 1e-3) & (np.abs(beyond) < REACHED * pixels_per_metre)
    usable &= (columns > 1) & (columns < width - 2) & (rows > 1) & (rows < height - 2)
    if usable.sum() < max(20, 0.3 * len(columns)):
        return nowhere
    system = np.column_stack([normals[usable] / lengths[usable, None], np.ones(usable.sum())])
    wanted, weights = beyond[usable], np.ones(usable.sum())
    for _ in range(8):
        solution = np.linalg.lstsq(system * weights[:, None], wanted * weights, rcond=None)[0]
        off = np.abs(wanted - system @ solution)
        weights = 1 / np.sqrt(1 + (off / max(np.median(off), 0.5)) ** 2)
    right, down = np.degrees(solution[:2] / view.K[[0, 1], [0, 1]])
    return float(right), float(down)


def overlap(mask: np.ndarray, silhouette: np.ndarray) -> float:
    """Intersection over union; NaN if both are empty."""
    union = int((mask | silhouette).sum())
    return int((mask & silhouette).sum()) / union if union else float("nan")


def _far_share(mask: np.ndarray, silhouette: np.ndarray, pixels_per_metre: float) -> float:
    if not mask.any() or not silhouette.any():
        return float("nan")
    distance = cv2.distanceTransform((~silhouette).view(np.uint8), cv2.DIST_L2, 3)
    return float((distance[mask] > FAR * pixels_per_metre).mean())


def _hole_share(mask: np.ndarray, silhouette: np.ndarray) -> float:
    """Holes that lie behind the body: between arm and hip the background may well show."""
    if not silhouette.any():
        return float("nan")
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0
    return float((filled & ~mask & silhouette).sum() / silhouette.sum())


def _hand_gains(
    mask: np.ndarray, flat: Projection, mean: Projection, hands: dict[str, np.ndarray]
) -> tuple[float, ...]:
    """Per hand in view: area around it where silhouette and mask disagree, as given minus with the mean hand."""
    silhouettes = flat.silhouette(), mean.silhouette()
    gains = []
    for hand in hands.values():
        if not (flat.in_view[hand].all() and mean.in_view[hand].all()):
            continue
        reach = HAND_WINDOW * flat.pixels_per_metre
        row, column = flat.rows[hand].mean(), flat.columns[hand].mean()
        rows = slice(max(0, int(row - reach)), int(row + reach) + 1)
        columns = slice(max(0, int(column - reach)), int(column + reach) + 1)
        wrong = [int((silhouette ^ mask)[rows, columns].sum()) for silhouette in silhouettes]
        gains.append((wrong[0] - wrong[1]) * (100 / flat.pixels_per_metre) ** 2)
    return tuple(gains)


def _disk(radius: float) -> np.ndarray:
    whole = int(np.ceil(radius))
    offsets = np.arange(-whole, whole + 1)
    return (offsets[:, None] ** 2 + offsets**2 <= max(radius, 0.5) ** 2).astype(np.uint8)
