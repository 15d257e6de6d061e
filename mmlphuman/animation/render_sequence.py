"""Drawing a sequence of poses, several in flight, so that copying and writing never hold the renderer up.

Data path: PoseSequence + Shots -> TrainedAvatar -> rasterize -> uint8 on the device -> RenderedFrames (numpy).

On a GPU drawing a frame only queues work: the picture is copied to pinned memory on a stream of its own while
the next poses are drawn, and handed over when its copy is done. On a CPU a picture is there at once, and the
same loop hands over one at a time.
Shape letters: H, W height and width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.camera_path import Shot, mean_pelvis
from mmlphuman.animation.pose_file import PoseSequence
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import Backend
from mmlphuman.body.kinematics import forward_kinematics
from mmlphuman.render.rasterize import cut_out, rasterize
from mmlphuman.text import cut_ranges
from mmlphuman.types import Cameras, Pose

LOOKED_AT = 300  # Gaussians that stand for the person where it is asked whether a picture shows it
AT_ONCE = 256  # poses
IN_FLIGHT = 4  # pictures; enough to hide a copy, and few beside the pictures that wait to be written


@dataclass(frozen=True)
class Look:
    """How to draw, besides pose and camera."""

    background: Tensor  # (3,) on the avatar's device
    backend: Backend
    project_pose: bool = False  # novel poses into training's range (`--test`)
    transparent: bool = False  # RGBA with straight colour, on no background


@dataclass(frozen=True)
class RenderedFrame:
    shot: int  # which of the shots
    index: int  # which of the sequence's poses
    image: np.ndarray  # (H, W, 3) uint8 RGB, or RGBA of a transparent look; nobody else's


def render_sequence(
    trained: TrainedAvatar,
    sequence: PoseSequence,
    shots: Sequence[Shot],
    look: Look,
    in_flight: int = IN_FLIGHT,
    indices: Sequence[int] | None = None,
) -> Iterator[RenderedFrame]:
    """Draws every pose once for each shot; yields pose by pose, within a pose shot by shot.

    indices: only these of the poses. At most in_flight pictures have been drawn and not been handed over while
    the next pose is drawn.
    """
    device = trained.device
    pending: deque[_Download] = deque()
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None
    for index in range(len(sequence.frames)) if indices is None else indices:
        pose = sequence.pose(index)
        cameras = [to_cameras(shot.views[index], device) for shot in shots]
        for shot, image in enumerate(draw(trained, pose, cameras, look)):
            pending.append(_Download(shot, index, image, copies))
        while pending and (len(pending) > in_flight or pending[0].is_done()):
            yield pending.popleft().finish()
    while pending:
        yield pending.popleft().finish()


@torch.no_grad()
def out_of_picture(trained: TrainedAvatar, sequence: PoseSequence, shots: Sequence[Shot]) -> list[np.ndarray]:
    """For every shot (F,) bool: none of some Gaussians of the person is in the picture."""
    avatar = trained.avatar
    some = slice(None, None, max(len(avatar.xyz) // LOOKED_AT, 1))
    xyz, weights = avatar.xyz[some], avatar.lbs_weights[some]
    out = [np.ones(len(sequence), bool) for _ in shots]
    for begin in range(0, len(sequence), AT_ONCE):
        indices = range(len(sequence))[begin : begin + AT_ONCE]
        poses = torch.from_numpy(sequence.poses[indices]).to(trained.device)
        skinning = forward_kinematics(poses, avatar.joints, avatar.bone_parents) @ avatar.canonical_inverse
        blended = torch.einsum("nj,fjab->fnab", weights, skinning[..., :3, :])
        body = (blended[..., :3] @ xyz[:, :, None])[..., 0] + blended[..., 3]
        turns, moves = (np.stack(parts) for parts in zip(*map(sequence.placement, indices), strict=True))
        world = body.cpu().double().numpy() @ turns.transpose(0, 2, 1) + moves[:, None]
        for shot, hidden in zip(shots, out, strict=True):
            views = [shot.views[index] for index in indices]
            w2c = np.stack([view.w2c for view in views])
            seen = world @ w2c[:, :3, :3].transpose(0, 2, 1) + w2c[:, None, :3, 3]
            x, y, depth = np.moveaxis(
                seen @ np.stack([view.intrinsics for view in views]).transpose(0, 2, 1), -1, 0
            )
            inside = (
                (depth > 0) & (x > 0) & (x < depth * views[0].width) & (y > 0) & (y < depth * views[0].height)
            )
            hidden[indices] = ~inside.any(1)
    return out


def tell_out_of_picture(trained: TrainedAvatar, sequence: PoseSequence, shots: Sequence[Shot]) -> list[str]:
    """A line for every shot that misses the person in some frames. ValueError where all pictures would be empty."""
    out = out_of_picture(trained, sequence, shots)
    counts = [int(hidden.sum()) for hidden in out]
    if all(hidden.all() for hidden in out):
        place = mean_pelvis(sequence, trained.avatar.joints[0].cpu().numpy())
        raise ValueError(
            f"{sequence.source}: the person is out of the picture in all {len(sequence)} frames, about "
            f"({', '.join(f'{number:.2f}' for number in place)}) m; move the camera, or try "
            "--follow, --no_translation, --up or --units"
        )
    return [
        f"{shot.name or 'the camera'}: the person is out of the picture in {count} of {len(sequence)} frames "
        f"({cut_ranges(sequence.frames[hidden].tolist())}); move the camera, or give --follow or --no_translation"
        for shot, hidden, count in zip(shots, out, counts, strict=True)
        if count
    ]


@torch.no_grad()
def draw(trained: TrainedAvatar, pose: Pose, cameras: Sequence[Cameras], look: Look) -> list[Tensor]:
    """Poses the avatar once; (H, W, 3) uint8 pictures on its device, or (H, W, 4) of a transparent look, of the one
    view of each of `cameras`."""
    posed = trained.pose(pose, look.project_pose)
    if look.transparent:
        return [cut_out(posed, camera, look.backend)[0] for camera in cameras]
    if trained.drawer is not None:
        return [trained.drawer(posed, camera, look.background) for camera in cameras]
    renders = (rasterize(posed, camera, look.background, look.backend) for camera in cameras)
    return [look.backend.to_bytes(render.colors[0]) for render in renders]


def to_cameras(view: CameraView, device: torch.device | str) -> Cameras:
    """One camera, as rasterize takes it."""
    return Cameras(
        w2c=torch.from_numpy(view.w2c).float()[None],
        intrinsics=torch.from_numpy(view.intrinsics).float()[None],
        width=view.width,
        height=view.height,
    ).to(device, non_blocking=True)


class _Download:
    """A picture on its way from the device to the program."""

    def __init__(self, shot: int, index: int, image: Tensor, copies: torch.cuda.Stream | None):
        self.shot, self.index = shot, index
        self._done = None
        if copies is None:
            self._host = image
            return
        self._host = torch.empty(image.shape, dtype=image.dtype, pin_memory=True)
        copies.wait_stream(torch.cuda.current_stream(image.device))
        with torch.cuda.stream(copies):
            self._host.copy_(image, non_blocking=True)
            self._done = copies.record_event()
        image.record_stream(copies)  # its memory is not given to another picture before it is copied

    def is_done(self) -> bool:
        return self._done is None or self._done.query()

    def finish(self) -> RenderedFrame:
        """Waits until the copy is done."""
        if self._done is not None:
            self._done.synchronize()
        return RenderedFrame(self.shot, self.index, self._host.numpy())
