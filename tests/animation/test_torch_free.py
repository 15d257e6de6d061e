"""A viewer's machine has no torch: what the viewer needs of this package works without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from mmlphuman.animation.camera_file import CameraView, write_camera_file

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is not installed here")
sys.meta_path.insert(0, NoTorch())
import mmlphuman.animation.camera_choice
import mmlphuman.animation.camera_path
from mmlphuman.animation.camera_file import read_camera_file
from mmlphuman.animation.pose_file import PoseOptions, read_pose_file
options = PoseOptions(clean_up="published", hands="fist", up="z")
print(*(len(read_pose_file(path, options)) for path in sys.argv[1:3]), read_camera_file(sys.argv[3]).width)
"""


def test_poses_and_cameras_are_read_without_torch(tmp_path):
    amass, capture, camera = (str(tmp_path / name) for name in ("amass.npz", "smpl_params.npz", "cam.json"))
    np.savez(amass, poses=np.zeros((5, 156)), trans=np.zeros((5, 3)))
    sizes = {"global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "transl": 3}
    np.savez(capture, **{key: np.zeros((4, size)) for key, size in sizes.items()})
    write_camera_file(camera, CameraView(np.eye(4), 40.0, 320, 240))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, amass, capture, camera], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["5", "4", "320"]
