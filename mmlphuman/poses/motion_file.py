"""Files of poses -> Motion: the one reader of poses, for captures, animations, viewers and scripts. Without torch.

Data path: file or folder -> Arrays by name -> by what they are -> axis-angle of SMPL-X's 55 joints -> Motion.
Shape letters: F frames, J joints.

What is read from: an npz; one array in an npy; JSON; a folder of npz or JSON files, a frame each. Nothing is unpickled.

    taken for               by                                                                 placed by
    a model folder's poses  poses (165), translations, frames                                  translations
    AMASS                   poses (165 SMPL-X, 156 SMPL+H, 72 SMPL, 66 body) and trans, or     trans
                            root_orient, pose_body (63) and, if there are hands, pose_hand (90)
    SMPL-X, smplx's names   global_orient, body_pose (63) and, if there are hands,             transl
                            left_hand_pose, right_hand_pose (45 each; fewer: PCA)
    SMPL, smplx's names     global_orient, body_pose (69)                                      transl
    EasyMocap               Rh, Th, poses (72 SMPL; with PCA hands 78 SMPL+H, 87 SMPL-X;       R(Rh) skinning(X) + Th
                            whole ones; or those but PCA without the root's 3)
    AIST++                  smpl_poses (72), smpl_trans, smpl_scaling                          smpl_trans / smpl_scaling
    Motion-X                one array (322): root, body, hands, jaw, face, translation, shape  its columns

Further names of the same: arrays.NAMES. Wherever joints stand (F, 3J) and (F, J, 3) are axis-angle, (F, J, 3, 3) and
(F, 9J) rotation matrices, (F, J, 4) quaternions, if their numbers tell which part is the real one; a person's axis
(1, F, ...) is dropped. Refused, saying what to do, are joint positions, 6D rotations, several persons, and whatever
else could mean two things.

Hands of 45 numbers are taken as they are, relative to flat hands as in the captures (smplx's flat_hand_mean=True). PCA
coefficients are multiplied by the model file's components and its mean hand is added, as smplx and EasyMocap do. SMPL's
two hand joints have no place among SMPL-X's and are left out. Eyes are zero, as in training; jaw and
expression are read where they are asked for, for avatars that have learnt them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.files import read_npz
from mmlphuman.pose_layout import (
    BODY_POSE,
    EXPRESSION_DIM,
    HANDS_POSE,
    JAW,
    JAW_POSE,
    LEFT_HAND_POSE,
    NUM_JOINTS,
    POSE_DIM,
    RIGHT_HAND_POSE,
)
from mmlphuman.poses.arrays import ACCEPTED, NAMES, POSITIONS, WORLD, Arrays, one_group, open_arrays
from mmlphuman.poses.rotations import BODY_JOINTS, Rotations

log = logging.getLogger(__name__)

# Joints of a whole pose, with the root: whose they are, and where the hands begin.
FAMILIES = {22: ("body", None), 24: ("SMPL", None), 52: ("SMPL+H", 22), 55: ("SMPL-X", 25)}
# Numbers of EasyMocap's poses: 66 of root and body, 6 of either hand; of SMPL-X then jaw and eyes.
EASYMOCAP_PCA = {78: "SMPL+H", 87: "SMPL-X"}
EASYMOCAP_HAND = 6
EASYMOCAP_JAW = slice(78, 81)
MOTION_X = {"root_orient": (0, 3), "pose_body": (3, 66), "pose_hand": (66, 156), "pose_jaw": (156, 159),
            "expression": (159, 209), "trans": (309, 312), "betas": (312, 322)}  # fmt: skip
MOTION_X_WIDTH = 322
HAND_JOINTS = 15
MAX_ROTATION = 4 * np.pi  # radians of one joint; beyond lie degrees and damage


@dataclass(frozen=True)
class Motion:
    """A file's whole content, whichever its form: x_world = R(turns) skinning(x, poses) + translations."""

    poses: (
        np.ndarray
    )  # (F, 165) float32 axis-angle, SMPL-X order, eyes zero, and the jaw where no face is asked for
    translations: np.ndarray  # (F, 3) float32, in the file's unit
    turns: (
        np.ndarray | None
    )  # (F, 3) float32 axis-angle about the origin, EasyMocap's Rh; None: none anywhere
    betas: np.ndarray | None  # as the file has them, (rows, numbers) or (numbers,); None: none
    expressions: np.ndarray | None  # (F, 10) float32; None: none, or not asked for
    frames: np.ndarray  # (F,) int64 numbers of the frames
    fps: float | None
    told: str  # one line: what the file was taken for
    parts: tuple[tuple[str, slice], ...]  # for messages: array of the file, where it went among the 165
    translation_key: str
    expression_key: str

    def __len__(self) -> int:
        return len(self.poses)

    def name_of(self, joint: int) -> str:
        """The file's array that a joint came from."""
        return next((key for key, where in self.parts if where.start <= 3 * joint < where.stop), "poses")


def read_motion(
    path: str | Path,
    model_file: str | Path | None = None,
    hands: bool = True,
    translation: bool = True,
    face: bool = False,
) -> Motion:
    """Reads what the table above has.

    model_file: the SMPL-X model, for hands in PCA coefficients; without it they stay flat, and the line tells.
    hands, translation: False where the caller replaces them, so that they may be missing. face: jaw, expression.
    Raises FileNotFoundError, or ValueError that names file and array, and says what is wrong or what to do.
    """
    arrays = one_group(path, open_arrays(Path(path)))
    if arrays.names == ("",):
        arrays = _single_array(path, arrays.read(""))
    motion = _Reader(path, arrays, model_file, hands, translation, face).motion()
    _check_rotations(path, motion)
    return motion


def _check_rotations(path: str | Path, motion: Motion) -> None:
    """ValueError for angles that no person's joint has."""
    angles = np.linalg.norm(motion.poses.reshape(-1, NUM_JOINTS, 3).astype(np.float64), axis=2)
    if angles.max() > MAX_ROTATION:
        frame, joint = np.unravel_index(angles.argmax(), angles.shape)
        raise ValueError(
            f"{path}: '{motion.name_of(int(joint))}' turns joint {joint} by {angles.max():.4g} radians in frame "
            f"{frame}; axis-angle vectors in radians, at most {MAX_ROTATION:.4g}, are needed (are these degrees?)"
        )


def about_pelvis(
    poses: np.ndarray, translations: np.ndarray, turns: np.ndarray, pelvis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Poses (F, 165) and translations (F, 3), float32, that place the body without `turns` where it is with them.

    turns: (3, 3) or (F, 3, 3) rotations R about the origin, x = R skinning(X) + t; pelvis: (3,) the root joint p of the
    T-pose, about which skinning turns the root by R_0: x = R R_0 (X' - p) + R p + t. Hence the root turns by R R_0, and
    the translation is t + R p - p.
    """
    root = Rotation.from_matrix(turns) * Rotation.from_rotvec(poses[:, :3].astype(np.float64))
    turned = poses.copy()
    turned[:, :3] = root.as_rotvec()
    return turned, (translations + turns @ pelvis - pelvis).astype(np.float32)


def _single_array(path: str | Path, array: np.ndarray) -> Arrays:
    """Motion-X's columns, or a pose a frame."""
    if array.ndim == 2 and array.shape[1] == MOTION_X_WIDTH:
        return Arrays.of(
            {name: array[:, begin:end] for name, (begin, end) in MOTION_X.items()} | {"motion_x": array}
        )
    return Arrays.of({"poses": array})


class _Reader:
    """One file's arrays, by what they are, with what the line about it will say."""

    def __init__(
        self,
        path: str | Path,
        arrays: Arrays,
        model_file: str | Path | None,
        hands: bool,
        translation: bool,
        face: bool,
    ):
        self.path, self.arrays, self.model_file = path, arrays, model_file
        self.wants_hands, self.wants_translation, self.wants_face = hands, translation, face
        self.name_of = self._names_of_roles()
        self.frames_of: dict[str, int] = {}  # array: its frames, of those that say something of each
        self.parts: list[tuple[str, slice]] = []
        self.rotations = Rotations()

    def motion(self) -> Motion:
        if "body" in self.name_of and ("root" in self.name_of or "whole" not in self.name_of):
            poses, family, hands = self._parts()
        elif "whole" in self.name_of:
            poses, family, hands = self._whole()
        else:
            self._refuse_no_poses()
        if self.wants_hands:
            hands = self._hands(poses, hands)
        expressions = self._face(poses) if self.wants_face else None
        turns = self._joints("turn", (1,))[:, 0] if "turn" in self.name_of else None
        translations, key = self._translations(len(poses))
        for name, count in self.frames_of.items():
            if count != len(translations):
                raise ValueError(
                    f"{self.path}: '{name}' has {count} frames but '{key}' has {len(translations)}"
                )
        rate = self._rate()
        told = [f"{self._kind(family)}{self.rotations.form}", f"{len(poses)} frame{'s' * (len(poses) != 1)}"]
        told[-1] += f" at {rate:g} fps" if rate else ""
        told += [
            hands if self.wants_hands else "hands replaced",
            self._told_face(poses, expressions),
        ]
        return Motion(
            poses=poses,
            translations=translations,
            turns=turns if turns is not None and turns.any() else None,
            betas=self._numbers(self.name_of["betas"], each_frame=False) if "betas" in self.name_of else None,
            expressions=expressions,
            frames=self._frame_numbers(len(poses)),
            fps=rate,
            told=f"poses of {self.path}: " + ", ".join(told),
            parts=tuple(self.parts),
            translation_key=key,
            expression_key=self.name_of.get("expression", "expression"),
        )

    def _names_of_roles(self) -> dict[str, str]:
        """What an array is: its name. ValueError where two names say the same."""
        found: dict[str, str] = {}
        for role, names in NAMES.items():
            there = [name for name in names if name in self.arrays.names]
            if len(there) > 1 and there[0] not in WORLD and role not in ("betas", "expression", "rate"):
                raise ValueError(
                    f"{self.path}: holds both '{there[0]}' and '{there[1]}', which mean the same here; keep one"
                )
            if there:
                found[role] = there[0]
        return found

    def _kind(self, family: str) -> str:
        names = self.arrays.names
        if self._is_of_model_folder():
            return "poses of a model folder"
        if "turn" in self.name_of:
            return f"EasyMocap {family}"
        if "smpl_poses" in names:
            return f"AIST++ {family}"
        if "motion_x" in names:
            return "Motion-X"
        amass = "trans" in names and ("poses" in names or "root_orient" in names)
        return f"AMASS {family}" if amass else family

    def _is_of_model_folder(self) -> bool:
        return {"poses", "translations", "frames"} <= set(self.arrays.names)

    # --- joints ------------------------------------------------------------------------------------------

    def _parts(self) -> tuple[np.ndarray, str, str]:
        """Root and body in arrays of their own -> (F, 165), whose joints they are, where the hands come from."""
        if "root" not in self.name_of:
            raise ValueError(f"{self.path}: 'global_orient' is missing; it holds {self._holds()}")
        body = self._joints("body", (21, 23))
        root = self._joints("root", (1,))
        self._must_agree()
        poses = np.zeros((len(body), POSE_DIM), np.float32)
        poses[:, :3], poses[:, BODY_POSE] = root[:, 0], body[:, :21].reshape(len(body), -1)
        self.parts += [(self.name_of["root"], slice(0, 3)), (self.name_of["body"], BODY_POSE)]
        return poses, "SMPL" if body.shape[1] == 23 else "SMPL-X", ""

    def _whole(self) -> tuple[np.ndarray, str, str]:
        """All joints in one array; otherwise as `_parts`."""
        name = self.name_of["whole"]
        self.parts.append((name, slice(0, POSE_DIM)))
        array = self._numbers(name)
        if "turn" in self.name_of and array.ndim == 2 and array.shape[1] in EASYMOCAP_PCA:
            self.frames_of[name] = len(array)
            poses = np.zeros((len(array), POSE_DIM), np.float32)
            poses[:, : BODY_POSE.stop] = array[:, : BODY_POSE.stop]
            if self.wants_face and array.shape[1] > EASYMOCAP_JAW.start:
                poses[:, JAW_POSE] = array[:, EASYMOCAP_JAW]
            hands = array[:, BODY_POSE.stop : BODY_POSE.stop + 2 * EASYMOCAP_HAND]
            told = self._from_pca(poses, *np.split(hands, 2, 1)) if self.wants_hands else ""
            return poses, EASYMOCAP_PCA[array.shape[1]], told
        rootless = "turn" in self.name_of or "root" in self.name_of
        joints = self._joints(
            "whole", (*FAMILIES, *(count - 1 for count in FAMILIES)) if rootless else tuple(FAMILIES)
        )
        if joints.shape[1] not in FAMILIES:
            has_root = "root" in self.name_of
            root = self._joints("root", (1,)) if has_root else np.zeros_like(joints[:, :1])
            self._must_agree()
            joints = np.concatenate([root, joints], 1)
        family, first = FAMILIES[joints.shape[1]]
        poses = np.zeros((len(joints), POSE_DIM), np.float32)
        poses[:, : BODY_POSE.stop] = joints[:, :BODY_JOINTS].reshape(len(joints), -1)
        if first is None:
            return poses, family, ""
        if family == "SMPL-X" and self.wants_face:
            poses[:, JAW_POSE] = joints[:, JAW]
        poses[:, HANDS_POSE] = joints[:, first : first + 2 * HAND_JOINTS].reshape(len(joints), -1)
        return poses, family, _told_hands(poses)

    def _hands(self, poses: np.ndarray, told: str) -> str:
        """Fills in the hands that have arrays of their own; what there is to say of them."""
        both = self.name_of.get("hands")
        if both is not None:
            array = self._numbers(both)
            if array.ndim == 2 and array.shape[1] < 90 and array.shape[1] % 2 == 0:  # coefficients of either
                self.frames_of[both] = len(array)
                self._must_agree()
                return self._from_pca(poses, *np.split(array, 2, 1))
            hands = self._joints("hands", (2 * HAND_JOINTS,))
            self._must_agree()
            poses[:, HANDS_POSE] = hands.reshape(len(hands), -1)
            self.parts.append((both, HANDS_POSE))
            return _told_hands(poses)
        sides = [side for side in ("left hand", "right hand") if side in self.name_of]
        if not sides:
            return told or "no hands in the file: flat"
        if len(sides) == 1:
            other = "right_hand_pose" if sides == ["left hand"] else "left_hand_pose"
            raise ValueError(
                f"{self.path}: '{other}' is missing, '{self.name_of[sides[0]]}' is there; save both or none"
            )
        arrays = [self._numbers(self.name_of[side]) for side in sides]
        if all(array.ndim == 2 and array.shape[1] < 3 * HAND_JOINTS for array in arrays):
            for side, array in zip(sides, arrays, strict=True):
                self.frames_of[self.name_of[side]] = len(array)
            self._must_agree()
            return self._from_pca(poses, *arrays)
        for side, where in zip(sides, (LEFT_HAND_POSE, RIGHT_HAND_POSE), strict=True):
            hand = self._joints(side, (HAND_JOINTS,))
            self._must_agree()
            poses[:, where] = hand.reshape(len(hand), -1)
            self.parts.append((self.name_of[side], where))
        return _told_hands(poses)

    def _from_pca(self, poses: np.ndarray, left: np.ndarray, right: np.ndarray) -> str:
        """Hands of coefficients (F, K): the mean hand and K components of the model file."""
        told = f"hands of {left.shape[1]} PCA coefficients"
        if self.model_file is None:
            return f"{told} left flat (they need the SMPL-X model file)"
        keys = ("hands_meanl", "hands_componentsl", "hands_meanr", "hands_componentsr")
        try:
            model = read_npz(self.model_file, keys)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{self.path}: its hands are {left.shape[1]} PCA coefficients of the SMPL-X model file, but {error}; "
                "set smpl_pkl_path, or take other hands (--hands relaxed)"
            ) from error
        for side, coefficients, where in (("l", left, LEFT_HAND_POSE), ("r", right, RIGHT_HAND_POSE)):
            mean, components = model[f"hands_mean{side}"], model[f"hands_components{side}"]
            if mean.shape != (45,) or components.ndim != 2 or components.shape[1] != 45:
                raise ValueError(
                    f"{self.model_file}: 'hands_components{side}' has shape {components.shape}, (45, 45) is needed"
                )
            if coefficients.shape[1] > len(components):
                raise ValueError(
                    f"{self.path}: hands of {coefficients.shape[1]} PCA coefficients, more than {self.model_file} has"
                )
            poses[:, where] = mean + coefficients @ components[: coefficients.shape[1]]
        return f"{told}, the mean hand added"

    def _joints(self, role: str, counts: Sequence[int]) -> np.ndarray:
        """(F, J, 3) axis-angle of an array of so many joints; J is one of `counts`."""
        name = self.name_of[role]
        joints = self.rotations.axis_angle(f"{self.path}: '{name}'", self._numbers(name), counts)
        self.frames_of[name] = len(joints)
        return joints

    # --- the rest ----------------------------------------------------------------------------------------

    def _translations(self, count: int) -> tuple[np.ndarray, str]:
        """(F, 3) and the array's name; where they are not wanted zero, and the first array's name."""
        if not self.wants_translation:
            name = next(iter(self.frames_of))
            return np.zeros((self.frames_of[name], 3), np.float32), name
        if "translation" not in self.name_of:
            raise ValueError(
                f"{self.path}: 'transl' is missing, the person's place (or trans, Th); it holds {self._holds()}; "
                "--no_translation animates the person at the origin"
            )
        name = self.name_of["translation"]
        if name == "Th" and "turn" not in self.name_of:
            raise ValueError(
                f"{self.path}: 'Rh' is missing, which EasyMocap writes beside 'Th'; it holds {self._holds()}"
            )
        array = self._numbers(name)
        while array.ndim > 2 and 1 in array.shape[:2]:
            array = array[0] if len(array) == 1 and array.shape[1] == count else array.reshape(len(array), -1)
        if array.shape == (3,) and count == 1:
            array = array[None]
        if array.ndim != 2 or array.shape[1] != 3:
            raise ValueError(f"{self.path}: '{name}' has shape {array.shape}, (frames, 3) is needed")
        if "scale" in self.name_of:
            scale = self._numbers(self.name_of["scale"], each_frame=False)
            if scale.size != 1 or not 0 < scale.item() < np.inf:
                raise ValueError(f"{self.path}: '{self.name_of['scale']}' must be one positive number")
            array = array / scale.item()
        return array, name

    def _face(self, poses: np.ndarray) -> np.ndarray | None:
        """Fills in a jaw that has an array of its own; (F, 10) the expression's first coefficients, or None."""
        if "jaw" in self.name_of:
            jaw = self._joints("jaw", (1,))
            self._must_agree()
            poses[:, JAW_POSE] = jaw[:, 0]
            self.parts.append((self.name_of["jaw"], JAW_POSE))
        if "expression" not in self.name_of:
            return None
        name = self.name_of["expression"]
        array = self._numbers(name)
        if array.ndim != 2 or array.shape[1] < EXPRESSION_DIM:
            raise ValueError(
                f"{self.path}: '{name}' has shape {array.shape}, (frames, {EXPRESSION_DIM}) is needed"
            )
        if array.shape[1] > EXPRESSION_DIM:
            log.warning(
                "%s: '%s' has %d numbers a frame, the first %d are used",
                self.path, name, array.shape[1], EXPRESSION_DIM,
            )  # fmt: skip
        self.frames_of[name] = len(array)
        return array[:, :EXPRESSION_DIM].copy()

    def _told_face(self, poses: np.ndarray, expressions: np.ndarray | None) -> str:
        """What there is of an expression; one that is not asked for is not read."""
        if not self.wants_face:
            return "expression not used" if "expression" in self.name_of else "no expression"
        jaw = "jaw" if poses[:, JAW_POSE].any() else ""
        return " and ".join(
            filter(None, (jaw, "expression" if expressions is not None and expressions.any() else ""))
        ) or ("no expression")

    def _rate(self) -> float | None:
        if "rate" not in self.name_of:
            return None
        name = self.name_of["rate"]
        rates = np.unique(self._numbers(name, each_frame=False))
        alike = rates.size == 1 and (self.arrays.frames is not None or self.arrays.read(name).size == 1)
        if not alike or not 0 < rates[0] < np.inf:
            raise ValueError(f"{self.path}: '{name}' must be one positive number, frames a second")
        return float(rates[0])

    def _frame_numbers(self, count: int) -> np.ndarray:
        """(F,) of a model folder, which holds the frames trained on, or of a folder's files; else from 0."""
        if self.arrays.frames is not None:
            return self.arrays.frames
        if not self._is_of_model_folder():
            return np.arange(count)
        frames = self.arrays.read("frames")
        if frames.shape != (count,) or frames.dtype.kind not in "iu":
            raise ValueError(
                f"{self.path}: 'frames' has shape {frames.shape} of {frames.dtype}, one whole number for each of "
                f"'poses' ({count},) is needed"
            )
        return frames.astype(np.int64)

    def _numbers(self, name: str, each_frame: bool = True) -> np.ndarray:
        """An array in single precision. each_frame: finite, in some frames."""
        array = self.arrays.read(name)
        if array.dtype == bool:
            raise ValueError(f"{self.path}: '{name}' holds true and false, numbers are needed")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if each_frame:
            if array.ndim == 0:
                raise ValueError(f"{self.path}: '{name}' has shape (), an array of frames is needed")
            if array.size == 0:
                raise ValueError(f"{self.path}: '{name}' holds no frames")
            bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
            if len(bad):
                raise ValueError(
                    f"{self.path}: '{name}' holds numbers that are not finite, first in frame {bad[0]}"
                )
        return array

    def _must_agree(self) -> None:
        """ValueError where arrays that go into one have other numbers of frames."""
        (first, frames), *others = self.frames_of.items()
        for name, count in others:
            if count != frames:
                raise ValueError(f"{self.path}: '{name}' has {count} frames but '{first}' has {frames}")

    def _refuse_no_poses(self) -> NoReturn:
        positions = [name for name in self.arrays.names if name.lower() in POSITIONS]
        if positions:
            raise ValueError(
                f"{self.path}: '{positions[0]}' holds the joints' positions, not rotations; fit SMPL to them first"
            )
        raise ValueError(
            f"{self.path}: holds no poses that are known here; it holds {self._holds()}; {ACCEPTED}"
        )

    def _holds(self) -> str:
        return ", ".join(self.arrays.names[:12]) + ", ..." * (len(self.arrays.names) > 12) or "nothing"


def _told_hands(poses: np.ndarray) -> str:
    return "hands from the file" if poses[:, HANDS_POSE].any() else "hands zero in the file: flat"
