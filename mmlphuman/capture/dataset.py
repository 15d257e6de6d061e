"""CaptureDataset: one item is one pose and V views of it.

Data path: CaptureLayout + SmplParams -> CaptureDataset -> Sample.
Shape letters: V views of a pose, H, W image size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import torch
from tqdm import tqdm

from mmlphuman.capture.frame_filter import filter_frames
from mmlphuman.capture.images import View, decode_image, make_view_reader, scaled_camera
from mmlphuman.capture.layout import CaptureLayout, check_lens
from mmlphuman.capture.picture_names import FolderListing, what_lies_there
from mmlphuman.capture.poses import SmplParams
from mmlphuman.config import Config
from mmlphuman.resources import available_cores
from mmlphuman.types import Cameras, Sample

SCENE_SCALE_MARGIN = 1.1  # as published
VANISHING = 0.1  # of the cameras' distance from the person: a spread that is no ring's
log = logging.getLogger(__name__)


def select_frames(begin: int, count: int, interval: int = 1) -> range:
    """`count` frames: begin, begin + interval, ..."""
    if begin < 0 or count < 1 or interval < 1:
        raise ValueError(
            f"frames need begin >= 0, count >= 1, interval >= 1, got begin {begin}, count {count}, "
            f"interval {interval}"
        )
    return range(begin, begin + count * interval, interval)


class CaptureDataset:
    """Selected frames and cameras of a capture. It only reads; a (frame, camera) pair needs both its files.

    pairs: the (frame, camera id) pairs that exist, by frame. Single missing files and whole frames missing
    between others are left out, as captures ship with such gaps.
    Raises ValueError for cameras or frames that do not exist, and for a selection without any pair.
    """

    def __init__(
        self,
        layout: CaptureLayout,
        poses: SmplParams,
        frames: Sequence[int],
        camera_ids: Sequence[int],
        image_scaling: float = 1.0,
        edge_radius: int | None = None,  # pixels; None: the format's own
        in_memory: bool = False,  # keep every prepared view in RAM, read at once
    ):
        self.layout = layout
        self.poses = poses
        self.frames = tuple(frames)
        self.camera_ids = tuple(camera_ids)
        self.image_scaling = image_scaling
        self._check_selection()
        self.pairs = _existing_pairs(layout, self.frames, self.camera_ids)
        self._check_images_exist()
        radius = layout.edge_radius if edge_radius is None else edge_radius
        self._readers = {
            camera_id: make_view_reader(
                layout.cameras[camera_id], self._source_size(camera_id), image_scaling, radius
            )
            for camera_id in self.camera_ids
        }
        self._views: dict[tuple[int, int], View] = {}
        if in_memory:
            with ThreadPoolExecutor(available_cores()) as readers:  # decoding leaves Python to others
                reading = readers.map(lambda pair: self._read_view(*pair), self.pairs)
                told = tqdm(reading, total=len(self.pairs), desc="reading images", disable=None)
                self._views = dict(zip(self.pairs, told, strict=True))

    @property
    def seen_frames(self) -> list[int]:
        """The frames of which some picture is there, in order."""
        return sorted({frame for frame, _ in self.pairs})

    def cameras(self, camera_ids: Sequence[int]) -> Cameras:
        """The cameras, scaled as the images are, all of the widest one's width and the highest one's height: see
        `sample`. Reads no image."""
        for camera_id in camera_ids:
            if camera_id not in self._readers:
                raise ValueError(
                    f"camera {camera_id} is not among the selected cameras {list(self.camera_ids)}"
                )
        readers = [self._readers[camera_id] for camera_id in camera_ids]
        width, height = np.max([reader.size for reader in readers], axis=0).tolist()
        w2c = np.stack([self.layout.cameras[camera_id].w2c for camera_id in camera_ids])
        intrinsics = np.stack([reader.intrinsics for reader in readers])
        return Cameras(torch.from_numpy(w2c).float(), torch.from_numpy(intrinsics).float(), width, height)

    def calibrated_cameras(self) -> dict[int, Cameras]:
        """Every camera of the calibration, selected or not, scaled as the images are. One whose size neither the
        calibration nor a picture tells is left out."""
        found, find = {}, FolderListing().find
        for camera_id, camera in enumerate(self.layout.cameras):
            if camera_id in self._readers:
                found[camera_id] = self.cameras((camera_id,))
                continue
            size = camera.image_size
            if size is None:
                pictures = (self.layout.find_image(camera_id, frame, find) for frame in self.frames)
                picture = next((path for path in pictures if path is not None), None)
                if picture is None:
                    continue
                size = decode_image(picture, cv2.IMREAD_GRAYSCALE).shape[::-1]
            (width, height), K = scaled_camera(camera, size, self.image_scaling)
            w2c, intrinsics = torch.from_numpy(camera.w2c).float(), torch.from_numpy(K).float()
            found[camera_id] = Cameras(w2c[None], intrinsics[None], width, height)
        return found

    def sample(self, frame: int, camera_ids: Sequence[int]) -> Sample:
        """One pose and its views from `camera_ids`. ValueError or OSError names frame, camera and file.

        Smaller pictures among larger ones get black columns at their right and rows below, none of which is to be
        trusted: pixels and intrinsics stay as they are.
        """
        cameras = self.cameras(camera_ids)
        views = [_widen(self._view(frame, i), cameras.width, cameras.height) for i in camera_ids]
        return Sample(
            frame=frame,
            camera_ids=tuple(camera_ids),
            pose=self.poses.pose(frame),
            cameras=cameras,
            images=torch.from_numpy(np.stack([view.image for view in views])),
            masks=torch.from_numpy(np.stack([view.mask for view in views])),
            edges=torch.from_numpy(np.stack([view.edge for view in views])),
        )

    def scene_scale(self) -> float:
        """1.1 x the largest distance, in metres, of a selected camera's centre from the centres' mean.

        Of one camera, or of several in one place, that vanishes, and learning rates with it: then the cameras' mean
        distance from the person counts, which is about as much on a ring of cameras. A warning says so.
        """
        centers = np.stack([self.layout.cameras[camera_id].center for camera_id in self.camera_ids])
        spread = float(SCENE_SCALE_MARGIN * np.linalg.norm(centers - centers.mean(0), axis=1).max())
        person = self.poses.translations[list(self.frames)].mean(0)
        distance = float(SCENE_SCALE_MARGIN * np.linalg.norm(centers - person, axis=1).mean())
        if spread >= VANISHING * distance:
            return spread
        log.warning(
            "%s: the cameras (%d) stand in one place, so depth is guessed; the scene's scale is taken from their "
            "distance to the person, %.2f m, instead of from their spread, %.2f m",
            self.layout.root,
            len(centers),
            distance,
            spread,
        )
        return distance

    def _view(self, frame: int, camera_id: int) -> View:
        view = self._views.get((frame, camera_id))
        return self._read_view(frame, camera_id) if view is None else view

    def _read_view(self, frame: int, camera_id: int) -> View:
        if camera_id not in self._readers:
            raise ValueError(f"camera {camera_id} is not among the selected cameras {list(self.camera_ids)}")
        paths = self.layout.image_path(camera_id, frame), self.layout.mask_path(camera_id, frame)
        try:
            return self._readers[camera_id].read(*paths)
        except (ValueError, OSError) as error:
            raise ValueError(f"frame {frame}, camera {camera_id}: {error}") from error

    def _check_selection(self) -> None:
        count = len(self.layout.cameras)
        if not self.camera_ids or not self.frames:
            raise ValueError("select at least one camera and one frame")
        for camera_id in self.camera_ids:
            if not 0 <= camera_id < count:
                raise ValueError(
                    f"camera {camera_id} does not exist: {self.layout.root} has cameras 0 to {count - 1} "
                    "(positions in its calibration file)"
                )
        if len(set(self.camera_ids)) != len(self.camera_ids):
            raise ValueError(f"camera ids repeat: {list(self.camera_ids)}")
        self.poses.check_frames(self.frames)

    def _check_images_exist(self) -> None:
        """Gaps are left out; a range that begins before or ends after what was captured is an error."""
        if not self.pairs:
            first = self.camera_ids[0], self.frames[0]
            paths = self.layout.image_path(*first), self.layout.mask_path(*first)
            raise ValueError(
                f"no frame has both image and mask for the selected cameras; the first looked for were "
                f"{paths[0]} and {paths[1].relative_to(self.layout.root)}{what_lies_there(paths)}"
            )
        for camera_id in set(self.camera_ids) - {camera_id for _, camera_id in self.pairs}:
            paths = (
                self.layout.image_path(camera_id, self.frames[0]),
                self.layout.mask_path(camera_id, self.frames[0]),
            )
            raise ValueError(
                f"camera {camera_id} has no image with a mask in the selected frames; looked for "
                f"{paths[0]}{what_lies_there(paths)}"
            )
        present = {frame for frame, _ in self.pairs}
        absent = [frame for frame in self.frames if frame not in present]
        outside = [frame for frame in absent if not min(present) < frame < max(present)]
        if outside:  # Cameras that were not selected may have them: then it is a gap of the selected ones.
            everywhere = _existing_pairs(self.layout, outside, range(len(self.layout.cameras)))
            lost = sorted(set(outside) - {frame for frame, _ in everywhere})
            if lost:
                remedy = "change the frame range"
                beyond = _existing_pairs(self.layout, [len(self.poses)], range(len(self.layout.cameras)))
                if lost[0] == 0 and beyond:  # as many pictures as poses, but one number on
                    remedy = "are pictures numbered from 1? script/import_capture.py numbers them from 0"
                raise ValueError(
                    f"{self.layout.root}: frame {lost[0]} has no image and mask in any camera "
                    f"({len(lost)} such frames at the ends of the selection); {remedy}"
                )
        left_out = len(self.frames) * len(self.camera_ids) - len(self.pairs)
        if left_out:
            log.warning(
                "%s: %d of %d images left out, their image or mask is missing (%d frames have none)",
                self.layout.root,
                left_out,
                left_out + len(self.pairs),
                len(absent),
            )

    def _source_size(self, camera_id: int) -> tuple[int, int]:
        """(width, height) of a camera's files; where the calibration does not tell, its first image does."""
        camera = self.layout.cameras[camera_id]
        if camera.image_size is not None:
            return camera.image_size
        frame = next(frame for frame, other in self.pairs if other == camera_id)
        path = self.layout.image_path(camera_id, frame)
        height, width = decode_image(path, cv2.IMREAD_GRAYSCALE).shape
        check_lens(f"camera {camera_id} ({camera.name}), {path}", replace(camera, image_size=(width, height)))
        return width, height


def _widen(view: View, width: int, height: int) -> View:
    rows, columns = height - view.image.shape[0], width - view.image.shape[1]
    if not rows and not columns:
        return view
    beyond = (0, rows), (0, columns)
    return View(
        image=np.pad(view.image, (*beyond, (0, 0))),
        mask=np.pad(view.mask, beyond),
        edge=np.pad(view.edge, beyond, constant_values=True),
    )


def _existing_pairs(
    layout: CaptureLayout, frames: Sequence[int], camera_ids: Sequence[int]
) -> list[tuple[int, int]]:
    """(frame, camera id) whose image and mask both exist. Each folder is listed once, not asked per file."""
    find = FolderListing().find
    return [
        (frame, camera_id)
        for frame in frames
        for camera_id in camera_ids
        if layout.find_image(camera_id, frame, find) and layout.find_mask(camera_id, frame, find)
    ]


def training_dataset(config: Config, layout: CaptureLayout, poses: SmplParams) -> CaptureDataset:
    """The training images, without the frames that config cuts out or finds repeated.

    Only training frames are filtered: scores are comparable with others' only on every frame of a protocol, and
    a repeated pose harms no score.
    """
    frames = select_frames(config.begin_ith_frame, config.num_train_frame, config.frame_interval)
    return CaptureDataset(
        layout,
        poses,
        frames=filter_frames(frames, poses, config.min_pose_change, config.skip_frames),
        camera_ids=config.train_cam_ids or list(range(len(layout.cameras))),
        image_scaling=config.image_scaling,
        edge_radius=config.edge_radius,
        in_memory=config.data_in_memory,
    )


def test_dataset(config: Config, layout: CaptureLayout, poses: SmplParams) -> CaptureDataset:
    """The images that training never sees."""
    return CaptureDataset(
        layout,
        poses,
        frames=select_frames(config.test.begin_ith_frame, config.test.num_frame, config.test.frame_interval),
        camera_ids=config.test.cam_ids,
        image_scaling=config.test.image_scaling,
        edge_radius=config.edge_radius,
        in_memory=False,
    )
