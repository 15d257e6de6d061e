"""A capture's photographs as viewers see them: undistorted, of the size and field of view of the picture beside them.

Data path: camera id, frame, view -> file of the capture -> (H, W, 3) RGB, pixel by pixel what a render would show.

One photograph is read for each that is asked for; none is kept. Without torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.capture.images import decode_image
from mmlphuman.capture.layout import HALF_PIXEL, CaptureLayout

MOST_PIXELS = 2048 * 2048  # of the answer: more would hold up a training run
SAME_PLACE = 1e-3  # on the entries of w2c, metres; what single precision and rounding leave


class Photographs:
    def __init__(self, layout: CaptureLayout):
        self.layout = layout

    def check_cameras(self, cameras: Mapping[int, CameraView]) -> None:
        """Raises ValueError, one line, if these, by id, are not this capture's."""
        for camera_id, view in cameras.items():
            if not self._stands(camera_id, view):
                raise ValueError(
                    f"{self.layout.root}: is not the capture of this model: its camera {camera_id} is missing or "
                    "stands elsewhere; leave out --data_dir, or give the right one"
                )

    def read(self, camera_id: int, frame: int, view: CameraView) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the view's size, black beyond the photograph's edges.

        frame: its number in the capture. Raises ValueError, one line, where there is no such photograph, it is
        damaged, the view is not the camera's, or too large.
        """
        if view.width * view.height > MOST_PIXELS:
            raise ValueError(
                f"{view.width} x {view.height} pixels are too many for a photograph; {MOST_PIXELS:,} are possible"
            )
        if not self._stands(camera_id, view):
            raise ValueError(f"camera {camera_id} has no photograph from here")
        path = self.layout.find_image(camera_id, frame)
        if path is None:
            raise ValueError(f"camera {camera_id} has no photograph of frame {frame}")
        camera = self.layout.cameras[camera_id]
        photograph, K = decode_image(path, cv2.IMREAD_COLOR_RGB), camera.K
        # Where several pixels become one, they are averaged first.
        shrink = int(min(K[0, 0] / view.intrinsics[0, 0], *photograph.shape[:2]))
        if shrink > 1:
            height, width = (side // shrink for side in photograph.shape[:2])
            K = np.diag([width / photograph.shape[1], height / photograph.shape[0], 1.0]) @ K
            photograph = cv2.resize(photograph, (width, height), interpolation=cv2.INTER_AREA)
        half = np.array([[0, 0, HALF_PIXEL], [0, 0, HALF_PIXEL], [0, 0, 0]])  # OpenCV's pixels begin there
        size = (view.width, view.height)
        tables = cv2.initUndistortRectifyMap(
            K - half, camera.dist, None, view.intrinsics - half, size, cv2.CV_16SC2
        )
        return cv2.remap(photograph, *tables, cv2.INTER_LINEAR)

    def _stands(self, camera_id: int, view: CameraView) -> bool:
        cameras = self.layout.cameras
        return camera_id < len(cameras) and np.allclose(
            view.w2c, cameras[camera_id].w2c, rtol=0, atol=SAME_PLACE
        )
