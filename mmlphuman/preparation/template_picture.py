"""The template posed and drawn over photographs, so that a person sees at once whether it fits.

Data path: Template mesh + CaptureDataset + chosen views -> shaded overlay, outlines, overlap -> one RGB picture.
Shape letters: P vertices, T triangles, H, W image size.

Triangles are filled back to front (the painter's algorithm), which is exact enough for a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import trimesh

from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_volume import WeightVolume
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.preparation.mask_views import canonical_to_world, pose_points
from mmlphuman.types import Cameras, Sample

TILE_HEIGHT = 620  # pixels
MARGIN = 0.06  # of the person's height, around the crop
OPACITY = 0.8  # of the mesh over the photograph
MESH_COLOR = np.array([225, 222, 215])  # RGB
MASK_LINE, MESH_LINE = (225, 30, 30), (0, 110, 255)  # RGB, the two outlines
TILES_PER_ROW = 3
GAP, LABEL_HEIGHT = 10, 30  # pixels
FONT, TEXT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.6
SUBPIXEL_BITS = 4  # of OpenCV's fixed-point coordinates


@dataclass(frozen=True)
class TemplatePicture:
    image: np.ndarray  # (H, W, 3) uint8 RGB
    overlaps: list[float]  # intersection over union of mesh and mask, per view


def views_to_show(dataset: CaptureDataset, frames: Sequence[int], count: int) -> list[tuple[int, int]]:
    """`count` existing (frame, camera id) pairs, spread over `frames` and, independently, over the cameras."""
    chosen = set(frames)
    pairs = [pair for pair in dataset.pairs if pair[0] in chosen]
    picked: list[tuple[int, int]] = []
    present = sorted({frame for frame, _ in pairs})
    for number, index in enumerate(np.linspace(0, len(present) - 1, min(count, len(present))).round()):
        cameras = [camera for frame, camera in pairs if frame == present[int(index)]]
        # Steps of a third go round a ring of cameras: front, side, back.
        picked.append((present[int(index)], cameras[number * max(len(cameras) // 3, 1) % len(cameras)]))
    return picked


def template_picture(
    mesh: trimesh.Trimesh,
    dataset: CaptureDataset,
    views: Sequence[tuple[int, int]],
    body: Body,
    volume: WeightVolume,
) -> TemplatePicture:
    """Pose the canonical `mesh` and draw it over each (frame, camera) view."""
    points = torch.from_numpy(np.asarray(mesh.vertices, np.float32))
    normals = torch.from_numpy(np.array(mesh.vertex_normals, np.float32))
    weights = volume.query(points)
    tiles, overlaps = [], []
    for frame, camera_id in views:
        sample = dataset.sample(frame, (camera_id,))
        posed, linear = pose_points(points, weights, canonical_to_world(sample.pose, body))
        turned = (linear @ normals[:, :, None])[:, :, 0]
        color, drawn = _draw(posed.numpy(), turned.numpy(), mesh.faces, sample.cameras)
        mask = sample.masks[0].numpy()
        overlaps.append(float((mask & drawn).sum() / max((mask | drawn).sum(), 1)))
        label = f"frame {frame}, camera {camera_id}: overlap {overlaps[-1]:.3f}"
        tiles.append(_tile(sample, mask, color, drawn, label))
    return TemplatePicture(_join(tiles), overlaps)


def _draw(
    vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, cameras: Cameras
) -> tuple[np.ndarray, np.ndarray]:
    """Shaded (H, W, 3) uint8 mesh and (H, W) bool where it is; light comes from the camera."""
    w2c, intrinsics = cameras.w2c[0].numpy(), cameras.intrinsics[0].numpy()
    local = vertices @ w2c[:3, :3].T + w2c[:3, 3]
    facing = -((normals @ w2c[:3, :3].T) * local).sum(1) / np.linalg.norm(local, axis=1)
    pixels = local @ intrinsics.T
    pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6)
    fixed = np.round((pixels - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)  # OpenCV: centres at integers
    depth = local[faces, 2]
    visible = np.flatnonzero((depth > 0).all(1))
    order = visible[np.argsort(-depth[visible].mean(1))]
    light = 0.25 + 0.75 * np.clip(facing[faces].mean(1), 0, 1)
    shades = np.round(light[:, None] * MESH_COLOR).astype(int)
    color = np.zeros((cameras.height, cameras.width, 3), np.uint8)
    drawn = np.zeros((cameras.height, cameras.width), np.uint8)
    for triangle in order:
        corners = fixed[faces[triangle]]
        cv2.fillConvexPoly(color, corners, shades[triangle].tolist(), cv2.LINE_8, SUBPIXEL_BITS)
        cv2.fillConvexPoly(drawn, corners, 1, cv2.LINE_8, SUBPIXEL_BITS)
    return color, drawn.astype(bool)


def _tile(sample: Sample, mask: np.ndarray, color: np.ndarray, drawn: np.ndarray, label: str) -> np.ndarray:
    """Cropped to the person: photograph with the template's outline, template with the mask's; label above."""
    photo = sample.images[0].numpy()
    ys, xs = np.nonzero(mask | drawn)
    if len(ys) == 0:
        ys, xs = np.array([0, photo.shape[0] - 1]), np.array([0, photo.shape[1] - 1])
    margin = round(MARGIN * (ys.max() - ys.min() + 1))
    crop = (
        slice(max(ys.min() - margin, 0), ys.max() + 1 + margin),
        slice(max(xs.min() - margin, 0), xs.max() + 1 + margin),
    )
    shaded = np.where(drawn[..., None], (1 - OPACITY) * photo + OPACITY * color, photo).astype(np.uint8)
    pair = [
        _outlined(photo[crop], drawn[crop], MESH_LINE),
        _outlined(shaded[crop], mask[crop], MASK_LINE),
    ]
    tile = cv2.copyMakeBorder(
        np.concatenate(pair, 1), LABEL_HEIGHT, 0, 0, 0, cv2.BORDER_CONSTANT, value=(255,) * 3
    )
    cv2.putText(tile, label, (4, LABEL_HEIGHT - 9), FONT, TEXT_SCALE, (30, 30, 30), 1, cv2.LINE_AA)
    return tile


def _outlined(picture: np.ndarray, region: np.ndarray, line: tuple[int, int, int]) -> np.ndarray:
    """The picture brought to TILE_HEIGHT with the region's outline drawn on it."""
    height, width = picture.shape[:2]
    size = (max(round(width * TILE_HEIGHT / height), 1), TILE_HEIGHT)
    shrinks = height > TILE_HEIGHT
    large = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    inside = cv2.resize(region.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(large, contours, -1, line, 2, cv2.LINE_AA)
    return large


def _join(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Tiles in rows, on white, under a legend."""
    rows = [_legend()]
    for start in range(0, len(tiles), TILES_PER_ROW):
        spaced = [
            cv2.copyMakeBorder(tile, 0, 0, 0, 3 * GAP, cv2.BORDER_CONSTANT, value=(255,) * 3)
            for tile in tiles[start : start + TILES_PER_ROW]
        ]
        rows.append(np.concatenate(spaced, 1))
    width = max(row.shape[1] for row in rows)
    padded = [
        cv2.copyMakeBorder(
            row, GAP, GAP, GAP, GAP + width - row.shape[1], cv2.BORDER_CONSTANT, value=(255,) * 3
        )
        for row in rows
    ]
    return np.concatenate(padded)


def _legend() -> np.ndarray:
    parts = (
        ("left: photograph with", (30, 30, 30)),
        ("the template's outline;", MESH_LINE),
        ("right: template with", (30, 30, 30)),
        ("the mask's outline", MASK_LINE),
    )
    widths = [cv2.getTextSize(text, FONT, TEXT_SCALE, 1)[0][0] + GAP for text, _ in parts]
    legend = np.full((LABEL_HEIGHT, sum(widths), 3), 255, np.uint8)
    left = 0
    for (text, ink), width in zip(parts, widths, strict=True):
        cv2.putText(legend, text, (left, LABEL_HEIGHT - 9), FONT, TEXT_SCALE, ink, 1, cv2.LINE_AA)
        left += width
    return legend
