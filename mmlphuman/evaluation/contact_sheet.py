"""One picture to judge a test by: ground truth, render and error of a dozen frames side by side.

Data path: frames of a test (uint8) -> person cropped out -> cells of three tiles -> one PNG.
Shape letters: H, W height and width of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmlphuman.evaluation.writer import write_png

MAX_CELLS = 12
MAX_BYTES = 3_000_000  # of the PNG; tiles shrink until it fits
SHEET_WIDTH = 2600  # pixels, at most (one cell may need more)
TILE_SIDE = 350  # pixels; root of a tile's area, so that wide and tall people take equal room
CROP_MARGIN = 0.06  # of the person's height or width, on each side
ERROR_FULL_SCALE = 0.25  # absolute difference of colours in [0, 1] that gets the map's last colour
ERROR_COLOURS = cv2.COLORMAP_INFERNO  # black is no error
TILE_TITLES = ("ground truth", "render", "error")

GAP, CELL_GAP, MARGIN, LINE = 4, 22, 24, 26  # pixels
RAMP_WIDTH = 160  # pixels, the legend of the error's colours
FONT = cv2.FONT_HERSHEY_SIMPLEX
TITLE, TEXT = 1.0, 0.6  # font scales
INK, FAINT, PAPER, FRAME = (30, 30, 30), (120, 120, 120), (255, 255, 255), (205, 205, 205)


@dataclass(frozen=True)
class SheetRow:
    """One frame of the sheet."""

    label: str  # camera, frame, PSNR; ASCII
    ground_truth: np.ndarray  # (H, W, 3) uint8 RGB on white
    render: np.ndarray  # (H, W, 3) uint8 RGB on white
    mask: np.ndarray | None = None  # (H, W) bool, what to crop to; None shows the whole frame


def contact_sheet(
    rows: Sequence[SheetRow],
    path: Path | str,
    title: str,
    lines: Sequence[str] = (),
    max_cells: int = MAX_CELLS,
) -> Path:
    """Draw the sheet and write it as PNG.

    rows: frames in order; of more than max_cells, evenly spaced ones are shown and the header says so.
    title: heading; lines: smaller text under it, such as `ScoreTable.summary()`. ValueError for no rows.
    """
    if not rows:
        raise ValueError(f"{path}: a contact sheet needs at least one picture")
    lines = list(lines)
    if len(rows) > max_cells:
        lines.append(f"{max_cells} of {len(rows)} images, evenly spaced")
        rows = [rows[index] for index in np.linspace(0, len(rows) - 1, max_cells).round().astype(int)]
    tile_side = TILE_SIDE
    while True:
        sheet = _draw(rows, title, lines, tile_side)
        size = len(cv2.imencode(".png", sheet)[1])
        if size < MAX_BYTES or tile_side < 100:
            break
        tile_side = int(tile_side * max(0.6, min(0.95, math.sqrt(MAX_BYTES / size))))
    write_png(Path(path), sheet)
    return Path(path)


def error_map(ground_truth: np.ndarray, render: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 pictures -> (H, W) float32 absolute difference in [0, 1], worst channel."""
    return cv2.absdiff(ground_truth, render).max(-1).astype(np.float32) / 255


def colour_error(error: np.ndarray) -> np.ndarray:
    """(H, W) differences -> (H, W, 3) uint8 RGB by one fixed scale, so that runs can be compared."""
    scaled = np.clip(error * (255 / ERROR_FULL_SCALE), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(scaled, ERROR_COLOURS)[..., ::-1])


@dataclass(frozen=True)
class _Box:
    """Part of a frame in pixels; may reach over its border."""

    centre_x: float
    centre_y: float
    width: float
    height: float

    def grown_to(self, aspect: float) -> _Box:
        """The smallest box about this one of the given width / height."""
        width = max(self.width, self.height * aspect)
        return _Box(self.centre_x, self.centre_y, width, width / aspect)


def _person_box(row: SheetRow) -> _Box:
    height, width = row.ground_truth.shape[:2]
    if row.mask is None or not row.mask.any():
        return _Box(width / 2, height / 2, width, height)
    ys, xs = np.flatnonzero(row.mask.any(1)), np.flatnonzero(row.mask.any(0))
    person_height, person_width = ys[-1] + 1 - ys[0], xs[-1] + 1 - xs[0]
    grow = 1 + 2 * CROP_MARGIN
    return _Box((xs[0] + xs[-1] + 1) / 2, (ys[0] + ys[-1] + 1) / 2, person_width * grow, person_height * grow)


def _tile(image: np.ndarray, box: _Box, size: tuple[int, int], outside: float) -> np.ndarray:
    """Crop `box` and scale it to size (width, height): averaged when it shrinks, linear when it grows."""
    left, top = math.floor(box.centre_x - box.width / 2), math.floor(box.centre_y - box.height / 2)
    right, bottom = left + max(round(box.width), 1), top + max(round(box.height), 1)
    height, width = image.shape[:2]
    before_x, before_y = max(-left, 0), max(-top, 0)
    after_x, after_y = max(right - width, 0), max(bottom - height, 0)
    crop = image[max(top, 0) : bottom, max(left, 0) : right]
    crop = cv2.copyMakeBorder(
        crop, before_y, after_y, before_x, after_x, cv2.BORDER_CONSTANT, value=(outside,) * 3
    )
    shrinks = size[1] < crop.shape[0]
    return cv2.resize(crop, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _cell(row: SheetRow, aspect: float, tile_size: tuple[int, int]) -> np.ndarray:
    """Label above three framed tiles."""
    box = _person_box(row).grown_to(aspect)
    error = _tile(error_map(row.ground_truth, row.render), box, tile_size, outside=0)
    tiles = [
        _tile(row.ground_truth, box, tile_size, outside=255),
        _tile(row.render, box, tile_size, outside=255),
        colour_error(error),
    ]
    tile_width, tile_height = tile_size
    cell = np.full((LINE + tile_height, 3 * tile_width + 2 * GAP, 3), PAPER, np.uint8)
    _text(cell, row.label, (0, LINE - 9), TEXT, INK)
    for index, tile in enumerate(tiles):
        left = index * (tile_width + GAP)
        cell[LINE:, left : left + tile_width] = tile
        cv2.rectangle(cell, (left, LINE), (left + tile_width - 1, LINE + tile_height - 1), FRAME, 1)
    return cell


def _draw(rows: Sequence[SheetRow], title: str, lines: Sequence[str], tile_side: int) -> np.ndarray:
    """The whole sheet, RGB."""
    boxes = [_person_box(row) for row in rows]
    # One shape for all tiles keeps the grid regular; between a standing person's and a square.
    aspect = float(np.clip(max(box.width / box.height for box in boxes), 0.4, 1.3))
    tile_size = (round(tile_side * math.sqrt(aspect)), round(tile_side / math.sqrt(aspect)))
    cells = [_cell(row, aspect, tile_size) for row in rows]
    cell_height, cell_width = cells[0].shape[:2]
    fitting = max((SHEET_WIDTH - 2 * MARGIN + CELL_GAP) // (cell_width + CELL_GAP), 1)
    columns = min(fitting, len(cells))
    columns = math.ceil(len(cells) / math.ceil(len(cells) / columns))  # no nearly empty last line

    header = _header(title, lines, columns * (cell_width + CELL_GAP) - CELL_GAP)
    grid_lines = math.ceil(len(cells) / columns)
    sheet = np.full(
        (
            2 * MARGIN + header.shape[0] + grid_lines * (cell_height + CELL_GAP),
            2 * MARGIN + max(header.shape[1], columns * (cell_width + CELL_GAP) - CELL_GAP),
            3,
        ),
        PAPER,
        np.uint8,
    )
    sheet[MARGIN : MARGIN + header.shape[0], MARGIN : MARGIN + header.shape[1]] = header
    for index, cell in enumerate(cells):
        top = MARGIN + header.shape[0] + CELL_GAP + index // columns * (cell_height + CELL_GAP)
        left = MARGIN + index % columns * (cell_width + CELL_GAP)
        sheet[top : top + cell_height, left : left + cell_width] = cell
    return sheet


def _header(title: str, lines: Sequence[str], width: int) -> np.ndarray:
    """Title, lines of text, and what the three tiles and the error's colours mean."""
    legend_text = "each: " + " | ".join(TILE_TITLES) + ", |difference| of colours in [0, 1], worst channel:"
    ramp_left = _text_width(legend_text, TEXT) + 28
    worst = f"{ERROR_FULL_SCALE} or more"
    legend_width = ramp_left + RAMP_WIDTH + 8 + _text_width(worst, TEXT)
    width = max(
        width,
        legend_width,
        _text_width(title, TITLE, thickness=2),
        *(_text_width(line, TEXT) for line in lines),
    )
    header = np.full((46 + LINE * len(lines) + LINE, width, 3), PAPER, np.uint8)
    _text(header, title, (0, 26), TITLE, INK, thickness=2)
    for index, line in enumerate(lines):
        _text(header, line, (0, 56 + LINE * index), TEXT, INK)
    baseline = 56 + LINE * len(lines)
    _text(header, legend_text, (0, baseline), TEXT, FAINT)
    _text(header, "0", (ramp_left - 14, baseline), TEXT, FAINT)
    ramp = np.linspace(0, ERROR_FULL_SCALE, RAMP_WIDTH, dtype=np.float32)[None].repeat(12, 0)
    header[baseline - 11 : baseline + 1, ramp_left : ramp_left + RAMP_WIDTH] = colour_error(ramp)
    _text(header, worst, (ramp_left + RAMP_WIDTH + 8, baseline), TEXT, FAINT)
    return header


def _text(
    image: np.ndarray, text: str, origin: tuple[int, int], scale: float, colour, thickness: int = 1
) -> None:
    cv2.putText(image, text, origin, FONT, scale, colour, thickness, cv2.LINE_AA)


def _text_width(text: str, scale: float, thickness: int = 1) -> int:
    return cv2.getTextSize(text, FONT, scale, thickness)[0][0] + 2
