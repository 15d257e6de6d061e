"""The contact sheet: what is in it, how large it gets, and its colours of errors."""

import cv2
import numpy as np
import pytest

from mmlphuman import drawing
from mmlphuman.drawing import (
    ERROR_FULL_SCALE,
    MAX_BYTES,
    SheetRow,
    colour_error,
    contact_sheet,
    error_map,
)

GREEN, BLUE = (0, 200, 0), (0, 0, 200)


def plain_row(size=(60, 80), box=(slice(10, 50), slice(30, 50)), label="camera 1, frame 2: 20.0 dB"):
    """A green person, rendered blue, on white."""
    truth, render = (np.full((*size, 3), 255, np.uint8) for _ in range(2))
    mask = np.zeros(size, bool)
    mask[box] = True
    truth[mask], render[mask] = GREEN, BLUE
    return SheetRow(label, truth, render, mask)


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def share(image, colour):
    return (image == colour).all(-1).mean()


def test_shows_truth_left_of_render(tmp_path):
    path = contact_sheet([plain_row()], tmp_path / "sheet.png", "title", ["line"])
    sheet = read(path)
    columns = {colour: np.flatnonzero((sheet == colour).all(-1).any(0)) for colour in (GREEN, BLUE)}
    assert columns[GREEN].max() < columns[BLUE].min()
    assert len(columns[GREEN]) == pytest.approx(len(columns[BLUE]), abs=1)


def test_the_person_fills_the_tile(tmp_path):
    small = plain_row(size=(400, 400), box=(slice(300, 340), slice(10, 40)))
    whole_frame = SheetRow(small.label, small.ground_truth, small.render)
    cropped = share(read(contact_sheet([small], tmp_path / "a.png", "title")), GREEN)
    uncropped = share(read(contact_sheet([whole_frame], tmp_path / "b.png", "title")), GREEN)
    assert cropped > 10 * uncropped > 0


def test_crops_over_the_border_and_of_empty_masks_are_drawn(tmp_path):
    at_border = plain_row(box=(slice(0, 60), slice(0, 10)))
    empty = plain_row(box=(slice(0, 0), slice(0, 0)))
    assert read(contact_sheet([at_border, empty], tmp_path / "sheet.png", "title")).size > 0


def test_many_rows_are_thinned_evenly(tmp_path, monkeypatch):
    drawn = []
    real = cv2.putText
    monkeypatch.setattr(
        cv2, "putText", lambda image, text, *rest: drawn.append(text) or real(image, text, *rest)
    )
    contact_sheet([plain_row(label=f"row {index}") for index in range(23)], tmp_path / "sheet.png", "title")
    labels = [text for text in drawn if text.startswith("row")]
    assert len(labels) == 12 and labels[0] == "row 0" and labels[-1] == "row 22"
    assert any("12 of 23" in text for text in drawn)


def test_stays_below_the_size_limit_with_noise(tmp_path):
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 255, (400, 300, 3)).astype(np.uint8) for _ in range(2)]
    path = contact_sheet([SheetRow("noise", *noise)] * 12, tmp_path / "sheet.png", "title")
    assert path.stat().st_size < MAX_BYTES
    assert min(read(path).shape[:2]) > 400


def test_error_is_the_worst_channel_and_black_means_none():
    truth = np.full((1, 3, 3), 100, np.uint8)
    render = truth.copy()
    render[0, 1, 2] = 151
    render[0, 2] = 90
    assert error_map(truth, render)[0] == pytest.approx([0, 51 / 255, 10 / 255])
    colours = colour_error(np.array([[0, ERROR_FULL_SCALE / 2, ERROR_FULL_SCALE, 1]], np.float32))[0].astype(
        int
    )
    assert colours[0].max() < 10
    assert colours[0].sum() < colours[1].sum() < colours[2].sum()
    assert np.array_equal(colours[2], colours[3])


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], tmp_path / "sheet.png", "title")


def test_what_is_no_text_is_drawn_somehow():
    """A folder's name need not be UTF-8; OpenCV crashes on what Python makes of it."""
    image = np.zeros((40, 200, 3), np.uint8)
    drawing.put_text(image, "sub\udce9ject \u00e9", (5, 30), 0.5, (255, 255, 255))
    assert image.any() and drawing.text_width("\udce9", 0.5) > 0
