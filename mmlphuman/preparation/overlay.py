"""The posed body drawn over a capture's images: a contact sheet that shows at a glance whether it fits.

Data path: chosen (frame, camera) -> image, mask outline, shaded body -> labelled cells -> one PNG.
Shape letters: B vertices, F faces, H, W of a cell's picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmlphuman.body.kinematics import apply_transforms, blend_transforms, forward_kinematics
from mmlphuman.body.smplx_model import Body
from mmlphuman.capture.images import MASK_THRESHOLD, decode_image
from mmlphuman.capture.layout import CaptureLayout
from mmlphuman.capture.poses import SmplParams
from mmlphuman.files import atomic_write
from mmlphuman.preparation.fit_checks import LOOSE, NO_OVERLAP
from mmlphuman.preparation.fit_measure import Fit, reduce_picture, undistort_picture
from mmlphuman.preparation.mask_checks import Sampled
from mmlphuman.preparation.posed_surface import NEAR

COLUMNS = 4
MAX_CELLS = 12
CELL_WIDTH, CELL_HEIGHT = 420, 560  # pixels
READ_SIDE = 1600  # pixels, longest side at which pictures are drawn before they are cropped
CROP_MARGIN = 0.08  # of the person's box, on each side
BODY_OPACITY = 0.65
BODY_COLOUR = np.array([70, 230, 110])  # RGB where the surface faces the camera
BODY_DARK = 0.1  # of it where the surface is seen edge-on
OUTSIDE_COLOUR = np.array([255, 40, 30])  # body outside the mask
MASK_OUTLINE = (255, 0, 255)
OUTLINE_WIDTH = 2
GAP, LABEL_HEIGHT, HEADER = 12, 46, 96
PAPER, INK, WORST_INK = (255, 255, 255), (30, 30, 30), (200, 30, 30)
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Cell:
    """One picture of the sheet."""

    frame: int
    camera: int
    heading: str  # which picture, and why it is shown
    text: str
    is_bad: bool


def choose_cells(samples: Sequence[Sampled], count: int = MAX_CELLS) -> list[Cell]:
    """The worst pictures, of different cameras, then typical ones spread over cameras and frames."""
    fits = [sample.fit for sample in samples if sample.fit is not None]
    worst = {}
    for fit in sorted(fits, key=lambda fit: np.nan_to_num(fit.inside) + np.nan_to_num(fit.overlap)):
        worst.setdefault(fit.camera, fit)
    chosen = list(worst.values())[: count // 3]
    cells = [_cell(fit, "lowest") for fit in chosen]
    cameras = sorted({fit.camera for fit in fits})
    wanted = min(count - len(cells), len(fits) - len(cells))
    for index in range(wanted):
        camera = cameras[index * max(1, len(cameras) // wanted) % len(cameras)]
        left = [fit for fit in fits if fit.camera == camera and fit not in chosen]
        if left:
            # Walks through the sequence while the cameras go round.
            chosen.append(left[(2 * index + 1) * len(left) // (2 * wanted)])
            cells.append(_cell(chosen[-1], "typical"))
    return cells


def _cell(fit: Fit, heading: str) -> Cell:
    is_bad = not (fit.inside >= LOOSE and fit.overlap >= NO_OVERLAP)
    heading = "BAD FIT" if is_bad else heading
    inside = "out of view" if np.isnan(fit.inside) else f"{fit.inside:.0%} of the body inside"
    heading = f"{heading}: frame {fit.frame}, camera {fit.camera}"
    return Cell(fit.frame, fit.camera, heading, f"{inside}, overlap {np.nan_to_num(fit.overlap):.2f}", is_bad)


def write_overlay_sheet(
    path: Path, layout: CaptureLayout, params: SmplParams, body: Body, cells: Sequence[Cell], title: str
) -> None:
    """Draw the cells and write a PNG."""
    pictures = [
        _labelled(draw_overlay(layout, params, body, cell.frame, cell.camera), cell) for cell in cells
    ]
    rows = -(-len(pictures) // COLUMNS)
    columns = min(COLUMNS, len(pictures))
    cell_height, cell_width = pictures[0].shape[:2]
    width = max(columns * (cell_width + GAP) + GAP, COLUMNS * (CELL_WIDTH + GAP) + GAP)
    sheet = np.full((HEADER + rows * (cell_height + GAP), width, 3), PAPER, np.uint8)
    cv2.putText(sheet, title, (GAP, 36), FONT, 0.9, INK, 2, cv2.LINE_AA)
    legend = (
        ("green: body as posed, inside the mask", BODY_COLOUR.tolist()),
        ("red: body outside the mask", OUTSIDE_COLOUR.tolist()),
        ("magenta: the mask's outline", MASK_OUTLINE),
    )
    left = GAP
    for text, colour in legend:
        cv2.rectangle(sheet, (left, 58), (left + 22, 78), colour, cv2.FILLED)
        cv2.putText(sheet, text, (left + 30, 76), FONT, 0.65, INK, 1, cv2.LINE_AA)
        left += 60 + cv2.getTextSize(text, FONT, 0.65, 1)[0][0]
    for index, picture in enumerate(pictures):
        top = HEADER + index // COLUMNS * (cell_height + GAP)
        left = GAP + index % COLUMNS * (cell_width + GAP)
        sheet[top : top + cell_height, left : left + cell_width] = picture
    encoded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    with atomic_write(path) as file:
        file.write(encoded.tobytes())


def draw_overlay(
    layout: CaptureLayout, params: SmplParams, body: Body, frame: int, camera: int
) -> np.ndarray:
    """(CELL_HEIGHT, CELL_WIDTH, 3) uint8 RGB: the person with body and mask drawn in."""
    calibrated = layout.cameras[camera]
    image = decode_image(layout.image_path(camera, frame), cv2.IMREAD_COLOR_RGB)
    alpha = decode_image(layout.mask_path(camera, frame), cv2.IMREAD_GRAYSCALE)
    if alpha.shape != image.shape[:2]:
        raise ValueError(f"{layout.mask_path(camera, frame)}: its size is not the image's")
    image, K = reduce_picture(image, calibrated.K, READ_SIDE)
    alpha, _ = reduce_picture(alpha, calibrated.K, READ_SIDE)
    mask = undistort_picture(alpha, K, calibrated.dist) > MASK_THRESHOLD
    image = undistort_picture(image, K, calibrated.dist)
    pixels, depth, facing = _project_faces(body, params, frame, calibrated.w2c, K)
    box = _crop_box(mask, pixels, depth)
    scale = min(CELL_WIDTH / (box[2] - box[0]), CELL_HEIGHT / (box[3] - box[1]))
    to_cell = np.array([[scale, 0, -scale * box[0]], [0, scale, -scale * box[1]]])
    size = (CELL_WIDTH, CELL_HEIGHT)
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.warpAffine(image, to_cell, size, flags=smooth, borderValue=PAPER)
    mask = cv2.warpAffine(mask.astype(np.uint8) * 255, to_cell, size, flags=cv2.INTER_LINEAR) > MASK_THRESHOLD
    shade = _draw_faces(pixels @ to_cell[:, :2].T + to_cell[:, 2], depth, facing)
    return _compose(image, mask, shade)


def _project_faces(body: Body, params: SmplParams, frame: int, w2c: np.ndarray, K: np.ndarray):
    """-> (F, 3, 2) pixels of the corners, (F,) depth, (F,) cosine between normal and viewing ray."""
    pose = params.pose(frame)
    transforms = forward_kinematics(pose.joints, body.joints, body.parents)
    world = apply_transforms(blend_transforms(body.lbs_weights, transforms), body.vertices)
    camera = world.numpy().astype(np.float64) + pose.translation.numpy()
    camera = camera @ w2c[:3, :3].T + w2c[:3, 3]
    corners = camera[body.faces.numpy()]
    depth = corners[:, :, 2].min(1)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centre = corners.mean(1)
    length = np.linalg.norm(normal, axis=1) * np.linalg.norm(centre, axis=1)
    facing = -(normal * centre).sum(1) / np.maximum(length, 1e-12)
    homogeneous = corners @ K.T
    return homogeneous[:, :, :2] / np.maximum(homogeneous[:, :, 2:], NEAR), depth, facing


def _crop_box(mask: np.ndarray, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(left, top, right, bottom): mask and the part of the body that is in the picture, with a margin.

    Where the two lie apart both are shown.
    """
    size = np.array(mask.shape[::-1], float)
    corners = pixels[depth > NEAR].reshape(-1, 2)
    corners = corners[((corners >= 0) & (corners < size)).all(1)]
    rows, columns = np.nonzero(mask)
    both = np.concatenate([corners, np.stack([columns, rows], 1)])
    if len(both) < 2:
        return np.array([0, 0, *size])
    low, high = both.min(0), both.max(0)
    extent = np.maximum(high - low, 0.1 * size)
    middle, extent = (low + high) / 2, extent * (1 + 2 * CROP_MARGIN)
    extent = np.maximum(extent, extent[::-1] * [CELL_WIDTH / CELL_HEIGHT, CELL_HEIGHT / CELL_WIDTH])
    return np.concatenate([middle - extent / 2, middle + extent / 2])


def _draw_faces(pixels: np.ndarray, depth: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """(CELL_HEIGHT, CELL_WIDTH) uint8: 0 without body, else how much the surface faces the camera."""
    shade = np.zeros((CELL_HEIGHT, CELL_WIDTH), np.uint8)
    fixed_point = 4  # bits of a pixel's fraction
    drawn = np.flatnonzero((depth > NEAR) & (facing > 0) & (np.abs(pixels) < 1e4).all((1, 2)))
    corners = np.round((pixels - 0.5) * 2**fixed_point).astype(np.int32)
    values = (40 + 215 * facing.clip(0, 1)).astype(int)
    for face in drawn[np.argsort(-depth[drawn])]:  # far to near
        cv2.fillConvexPoly(shade, corners[face], int(values[face]), cv2.LINE_8, fixed_point)
    return shade


def _compose(image: np.ndarray, mask: np.ndarray, shade: np.ndarray) -> np.ndarray:
    body = shade > 0
    colour = np.where(mask[..., None], BODY_COLOUR, OUTSIDE_COLOUR)
    lit = BODY_DARK + (1 - BODY_DARK) * shade[..., None] / 255
    opacity = BODY_OPACITY * body[..., None]
    mixed = np.ascontiguousarray((image * (1 - opacity) + colour * lit * opacity).round().astype(np.uint8))
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(mixed, outlines, -1, MASK_OUTLINE, OUTLINE_WIDTH, cv2.LINE_AA)


def _labelled(picture: np.ndarray, cell: Cell) -> np.ndarray:
    label = np.full((LABEL_HEIGHT, picture.shape[1], 3), PAPER, np.uint8)
    ink = WORST_INK if cell.is_bad else INK
    cv2.putText(label, cell.heading, (0, 18), FONT, 0.55, ink, 2 if cell.is_bad else 1, cv2.LINE_AA)
    cv2.putText(label, cell.text, (0, 38), FONT, 0.5, ink, 1, cv2.LINE_AA)
    framed = picture.copy()
    cv2.rectangle(framed, (0, 0), (framed.shape[1] - 1, framed.shape[0] - 1), ink, 2 if cell.is_bad else 1)
    return np.concatenate([label, framed])
