"""Cuts and repeated frames: what is left of the training frames, and that test frames are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from small_capture import EXTENT_OF, FRAMES

from mmlphuman.capture.dataset import test_dataset as held_out_dataset
from mmlphuman.capture.dataset import training_dataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.frame_filter import filter_frames
from mmlphuman.capture.poses import SmplParams, read_smpl_params
from mmlphuman.config import default_config
from mmlphuman.pose_layout import BODY_POSE


def moving(*positions: float) -> SmplParams:
    """A sequence whose 63 body numbers are all `positions`; everything else jumps about."""
    count = len(positions)
    poses = np.random.default_rng(0).normal(size=(count, 165)).astype(np.float32)
    poses[:, BODY_POSE] = np.array(positions, np.float32)[:, None]
    return SmplParams(np.zeros(10, np.float32), poses, np.zeros((count, 3), np.float32))


def test_off_by_default():
    assert filter_frames(range(1, 4), moving(0, 0, 0, 0)) == (1, 2, 3)


def test_compares_with_the_last_kept_frame():
    poses = moving(0, 0.25, 0.5, 0.75, 0.75, 1.25, 0.5)
    assert filter_frames(range(7), poses, min_pose_change=0.4) == (0, 2, 5, 6)


def test_limit_itself_is_skipped_and_sign_does_not_matter():
    assert filter_frames(range(3), moving(0, 0.5, -0.75), min_pose_change=0.5) == (0, 2)


def test_mean_over_the_body_numbers_of_absolute_values():
    poses = moving(0, 0, 0)
    poses.poses[1, BODY_POSE.start] = 63 * 0.02  # one number: 0.02 in the mean
    poses.poses[2, BODY_POSE] = 0.02 * np.where(np.arange(63) % 2, 1, -1)  # no cancelling
    assert filter_frames(range(3), poses, min_pose_change=0.015) == (0, 1, 2)
    assert filter_frames([0, 2], poses, min_pose_change=0.015) == (0, 2)
    assert filter_frames([0, 1], poses, min_pose_change=0.021) == (0,)


def test_slow_motion_still_advances():
    steps = np.arange(0, 100) * 0.004
    kept = filter_frames(range(100), moving(*steps), min_pose_change=0.015)
    assert kept == tuple(range(0, 100, 4))


def test_cuts_include_both_ends_and_come_first():
    poses = moving(*range(8))
    assert filter_frames(range(0, 8), poses, skip_frames=[[2, 3], [6, 6]]) == (0, 1, 4, 5, 7)
    # Frame 2 repeats frame 1, but frame 1 is cut and was not kept.
    assert filter_frames(range(3), moving(0, 1, 1), 0.5, [[1, 1]]) == (0, 2)


def test_nothing_left_and_frames_without_a_pose():
    with pytest.raises(ValueError, match=r"skip_frames \[\[0, 9\]\] leaves none"):
        filter_frames(range(3), moving(0, 1, 2), skip_frames=[[0, 9]])
    with pytest.raises(ValueError, match="frame 3 does not exist"):
        filter_frames(range(4), moving(0, 1, 2))


@pytest.mark.parametrize("layout", ["avatarrex", "actorshq"])
def test_training_frames_are_filtered_and_test_frames_are_not(capture_of, layout):
    root = capture_of(layout)
    arrays = dict(np.load(root / "smpl_params.npz"))
    arrays["body_pose"] = np.repeat([[0.0], [0.0], [0.5], [0.5], [1.0], [1.5]], EXTENT_OF["body_pose"], 1)
    np.savez(root / "smpl_params.npz", **arrays)
    capture = open_capture(root)
    poses = read_smpl_params(capture.pose_path)
    config = default_config(num_train_frame=FRAMES, min_pose_change=0.1, skip_frames=[[4, 4]])
    config.test.cam_ids, config.test.num_frame = [0], FRAMES
    assert training_dataset(config, capture, poses).frames == (0, 2, 5)
    assert held_out_dataset(config, capture, poses).frames == tuple(range(FRAMES))
    config.num_train_frame = 3  # counts what was skipped
    assert training_dataset(config, capture, poses).frames == (0, 2)
