"""Masks of the person -> outlines that the body's surface is drawn to; and how well both agree.

Data path: mask files -> Outlines of a camera (lens undone, reduced), posed body -> OutlineMatches -> loss, overlap.
Shape letters: F frames, N contour points of a picture, B vertices, P vertices that must lie inside, h, w reduced mask.

All pixels here are of the reduced masks, whose K goes with them; residuals are metres across the ray.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from mmlphuman.capture.images import MASK_THRESHOLD, decode_image
from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.capture.picture_names import find_picture
from mmlphuman.drawing import fill_triangles
from mmlphuman.fitting.observations import Rig
from mmlphuman.preparation.fit_measure import reduce_picture, undistort_picture

REDUCED_SIDE = 400  # pixels, the longest side of reduced masks: 5 mm a pixel for a whole person
DISTANCE_STEPS = 4  # of a pixel, in which distances to the mask are kept (uint8)
CONTOUR_POINTS = 160  # of a picture
FINER = 4  # times, at which the body is drawn
MIN_CONTOUR = 24  # pixels around; smaller specks and holes are the segmentation's
BORDER = 2  # pixels from the picture's edge, where the outline is not the person's
NEAR = 0.1  # metres in front of the camera
INSIDE_POINTS = 2000  # vertices of which all lie inside the mask
OUTLINE_WIDTH = 1.5  # pixels from the drawn body's edge within which a vertex is of its outline
NORMAL_REACH = 0.06  # metres that the opposite direction of an outline counts as, where points are paired
FARTHEST_MATCH = 0.15  # metres; nothing is drawn farther
OUTLINE_ERROR, OUTLINE_LIMIT = (
    0.012,
    0.05,
)  # metres: usual distance of outlines, and from where the mask is wrong
INSIDE_ERROR, INSIDE_LIMIT = 0.012, 0.06  # the same of a vertex outside the mask
OUTLINE_WEIGHT, INSIDE_WEIGHT = (
    0.2,
    0.05,
)  # neighbours err together: five contour points tell as much as one landmark

FindMask = Callable[[int, int], Path | None]  # camera, frame -> the mask's file


def masks_in(folder: Path, cameras: Sequence[CalibratedCamera]) -> FindMask:
    """Of FOLDER/CAM/00000012.png, or with another picture's ending."""

    def find(view: int, frame: int) -> Path | None:
        return find_picture(folder / cameras[view].name / f"{frame:08d}.png")

    return find


@dataclass(frozen=True)
class Outlines:
    """One camera's masks."""

    K: np.ndarray  # (3, 3) of the reduced mask
    R: np.ndarray
    T: np.ndarray
    size: tuple[int, int]  # (w, h)
    time: float  # frames by which the pictures are late
    there: np.ndarray  # (F,) bool: a mask with somebody in it
    outside: np.ndarray  # (F, h, w) uint8 distance to the mask in pixels / DISTANCE_STEPS, 0 inside
    contour: np.ndarray  # (F, N, 2) float32 pixels
    normals: np.ndarray  # (F, N, 2) float32, outwards
    on_contour: np.ndarray  # (F, N) bool

    @property
    def focal(self) -> float:
        return float(np.sqrt(self.K[0, 0] * self.K[1, 1]))


def read_outlines(
    rig: Rig, frames: int, find_mask: FindMask, progress: Callable[[str], None] = print
) -> tuple[Outlines, ...]:
    """Of every camera. A missing mask counts as no observation; ValueError for one of another size than its camera."""
    return tuple(_camera_outlines(rig, view, frames, find_mask, progress) for view in range(len(rig.cameras)))


def _camera_outlines(
    rig: Rig, view: int, frames: int, find_mask: FindMask, progress: Callable[[str], None]
) -> Outlines:
    camera = rig.cameras[view]
    assert camera.image_size is not None
    blank = np.zeros(camera.image_size[::-1], np.uint8)
    reduced, K = reduce_picture(blank, camera.K, REDUCED_SIDE)
    height, width = reduced.shape
    there = np.zeros(frames, bool)
    outside = np.zeros((frames, height, width), np.uint8)
    contour, normals = np.zeros((2, frames, CONTOUR_POINTS, 2), np.float32)
    on_contour = np.zeros((frames, CONTOUR_POINTS), bool)
    for frame in range(frames):
        path = find_mask(view, frame)
        if path is None:
            continue
        pixels = read_mask(path)
        if pixels.shape != blank.shape:
            raise ValueError(
                f"{path}: is {pixels.shape[1]}x{pixels.shape[0]}, but camera '{camera.name}' is "
                f"{blank.shape[1]}x{blank.shape[0]}"
            )
        grey = undistort_picture(reduce_picture(pixels, camera.K, REDUCED_SIDE)[0], K, camera)
        mask = grey > MASK_THRESHOLD
        if not mask.any():
            continue
        there[frame] = True
        distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
        outside[frame] = (distance * DISTANCE_STEPS).clip(0, 255).round()
        points, directions = _contour(mask)
        count = len(points)
        contour[frame, :count], normals[frame, :count], on_contour[frame, :count] = points, directions, True
    progress(f"masks of camera '{camera.name}': {there.sum()} of {frames}")
    time = float(rig.time_offsets[view])
    wanted = np.arange(frames) + time
    there &= (wanted >= 0) & (wanted <= frames - 1)
    return Outlines(
        K, camera.R, camera.T, (width, height), time, there, outside, contour, normals, on_contour
    )


def read_mask(path: Path) -> np.ndarray:
    """(H, W) uint8: alpha where the picture has it."""
    pixels = decode_image(path, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3:
        pixels = pixels[..., 3] if pixels.shape[2] == 4 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    pixels = np.asarray(pixels)
    return pixels if pixels.dtype == np.uint8 else (pixels // 256).astype(np.uint8)  # of 16 bits


def _contour(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) places along the mask's edge, at most CONTOUR_POINTS and evenly spaced, and (n, 2) directions outwards."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = [line[:, 0] for line in found if len(line) >= MIN_CONTOUR]
    if not lines:
        return np.zeros((0, 2)), np.zeros((0, 2))
    pixels = np.asarray(np.concatenate(lines), np.int64)
    size = np.array(mask.shape[::-1])
    pixels = pixels[((pixels >= BORDER) & (pixels < size - BORDER)).all(1)]
    if len(pixels) > CONTOUR_POINTS:
        pixels = pixels[np.linspace(0, len(pixels) - 1, CONTOUR_POINTS).round().astype(int)]
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2.0)
    slope = np.stack([cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)], -1)
    directions = -slope[pixels[:, 1], pixels[:, 0]]
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)
    # From the centre of the last pixel inside to its edge.
    return pixels + 0.5 + 0.5 * directions, directions


def draw_silhouette(
    pixels: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """(h, w) bool of a closed mesh: its triangles that face the camera. pixels: (B, 2), depth: (B,)."""
    corners = pixels[faces]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    # y points down: a triangle counterclockwise from outside turns the other way round in the picture.
    facing = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] < 0
    drawn = facing & (depth[faces] > NEAR).all(1) & (np.abs(corners) < 1e4).all((1, 2))
    # OpenCV fills every pixel that a triangle touches, half a pixel too much all around: of small pixels it is little.
    fine = np.zeros((size[1] * FINER, size[0] * FINER), np.uint8)
    corners = corners[drawn] * FINER
    fill_triangles(fine, corners, np.full(len(corners), 255))
    return cv2.resize(fine, size, interpolation=cv2.INTER_AREA) > MASK_THRESHOLD


def project_reduced(outlines: Outlines, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, 3) world -> (B, 2) pixels of the reduced mask, (B,) depth."""
    local = vertices @ outlines.R.T.astype(np.float32) + outlines.T.astype(np.float32)
    homogeneous = local @ outlines.K.T.astype(np.float32)
    return homogeneous[:, :2] / np.maximum(local[:, 2:], NEAR), local[:, 2]


def overlap_of(outlines: Outlines, frame: int, silhouette: np.ndarray) -> float:
    """Intersection over union; NaN without a mask."""
    if not outlines.there[frame]:
        return float("nan")
    mask = outlines.outside[frame] == 0
    return float((mask & silhouette).sum() / max((mask | silhouette).sum(), 1))


@dataclass(frozen=True)
class OutlineMatches:
    """To which vertex each contour point of one camera belongs."""

    vertices: np.ndarray  # (F, N) int
    there: np.ndarray  # (F, N) bool


def match_outlines(
    outlines: Outlines, posed: np.ndarray, normals: np.ndarray, faces: np.ndarray
) -> tuple[OutlineMatches, np.ndarray]:
    """posed, normals: (F, B, 3) world at the pictures' times -> matches, and (F,) overlap."""
    frames = len(posed)
    matched = np.zeros(outlines.on_contour.shape, int)
    there = np.zeros(outlines.on_contour.shape, bool)
    overlap = np.full(frames, np.nan)
    for frame in np.flatnonzero(outlines.there):
        pixels, depth = project_reduced(outlines, posed[frame])
        silhouette = draw_silhouette(pixels, depth, faces, outlines.size)
        overlap[frame] = overlap_of(outlines, int(frame), silhouette)
        points = outlines.on_contour[frame]
        edge = _edge_vertices(silhouette, pixels)
        if not len(edge) or not points.any():
            continue
        reach = NORMAL_REACH * outlines.focal / np.median(depth)
        turned = normals[frame, edge] @ outlines.R.T[:, :2]
        turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-9)
        tree = KDTree(np.concatenate([pixels[edge], reach * turned], 1))
        wanted = np.concatenate([outlines.contour[frame], reach * outlines.normals[frame]], 1)[points]
        found = edge[tree.query(wanted)[1]]
        apart = np.linalg.norm(pixels[found] - outlines.contour[frame][points], axis=1)
        matched[frame, points] = found
        there[frame, points] = apart * depth[found] / outlines.focal < FARTHEST_MATCH
    return OutlineMatches(matched, there), overlap


def _edge_vertices(silhouette: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Numbers of the vertices that lie at the edge of the drawn body, and in the picture."""
    inner = cv2.distanceTransform(np.pad(silhouette, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)[
        1:-1, 1:-1
    ]
    size = np.array(silhouette.shape[::-1])
    columns, rows = pixels.astype(int).clip(0, size - 1).T
    in_view = ((pixels >= BORDER) & (pixels < size - BORDER)).all(1)
    return np.flatnonzero(in_view & (inner[rows, columns] <= OUTLINE_WIDTH))


def spread_vertices(vertices: np.ndarray, faces: np.ndarray, count: int = INSIDE_POINTS) -> np.ndarray:
    """Numbers of about `count` vertices, spread by area: a head has as many as a trunk."""
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(faces), count, p=area / area.sum())
    return np.unique(KDTree(vertices).query(corners[chosen].mean(1))[1])


class OutlineTerm:
    """One camera's part of the loss, with the matches of the last drawing."""

    def __init__(self, outlines: Outlines, matches: OutlineMatches, weights: Tensor):
        """weights: (B, J) of the body, on the fit's device."""

        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32, device=weights.device)

        self.time = outlines.time
        self.R, self.T, self.K = tensor(outlines.R), tensor(outlines.T), tensor(outlines.K)
        self.size, self.focal = outlines.size, outlines.focal
        self.there = tensor(outlines.there)
        self.outside = torch.from_numpy(outlines.outside.reshape(len(outlines.outside), -1)).to(
            weights.device
        )
        self.contour, self.normals = tensor(outlines.contour), tensor(outlines.normals)
        self.on_contour = tensor(matches.there)
        self.vertices = torch.from_numpy(matches.vertices).to(weights.device)
        self.weights = weights[self.vertices]  # (F, N, J)

    def _project(self, world: Tensor) -> tuple[Tensor, Tensor]:
        local = world @ self.R.T + self.T
        depth = local[..., 2].clamp(min=NEAR)
        return (local @ self.K.T)[..., :2] / depth[..., None], depth

    def outline_loss(self, rest: Tensor, transforms: Tensor, translations: Tensor) -> Tensor:
        """rest: (B, 3) T-pose; transforms (F, J, 4, 4), translations (F, 3) at the pictures' times. Sum over frames."""
        blended = (self.weights @ transforms[..., :3, :].flatten(-2)).unflatten(-1, (3, 4))
        world = (blended[..., :3] @ rest[self.vertices][..., None])[..., 0] + blended[..., 3]
        pixels, depth = self._project(world + translations[:, None])
        across = ((pixels - self.contour) * self.normals).sum(-1) * depth / self.focal
        squared = across**2
        robust = squared / (1 + squared / OUTLINE_LIMIT**2) / OUTLINE_ERROR**2
        return OUTLINE_WEIGHT * (self.on_contour * robust).sum()

    def inside_loss(self, world: Tensor) -> Tensor:
        """world: (F, P, 3) vertices at the pictures' times. Sum over frames."""
        pixels, depth = self._project(world)
        width, height = self.size
        place = pixels - 0.5  # distances are those of pixel centres
        low = place.detach().floor()
        share = place - low
        column, row = low.long().unbind(-1)
        in_view = (column >= 0) & (column < width - 1) & (row >= 0) & (row < height - 1)
        column, row = column.clamp(0, width - 2), row.clamp(0, height - 2)

        def at(down: int, right: int) -> Tensor:
            return self.outside.gather(1, (row + down) * width + column + right).float()

        x, y = share.unbind(-1)
        upper = (1 - x) * at(0, 0) + x * at(0, 1)
        lower = (1 - x) * at(1, 0) + x * at(1, 1)
        squared = (((1 - y) * upper + y * lower) / DISTANCE_STEPS * depth / self.focal) ** 2
        robust = squared / (1 + squared / INSIDE_LIMIT**2) / INSIDE_ERROR**2
        return INSIDE_WEIGHT * (self.there[:, None] * in_view * robust).sum()
