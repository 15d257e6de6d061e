"""Motions of a folder of files or of one JSON file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.poses.motion_file import read_motion
from tests.poses.motions import FRAMES, HANDS, NO_HANDS, PARTS, POSES, TRANSL, easymocap, saved


def entry(arrays: dict, frame: int, person: int = 0) -> dict:
    shared = ("shapes",)
    rows = {key: array[:1] if key in shared else array[frame : frame + 1] for key, array in arrays.items()}
    return {"id": person, **{key: row.tolist() for key, row in rows.items()}}


def test_easymocaps_folder_of_a_file_a_frame(tmp_path, synthetic_body):
    arrays, _ = easymocap(synthetic_body)
    whole = read_motion(saved(tmp_path, arrays), synthetic_body)
    folder = tmp_path / "smpl"
    folder.mkdir()
    for frame in range(FRAMES):
        (folder / f"{frame + 8:d}.json").write_text(
            json.dumps([entry(arrays, frame)])
        )  # 9, 10: not by the alphabet
    motion = read_motion(folder, synthetic_body)
    for name in ("poses", "translations", "turns"):
        np.testing.assert_allclose(getattr(motion, name), getattr(whole, name), atol=1e-6)
    np.testing.assert_array_equal(motion.frames, np.arange(8, 8 + FRAMES))
    assert f"poses of {folder}: EasyMocap SMPL-X, 7 frames" in motion.told
    single = read_motion(folder / "8.json", synthetic_body)
    np.testing.assert_allclose(single.poses, whole.poses[:1], atol=1e-6)
    with pytest.raises(ValueError, match="frame 0 is missing"):
        read_smpl_params(folder, model_file=synthetic_body)


@pytest.mark.parametrize("axis", [True, False])
def test_a_folder_of_npz_files(tmp_path, axis):
    """As estimators write them, frame_person; with or without an axis for the frame."""
    for frame in range(FRAMES):
        rows = {
            key: array[frame : frame + 1] if axis else array[frame] for key, array in (PARTS | HANDS).items()
        }
        np.savez(tmp_path / f"{frame:05d}_0.npz", **rows)
    (tmp_path / "picture.jpg").touch()
    motion = read_motion(tmp_path)
    np.testing.assert_array_equal(motion.poses, POSES)
    np.testing.assert_array_equal(motion.translations, TRANSL)
    np.testing.assert_array_equal(motion.frames, np.arange(FRAMES))
    np.savez(tmp_path / "00000_1.npz", **rows)
    with pytest.raises(ValueError, match="several persons"):
        read_motion(tmp_path)


@pytest.mark.parametrize("form", ["whole", "by number", "list", "annots", "groups"])
def test_json(tmp_path, form):
    frames = [{key: array[frame].tolist() for key, array in PARTS.items()} for frame in range(FRAMES)]
    content = {
        "whole": {**{key: array.tolist() for key, array in PARTS.items()}, "fps": 25, "note": "a", "tags": ["a", "b"]},
        "by number": {str(frame): content for frame, content in enumerate(frames)},
        "list": frames,
        "annots": {"annots": [{"id": 3, **content} for content in frames]},
        "groups": {"smplx": {key: array.tolist() for key, array in PARTS.items()}, "camera": {"f": [1, 2]}},
    }[form]  # fmt: skip
    (tmp_path / "motion.json").write_text(json.dumps(content))
    motion = read_motion(tmp_path / "motion.json")
    np.testing.assert_array_equal(motion.poses, NO_HANDS.astype(np.float32))
    np.testing.assert_array_equal(motion.translations, TRANSL)
    assert motion.fps == (25 if form == "whole" else None)


def test_a_capture_may_have_a_folder_or_json_of_poses(capture_of_poses):
    for form in ("smpl_params", "smpl_params.json"):
        root, arrays = capture_of_poses(form)
        layout = open_capture(root)
        assert layout.pose_path == root / form
        params = read_smpl_params(layout.pose_path)
        np.testing.assert_allclose(params.poses, NO_HANDS, atol=1e-6)
        assert "no hands in the file: flat" in params.told


@pytest.fixture
def capture_of_poses(tmp_path):
    def make(form: str):
        root = tmp_path / form.replace(".", "_")
        root.mkdir()
        camera = {"K": [80, 0, 32, 0, 80, 32, 0, 0, 1], "R": np.eye(3).ravel().tolist(), "T": [0, 0, 3],
                  "distCoeff": [0] * 5, "imgSize": [64, 64]}  # fmt: skip
        (root / "calibration.json").write_text(json.dumps({"cam0": camera}))
        arrays = {key: array.tolist() for key, array in PARTS.items()} | {"betas": [[0.0] * 10]}
        if form.endswith(".json"):
            (root / form).write_text(json.dumps(arrays))
        else:
            (root / form).mkdir()
            for frame in range(FRAMES):
                rows = {key: array if key == "betas" else [array[frame]] for key, array in arrays.items()}
                (root / form / f"{frame:06d}.json").write_text(json.dumps(rows))
        return root, arrays

    return make
