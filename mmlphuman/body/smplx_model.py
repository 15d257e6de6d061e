"""SMPL-X model file + shape -> Body: shaped surface, skeleton, skinning weights.

Data path: model file, betas -> Body -> template, weight volume, kinematics.
Shape letters: B body vertices, F faces, J joints (55).

The publisher's npz carries pickled extras beside its numbers, and the smplx package would unpickle them.
Therefore the numeric arrays are copied to a temporary npz first, and smplx loads that one.
"""

from __future__ import annotations

import contextlib
import filecmp
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import smplx
import torch
from torch import Tensor

from mmlphuman.body.kinematics import (
    apply_transforms,
    blend_transforms,
    canonical_pose,
    forward_kinematics,
)
from mmlphuman.files import read_npz
from mmlphuman.pose_layout import NUM_JOINTS
from mmlphuman.types import MovableToDevice

BODY_FILE = "SMPLX_NEUTRAL.npz"  # the smplx package knows a model by its name
NUM_BETAS = 10  # shape components used, as the captures were fitted
SUM_TOLERANCE = 0.01  # of a vertex's skinning weights
WHERE_TO_GET_IT = (
    "register at https://smpl-x.is.tue.mpg.de, download SMPL-X v1.1 (NPZ) and put it at "
    "smpl_model/smplx/SMPLX_NEUTRAL.npz"
)
GEOMETRY_KEYS = ("v_template", "f", "shapedirs", "J_regressor", "kintree_table", "weights")
# Asked for by the smplx package when it is built; the method does not use them, and stripped files lack them.
UNUSED = {
    "hands_meanl": (45,),
    "hands_meanr": (45,),
    "hands_componentsl": (45, 45),
    "hands_componentsr": (45, 45),
    "lmk_faces_idx": (51,),
    "lmk_bary_coords": (51, 3),
}
OTHER_MODELS = {24: "SMPL", 52: "SMPL+H", 5: "FLAME", 16: "MANO"}  # by their number of joints


@dataclass(frozen=True)
class Body(MovableToDevice):
    """A shaped SMPL-X body in metres, SMPL-X axes (y up, x to the body's left, z forward)."""

    vertices: Tensor  # (B, 3) T-pose
    canonical_vertices: Tensor  # (B, 3) skinned to the canonical pose, without pose blend shapes
    faces: Tensor  # (F, 3) int64
    joints: Tensor  # (J, 3) rest positions in the T-pose
    parents: tuple[int, ...]  # J, the root's is -1
    lbs_weights: Tensor  # (B, J) rows sum to one


def other_body(capture: Path, used: Path) -> str | None:
    """A line where a capture has a body file of its own, the person's surface, and another one is used."""
    own = capture / BODY_FILE
    if not (own.is_file() and used.is_file()) or filecmp.cmp(own, used, shallow=False):
        return None
    return (
        f"{own} is the body that this capture was fitted with, and {used} is used: give smpl_pkl_path={own}"
    )


def load_body(path: str | Path, betas: np.ndarray | Tensor | Sequence[float]) -> Body:
    """Load an SMPL-X model file and shape it.

    path: an npz in the publisher's format. betas: shape coefficients, (10,) or (1, 10) or longer, of which
    the first 10 are used. Returns float32 tensors on the CPU.
    Raises FileNotFoundError if the file is missing, ValueError if it is no SMPL-X model or betas are bad.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"SMPL-X model file {path} not found{'' if path.is_absolute() else f' from {Path.cwd()}'}; say where it "
            f"lies (smpl_pkl_path or --smpl_path), or, if you have none: {WHERE_TO_GET_IT}"
        )
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise ValueError(
            f"{path}: a pickled file, which could run a stranger's program and is not read; take the NPZ version of "
            "SMPL-X v1.1 (SMPLX_NEUTRAL.npz)"
        )
    coefficients = _check_betas(betas)
    arrays = read_npz(path, GEOMETRY_KEYS)
    _check_model(path, arrays)
    model = _smplx_model(arrays)
    with torch.no_grad():
        vertices = model.forward_shape(betas=coefficients[None]).v_shaped[0]
        joints = model.J_regressor @ vertices
        parents = tuple(model.parents.tolist())
        relative = forward_kinematics(canonical_pose(), joints, parents)
        transforms = blend_transforms(model.lbs_weights, relative)
        canonical_vertices = apply_transforms(transforms, vertices)
    return Body(
        vertices=vertices,
        canonical_vertices=canonical_vertices,
        faces=model.faces_tensor,
        joints=joints,
        parents=parents,
        lbs_weights=model.lbs_weights,
    )


def _check_betas(betas) -> Tensor:
    """-> (10,) float32."""
    coefficients = torch.as_tensor(betas, dtype=torch.float32).flatten()[:NUM_BETAS]
    if len(coefficients) < NUM_BETAS or not coefficients.isfinite().all():
        raise ValueError(f"betas must be {NUM_BETAS} finite shape coefficients, got {coefficients.tolist()}")
    return coefficients


def _check_model(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """One line naming the file, the array and what is wrong with it."""
    joints = arrays["weights"].shape[-1] if arrays["weights"].ndim else 0
    if joints in OTHER_MODELS:
        raise ValueError(
            f"{path}: this is {OTHER_MODELS[joints]} ({joints} joints), an SMPL-X model ({NUM_JOINTS}) is needed: "
            f"{WHERE_TO_GET_IT}"
        )
    template_shape = arrays["v_template"].shape
    count = template_shape[0] if template_shape else 0
    expected = {
        "v_template": (count, 3),
        "f": (None, 3),
        "shapedirs": (count, 3, None),
        "J_regressor": (NUM_JOINTS, count),
        "kintree_table": (2, NUM_JOINTS),
        "weights": (count, NUM_JOINTS),
    }
    for key, wanted in expected.items():
        shape = arrays[key].shape
        if len(shape) != len(wanted) or any(w not in (None, s) for s, w in zip(shape, wanted, strict=True)):
            text = ", ".join("any" if size is None else str(size) for size in wanted)
            raise ValueError(f"{path}: '{key}' has shape {shape}, an SMPL-X model needs ({text})")
        if not np.isfinite(arrays[key]).all():
            raise ValueError(f"{path}: '{key}' holds numbers that are not finite")
    if arrays["shapedirs"].shape[2] < NUM_BETAS:
        raise ValueError(
            f"{path}: 'shapedirs' has {arrays['shapedirs'].shape[2]} components, {NUM_BETAS} are needed"
        )
    if (np.abs(arrays["weights"].sum(1) - 1) > SUM_TOLERANCE).any():
        raise ValueError(f"{path}: 'weights' must sum to 1 at every vertex")
    if arrays["f"].min(initial=0) < 0 or arrays["f"].max(initial=0) >= count:
        raise ValueError(f"{path}: 'f' refers to vertices outside 0..{count - 1}")
    parents = arrays["kintree_table"][0, 1:].astype(np.int64)
    if (parents < 0).any() or (parents >= np.arange(1, NUM_JOINTS)).any():
        raise ValueError(f"{path}: 'kintree_table' must list every joint's parent before the joint")


def _smplx_model(arrays: dict[str, np.ndarray]) -> Any:
    """The smplx package's SMPLX of these arrays; Any, as its annotations take a Tensor type of their own."""
    unused = {key: np.zeros(shape, int if key == "lmk_faces_idx" else float) for key, shape in UNUSED.items()}
    safe = unused | arrays
    safe["shapedirs"] = arrays["shapedirs"][:, :, :NUM_BETAS]
    # Pose blend shapes are not used by the method; one zero column stands for the 100 MB of them.
    safe["posedirs"] = np.zeros((*arrays["v_template"].shape, 1), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / BODY_FILE
        np.savez(copy, allow_pickle=False, **safe)
        # smplx prints a warning about every model with fewer than 400 shape components.
        with contextlib.redirect_stdout(io.StringIO()):
            return smplx.SMPLX(
                str(copy),
                gender="neutral",
                ext="npz",
                num_betas=NUM_BETAS,
                use_pca=False,
                flat_hand_mean=True,
                create_expression=False,
            )
