"""The hard subject, planted errors and ceiling pictures; and that the demo is still what it was."""

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mmlphuman.synthetic import appearance
from mmlphuman.synthetic.capture_writer import make_capture, set_stage
from mmlphuman.synthetic.folds import pose_drives
from mmlphuman.synthetic.garments import load_body
from mmlphuman.synthetic.hard import LAMP_LIGHT
from mmlphuman.synthetic.hard_motion import MIDDLE_OUTSIDE, frame_sets, make_hard_motion
from mmlphuman.synthetic.motion import BETAS, ROTATIONS, plant_pose_errors
from mmlphuman.synthetic.studio import color_casts, full_pose

TRAINING, NOVEL = 72, 12
# Grey levels of 16 x 16 squares of a 64-pixel photograph of the demo, as it was before there was a hard subject.
DEMO_SQUARES = [
    [239.251, 235.453, 213.251, 229.961],
    [241.219, 180.551, 169.796, 231.938],
    [240.462, 194.212, 178.742, 231.165],
    [233.904, 225.057, 207.346, 224.624],
]


@pytest.fixture(scope="module")
def body(synthetic_body):
    return load_body(synthetic_body, BETAS[0])


@pytest.fixture(scope="module", params=[0, 1])
def motion(body, request):
    return make_hard_motion(body.joints, TRAINING, NOVEL, request.param)


@pytest.fixture(scope="module")
def stage(synthetic_body):
    return set_stage(
        synthetic_body, size=(96, 96), num_cameras=3, num_frames=12, num_novel_frames=2, subject="hard"
    )


def degrees_outside(motion, key, first, last):
    """(F, joints) how far beyond training's range the worst number of each joint is."""
    low, high = motion[key][:TRAINING].min(0), motion[key][:TRAINING].max(0)
    chosen = motion[key][first : last + 1]
    outside = np.rad2deg(np.maximum(low - chosen, chosen - high).clip(0))
    return outside.reshape(len(chosen), -1, 3).max(2)


def test_the_demo_is_what_it_was(synthetic_body):
    stage = set_stage(synthetic_body, size=(64, 64), num_cameras=2, num_frames=3, num_novel_frames=2)
    image = list(stage.photographs(3))[1][1]
    squares = image.astype(float).mean(2).reshape(4, 16, 4, 16).mean((1, 3))
    np.testing.assert_allclose(squares, DEMO_SQUARES, atol=0.05)


def test_sets_lie_as_far_from_training_as_they_say(motion):
    sets = frame_sets(TRAINING, NOVEL)
    assert sets == {"training": [0, 71], "near": [72, 83], "middle": [84, 95], "far": [96, 107]}
    assert len(motion["transl"]) == 108
    for key in (*ROTATIONS[1:], "expression"):
        low, high = motion[key][:TRAINING].min(0), motion[key][:TRAINING].max(0)
        near = motion[key][72:84]
        assert (near >= low).all() and (near <= high).all(), key
    middle, far = (degrees_outside(motion, "body_pose", *sets[name]) for name in ("middle", "far"))
    assert 15 < middle.max() <= np.rad2deg(MIDDLE_OUTSIDE) + 1e-3
    assert (middle.max(1) > 15).mean() > 0.6
    assert far.max() > 45 and (far.max(1) > 15).all()
    assert ((far > 10).sum(1) >= 3).all(), "several joints at once"


def test_near_poses_are_none_that_training_shows(motion):
    pose = motion["body_pose"]
    distance = np.abs(pose[72:84, None] - pose[None, :TRAINING]).max(2).min(1)
    assert np.rad2deg(distance.min()) > 5


def test_the_person_turns_walks_and_moves_hands_and_face(motion):
    ahead = Rotation.from_rotvec(motion["global_orient"][:TRAINING]).apply([0, 0, 1])
    yaw = np.unwrap(np.arctan2(ahead[:, 0], ahead[:, 2]))
    assert np.abs(yaw[-1] - yaw[0]) > 2 * np.pi
    assert (np.abs(motion["transl"][:, [0, 2]]) <= 0.81).all()
    assert (np.ptp(motion["transl"][:TRAINING, [0, 2]], axis=0) > 1.2).all()
    fingers = motion["left_hand_pose"][:TRAINING].reshape(TRAINING, 5, 9)
    curls = np.linalg.norm(fingers, axis=2)
    assert (np.ptp(curls, axis=0) > 0.3).all()
    assert np.abs(np.corrcoef(curls.T))[np.triu_indices(5, 1)].max() < 0.95, "each finger has its own phase"
    assert np.ptp(motion["jaw_pose"][:TRAINING, 0]) > 0.2
    np.testing.assert_array_equal(full_pose(motion, 3)[66:69], motion["jaw_pose"][3])


def test_true_body_has_its_own_weights_and_blend_shapes(stage, body):
    told = stage.subject.from_body @ body.weights
    own = stage.subject.weights.toarray()
    assert (own >= 0).all()
    np.testing.assert_allclose(own.sum(1), 1, atol=1e-5)
    assert 0.01 < np.abs(own - told).sum(1).mean() < 0.3
    flesh = [stage.flesh.displace(stage.subject, full_pose(stage.motion, f), np.zeros(10)) for f in range(12)]
    moved = np.linalg.norm(flesh, axis=2)
    assert 0.005 < moved.max() < 0.03, "metres"
    at_rest = stage.flesh.displace(stage.subject, np.zeros(165), np.zeros(10))
    np.testing.assert_allclose(at_rest, 0, atol=1e-7)


def test_fast_wrinkles_are_elsewhere_after_a_small_turn(stage):
    """10 degrees in three joints, of which one is far away, move the shirt's fast wrinkles by a third of a period."""
    flutter = stage.cloth.folds[-8]
    poses = [stage.motion["body_pose"][4], stage.motion["body_pose"][4] + np.deg2rad(10) * np.ones(63) / 3]
    heights = []
    for pose in poses:
        height = np.zeros(len(stage.subject.rest), np.float32)
        flutter.add(pose_drives(pose), height, np.zeros_like(height))
        heights.append(height[flutter.index])
    assert np.corrcoef(heights)[0, 1] < 0.8


def test_lamp_lights_one_side_and_fades_with_place():
    color, layer, valleys = np.full((1, 3), 0.5, np.float32), np.zeros(1, int), np.ones(1)
    towards = np.array([LAMP_LIGHT.lamps[0][0]], np.float32)
    towards /= np.linalg.norm(towards)

    def brightness(place, normal):
        aside = np.cross(normal, [[0, 1, 0]])  # no gloss
        return appearance.shade(
            color, np.array([place], np.float32), normal, aside, layer, valleys, LAMP_LIGHT
        ).mean()

    lit, dark = brightness([0, 0, 0], towards), brightness([0, 0, 0], -towards)
    assert 0.60 < 1 - dark / lit < 0.80, "the lamp's share"
    flat = towards[0] * [1, 0, 1] / np.linalg.norm(towards[0] * [1, 0, 1])
    lamp = [brightness(step * flat, towards) - brightness(step * flat, -towards) for step in (1.0, -1.0)]
    assert 0.25 < 1 - lamp[1] / lamp[0] < 0.35


def test_planted_pose_errors_have_the_size_asked_for_and_are_smooth(motion):
    wrong = plant_pose_errors(motion, TRAINING, 3.0, 1.0, seed=0)
    for key in ROTATIONS:
        true, told = (Rotation.from_rotvec(m[key].reshape(-1, 3)) for m in (motion, wrong))
        angles = (true.inv() * told).as_rotvec().reshape(len(motion["transl"]), -1, 3)
        size = np.rad2deg(np.sqrt((angles[:TRAINING] ** 2).sum(2).mean(0)))
        np.testing.assert_allclose(size, 3.0, rtol=1e-3)
        step = np.sqrt((np.diff(angles[:TRAINING], axis=0) ** 2).sum(2).mean())
        assert np.rad2deg(step) < 1.0, "degrees a frame"
        np.testing.assert_array_equal(motion[key][TRAINING:], wrong[key][TRAINING:])
    moved = (wrong["transl"] - motion["transl"])[:TRAINING]
    np.testing.assert_allclose(np.sqrt((moved**2).sum(1).mean()), 0.01, rtol=1e-3)
    assert np.linalg.norm(np.diff(moved, axis=0), axis=1).max() < 0.006
    other = plant_pose_errors(motion, TRAINING, 3.0, 1.0, seed=1)
    assert not np.array_equal(other["transl"], wrong["transl"])


def test_color_casts_are_bounded():
    casts = color_casts(10, 0.1, seed=0)
    assert casts.shape == (10, 3)
    assert (casts >= 0.9**2).all() and (casts <= 1.1**2).all()
    assert np.ptp(casts, axis=0).min() > 0.05 and np.ptp(casts, axis=1).min() > 0.005


def test_capture_with_errors_and_ceiling(tmp_path, synthetic_body):
    """What is written; the cast is the same factor in every frame of a camera."""
    options = dict(size=(64, 64), num_cameras=2, num_frames=2, num_novel_frames=1, subject="hard")
    make_capture(tmp_path / "clean", synthetic_body, **options)
    make_capture(
        tmp_path / "wrong",
        synthetic_body,
        **options,
        pose_error=(3, 1),
        color_cast=0.1,
        ceiling_cameras=(1,),
        layout="thuman4",
    )
    names = [p.name for p in sorted((tmp_path / "wrong" / "ceiling").iterdir())]
    assert names == [f"cam001_frame{frame:08d}.png" for frame in range(5)]
    with (
        np.load(tmp_path / "clean" / "smpl_params.npz") as clean,
        np.load(tmp_path / "wrong" / "smpl_params_true.npz") as true,
        np.load(tmp_path / "wrong" / "smpl_params.npz") as told,
    ):
        for key in clean.files:
            np.testing.assert_array_equal(clean[key], true[key])
        assert not np.allclose(told["body_pose"][:2], true["body_pose"][:2], atol=1e-3)
    casts = json.loads((tmp_path / "wrong" / "color_casts.json").read_text())
    for camera, cast in casts.items():
        for frame in range(5):
            plain = cv2.imread(str(tmp_path / "clean" / camera / f"{frame:08d}.jpg"))[..., ::-1].astype(float)
            tinted = cv2.imread(str(tmp_path / "wrong" / "images" / camera / f"{frame:08d}.jpg"))[..., ::-1]
            unclipped = (plain * cast < 245).all(2)
            np.testing.assert_allclose(tinted[unclipped].mean(0), plain[unclipped].mean(0) * cast, atol=1.0)


def test_ceiling_differs_from_truth_only_by_wrinkles(stage):
    ceiling = stage.ceiling([2], range(12))
    (camera, truth, mask), (seen_by, mean, mean_mask) = (
        list(stage.photographs(13, white=True))[2],
        list(ceiling.photographs(13, white=True))[0],
    )
    assert seen_by.name == camera.name
    differs = np.abs(truth.astype(int) - mean).max(2) > 8
    assert differs[mask > 128].mean() > 0.05
    assert np.abs(mask.astype(float) - mean_mask).sum() / mask.sum() < 0.1
    # With the very same wrinkles nothing is left.
    same = stage.ceiling([2], [13])
    np.testing.assert_array_equal(list(same.photographs(13, white=True))[0][1], truth)
    # Skin, hair and shoes have none.
    bare = ~np.isin(stage.subject.layer, [2, 3])
    np.testing.assert_allclose(ceiling.cloth.points[bare], stage.subject.rest[bare], atol=1e-6)


def test_whole_person_is_in_every_picture(stage):
    for frame in range(18):
        for camera, _, mask in stage.photographs(frame):
            border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
            assert not border.any(), (frame, camera.name)
            assert mask.any(), (frame, camera.name)
