"""What training may learn of the capture besides the avatar: small corrections of its poses and cameras' colours.

Data path: Sample -> `Refinement.pose` -> avatar -> Render -> `Refinement.seen_by` the sample's cameras -> losses; in a
checkpoint's training state; at every checkpoint -> MODEL/smpl_params.npz, pose_refinement.csv, camera_colors.csv.

A pose that is 3 degrees off blurs what the avatar learns, and the MLPs learn the errors by heart. The gradient of the
picture tells which way a joint should turn. Corrections are bounded, alike in neighbouring frames, and drawn to 0:
what the pictures do not tell stays as it was fitted.
Shape letters: F training frames, C training cameras, R rows, G groups of three numbers; 22 joints: root and body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.poses import SmplParams, smpl_params_arrays
from mmlphuman.config import Config
from mmlphuman.files import atomic_write, npz_names, read_npz, write_csv
from mmlphuman.model_folder import REFINED_POSES
from mmlphuman.pose_layout import BODY_POSE
from mmlphuman.processes import Ranks
from mmlphuman.types import Pose, Render, Sample

REFINED = slice(0, BODY_POSE.stop)  # of a pose's numbers: root and body
JOINTS = BODY_POSE.stop // 3
LARGEST_TURN, LARGEST_MOVE = math.radians(5), 0.06  # of a joint, radians; of the place, metres
BETAS = (0.9, 0.99)  # a row is seen some dozens to hundreds of times: a shorter memory than the avatar's
EPS = 1e-15


class LearntRows:
    """(R, G, 3) numbers, 0 at the start, of which a step moves only the rows that its samples have used.

    Adam with averages and a count of steps for each row, so that a frame's pace does not depend on how many others
    there are. The average square is shared by a group's three numbers: a joint does not turn as fast about an axis that
    the pictures hardly tell.
    """

    def __init__(self, rows: int, groups: int, device: torch.device):
        self.values = torch.zeros(rows, groups, 3, device=device, requires_grad=True)
        self.average = torch.zeros(rows, groups, 3, device=device)
        self.square = torch.zeros(rows, groups, 1, device=device)
        self.steps = torch.zeros(rows, 1, 1, device=device)
        self.used = torch.zeros(rows, 1, 1, device=device)  # in this step, by this rank

    def use(self, row: int) -> Tensor:
        """(G, 3) with gradient, for a sample of this step."""
        self.used[row] = 1
        return self.values[row]

    @torch.no_grad()
    def step(self, rate: float, ranks: Ranks) -> Tensor:
        """Steps by the gradients of all ranks and forgets them. Returns a number that is finite if they are."""
        gradient = self.values.grad if self.values.grad is not None else torch.zeros_like(self.values)
        told = torch.cat([gradient.flatten(1), self.used.flatten(1)], 1)
        ranks.sum_all([told])
        gradient, used = told[:, :-1].view_as(self.values), told[:, -1:, None] > 0
        self.values.grad = None
        self.used.zero_()
        beta1, beta2 = BETAS
        square = gradient.square().mean(-1, keepdim=True)
        self.steps += used
        self.average.copy_(torch.where(used, self.average.lerp(gradient, 1 - beta1), self.average))
        self.square.copy_(torch.where(used, self.square.lerp(square, 1 - beta2), self.square))
        steps = self.steps.clamp_min(1)
        mean, root = self.average / (1 - beta1**steps), (self.square / (1 - beta2**steps)).sqrt()
        self.values -= torch.where(used, rate * mean / (root + EPS), torch.zeros_like(mean))
        return told.abs().sum()

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "values": self.values.detach(),
            "average": self.average,
            "square": self.square,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """ValueError if it is of other rows."""
        with torch.no_grad():
            for name, own in self.state_dict().items():
                if own.shape != state[name].shape:
                    raise ValueError(
                        f"the checkpoint's corrections are for {len(state[name])} frames or cameras, the capture has "
                        f"{len(own)}; resume with the capture that the run was begun with"
                    )
                own.copy_(state[name])


def bounded(values: Tensor) -> Tensor:
    """(..., 3) any vectors -> the same directions, shorter than 1; near 0 as they are."""
    return values / (1 + values.square().sum(-1, keepdim=True)).sqrt()


def turning(axis_angles: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3) what changes an axis-angle's numbers as turning by small angles about the rotated body's
    own x, y and z does, to first order (the inverse right Jacobian of SO(3)); rotations by at most half a turn."""
    x, y, z = axis_angles.double().unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    angle = torch.linalg.vector_norm(axis_angles.double(), dim=-1).clamp_min(1e-4)
    factor = 1 / angle.square() - 1 / (2 * angle * torch.tan(angle / 2))
    near_zero = angle < 1e-2
    factor = torch.where(near_zero, torch.full_like(factor, 1 / 12), factor)[..., None, None]
    return (torch.eye(3, dtype=torch.double) + cross / 2 + factor * (cross @ cross)).float()


def within_half_a_turn(poses: np.ndarray) -> np.ndarray:
    """(F, 165) the same rotations; roots and body joints that were turned further have shorter numbers."""
    joints = poses[:, REFINED].reshape(-1, 3)
    far = np.linalg.norm(joints, axis=1) > np.pi
    shorter = joints.copy()
    if far.any():
        shorter[far] = Rotation.from_rotvec(joints[far]).as_rotvec()
    found = poses.copy()
    found[:, REFINED] = shorter.reshape(len(poses), -1)
    return found


class PoseRefinement:
    """A correction of every training frame's pose: each joint turned in its own frame, the body moved."""

    def __init__(self, poses: SmplParams, frames: Sequence[int], config: Config, device: torch.device):
        """frames: those that training sees, in order."""
        self.config, self.frames = config, list(frames)
        self.row = {frame: row for row, frame in enumerate(self.frames)}
        self.fitted = replace(poses, poses=within_half_a_turn(poses.poses))
        joints = torch.from_numpy(self.fitted.poses[self.frames])
        self.turning = turning(joints[:, REFINED].unflatten(1, (-1, 3))).to(device)
        self.joints = joints.to(device)
        self.translations = torch.from_numpy(poses.translations[self.frames]).to(device)
        self.learnt = LearntRows(len(self.frames), JOINTS + 1, device)

    def pose(self, sample: Sample) -> Pose:
        """The sample's, corrected, with gradient."""
        row = self.row[sample.frame]
        joints, translation = self.corrected(
            self.joints[row], self.translations[row], self.turning[row], self.learnt.use(row)
        )
        return replace(sample.pose, joints=joints, translation=translation)

    @staticmethod
    def corrected(
        joints: Tensor, translations: Tensor, turning: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """joints (..., 165), translations (..., 3), turning (..., 22, 3, 3), values (..., 23, 3)."""
        part = bounded(values)
        turns = (turning @ (LARGEST_TURN * part[..., :JOINTS, :, None]))[..., 0].flatten(-2)
        joints = joints + torch.nn.functional.pad(turns, (0, joints.shape[-1] - REFINED.stop))
        return joints, translations + LARGEST_MOVE * part[..., JOINTS, :]

    def penalty(self, frame: int) -> Tensor:
        """() for a sample's loss: how far its correction is from its neighbours' in time and from 0, in shares of the
        bounds; mean square over joints and place. Neighbours count less the more frames lie between."""
        row, values = self.row[frame], self.learnt.values
        own = values[row]
        total = self.config.lambda_pose_small * own.square().sum(-1).mean()
        for other in (row - 1, row + 1):
            if 0 <= other < len(self.frames):
                weight = self.config.lambda_pose_smooth / abs(self.frames[other] - frame)
                total = total + weight * (own - values[other].detach()).square().sum(-1).mean()
        return total

    @torch.no_grad()
    def refined(self) -> SmplParams:
        """The whole capture's poses, with those of the training frames as they are now."""
        joints, translations = self.corrected(
            self.joints, self.translations, self.turning, self.learnt.values
        )
        poses, places = self.fitted.poses.copy(), self.fitted.translations.copy()
        poses[self.frames], places[self.frames] = joints.cpu().numpy(), translations.cpu().numpy()
        return replace(self.fitted, poses=poses, translations=places)

    @torch.no_grad()
    def of_now(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(165,) joints and (3,) translation of a training frame, as corrected so far."""
        joints, translation = self.corrected(
            self.joints[row], self.translations[row], self.turning[row], self.learnt.values[row]
        )
        return joints.cpu().numpy(), translation.cpu().numpy()

    @torch.no_grad()
    def moved(self) -> tuple[np.ndarray, np.ndarray]:
        """(F, 22) degrees and (F,) centimetres."""
        size = torch.linalg.vector_norm(bounded(self.learnt.values), dim=-1).cpu().numpy()
        return np.rad2deg(LARGEST_TURN) * size[:, :JOINTS], 100 * LARGEST_MOVE * size[:, JOINTS]

    def _arrays_of(self, capture_poses: Path) -> dict[str, np.ndarray]:
        """All arrays of a smpl_params.npz; of a file of another form what was read of it."""
        arrays = {}
        if capture_poses.suffix == ".npz" and capture_poses.is_file():
            for key in npz_names(capture_poses):
                with suppress(ValueError):  # pickled extras of publishers' files
                    arrays |= read_npz(capture_poses, [key])
        count = len(self.fitted)
        columns = {"global_orient": 3, "body_pose": 63, "transl": 3}
        shapes = {key: arrays[key].shape for key in columns if key in arrays}
        if shapes == {key: (count, size) for key, size in columns.items()}:
            return arrays
        return smpl_params_arrays(self.fitted)

    def write(self, capture_poses: Path, model_dir: Path) -> None:
        """MODEL/smpl_params.npz, the capture's poses with those of training refined, and MODEL/pose_refinement.csv."""
        arrays = self._arrays_of(capture_poses)
        refined = self.refined()
        for key, where in (("global_orient", slice(0, 3)), ("body_pose", BODY_POSE)):
            arrays[key] = arrays[key].astype(np.float32)
            arrays[key][self.frames] = refined.poses[self.frames, where]
        arrays["transl"] = arrays["transl"].astype(np.float32)
        arrays["transl"][self.frames] = refined.translations[self.frames]
        with atomic_write(model_dir / REFINED_POSES) as file:
            np.savez(file, allow_pickle=False, **arrays)
        turned, moved = self.moved()
        of_joints = [(f"joint {joint}, degrees", turned[:, joint]) for joint in range(JOINTS)]
        rows = [
            (name, f"{sizes.mean():.3f}", f"{sizes.max():.3f}", self.frames[sizes.argmax()])
            for name, sizes in [*of_joints, ("place, cm", moved)]
        ]
        write_csv(model_dir / "pose_refinement.csv", ("what", "mean", "largest", "in frame"), rows)

    def report(self) -> str:
        turned, moved = self.moved()
        frame, joint = np.unravel_index(turned.argmax(), turned.shape)
        return (
            f"poses refined: {turned.mean():.2f} degrees a joint in the mean, at most {turned.max():.2f} (joint "
            f"{joint} in frame {self.frames[frame]}); place {moved.mean():.2f} cm, at most {moved.max():.2f}"
        )


class CameraColors:
    """A gain and a white balance of every training camera: factors of red, green and blue, 1 in the geometric mean."""

    def __init__(self, camera_ids: Sequence[int], device: torch.device):
        self.camera_ids = sorted(camera_ids)
        self.learnt = LearntRows(len(self.camera_ids), 1, device)

    def seen_by(self, cameras: Sequence[int], render: Render, background: Tensor) -> Render:
        """The person's part of the picture as these cameras show it; the background stays as it is.

        background: (3,).
        """
        logs = torch.stack(
            [self.learnt.use(self.camera_ids.index(camera)) for camera in cameras]
        )  # (V, 1, 3)
        behind = (1 - render.alphas[..., None]) * background
        return replace(render, colors=logs[:, None].exp() * (render.colors - behind) + behind)

    def step(self, rate: float, ranks: Ranks) -> Tensor:
        finite = self.learnt.step(rate, ranks)
        with torch.no_grad():  # a gain of all is the avatar's own colour
            self.learnt.values -= self.learnt.values.mean(0)
        return finite

    def factors(self) -> np.ndarray:
        """(C, 3)."""
        return self.learnt.values.detach().exp()[:, 0].cpu().numpy()

    def write(self, model_dir: Path) -> None:
        rows = [
            (camera, *(f"{factor:.4f}" for factor in factors))
            for camera, factors in zip(self.camera_ids, self.factors(), strict=True)
        ]
        write_csv(model_dir / "camera_colors.csv", ("camera", "red", "green", "blue"), rows)

    def report(self) -> str:
        factors = self.factors()
        worst = np.abs(np.log(factors)).max(1).argmax()
        red, green, blue = factors[worst]
        return (
            f"camera colours: factors {factors.min():.3f} to {factors.max():.3f}; furthest from 1 is camera "
            f"{self.camera_ids[worst]} (red {red:.3f}, green {green:.3f}, blue {blue:.3f})"
        )


class Refinement:
    """What the settings ask to learn of poses and cameras; for a run that asks for nothing it does nothing."""

    def __init__(self, config: Config, dataset: CaptureDataset, device: torch.device):
        self.config, self.capture_poses = config, dataset.layout.pose_path
        self.poses: PoseRefinement | None = None
        self.colors: CameraColors | None = None
        if config.refine_poses:
            frames = dataset.seen_frames
            self.poses = PoseRefinement(dataset.poses, frames, config, device)
        if config.refine_camera_colors:
            self.colors = CameraColors(dataset.camera_ids, device)

    @property
    def learns(self) -> bool:
        return self.poses is not None or self.colors is not None

    def pose(self, sample: Sample) -> Pose:
        """To draw a training sample."""
        return sample.pose if self.poses is None else self.poses.pose(sample)

    def pose_for_test(self, sample: Sample) -> Pose:
        """As corrected so far, if training sees the sample's frame."""
        if self.poses is None or sample.frame not in self.poses.row:
            return sample.pose
        return self.poses.refined().pose(sample.frame).to(sample.pose.joints.device)

    def seen_by(self, cameras: Sequence[int], render: Render, background: Tensor) -> Render:
        return render if self.colors is None else self.colors.seen_by(cameras, render, background)

    def with_penalty(self, loss: Tensor, frame: int) -> Tensor:
        return loss if self.poses is None else loss + self.poses.penalty(frame)

    def step(self, iteration: int, ranks: Ranks, finite: Tensor) -> Tensor:
        """After the backward passes of a step's samples. finite: a number that is so if the avatar's gradients are;
        returns one that is so if all are."""
        progress = iteration / self.config.iterations
        for learnt, name in ((self.poses and self.poses.learnt, "pose"), (self.colors, "camera_color")):
            if learnt is not None:
                decay = getattr(self.config.lr_decay, name) ** progress
                finite = finite + learnt.step(getattr(self.config, f"{name}_lr") * decay, ranks)
        return finite

    def pose_space(self, fitted: PoseSpace) -> PoseSpace:
        """Of the poses that the avatar was trained on; fitted: of the capture's."""
        if self.poses is None:
            return fitted
        poses = self.poses.refined().features(self.poses.frames)
        return PoseSpace.fit(torch.from_numpy(poses), self.config.pca_components)

    def write(self, model_dir: Path) -> None:
        """The files that tell people and other commands what was learnt."""
        if self.poses is not None:
            self.poses.write(self.capture_poses, model_dir)
        if self.colors is not None:
            self.colors.write(model_dir)

    def report(self) -> list[str]:
        return [part.report() for part in (self.poses, self.colors) if part is not None]

    def state_dict(self) -> dict[str, Any]:
        parts = {"poses": self.poses, "colors": self.colors}
        return {name: part.learnt.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in (("poses", self.poses), ("colors", self.colors)):
            if part is not None:
                part.learnt.load_state_dict(state[name])
