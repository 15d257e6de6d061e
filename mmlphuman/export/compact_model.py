"""A compact file's content of a model folder: for script/compact.py, and for exports that carry one.

Data path: model folder + its TrainedAvatar -> looked at once -> pruned, in standard form, encoded (export.compact) at
a level, with what else the folder has -> bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mmlphuman.animation.camera_file import camera_list_of, cameras_of_list
from mmlphuman.avatar.build import read_template_mesh
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import canonical_pose, rotation_matrices
from mmlphuman.command import versions
from mmlphuman.export.compact import Carried, encode, pack
from mmlphuman.export.compact_report import MEGABYTE
from mmlphuman.export.packing import Packed
from mmlphuman.export.precision import LEVELS, Looked
from mmlphuman.export.pruning import Selection, camera_in_front
from mmlphuman.model_folder import TEMPLATE_NAME, folder_of, training_frames
from mmlphuman.types import Pose

COARSEST = 24.0  # dB below a level: what is smaller still is no likeness
NEARLY = 0.97  # of the size that is asked for: near enough
TRIES = 6  # to come so near


@dataclass(frozen=True)
class CompactModel:
    selection: Selection
    stored: dict[str, Packed]
    content: bytes  # of the file
    coarser: float  # dB given up below the level, for the file's size

    @property
    def megabytes(self) -> float:
        return len(self.content) / MEGABYTE


class ModelToCompact:
    """A model folder, looked at once for files of several levels. Raises ValueError for a damaged one."""

    def __init__(self, model_dir: Path, trained: TrainedAvatar):
        """model_dir: what `trained` was loaded from."""
        self.cameras, self.carried = read_cameras(model_dir), carried_of(model_dir, trained)
        self.view = first_view(trained, self.cameras, self.carried)
        self.looked = Looked(trained)

    def at(self, level: str, keep: float | None = None, megabytes: float | None = None) -> CompactModel:
        """The most exact one of at most so many megabytes, or the level itself where that is smaller.

        level: of precision.LEVELS. keep: the share of the Gaussians that keep their bases; None: the level's.
        megabytes: None: the level's. ValueError for numbers that the format cannot hold, and where the size cannot be
        reached.
        """
        limit = LEVELS[level].megabytes if megabytes is None else megabytes
        larger = self._made(level, keep, 0.0)
        if larger.megabytes <= limit:
            return larger
        best = self._made(level, keep, COARSEST)
        if best.megabytes > limit:
            raise ValueError(
                f"at level {level} the avatar cannot be made smaller than {best.megabytes:.3g} MB, and at most "
                f"{limit:g} MB are asked for; give --megabytes {1.01 * best.megabytes:.3g}"
                + (", or give a smaller --keep, or none" if keep else "")
            )
        # The size falls ever more slowly with each dB, so that the chord's point is small enough but for roughness.
        for _ in range(TRIES):
            if best.megabytes >= NEARLY * limit:
                break
            part = (larger.megabytes - limit) / (larger.megabytes - best.megabytes)
            between = self._made(level, keep, larger.coarser + part * (best.coarser - larger.coarser))
            if between.megabytes <= limit:
                best = between
            else:
                larger = between
        return best

    def _made(self, level: str, keep: float | None, coarser: float) -> CompactModel:
        made = self.looked.compacted(LEVELS[level].coarser(coarser), keep)
        stored = encode(made.trained, self.carried, made.steps)
        chosen = made.selection
        record = {"level": level, "bases": chosen.num_properties, "sh1_bases": chosen.num_sh1, **versions()}
        if coarser:
            record["coarser_db"] = round(coarser, 2)
        content = pack(stored, made.trained, record, self.cameras, self.view)
        return CompactModel(chosen, stored, content, coarser)


def read_cameras(model_dir: Path) -> list[dict] | None:
    """The content of cameras.json, once it is seen to be sound; None where there is none."""
    content = camera_list_of(model_dir)
    if content is None:
        return None
    cameras_of_list(content, str(model_dir))
    assert isinstance(content, list)
    return content


def carried_of(model_dir: Path, trained: TrainedAvatar) -> Carried:
    """What there is of it in the model folder."""
    frames, template = training_frames(model_dir, trained.config), folder_of(model_dir) / TEMPLATE_NAME
    kept = trained.pose_space.training_poses  # the file's; former versions kept the body's numbers alone
    if frames is not None and (
        len(frames) != len(kept) or (frames.poses[:, :3].any() and not kept[:, :3].any())
    ):
        frames = None
    return Carried(frames, read_template_mesh(template) if template.is_file() else None)


@torch.no_grad()
def first_view(trained: TrainedAvatar, cameras: list[dict] | None, carried: Carried) -> dict:
    """The first of the capture's cameras, or one in front of the body; and the world's direction up, which is the
    body's mean one."""
    pose, up = canonical_pose(), torch.tensor([0.0, 1.0, 0.0])
    translation = torch.zeros(3)
    if carried.frames is not None:
        roots = rotation_matrices(torch.from_numpy(carried.frames.poses[:, :3]))
        up = torch.nn.functional.normalize(roots[:, :, 1].mean(0), dim=0)
        pose = torch.from_numpy(carried.frames.poses[0])
        translation = torch.from_numpy(carried.frames.translations[0])
    if cameras:
        return {name: cameras[0][name] for name in ("w2c", "K", "width", "height")} | {"up": up.tolist()}
    posed = Pose(pose, translation, torch.eye(3)).to(trained.device)
    xyz = trained.avatar(posed, trained.active).posed.xyz.cpu()
    root = rotation_matrices(pose[:3])
    # In the root's own axes the camera is in front and upright.
    own = xyz @ root
    low, high = own.amin(0), own.amax(0)
    camera = camera_in_front((low + high) / 2, float((high - low).max()), 0.0, 0.0)
    w2c = camera.w2c[0].clone()
    w2c[:3, :3] = w2c[:3, :3] @ root.T
    return {
        "w2c": w2c.flatten().tolist(),
        "K": camera.intrinsics[0].flatten().tolist(),
        "width": camera.width,
        "height": camera.height,
        "up": up.tolist(),
    }
