"""What fitting did and how far it can be trusted: report.md, and pictures of the body over the photographs.

Data path: CameraChanges, BodyFit, errors, notes -> report.md; pictures, BodyFit, Landmarks -> contact sheet.
Shape letters: V cameras, F frames, K landmarks, H, W a picture's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from mmlphuman import drawing
from mmlphuman.capture.images import decode_image
from mmlphuman.files import atomic_write
from mmlphuman.fitting.landmark_fit import at_pictures, pose_state, variables_at
from mmlphuman.fitting.observations import LEFT_HAND, BodyFit, Landmarks, Rig
from mmlphuman.fitting.posed_body import FittedBody, read_fitted_body, skin, vertex_normals
from mmlphuman.fitting.rig import CameraChange
from mmlphuman.fitting.silhouettes import draw_silhouette
from mmlphuman.fitting.triangulation import MIN_CONFIDENCE, undistorted
from mmlphuman.picture_files import write_png
from mmlphuman.preparation.fit_measure import reduce_picture, undistort_picture

READ_SIDE = 1200  # pixels, longest side at which pictures are drawn before they are cropped
CELL_HEIGHT, CELL_WIDTH = 420, 280  # pixels of a picture on the sheet
MARGIN = 0.12  # of the person's height, around the crop
BODY_LINE = (70, 230, 110)
BODY_POINT, HAND_POINT = (255, 60, 40), (255, 200, 0)  # landmarks as seen; fainter where less sure
SHEET_FRAMES = 8  # evenly chosen, and the worst
GAP, LABEL, HEADER = 8, 24, 64  # pixels

FindImage = Callable[[int, int], Path | None]  # camera, frame -> the picture's file


def body_in_time(body: FittedBody, fit: BodyFit, late: float) -> Callable[[int], np.ndarray]:
    """frame -> (B, 3) float32 vertices in the world when a camera that is `late` took that picture.

    Only the joints' transforms are kept: vertices of all frames of a long capture do not fit into memory.
    """
    betas = torch.from_numpy(fit.betas)
    normals = vertex_normals(body.vertices(betas), body.faces)
    displaced = normals * torch.from_numpy(fit.normal_offsets)[:, None]
    variables = variables_at(fit.poses, fit.translations, fit.betas, "cpu")
    with torch.no_grad():
        state = pose_state(body.frame(displaced), variables)
        transforms = at_pictures(state.transforms, late)
        moved = at_pictures(variables.translations(), late)
        rest = body.vertices(betas, displaced)

    def vertices(frame: int) -> np.ndarray:
        with torch.no_grad():
            return (skin(body.weights, transforms[frame, None], rest)[0] + moved[frame]).numpy()

    return vertices


def frames_to_show(fit: BodyFit, count: int = SHEET_FRAMES) -> list[int]:
    """Evenly spaced ones, the last place given to the frame in which body and masks overlap least."""
    frames = len(fit.poses)
    chosen = set(np.linspace(0, frames - 1, min(count, frames)).round().astype(int).tolist())
    with_masks = np.isfinite(fit.overlap).any(0)
    if with_masks.any():
        of_frame = np.where(with_masks, np.nan_to_num(fit.overlap, nan=1.0).min(0), np.inf)
        chosen.add(int(of_frame.argmin()))
    return sorted(chosen)


def write_contact_sheet(
    path: Path,
    rig: Rig,
    fit: BodyFit,
    body_path: Path,
    find_image: FindImage,
    landmarks: Landmarks | None,
    frames: Sequence[int],
    title: str = "",
) -> None:
    """A PNG: a row for each frame, a column for each camera; the body's outline and the landmarks on the picture."""
    body = read_fitted_body(body_path)
    rows: list[list[np.ndarray]] = [[] for _ in frames]
    for view in range(len(rig.cameras)):
        posed = body_in_time(body, fit, float(rig.time_offsets[view]))
        for row, frame in zip(rows, frames, strict=True):
            cell = _cell(rig, view, frame, posed(frame), body.faces.numpy(), find_image, landmarks)
            overlap = fit.overlap[view, frame]
            text = f"{rig.cameras[view].name}, frame {frame}" + f": {overlap:.2f}" * bool(
                np.isfinite(overlap)
            )
            row.append(_labelled(cell, text))
    cells = [cell for row in rows for cell in row]
    height, width = cells[0].shape[:2]
    columns = len(rig.cameras)
    sheet = drawing.blank(HEADER + len(rows) * (height + GAP), GAP + columns * (width + GAP))
    drawing.put_text(sheet, title or "body and landmarks over the pictures", (GAP, 26), 0.7, thickness=2)
    legend = (
        "green: the body's outline; red: landmarks as seen, yellow: of hands; number: overlap with the mask"
    )
    drawing.put_text(sheet, legend, (GAP, 50), 0.45)
    drawing.place_grid(sheet, cells, columns, (HEADER, GAP), GAP)
    write_png(path, sheet)


def _cell(
    rig: Rig,
    view: int,
    frame: int,
    vertices: np.ndarray,
    faces: np.ndarray,
    find_image: FindImage,
    landmarks: Landmarks | None,
) -> np.ndarray:
    """(CELL_HEIGHT, CELL_WIDTH, 3) uint8 RGB, cropped to the person."""
    camera = rig.cameras[view]
    path = find_image(view, frame)
    if path is None:
        return np.full((CELL_HEIGHT, CELL_WIDTH, 3), drawing.FRAME, np.uint8)
    image = decode_image(path, cv2.IMREAD_COLOR_RGB)
    full = image.shape[1]
    image, K = reduce_picture(image, camera.K, READ_SIDE)
    image = undistort_picture(image, K, camera)
    size = image.shape[1], image.shape[0]
    local = vertices @ camera.R.T + camera.T
    depth = local[:, 2]
    pixels = (local @ K.T)[:, :2] / np.maximum(depth, 0.1)[:, None]
    image = np.ascontiguousarray(image)
    drawing.outline(image, draw_silhouette(pixels, depth, faces, size), BODY_LINE)
    if landmarks is not None:
        places = undistorted(landmarks.places[view, frame], camera) * (size[0] / full)
        for number, (place, sure) in enumerate(zip(places, landmarks.confidence[view, frame], strict=True)):
            if sure < MIN_CONFIDENCE or not ((place >= 0) & (place < size)).all():
                continue
            colour = BODY_POINT if number < LEFT_HAND.start else HAND_POINT
            faint = tuple(int(255 - (255 - c) * (0.3 + 0.7 * float(sure))) for c in colour)
            radius = 3 if number < LEFT_HAND.start else 1
            centre = int(place[0]), int(place[1])
            cv2.circle(image, centre, radius, faint, cv2.FILLED, cv2.LINE_AA)
    return _crop(image, pixels)


def _crop(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The part of a picture around the body, in the cell's shape; paper where it ends."""
    size = np.array(image.shape[1::-1], float)
    low, high = pixels.min(0).clip(0, size), pixels.max(0).clip(0, size)
    middle = (low + high) / 2
    extent = np.maximum(high - low, 0.1 * size) * (1 + 2 * MARGIN)
    scale = min(CELL_WIDTH / extent[0], CELL_HEIGHT / extent[1])
    corner = middle - np.array([CELL_WIDTH, CELL_HEIGHT]) / scale / 2
    to_cell = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(image, to_cell, (CELL_WIDTH, CELL_HEIGHT), flags=smooth, borderValue=drawing.PAPER)


def _labelled(cell: np.ndarray, text: str) -> np.ndarray:
    label = drawing.blank(LABEL, cell.shape[1])
    drawing.put_text(label, text, (0, 16), 0.45)
    return np.concatenate([label, cell])


def write_report(
    path: Path,
    fit: BodyFit,
    changes: Sequence[CameraChange],
    landmark_errors: np.ndarray | None,
    notes: Sequence[str],
    frames: int,
) -> None:
    """report.md. landmark_errors: (V, F, K) pixels between the fitted body's landmarks and those seen, with NaN."""
    lines = ["# Fit", "", f"{frames} frames, {len(changes)} cameras.", ""]
    if np.isfinite(fit.overlap).any():
        of_frame = _mean_over(fit.overlap, 0)
        worst = int(np.nanargmin(of_frame))
        lines += [
            f"Body and masks overlap by {np.nanmean(fit.overlap):.3f} on average (intersection over union), "
            f"{of_frame[worst]:.3f} in the worst frame ({worst}), "
            f"{np.nanmin(fit.overlap):.3f} in the worst picture.",
            "",
        ]
    moved = 1000 * np.abs(fit.normal_offsets)
    if moved.any():
        lines += [
            f"The surface stands off from the body file's by {moved.mean():.1f} mm on average, "
            f"{moved.max():.0f} mm at most.",
            "",
        ]
    lines += [
        "| camera | turned | moved | late | landmarks before | after | on the body | overlap | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for view, change in enumerate(changes):
        on_body = (
            np.full(1, np.nan) if landmark_errors is None else landmark_errors[view, :, : LEFT_HAND.start]
        )
        cells = [
            change.name,
            *_changed(change),
            _pixels(change.error_before),
            _pixels(change.error_after),
            _pixels(float(np.nanmedian(on_body)) if np.isfinite(on_body).any() else np.nan),
            *(_number(function, fit.overlap[view]) for function in (np.nanmean, np.nanmin)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Landmarks: the median distance to the points that most cameras agree on, before and after cameras and times "
        "were refined, and to the fitted body's. A camera that is 'as given' was checked, and landmarks gave no reason "
        "to turn or move it.",
        "",
        "## To be looked at" if notes else "Nothing was found doubtful.",
        "",
        *(f"- {note}" for note in notes),
    ]
    with atomic_write(path) as file:
        file.write(("\n".join(lines).rstrip() + "\n").encode())


def _changed(change: CameraChange) -> tuple[str, str, str]:
    """Turned, moved, late."""
    if not np.isfinite(change.error_before):
        return "not checked", "-", "-"
    late = f"{change.time_offset:.2f} frames"
    if change.turned == change.moved == 0:
        return "as given", "as given", late
    return f"{change.turned:.2f}°", f"{100 * change.moved:.1f} cm", late


def _mean_over(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is finite; NaN where nothing is."""
    there = np.isfinite(values)
    return np.where(there.any(axis), np.nan_to_num(values).sum(axis) / there.sum(axis).clip(1), np.nan)


def _pixels(value: float) -> str:
    return f"{value:.1f} px" if np.isfinite(value) else "-"


def _number(function: Callable, values: np.ndarray) -> str:
    return f"{function(values):.3f}" if np.isfinite(values).any() else "-"
