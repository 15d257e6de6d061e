"""The posed body, and the posed template, over a capture's photographs: whether they fit shows at a glance.

Data path: chosen (frame, camera) -> image, mask; Body or template mesh -> posed, projected -> drawing -> one picture.
Shape letters: P vertices, F faces, H, W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import trimesh

from mmlphuman import drawing
from mmlphuman.body.kinematics import apply_transforms, blend_transforms, forward_kinematics
from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_volume import WeightVolume
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.images import MASK_THRESHOLD, decode_image, decode_mask
from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.capture.poses import SmplParams
from mmlphuman.picture_files import write_png
from mmlphuman.preparation.carving import canonical_to_world, pose_points
from mmlphuman.preparation.file_checks import Sampled
from mmlphuman.preparation.fit_checks import LOOSE, NO_OVERLAP
from mmlphuman.preparation.fit_measure import NEAR, Fit, reduce_picture, undistort_picture
from mmlphuman.types import Cameras

MAX_CELLS = 12
READ_SIDE = 1600  # pixels, longest side at which pictures are drawn before they are cropped


def choose_cells(samples: Sequence[Sampled], count: int = MAX_CELLS) -> list[tuple[Fit, str]]:
    """The worst pictures, of different cameras, then typical ones spread over cameras and frames; each with a word."""
    fits = [sample.fit for sample in samples if sample.fit is not None]
    worst = {}
    for fit in sorted(fits, key=lambda fit: np.nan_to_num(fit.inside) + np.nan_to_num(fit.overlap)):
        worst.setdefault(fit.camera, fit)
    chosen = list(worst.values())[: count // 3]
    cells = [(fit, "lowest") for fit in chosen]
    cameras = sorted({fit.camera for fit in fits})
    wanted = min(count - len(cells), len(fits) - len(cells))
    for index in range(wanted):
        camera = cameras[index * max(1, len(cameras) // wanted) % len(cameras)]
        left = [fit for fit in fits if fit.camera == camera and fit not in chosen]
        if left:
            # Walks through the sequence while the cameras go round.
            chosen.append(left[(2 * index + 1) * len(left) // (2 * wanted)])
            cells.append((chosen[-1], "typical"))
    return cells


def write_body_sheet(
    path: Path,
    layout: CaptureLayout,
    params: SmplParams,
    body: Body,
    chosen: Sequence[tuple[Fit, str]],
    title: str,
) -> None:
    """Draw the pictures of `choose_cells` and write a PNG."""
    cells = []
    for fit, heading in chosen:
        is_bad = not (fit.inside >= LOOSE and fit.overlap >= NO_OVERLAP)
        heading = "BAD FIT" if is_bad else heading
        inside = "out of view" if np.isnan(fit.inside) else f"{fit.inside:.0%} of the body inside"
        cells.append(
            drawing.BodyCell(
                picture=draw_body(layout, params, body, fit.frame, fit.camera),
                heading=f"{heading}: frame {fit.frame}, camera {fit.camera}",
                text=f"{inside}, overlap {np.nan_to_num(fit.overlap):.2f}",
                is_bad=is_bad,
            )
        )
    write_png(path, drawing.body_sheet(cells, title))


def draw_body(layout: CaptureLayout, params: SmplParams, body: Body, frame: int, camera: int) -> np.ndarray:
    """The person with body and mask drawn in, see `drawing.body_over_photograph`."""
    calibrated = layout.cameras[camera]
    image_path, mask_path = layout.image_path(camera, frame), layout.mask_path(camera, frame)
    image, alpha = decode_image(image_path, cv2.IMREAD_COLOR_RGB), decode_mask(mask_path, image_path)
    if alpha.shape != image.shape[:2]:
        raise ValueError(f"{mask_path}: its size is not the image's")
    image, K = reduce_picture(image, calibrated.K, READ_SIDE)
    alpha, _ = reduce_picture(alpha, calibrated.K, READ_SIDE)
    mask = undistort_picture(alpha, K, calibrated) > MASK_THRESHOLD
    image = undistort_picture(image, K, calibrated)
    return drawing.body_over_photograph(image, mask, _project_faces(body, params, frame, calibrated.w2c, K))


def _project_faces(
    body: Body, params: SmplParams, frame: int, w2c: np.ndarray, K: np.ndarray
) -> drawing.ProjectedFaces:
    pose = params.pose(frame)
    transforms = forward_kinematics(pose.joints, body.joints, body.parents)
    world = apply_transforms(blend_transforms(body.lbs_weights, transforms), body.vertices)
    camera = world.numpy().astype(np.float64) + pose.translation.numpy()
    camera = camera @ w2c[:3, :3].T + w2c[:3, 3]
    corners = camera[body.faces.numpy()]
    depth = corners[:, :, 2].min(1)
    corners, depth = corners[depth > NEAR], depth[depth > NEAR]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centre = corners.mean(1)
    length = np.linalg.norm(normal, axis=1) * np.linalg.norm(centre, axis=1)
    facing = -(normal * centre).sum(1) / np.maximum(length, 1e-12)
    homogeneous = corners @ K.T
    return drawing.ProjectedFaces(homogeneous[:, :, :2] / homogeneous[:, :, 2:], depth, facing)


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
        color, drawn = _draw_template(posed.numpy(), turned.numpy(), mesh.faces, sample.cameras)
        mask = sample.masks[0].numpy()
        overlaps.append(float((mask & drawn).sum() / max((mask | drawn).sum(), 1)))
        label = f"frame {frame}, camera {camera_id}: overlap {overlaps[-1]:.3f}"
        tiles.append(drawing.template_tile(sample.images[0].numpy(), mask, color, drawn, label))
    return TemplatePicture(drawing.template_sheet(tiles), overlaps)


def _draw_template(
    vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, cameras: Cameras
) -> tuple[np.ndarray, np.ndarray]:
    """See `drawing.shaded_template`."""
    w2c, intrinsics = cameras.w2c[0].numpy(), cameras.intrinsics[0].numpy()
    local = vertices @ w2c[:3, :3].T + w2c[:3, 3]
    facing = -((normals @ w2c[:3, :3].T) * local).sum(1) / np.linalg.norm(local, axis=1)
    pixels = local @ intrinsics.T
    pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6)
    return drawing.shaded_template(pixels, local[:, 2], facing, faces, (cameras.width, cameras.height))
