"""Pose files -> PoseSequence: the one reader of poses to animate, for test.py, the viewer and scripts. Without torch.

Data path: pose file -> clean-up -> PoseSequence -> Pose of a frame -> avatar.   Shape letters: F frames, J joints (55).

Read are, told apart by the names of their arrays:
    smpl_params.npz of a capture         global_orient, body_pose, left_hand_pose, right_hand_pose, transl
    an AMASS sequence                    poses (F, 165) SMPL-X or (F, 156) SMPL+H, trans, mocap_frame_rate
    poses.npz of a model folder          poses (F, 165), translations, frames
and the face, where it is asked for:     jaw_pose or the jaw of poses, expression (F, 10 or more)
Of each only these arrays are read, nothing else that the file holds. The subject's shape is the avatar's, whatever
the file says; eyes are zero, as in training.

The clean-up is what the published viewer gives AMASS poses. Motion capture of bare bodies moves limbs where a clothed
avatar has none: arms closer to the trunk, wrists and necks that markers hardly see. Lifted arms, straight wrists and a
level neck hide that; a moving average takes the jitter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.animation.hands import HAND_POSES, hand_pose
from mmlphuman.capture.poses import (
    EXPRESSION_KEY,
    JAW_KEY,
    POSE_PARTS,
    as_numbers,
    check_frame_arrays,
    read_smpl_motion,
    take_expressions,
)
from mmlphuman.files import npz_names, read_npz
from mmlphuman.pose_layout import (
    BODY_POSE,
    EXPRESSION_DIM,
    HANDS_POSE,
    JAW_POSE,
    LEFT_COLLAR,
    LEFT_WRIST,
    NECK,
    NUM_JOINTS,
    POSE_DIM,
    RIGHT_COLLAR,
    RIGHT_WRIST,
)

if TYPE_CHECKING:
    from mmlphuman.types import Pose

DEFAULT_FPS = 30.0  # where the file does not tell
SMPLH_DIM = 156  # root and body as in SMPL-X, then at once the hands
FRAME_RATE_KEYS = ("mocap_framerate", "mocap_frame_rate")  # AMASS spells it in two ways
MAX_ROTATION = 4 * np.pi  # radians of one joint; beyond lie degrees and damage
MAX_TRANSLATION = 1000.0  # metres from the origin; beyond lie millimetres and damage
MAX_EXPRESSION = 100.0  # of a coefficient, whose unit is a standard deviation; beyond lies damage
ACCEPTED = (
    "smpl_params.npz of a capture (global_orient, body_pose, ...), an AMASS file (poses, trans) and poses.npz of a "
    "model folder (poses, translations) are read"
)

# Which axis of the file's world points up -> the rotation that turns it to +y.
UP_ROTATIONS = {
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}
CLEAN_UPS = ("none", "published")
HANDS_FROM = ("file", *HAND_POSES)
# Published: joints 12 and 13 of the 21 after the root, counted from 0. These are the collar bones that carry the
# shoulders, not SMPL-X's "shoulder" joints, which are the tops of the upper arms.
SHOULDER_LIFT = 0.25  # radians about z; +z lifts the left arm, -z the right one
PITCH = 0  # the x number of a joint's axis-angle: nodding


@dataclass(frozen=True)
class PoseOptions:
    """Which frames of a file to take, and how. Raises ValueError that names the option and what it can be."""

    begin: int = 0  # first frame: the position in the file, from 0
    count: int | None = None  # frames to take; None: all up to the end
    stride: int = 1  # every stride-th frame
    up: str = "y"  # the file's world axis that points up: x, -x, y, -y, z or -z; AMASS is z-up
    clean_up: str = "none"  # "published": see clean_up_published
    translation: bool = True  # False: the person stays at the origin
    hands: str = "file"  # "relaxed" and "fist" replace the file's hands in every frame
    face: bool = (
        False  # True: jaw and expression as in the file, for an avatar that has learnt them; False: zero
    )

    def __post_init__(self):
        for name, least in (("begin", 0), ("count", 1), ("stride", 1)):
            value = getattr(self, name)
            if value is None and name == "count":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(
                    f"{name}: {value!r} is not possible; a whole number from {least} on is needed"
                )
        for name, choices in (("up", UP_ROTATIONS), ("clean_up", CLEAN_UPS), ("hands", HANDS_FROM)):
            if getattr(self, name) not in tuple(choices):
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} is unknown; use one of {', '.join(choices)}"
                )


@dataclass(frozen=True)
class PoseSequence:
    """Poses to animate: x_world = rotation (skinning(x) + translation)."""

    poses: np.ndarray  # (F, 165) float32 axis-angle, SMPL-X order, eyes zero
    translations: np.ndarray  # (F, 3) float32 metres, in the file's world
    rotation: np.ndarray  # (3, 3) float32, the file's world -> ours, y up
    frames: np.ndarray  # (F,) int64 numbers of the frames in the file
    fps: float | None  # frames a second of this sequence, stride included; None where the file does not tell
    source: str  # the file, for messages
    expressions: np.ndarray | None = None  # (F, 10) float32; None: no frame has any

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def playback_fps(self) -> float:
        """Frames a second to show it at: its own, or DEFAULT_FPS."""
        return self.fps or DEFAULT_FPS

    def pose(self, index: int) -> Pose:
        """The pose at position `index` of this sequence, on the CPU."""
        import torch  # here, so that a viewer without torch can read poses

        from mmlphuman.types import Pose

        return Pose(
            joints=torch.from_numpy(self.poses[index].copy()),
            translation=torch.from_numpy(self.rotation @ self.translations[index]),
            rotation=torch.from_numpy(self.rotation.copy()),
            expression=torch.from_numpy(self.expression(index)),
        )

    def expression(self, index: int) -> np.ndarray:
        """(10,) at position `index`, a copy."""
        if self.expressions is None:
            return np.zeros(EXPRESSION_DIM, np.float32)
        return self.expressions[index].copy()


def read_pose_file(path: str | Path, options: PoseOptions | None = None) -> PoseSequence:
    """Read the frames that `options` select (by default all, as they are).

    The order: clean up the whole file, take the frames, replace the hands. Raises FileNotFoundError, or ValueError
    that names the file, the array or option, and what is accepted.
    """
    options = options or PoseOptions()
    motion = _read_motion(path, options.face)
    _check_size(path, motion)
    poses, translations = motion.poses, motion.translations
    if options.clean_up == "published":
        poses, translations = clean_up_published(poses, translations)
    rows = _select(path, len(poses), options)
    poses, translations = poses[rows], translations[rows]
    if not options.translation:
        translations = np.zeros_like(translations)
    if options.hands != "file":
        poses[:, HANDS_POSE] = hand_pose(options.hands)
    return PoseSequence(
        poses=poses,
        translations=translations,
        rotation=np.array(UP_ROTATIONS[options.up], np.float32),
        frames=motion.frames[rows],
        fps=None if motion.fps is None else motion.fps / options.stride,
        source=str(path),
        expressions=None if motion.expressions is None else motion.expressions[rows],
    )


@dataclass(frozen=True)
class _Motion:
    """A file's whole content, whichever its format."""

    poses: np.ndarray  # (F, 165)
    translations: np.ndarray  # (F, 3)
    frames: np.ndarray  # (F,)
    fps: float | None
    parts: tuple[tuple[str, slice], ...]  # for messages: array of the file, where it went among the 165
    translation_key: str
    expressions: np.ndarray | None  # (F, 10)


def _read_motion(path: str | Path, face: bool) -> _Motion:
    names = npz_names(path)
    if any(key in names for key, _, _ in POSE_PARTS):
        poses, translations, expressions = read_smpl_motion(path, face)
        parts = (*((key, where) for key, _, where in POSE_PARTS), (JAW_KEY, JAW_POSE))
        return _Motion(poses, translations, np.arange(len(poses)), None, parts, "transl", expressions)
    if "poses" in names:
        return _read_poses(path, "translations" if "translations" in names else "trans", face)
    raise ValueError(
        f"{path}: holds no poses that are known here but {', '.join(names) or 'nothing'}; {ACCEPTED}"
    )


def _read_poses(path: str | Path, translation_key: str, face: bool) -> _Motion:
    """AMASS, or poses.npz of a model folder: all joints in one array."""
    more = FRAME_RATE_KEYS if translation_key == "trans" else ("frames",)
    arrays = read_npz(path, ("poses", translation_key), (*more, EXPRESSION_KEY) if face else more)
    for key in {"poses", translation_key, EXPRESSION_KEY} & set(arrays):
        arrays[key] = as_numbers(path, key, arrays[key])
    raw = arrays["poses"]
    if raw.ndim != 2 or raw.shape[1] not in (POSE_DIM, SMPLH_DIM):
        raise ValueError(
            f"{path}: 'poses' has shape {raw.shape}, (frames, {POSE_DIM}) of SMPL-X or (frames, {SMPLH_DIM}) of SMPL+H "
            "is needed"
        )
    columns = {"poses": raw.shape[1], **take_expressions(path, arrays), translation_key: 3}
    check_frame_arrays(path, arrays, columns)
    poses = np.zeros((len(raw), POSE_DIM), np.float32)
    poses[:, : BODY_POSE.stop] = raw[:, : BODY_POSE.stop]
    if face and raw.shape[1] == POSE_DIM:
        poses[:, JAW_POSE] = raw[:, JAW_POSE]
    poses[:, HANDS_POSE] = raw[:, -(HANDS_POSE.stop - HANDS_POSE.start) :]
    return _Motion(
        poses,
        arrays[translation_key],
        _frame_numbers(path, arrays.get("frames"), len(poses)),
        _frame_rate(path, arrays),
        (("poses", slice(0, POSE_DIM)),),
        translation_key,
        arrays.get(EXPRESSION_KEY),
    )


def _frame_numbers(path: str | Path, frames: np.ndarray | None, count: int) -> np.ndarray:
    """(F,) of poses.npz, which holds the frames trained on; in other files frames have no numbers of their own."""
    if frames is None:
        return np.arange(count)
    if frames.shape != (count,) or frames.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: 'frames' has shape {frames.shape} of {frames.dtype}, one whole number for each of 'poses' "
            f"({count},) is needed"
        )
    return frames.astype(np.int64)


def _frame_rate(path: str | Path, arrays: dict[str, np.ndarray]) -> float | None:
    key = next((key for key in FRAME_RATE_KEYS if key in arrays), None)
    if key is None:
        return None
    if arrays[key].size != 1 or not 0 < arrays[key].item() < np.inf:
        raise ValueError(f"{path}: '{key}' must be one positive number, frames a second")
    return float(arrays[key].item())


def _check_size(path: str | Path, motion: _Motion) -> None:
    """ValueError for numbers that no person's motion has."""
    angles = np.linalg.norm(motion.poses.reshape(-1, NUM_JOINTS, 3).astype(np.float64), axis=2)
    if angles.max() > MAX_ROTATION:
        frame, joint = np.unravel_index(angles.argmax(), angles.shape)
        key = next(key for key, where in motion.parts if where.start <= 3 * joint < where.stop)
        raise ValueError(
            f"{path}: '{key}' turns joint {joint} by {angles.max():.4g} radians in frame {frame}; axis-angle vectors "
            f"in radians, at most {MAX_ROTATION:.4g}, are needed (are these degrees?)"
        )
    largest = np.zeros(1) if motion.expressions is None else np.abs(motion.expressions).max(1)
    if largest.max() > MAX_EXPRESSION:
        raise ValueError(
            f"{path}: '{EXPRESSION_KEY}' reaches {largest.max():.4g} in frame {largest.argmax()}; coefficients of at "
            f"most {MAX_EXPRESSION:g} are needed"
        )
    distances = np.linalg.norm(motion.translations.astype(np.float64), axis=1)
    if distances.max() > MAX_TRANSLATION:
        raise ValueError(
            f"{path}: '{motion.translation_key}' lies {distances.max():.4g} from the origin in frame "
            f"{distances.argmax()}; metres, at most {MAX_TRANSLATION:g}, are needed (are these millimetres?)"
        )


def _select(path: str | Path, frames: int, options: PoseOptions) -> np.ndarray:
    """Positions of the frames to take."""
    possible = len(range(options.begin, frames, options.stride))
    if possible == 0:
        raise ValueError(f"{path}: begin: {options.begin} lies beyond the file's frames, 0 to {frames - 1}")
    if options.count is not None and options.count > possible:
        raise ValueError(
            f"{path}: count: {options.count} frames from {options.begin} on in steps of {options.stride} are more than "
            f"the file has, its frames are 0 to {frames - 1}; {possible} are possible"
        )
    return options.begin + options.stride * np.arange(options.count or possible)


def clean_up_published(poses: np.ndarray, translations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cleans (F, 165) poses and (F, 3) translations; returns new arrays.

    Shoulders lifted, wrists straight, neck without pitch, as changes of the axis-angle numbers; then the mean of
    every frame and its two neighbours. The first and last frame have one neighbour only and keep what they are.
    """
    joints = poses.reshape(-1, NUM_JOINTS, 3).copy()
    joints[:, LEFT_COLLAR, 2] += SHOULDER_LIFT
    joints[:, RIGHT_COLLAR, 2] -= SHOULDER_LIFT
    joints[:, [LEFT_WRIST, RIGHT_WRIST]] = 0
    joints[:, NECK, PITCH] = 0
    smooth = translations.copy()
    smooth[1:-1] = (translations[:-2] + translations[1:-1] + translations[2:]) / 3
    return smooth_rotations(joints).reshape(poses.shape), smooth


def smooth_rotations(joints: np.ndarray) -> np.ndarray:
    """(F, J, 3) axis-angle -> the same, inner frames replaced by the mean of three.

    Mean rotations, not mean numbers: a body that turns past half a turn has numbers that jump from +pi to -pi,
    and the mean of those would face the other way. Among the axis-angles of the mean rotation, whole turns
    apart, the one nearest to the frame's own numbers is returned, because the MLPs see the numbers.
    """
    if len(joints) < 3:
        return joints.copy()
    quats = (
        Rotation.from_rotvec(joints.reshape(-1, 3).astype(np.float64)).as_quat().reshape(*joints.shape[:2], 4)
    )
    before, here, after = quats[:-2], quats[1:-1], quats[2:]
    mean = here + _same_side(before, here) + _same_side(after, here)
    vectors = Rotation.from_quat(mean.reshape(-1, 4)).as_rotvec().reshape(here.shape[:2] + (3,))
    smooth = joints.copy()
    smooth[1:-1] = _nearest_turn(vectors, joints[1:-1])
    return smooth


def _same_side(quats: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """q and -q are one rotation: the one of them in `reference`'s half of the sphere."""
    return np.where((quats * reference).sum(-1, keepdims=True) < 0, -quats, quats)


def _nearest_turn(vectors: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """`vectors` (..., 3) lengthened or shortened by whole turns, to end nearest to `numbers`."""
    angles = np.linalg.norm(vectors, axis=-1, keepdims=True)
    axes = vectors / np.maximum(angles, np.finfo(np.float64).tiny)
    turns = np.round(((axes * numbers).sum(-1, keepdims=True) - angles) / (2 * np.pi))
    return vectors + 2 * np.pi * turns * axes
