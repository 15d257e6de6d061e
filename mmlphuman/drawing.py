"""Drawing for people: contact sheets of scores, a body or a template over photographs. Arrays in, arrays out.

Data path: pictures, masks and projected meshes (numpy) -> tiles -> grid with heading and legend -> one RGB picture.
What is shown is measured, projected and chosen elsewhere: evaluation/render_to_files.py, preparation/overlays.py.
Shape letters: H, W height and width of a picture, P vertices, F triangles.

Meshes are drawn by the painter's algorithm, triangles back to front, which is exact enough for a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmlphuman.capture.images import MASK_THRESHOLD
from mmlphuman.picture_files import write_png

Colour = tuple[int, int, int]  # RGB, 0 to 255

FONT = cv2.FONT_HERSHEY_SIMPLEX
INK, FAINT, PAPER, FRAME, BAD_INK = (
    (30, 30, 30),
    (120, 120, 120),
    (255, 255, 255),
    (205, 205, 205),
    (200, 30, 30),
)
OUTLINE_WIDTH = 2  # pixels
SUBPIXEL_BITS = 4  # of OpenCV's fixed-point coordinates

# The sheet of scores.
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
TITLE, TEXT = 1.0, 0.6  # font scales

# The sheet of bodies over photographs.
BODY_COLUMNS = 4
BODY_WIDTH, BODY_HEIGHT = 420, 560  # pixels of a picture
BODY_MARGIN = 0.08  # of the box of person and body, on each side
BODY_OPACITY = 0.65
BODY_COLOUR = (70, 230, 110)  # where the surface faces the camera
BODY_DARK = 0.1  # of it where the surface is seen edge-on
OUTSIDE_COLOUR = (255, 40, 30)  # body outside the mask
BODY_MASK_LINE = (255, 0, 255)
BODY_GAP, BODY_LABEL, BODY_HEADER = 12, 46, 96  # pixels
FARTHEST_PIXEL = 1e4  # triangles that reach farther are left out: OpenCV's fixed-point numbers end

# The sheet of a template over photographs.
TEMPLATE_HEIGHT = 620  # pixels of a picture
TEMPLATE_MARGIN = 0.06  # of the person's height, around the crop
TEMPLATE_OPACITY = 0.8
TEMPLATE_COLOUR = (225, 222, 215)
MASK_LINE, TEMPLATE_LINE = (225, 30, 30), (0, 110, 255)  # the two outlines
TEMPLATES_PER_ROW = 3
TEMPLATE_GAP, TEMPLATE_LABEL = 10, 30  # pixels


def put_text(
    image: np.ndarray,
    text: str,
    origin: tuple[int, int],
    scale: float,
    colour: Colour = INK,
    thickness: int = 1,
) -> None:
    """Writes ASCII; origin: (x, y) of the left end of the baseline."""
    cv2.putText(image, _drawable(text), origin, FONT, scale, colour, thickness, cv2.LINE_AA)


def _drawable(text: str) -> str:
    """OpenCV draws ASCII, and crashes on what is no text, as a folder's name may be."""
    return text.encode("ascii", "replace").decode()


def text_width(text: str, scale: float, thickness: int = 1) -> int:
    """Pixels."""
    return cv2.getTextSize(_drawable(text), FONT, scale, thickness)[0][0]


def blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), PAPER, np.uint8)


def padded(image: np.ndarray, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> np.ndarray:
    """With so many pixels of paper around it."""
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=PAPER)


def resized(image: np.ndarray, size: tuple[int, int], enlarge: int = cv2.INTER_LINEAR) -> np.ndarray:
    """size: (width, height). Averaged when it shrinks; enlarge: OpenCV's interpolation when it grows."""
    shrinks = size[1] < image.shape[0]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else enlarge)


def frame(image: np.ndarray, colour: Colour, thickness: int = 1) -> None:
    """Draws a line along the picture's border, on it."""
    cv2.rectangle(image, (0, 0), (image.shape[1] - 1, image.shape[0] - 1), colour, thickness)


def outline(image: np.ndarray, region: np.ndarray, colour: Colour) -> np.ndarray:
    """Draws the contours of a region (H, W) bool on a picture (H, W, 3), which is returned."""
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(image, contours, -1, colour, OUTLINE_WIDTH, cv2.LINE_AA)


def fill_triangles(canvas: np.ndarray, corners: np.ndarray, values: np.ndarray) -> None:
    """Fills (F, 3, 2) corners in pixels, in their order, with values (F,) or (F, 3)."""
    fixed = np.round((corners - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)  # OpenCV: centres at integers
    for triangle, value in zip(fixed, values.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, triangle, value, cv2.LINE_8, SUBPIXEL_BITS)


def place_grid(
    sheet: np.ndarray, cells: Sequence[np.ndarray], columns: int, corner: tuple[int, int], gap: int
) -> None:
    """Puts cells of one size on the sheet, row by row; corner: (top, left) of the first."""
    height, width = cells[0].shape[:2]
    for index, cell in enumerate(cells):
        top = corner[0] + index // columns * (height + gap)
        left = corner[1] + index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = cell


@dataclass(frozen=True)
class SheetRow:
    """One picture of the sheet of scores."""

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
    """Ground truth, render and error side by side, a dozen times: one picture to judge a test by, written as PNG.

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
        sheet = _score_sheet(rows, title, lines, tile_side)
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


def _crop(image: np.ndarray, box: _Box, size: tuple[int, int], outside: float) -> np.ndarray:
    """Crop `box` and scale it to size (width, height)."""
    left, top = math.floor(box.centre_x - box.width / 2), math.floor(box.centre_y - box.height / 2)
    right, bottom = left + max(round(box.width), 1), top + max(round(box.height), 1)
    height, width = image.shape[:2]
    before_x, before_y = max(-left, 0), max(-top, 0)
    after_x, after_y = max(right - width, 0), max(bottom - height, 0)
    crop = image[max(top, 0) : bottom, max(left, 0) : right]
    crop = cv2.copyMakeBorder(
        crop, before_y, after_y, before_x, after_x, cv2.BORDER_CONSTANT, value=(outside,) * 3
    )
    return resized(crop, size)


def _score_cell(row: SheetRow, aspect: float, tile_size: tuple[int, int]) -> np.ndarray:
    """Label above three framed tiles."""
    box = _person_box(row).grown_to(aspect)
    error = _crop(error_map(row.ground_truth, row.render), box, tile_size, outside=0)
    tiles = [
        _crop(row.ground_truth, box, tile_size, outside=255),
        _crop(row.render, box, tile_size, outside=255),
        colour_error(error),
    ]
    for tile in tiles:
        frame(tile, FRAME)
    tile_width, tile_height = tile_size
    cell = blank(LINE + tile_height, 3 * tile_width + 2 * GAP)
    put_text(cell, row.label, (0, LINE - 9), TEXT)
    place_grid(cell, tiles, len(tiles), (LINE, 0), GAP)
    return cell


def _score_sheet(rows: Sequence[SheetRow], title: str, lines: Sequence[str], tile_side: int) -> np.ndarray:
    """The whole sheet, RGB."""
    boxes = [_person_box(row) for row in rows]
    # One shape for all tiles keeps the grid regular; between a standing person's and a square.
    aspect = float(np.clip(max(box.width / box.height for box in boxes), 0.4, 1.3))
    tile_size = (round(tile_side * math.sqrt(aspect)), round(tile_side / math.sqrt(aspect)))
    cells = [_score_cell(row, aspect, tile_size) for row in rows]
    cell_height, cell_width = cells[0].shape[:2]
    fitting = max((SHEET_WIDTH - 2 * MARGIN + CELL_GAP) // (cell_width + CELL_GAP), 1)
    columns = min(fitting, len(cells))
    columns = math.ceil(len(cells) / math.ceil(len(cells) / columns))  # no nearly empty last line
    grid_width = columns * (cell_width + CELL_GAP) - CELL_GAP
    grid_height = math.ceil(len(cells) / columns) * (cell_height + CELL_GAP)

    header = _score_header(title, lines, grid_width)
    height, width = header.shape[:2]
    sheet = blank(2 * MARGIN + height + grid_height, 2 * MARGIN + max(width, grid_width))
    sheet[MARGIN : MARGIN + height, MARGIN : MARGIN + width] = header
    place_grid(sheet, cells, columns, (MARGIN + height + CELL_GAP, MARGIN), CELL_GAP)
    return sheet


def _score_header(title: str, lines: Sequence[str], width: int) -> np.ndarray:
    """Title, lines of text, and what the three tiles and the error's colours mean."""
    legend_text = "each: " + " | ".join(TILE_TITLES) + ", |difference| of colours in [0, 1], worst channel:"
    ramp_left = text_width(legend_text, TEXT) + 30
    worst = f"{ERROR_FULL_SCALE} or more"
    widths = [ramp_left + RAMP_WIDTH + 8 + text_width(worst, TEXT), text_width(title, TITLE, thickness=2)]
    widths += [text_width(line, TEXT) for line in lines]
    header = blank(46 + LINE * len(lines) + LINE, max(width, max(widths) + 2))
    put_text(header, title, (0, 26), TITLE, thickness=2)
    for index, line in enumerate(lines):
        put_text(header, line, (0, 56 + LINE * index), TEXT)
    baseline = 56 + LINE * len(lines)
    put_text(header, legend_text, (0, baseline), TEXT, FAINT)
    put_text(header, "0", (ramp_left - 14, baseline), TEXT, FAINT)
    ramp = np.linspace(0, ERROR_FULL_SCALE, RAMP_WIDTH, dtype=np.float32)[None].repeat(12, 0)
    header[baseline - 11 : baseline + 1, ramp_left : ramp_left + RAMP_WIDTH] = colour_error(ramp)
    put_text(header, worst, (ramp_left + RAMP_WIDTH + 8, baseline), TEXT, FAINT)
    return header


@dataclass(frozen=True)
class ProjectedFaces:
    """A mesh's triangles in front of a camera."""

    pixels: np.ndarray  # (F, 3, 2) of the corners
    depth: np.ndarray  # (F,) metres
    facing: np.ndarray  # (F,) cosine between normal and viewing ray


@dataclass(frozen=True)
class BodyCell:
    """One picture of the sheet of bodies."""

    picture: np.ndarray  # (BODY_HEIGHT, BODY_WIDTH, 3) uint8 RGB of `body_over_photograph`
    heading: str  # which picture, and why it is shown
    text: str
    is_bad: bool


def body_over_photograph(image: np.ndarray, mask: np.ndarray, body: ProjectedFaces) -> np.ndarray:
    """(BODY_HEIGHT, BODY_WIDTH, 3) uint8 RGB: the person, the body shaded over it and the mask's outline.

    image: (H, W, 3) uint8 RGB; mask: (H, W) bool.
    """
    left, top, right, bottom = _body_box(mask, body.pixels)
    scale = min(BODY_WIDTH / (right - left), BODY_HEIGHT / (bottom - top))
    to_cell = np.array([[scale, 0, -scale * left], [0, scale, -scale * top]])
    size = (BODY_WIDTH, BODY_HEIGHT)
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.warpAffine(image, to_cell, size, flags=smooth, borderValue=PAPER)
    grey = cv2.warpAffine(mask.astype(np.uint8) * 255, to_cell, size, flags=cv2.INTER_LINEAR)
    mask = grey > MASK_THRESHOLD
    shade = _shade_body(body.pixels @ to_cell[:, :2].T + to_cell[:, 2], body.depth, body.facing)
    colour = np.where(mask[..., None], np.array(BODY_COLOUR), np.array(OUTSIDE_COLOUR))
    lit = BODY_DARK + (1 - BODY_DARK) * shade[..., None] / 255
    opacity = BODY_OPACITY * (shade > 0)[..., None]
    mixed = np.ascontiguousarray((image * (1 - opacity) + colour * lit * opacity).round().astype(np.uint8))
    return outline(mixed, mask, BODY_MASK_LINE)


def _body_box(mask: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(left, top, right, bottom): mask and the part of the body that is in the picture, with a margin.

    Where the two lie apart both are shown.
    """
    size = np.array(mask.shape[::-1], float)
    corners = pixels.reshape(-1, 2)
    corners = corners[((corners >= 0) & (corners < size)).all(1)]
    rows, columns = np.nonzero(mask)
    both = np.concatenate([corners, np.stack([columns, rows], 1)])
    if len(both) < 2:
        return np.array([0, 0, *size])
    low, high = both.min(0), both.max(0)
    extent = np.maximum(high - low, 0.1 * size)
    middle, extent = (low + high) / 2, extent * (1 + 2 * BODY_MARGIN)
    extent = np.maximum(extent, extent[::-1] * [BODY_WIDTH / BODY_HEIGHT, BODY_HEIGHT / BODY_WIDTH])
    return np.concatenate([middle - extent / 2, middle + extent / 2])


def _shade_body(pixels: np.ndarray, depth: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """(BODY_HEIGHT, BODY_WIDTH) uint8: 0 without body, else how much the surface faces the camera."""
    shade = np.zeros((BODY_HEIGHT, BODY_WIDTH), np.uint8)
    drawn = np.flatnonzero((facing > 0) & (np.abs(pixels) < FARTHEST_PIXEL).all((1, 2)))
    order = drawn[np.argsort(-depth[drawn])]
    fill_triangles(shade, pixels[order], (40 + 215 * facing[order].clip(0, 1)).astype(int))
    return shade


def body_sheet(cells: Sequence[BodyCell], title: str) -> np.ndarray:
    """The cells in rows under title and legend, RGB. At least one cell."""
    pictures = [_labelled(cell) for cell in cells]
    rows = -(-len(pictures) // BODY_COLUMNS)
    height, width = pictures[0].shape[:2]
    sheet = blank(BODY_HEADER + rows * (height + BODY_GAP), BODY_COLUMNS * (width + BODY_GAP) + BODY_GAP)
    put_text(sheet, title, (BODY_GAP, 36), 0.9, thickness=2)
    legend = (
        ("green: body as posed, inside the mask", BODY_COLOUR),
        ("red: body outside the mask", OUTSIDE_COLOUR),
        ("magenta: the mask's outline", BODY_MASK_LINE),
    )
    left = BODY_GAP
    for text, colour in legend:
        cv2.rectangle(sheet, (left, 58), (left + 22, 78), colour, cv2.FILLED)
        put_text(sheet, text, (left + 30, 76), 0.65)
        left += 60 + text_width(text, 0.65)
    place_grid(sheet, pictures, BODY_COLUMNS, (BODY_HEADER, BODY_GAP), BODY_GAP)
    return sheet


def _labelled(cell: BodyCell) -> np.ndarray:
    label, framed = blank(BODY_LABEL, cell.picture.shape[1]), cell.picture.copy()
    ink, thickness = (BAD_INK, 2) if cell.is_bad else (INK, 1)
    put_text(label, cell.heading, (0, 18), 0.55, ink, thickness)
    put_text(label, cell.text, (0, 38), 0.5, ink)
    frame(framed, ink, thickness)
    return np.concatenate([label, framed])


def shaded_template(
    pixels: np.ndarray, depth: np.ndarray, facing: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Shaded (H, W, 3) uint8 mesh and (H, W) bool where it is; light comes from the camera.

    pixels: (P, 2) of the vertices; depth: (P,) metres; facing: (P,) cosine between normal and viewing ray; faces:
    (F, 3); size: (W, H).
    """
    corner_depth = depth[faces]
    visible = np.flatnonzero((corner_depth > 0).all(1))
    order = visible[np.argsort(-corner_depth[visible].mean(1))]
    light = 0.25 + 0.75 * np.clip(facing[faces[order]].mean(1), 0, 1)
    color = np.zeros((size[1], size[0], 3), np.uint8)
    drawn = np.zeros((size[1], size[0]), np.uint8)
    corners = pixels[faces[order]]
    fill_triangles(color, corners, np.round(light[:, None] * np.array(TEMPLATE_COLOUR)).astype(int))
    fill_triangles(drawn, corners, np.ones(len(order), int))
    return color, drawn.astype(bool)


def template_tile(
    photo: np.ndarray, mask: np.ndarray, color: np.ndarray, drawn: np.ndarray, label: str
) -> np.ndarray:
    """Cropped to the person: photograph with the template's outline, template with the mask's; label above.

    photo, color: (H, W, 3) uint8 RGB; mask, drawn: (H, W) bool, see `shaded_template`.
    """
    ys, xs = np.nonzero(mask | drawn)
    if len(ys) == 0:
        ys, xs = np.array([0, photo.shape[0] - 1]), np.array([0, photo.shape[1] - 1])
    margin = round(TEMPLATE_MARGIN * (ys.max() - ys.min() + 1))
    crop = (
        slice(max(ys.min() - margin, 0), ys.max() + 1 + margin),
        slice(max(xs.min() - margin, 0), xs.max() + 1 + margin),
    )
    mixed = (1 - TEMPLATE_OPACITY) * photo + TEMPLATE_OPACITY * color
    shaded = np.where(drawn[..., None], mixed, photo).astype(np.uint8)
    pair = [
        _outlined(photo[crop], drawn[crop], TEMPLATE_LINE),
        _outlined(shaded[crop], mask[crop], MASK_LINE),
    ]
    tile = padded(np.concatenate(pair, 1), top=TEMPLATE_LABEL)
    put_text(tile, label, (4, TEMPLATE_LABEL - 9), TEXT)
    return tile


def _outlined(picture: np.ndarray, region: np.ndarray, line: Colour) -> np.ndarray:
    """The picture brought to TEMPLATE_HEIGHT with the region's outline drawn on it."""
    height, width = picture.shape[:2]
    size = (max(round(width * TEMPLATE_HEIGHT / height), 1), TEMPLATE_HEIGHT)
    inside = cv2.resize(region.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127
    return outline(resized(picture, size, enlarge=cv2.INTER_CUBIC), inside, line)


def template_sheet(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Tiles of `template_tile` in rows, on white, under a legend; RGB."""
    rows = [_template_legend()]
    for start in range(0, len(tiles), TEMPLATES_PER_ROW):
        spaced = [padded(tile, right=3 * TEMPLATE_GAP) for tile in tiles[start : start + TEMPLATES_PER_ROW]]
        rows.append(np.concatenate(spaced, 1))
    width = max(row.shape[1] for row in rows)
    gap = TEMPLATE_GAP
    return np.concatenate([padded(row, gap, gap, gap, gap + width - row.shape[1]) for row in rows])


def _template_legend() -> np.ndarray:
    parts = (
        ("left: photograph with", INK),
        ("the template's outline;", TEMPLATE_LINE),
        ("right: template with", INK),
        ("the mask's outline", MASK_LINE),
    )
    widths = [text_width(text, TEXT) + TEMPLATE_GAP for text, _ in parts]
    legend = blank(TEMPLATE_LABEL, sum(widths))
    left = 0
    for (text, ink), width in zip(parts, widths, strict=True):
        put_text(legend, text, (left, TEMPLATE_LABEL - 9), TEXT, ink)
        left += width
    return legend
