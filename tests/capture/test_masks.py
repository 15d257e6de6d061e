"""Masks that cannot be a person's: each kind is one line that names its file and says what is wrong."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmlphuman.capture.masks import MaskMeasures, check_masks

PERSON = np.zeros((64, 48), np.uint8)
PERSON[16:48, 16:32] = 255


def in_alpha_only(mask: np.ndarray) -> np.ndarray:
    return np.dstack([np.zeros((*mask.shape, 3), np.uint8), mask])


USELESS = {
    "zeros and ones": (lambda mask: mask // 255, "shows nobody: no value is above 1, .* above 128"),
    "inverted": (lambda mask: 255 - mask, "covers the picture or its border .* black and white swapped"),
    "black": (np.zeros_like, "shows nobody: no value is above 0"),
    "white": (lambda mask: np.full_like(mask, 255), r"covers the picture or its border \(100 %"),
    "sixteen bits": (lambda mask: mask.astype(np.uint16), "its values have 16 bits and end at 255"),
    "too dark": (lambda mask: mask // 255 * 120, "no value is above 120"),
    "in alpha": (in_alpha_only, "the person in its alpha channel only"),
    "a speck": (
        lambda mask: np.where(np.indices(mask.shape).sum(0) == 0, 255, 0),
        "hardly a pixel is above 128",
    ),
}


def write(folder: Path, masks) -> list[tuple[Path, Path]]:
    paths = [folder / f"{index:08d}.png" for index in range(len(masks))]
    for path, mask in zip(paths, masks, strict=True):
        assert cv2.imwrite(str(path), np.asarray(mask, np.uint16 if mask.dtype == np.uint16 else np.uint8))
    return [(path, folder / "images" / path.name) for path in paths]


@pytest.mark.parametrize("kind", USELESS)
def test_a_useless_mask_is_one_line(tmp_path, kind):
    change, message = USELESS[kind]
    files = write(tmp_path, [change(PERSON)] * 5)
    with pytest.raises(ValueError, match=message) as error:
        check_masks(files)
    assert str(files[0][0]) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_person_is_no_fault_and_may_come_later(tmp_path, depth):
    person = PERSON.astype(depth) * (257 if depth is np.uint16 else 1)
    empty = np.zeros_like(person)
    check_masks(write(tmp_path, [person] * 4))
    check_masks(write(tmp_path, [person]))
    check_masks(write(tmp_path, [empty, empty, person, person, person]))
    check_masks(write(tmp_path, [empty, empty, empty, person]))


def test_shares_are_of_the_picture_and_of_its_border():
    mask = np.zeros((10, 20), bool)
    mask[0, :10] = True
    measures = MaskMeasures.of(mask)
    assert measures.share == 10 / 200 and measures.border_share == 11 / 60  # the corner counts twice
    assert not measures.is_empty and not measures.is_full


def test_a_mask_in_the_images_own_alpha_channel_is_looked_at_there(tmp_path):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), in_alpha_only(PERSON))
    check_masks([(path, path)])
    cv2.imwrite(str(path), in_alpha_only(np.zeros_like(PERSON)))
    with pytest.raises(ValueError, match="shows nobody: its alpha channel is empty"):
        check_masks([(path, path)])
