"""Masks of a drawn person before a patterned wall: the truth is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmlphuman.capture.images import decode_image
from mmlphuman.fitting.footage import Footage
from mmlphuman.fitting.masks import (
    clean_background,
    colour_density,
    colour_odds,
    copy_masks,
    graph_cut,
    landmark_regions,
    make_masks,
    notes_on,
    refined,
    silhouette_odds,
)
from mmlphuman.fitting.observations import LANDMARKS, Landmarks
from mmlphuman.picture_files import write_png
from tests.fitting.footage_files import ring

SIZE = 160, 200  # width, height
FRAMES = 6
SKIN, SHIRT, TROUSERS = (200, 150, 120), (40, 150, 60), (30, 30, 40)
JOINTS = {  # from the middle
    "shoulder": (13, -38), "elbow": (27, -20), "wrist": (36, -2), "hip": (8, 0), "knee": (10, 28), "ankle": (11, 56),
    "ear": (5, -58), "big_toe": (15, 60), "heel": (9, 60),
}  # fmt: skip


def wall() -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    pixels = np.stack([90 + 40 * ((rows // 20 + columns // 16) % 2), 140 + rows // 8, 200 - columns // 4], -1)
    return pixels.astype(np.uint8)


def drawn(x: int, shadow: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Picture and true mask of a person with the middle at (x, 100)."""
    picture, truth = wall(), np.zeros(SIZE[::-1], np.uint8)
    if shadow:
        dark = np.zeros(SIZE[::-1], np.uint8)
        cv2.ellipse(dark, (x + 18, 168), (34, 10), 0, 0, 360, 1, -1)
        picture[dark > 0] = picture[dark > 0] * 0.65

    def place(name: str, side: int) -> tuple[int, int]:
        return x + side * JOINTS[name][0], 100 + JOINTS[name][1]

    for side in (-1, 1):
        for start, end, width, colour in (
            ("shoulder", "elbow", 9, SHIRT), ("elbow", "wrist", 7, SKIN), ("hip", "knee", 13, TROUSERS),
            ("knee", "ankle", 9, SKIN), ("heel", "big_toe", 6, TROUSERS),
        ):  # fmt: skip
            for pixels, value in ((picture, colour), (truth, 1)):
                cv2.line(pixels, place(start, side), place(end, side), value, width)
    for pixels, colour, hue in ((picture, SHIRT, SKIN), (truth, 1, 1)):
        cv2.rectangle(pixels, (x - 14, 58), (x + 14, 102), colour, -1)
        cv2.circle(pixels, (x, 43), 11, hue, -1)
    return picture, truth > 0


def soft(truth: np.ndarray, seed: int) -> np.ndarray:
    """As a network sees it: blurred, and some pixels beside the truth."""
    generator = np.random.default_rng(seed)
    moved = np.roll(truth, tuple(generator.integers(-2, 3, 2)), (0, 1)).astype(np.float32)
    return (255 * cv2.GaussianBlur(moved, (0, 0), 3)).round().astype(np.uint8)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Footage, outlines, landmarks and the true masks (2, F, H, W) of one who walks past two cameras."""
    root = tmp_path_factory.mktemp("scene")
    cameras = tuple(ring(2, SIZE))
    places = np.zeros((2, FRAMES, len(LANDMARKS), 2), np.float32)
    confidence = np.zeros(places.shape[:3], np.float32)
    truths = np.zeros((2, FRAMES, *SIZE[::-1]), bool)
    for c, camera in enumerate(cameras):
        for frame in range(FRAMES):
            x = 45 + 14 * (frame if c == 0 else FRAMES - 1 - frame)
            picture, truths[c, frame] = drawn(x)
            write_png(root / "images" / camera.name / f"{frame:08d}.png", picture)
            write_png(
                root / "outlines" / camera.name / f"{frame:08d}.png", soft(truths[c, frame], 10 * c + frame)
            )
            for side, sign in (("right", -1), ("left", 1)):
                for name, (out, down) in JOINTS.items():
                    places[c, frame, LANDMARKS.index(f"{side}_{name}")] = x + sign * out, 100 + down
                    confidence[c, frame, LANDMARKS.index(f"{side}_{name}")] = 0.9
    return Footage(root, cameras, FRAMES, 25.0, ()), root / "outlines", Landmarks(places, confidence), truths


def read(result, scene, camera: int, frame: int) -> np.ndarray:
    return decode_image(
        result.folder / scene[0].cameras[camera].name / f"{frame:08d}.png", cv2.IMREAD_GRAYSCALE
    )


def test_masks_are_better_than_the_outlines_and_leave_shadows_out(scene, tmp_path):
    footage, outlines, landmarks, truths = scene
    result = make_masks(footage, outlines, landmarks, tmp_path / "masks")
    ours, network = [], []
    for c, camera in enumerate(footage.cameras):
        for frame in range(FRAMES):
            outline = decode_image(outlines / camera.name / f"{frame:08d}.png", cv2.IMREAD_GRAYSCALE)
            ours.append(overlap(read(result, scene, c, frame) > 127, truths[c, frame]))
            network.append(overlap(outline > 127, truths[c, frame]))
    assert min(ours) > 0.97 and np.mean(ours) > 0.99 > 0.9 > np.mean(network)
    assert np.allclose(result.areas, truths.mean((2, 3)), rtol=0.06) and result.notes == ()


def test_masks_that_are_there_are_kept(scene, tmp_path):
    footage, outlines, landmarks, _ = scene
    own = np.full(SIZE[::-1], 255, np.uint8)
    for camera in footage.cameras:
        for frame in range(FRAMES):
            write_png(tmp_path / camera.name / f"{frame:08d}.png", own)
    result = make_masks(footage, tmp_path / "no outlines", landmarks, tmp_path)
    assert np.array_equal(read(result, scene, 1, 3), own) and (result.areas == 1).all()


def test_one_who_is_not_seen_has_no_mask_and_a_note(scene, tmp_path):
    footage, outlines, landmarks, _ = scene
    confidence = landmarks.confidence.copy()
    confidence[0, 2] = 0
    result = make_masks(footage, outlines, Landmarks(landmarks.places, confidence), tmp_path)
    assert not read(result, scene, 0, 2).any() and read(result, scene, 0, 3).any()
    assert result.notes == ("masks of cam01: nobody in frames 2",)


def test_a_silhouette_takes_away_what_touches_the_person(scene, tmp_path):
    footage, outlines, landmarks, truths = scene
    for camera in footage.cameras:  # the network takes a box beside the hip for the person, in all frames
        for frame in range(FRAMES):
            outline = decode_image(outlines / camera.name / f"{frame:08d}.png", cv2.IMREAD_GRAYSCALE)
            outline[90:120, 60:100] = 255
            write_png(tmp_path / "worse" / camera.name / f"{frame:08d}.png", outline)
    before = make_masks(footage, tmp_path / "worse", landmarks, tmp_path / "before")
    after = make_masks(
        footage,
        tmp_path / "worse",
        landmarks,
        tmp_path / "after",
        lambda camera, frame: truths[camera, frame],
    )
    first, second = (
        np.mean(
            [overlap(read(one, scene, c, f) > 127, truths[c, f]) for c in range(2) for f in range(FRAMES)]
        )
        for one in (before, after)
    )
    assert second > max(first, 0.96)


def test_outlines_of_another_aspect_are_named(scene, tmp_path):
    footage, _, landmarks, _ = scene
    for camera in footage.cameras:
        for frame in range(FRAMES):
            write_png(tmp_path / camera.name / f"{frame:08d}.png", np.zeros((50, 90), np.uint8))
    with pytest.raises(ValueError, match="is 90x50, its picture 160x200"):
        make_masks(footage, tmp_path, landmarks, tmp_path / "out")


def test_the_background_is_what_is_seen_without_the_person():
    generator = np.random.default_rng(1)
    true = generator.integers(30, 220, (6, 7, 3))
    pictures = np.clip(true + generator.integers(-2, 3, (9, 6, 7, 3)), 0, 255).astype(np.uint8)
    person = np.zeros((9, 6, 7), bool)
    person[:5, 2] = True
    person[:, 4] = True
    pictures[person] = 250
    background, noise = clean_background(pictures, person)
    assert np.isnan(background[4]).all() and np.isfinite(np.delete(background, 4, 0)).all()
    assert np.abs(np.delete(background, 4, 0) - np.delete(true, 4, 0)).max() <= 2
    assert (noise[:4] <= 6).all()


def test_shadows_are_background_and_other_colours_are_not():
    background = np.full((1, 5, 3), (180.0, 120.0, 90.0), np.float32)
    picture = background.copy()
    picture[0, 1] *= 0.65  # in a shadow
    picture[0, 2] = (60, 120, 200)  # the person's colour
    picture[0, 3] = (20, 230, 20)  # nobody's
    person = colour_density(np.tile(np.array([[60, 120, 200]], np.uint8), (500, 1)))
    around = colour_density(np.tile(np.array([[180, 120, 90]], np.uint8), (500, 1)))
    wide = [np.repeat(a, 9, axis=1).repeat(9, axis=0) for a in (picture, background)]
    odds = colour_odds(
        wide[0].round().astype(np.uint8), wide[1], np.full(wide[1].shape[:2], 4.0), person, around
    )
    same, shadow, own, neither, _ = odds[4, 4::9]
    assert same < -2 and shadow < -2 and own > 2 and abs(neither) < 2
    unknown = colour_odds(
        wide[0].round().astype(np.uint8),
        np.full_like(wide[1], np.nan),
        np.full(wide[1].shape[:2], 4.0),
        person,
        around,
    )
    assert unknown[4, 4] < -1 and unknown[4, 22] > 1


def test_the_cut_follows_strong_odds_and_where_they_are_weak_the_contrast():
    picture = np.full((40, 60, 3), 60, np.uint8)
    picture[:, 33:] = 190
    odds = np.full((40, 60), 0.0, np.float32)
    odds[:, :25], odds[:, 45:] = 6, -6
    cut = graph_cut(picture, odds)
    assert cut[:, :33].all() and not cut[:, 33:].any()
    odds[5:25, 48:58] = 8  # a region as large as that stands by itself
    assert graph_cut(picture, odds)[10:20, 50:56].all()


def test_the_edge_is_found_at_full_size():
    picture = np.full((200, 160, 3), 60, np.uint8)
    cv2.circle(picture, (80, 100), 41, (190, 160, 120), -1)
    truth = picture[..., 0] > 100
    coarse = cv2.resize(truth.astype(np.uint8), (40, 50), interpolation=cv2.INTER_NEAREST) > 0
    mask = refined(picture, coarse)
    rough = cv2.resize(coarse.astype(np.uint8), (160, 200), interpolation=cv2.INTER_NEAREST) > 0
    assert overlap(mask > 127, truth) > 0.985 > overlap(rough, truth)
    assert mask.dtype == np.uint8 and mask[100, 80] == 255 and mask[2, 2] == 0


def test_bones_are_near_landmarks_and_far_is_far_from_them():
    places, confidence = np.zeros((len(LANDMARKS), 2), np.float32), np.zeros(len(LANDMARKS), np.float32)
    for side, sign in (("left", 1), ("right", -1)):
        for name, (out, down) in JOINTS.items():
            places[LANDMARKS.index(f"{side}_{name}")] = 80 + sign * out, 100 + down
            confidence[LANDMARKS.index(f"{side}_{name}")] = 0.9
    bones, far = landmark_regions(places, confidence, SIZE[::-1])
    assert bones[114, 89] and not bones[100, 150] and far[20, 150] and not (bones & far).any()
    nothing = landmark_regions(places, np.zeros_like(confidence), SIZE[::-1])
    assert not nothing[0].any() and not nothing[1].any()


def test_a_silhouette_is_sure_inside_and_outside_and_undecided_at_its_edge():
    body = np.zeros((80, 80), bool)
    body[20:60, 20:60] = True
    odds = silhouette_odds(body)
    assert odds[40, 40] > 3 and odds[2, 2] < -3 and abs(odds[40, 19:21]).max() < 3


def test_sizes_that_jump_are_told():
    areas = np.full((2, 20), 0.1)
    areas[1, 7] = 0.06
    assert len(notes_on(areas, ["a", "b"])) == 1
    assert "masks of b" in notes_on(areas, ["a", "b"])[0] and "frames 7" in notes_on(areas, ["a", "b"])[0]


def test_masks_of_somebody_else_are_taken_in_order_and_at_the_pictures_size(scene, tmp_path):
    footage, _, _, truths = scene
    for c, camera in enumerate(footage.cameras):
        for frame in range(FRAMES):
            large = cv2.resize(
                truths[c, frame].astype(np.uint8) * 255, (320, 400), interpolation=cv2.INTER_NEAREST
            )
            write_png(tmp_path / "own" / camera.name / f"m_{frame + 100:04d}.png", large)
    result = copy_masks(footage, tmp_path / "own", tmp_path / "masks", range(FRAMES))
    assert all(np.array_equal(read(result, scene, c, 3) > 127, truths[c, 3]) for c in range(2))
    assert np.allclose(result.areas, truths.mean((2, 3)))
    (tmp_path / "own" / "cam02" / "m_0101.png").unlink()
    with pytest.raises(ValueError, match="cam02: 5 masks for 6 frames"):
        copy_masks(footage, tmp_path / "own", tmp_path / "masks", range(FRAMES))


@pytest.mark.parametrize(("shade", "what"), [(0, "black"), (255, "white")])
def test_masks_that_show_nobody_are_refused(scene, tmp_path, shade, what):
    footage = scene[0]
    for camera in footage.cameras:
        for frame in range(FRAMES):
            write_png(tmp_path / f"own/{camera.name}/{frame}.png", np.full((400, 320), shade, np.uint8))
    with pytest.raises(ValueError, match=f"{what}.*; the person is white"):
        copy_masks(footage, tmp_path / "own", tmp_path / "masks", range(FRAMES))
    assert not (tmp_path / "masks").exists()
