"""Training windows about the person: the same pixels, cameras that draw just them, the same loss."""

from dataclasses import replace

import pytest
import torch

from mmlphuman.capture.crop import crop_to_person
from mmlphuman.render.rasterize import rasterize
from mmlphuman.types import Box, Sample
from tests.builders import look_at_origin, random_pose, randomise, small_avatar

SIZE = 96


def sample_of(boxes) -> Sample:
    masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
    for mask, box in zip(masks, boxes, strict=True):
        if box is not None:
            top, bottom, left, right = box
            mask[top:bottom, left:right] = True
    images = torch.randint(0, 256, (len(boxes), SIZE, SIZE, 3), dtype=torch.uint8)
    cameras = look_at_origin(distance=6.0, size=SIZE, views=len(boxes))
    return Sample(0, tuple(range(len(boxes))), random_pose(), cameras, images, masks, masks.clone())


def test_windows_hold_every_view_s_person_and_its_margin():
    whole = sample_of([(20, 60, 30, 50), (5, 25, 40, 80)])
    cut = crop_to_person(whole)
    assert (cut.cameras.height, cut.cameras.width) == cut.masks.shape[1:] == (72, 72)
    assert cut.masks.flatten(1).sum(1).tolist() == whole.masks.flatten(1).sum(1).tolist()
    assert cut.share == pytest.approx(72 * 72 / SIZE**2)
    for mask, person in zip(cut.masks, cut.persons, strict=True):
        assert mask[person.top : person.bottom, person.left : person.right].all()
        assert mask.sum() == (person.bottom - person.top) * (person.right - person.left)


def test_a_person_at_the_border_and_none_at_all():
    edge = crop_to_person(sample_of([(0, 20, 70, 96)]))
    assert edge.masks.sum() == 20 * 26 and edge.share < 1
    nobody = sample_of([None])
    cut = crop_to_person(nobody)
    assert cut.images is nobody.images and cut.cameras is nobody.cameras
    assert cut.persons == (Box(0, SIZE, 0, SIZE),)


def test_drawing_a_window_is_the_window_of_the_drawing(synthetic_body):
    avatar = randomise(small_avatar(synthetic_body), size=0.02)
    whole = sample_of([(20, 60, 30, 50), (30, 70, 40, 70)])
    pose = replace(whole.pose, translation=torch.zeros(3))
    cut, posed, white = crop_to_person(whole), avatar(pose).posed, torch.ones(3)
    full, part = (rasterize(posed, sample.cameras, white).colors for sample in (whole, cut))
    shift = (whole.cameras.intrinsics - cut.cameras.intrinsics)[:, :2, 2].int().tolist()
    for view, (left, top) in enumerate(shift):
        rows, columns = slice(top, top + cut.cameras.height), slice(left, left + cut.cameras.width)
        assert torch.equal(cut.images[view], whole.images[view, rows, columns])
        # Not equal bit for bit: tiles begin elsewhere, and a Gaussian's extent is cut off at other pixels.
        torch.testing.assert_close(part[view], full[view, rows, columns], atol=2e-3, rtol=0)
    assert (part < 0.99).any()


def test_a_large_person_s_margin_is_a_tenth_of_its_longer_side():
    masks = torch.zeros(1, 400, 400, dtype=torch.bool)
    masks[0, 100:300, 150:200] = True
    images = torch.zeros(1, 400, 400, 3, dtype=torch.uint8)
    cut = crop_to_person(Sample(0, (0,), random_pose(), look_at_origin(size=400), images, masks, masks))
    assert (cut.cameras.height, cut.cameras.width) == (200 + 2 * 20, 50 + 2 * 20)
    assert cut.persons == (Box(20, 220, 20, 70),)
