"""A compact file's content of a model folder: for script/compact.py, and for exports that carry one.

Data path: model folder + its TrainedAvatar -> pruned, encoded (export.compact), with what else the folder has -> bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mmlphuman.animation.camera_file import camera_list_of, cameras_of_list
from mmlphuman.avatar.build import read_template_mesh
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.command import versions
from mmlphuman.export.compact import Carried, encode, pack
from mmlphuman.export.pruning import Selection, prune, select, visible_change
from mmlphuman.model_folder import TEMPLATE_NAME, folder_of, training_frames


@dataclass(frozen=True)
class CompactModel:
    selection: Selection
    stored: dict[str, Tensor]
    content: bytes  # of the file


def make_compact(model_dir: Path, trained: TrainedAvatar, keep: float | None = None) -> CompactModel:
    """model_dir: what `trained` was loaded from. keep: the share of the Gaussians that keep their bases; None: `select`
    chooses. Raises ValueError for a damaged folder, or numbers that the format cannot hold."""
    cameras, carried = read_cameras(model_dir), carried_of(model_dir, trained)
    selection = select(visible_change(trained), keep)
    pruned = prune(trained, selection)
    stored = encode(pruned, carried)
    record = {"bases": selection.num_properties, "sh1_bases": selection.num_sh1, **versions()}
    return CompactModel(selection, stored, pack(stored, pruned, record, cameras))


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
