"""Poses of a file -> PoseSequence: which frames to animate and how, for test.py, viewers and scripts. Without torch.

Data path: pose file -> Motion (poses.motion_file, which tells what is read) -> clean-up -> PoseSequence -> Pose of a
frame -> avatar.   Shape letters: F frames, J joints (55).

The subject's shape is the avatar's, whatever the file says.

The clean-up is what the published viewer gives AMASS poses. Motion capture of bare bodies moves limbs where a clothed
avatar has none: arms closer to the trunk, wrists and necks that markers hardly see. Lifted arms, straight wrists and a
level neck hide that; a moving average takes the jitter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.animation.hands import HAND_POSES, hand_pose
from mmlphuman.pose_layout import (
    EXPRESSION_DIM,
    HANDS_POSE,
    LEFT_COLLAR,
    LEFT_WRIST,
    NECK,
    NUM_JOINTS,
    RIGHT_COLLAR,
    RIGHT_WRIST,
)
from mmlphuman.poses.motion_file import Motion, about_pelvis, read_motion

if TYPE_CHECKING:
    from mmlphuman.types import Pose

DEFAULT_FPS = 30.0  # where the file does not tell
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}  # metres
# What centimetres look like: a first frame farther from the origin than this, metres, which is refused unless the unit
# is said; or steps from frame to frame longer than this, which is told.
FAR, FAST = 20.0, 0.5
MAX_TRANSLATION = 1000.0  # metres from the origin, whatever the unit is said to be
MAX_EXPRESSION = 100.0  # of a coefficient, whose unit is a standard deviation; beyond lies damage
UPRIGHT = 0.7  # cosine of the angle between the trunk and an axis along which the person is said to stand
NOT_UPRIGHT = 0.5

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
    # Of the file's translations: m, cm or mm; None: metres, refused where they look otherwise.
    units: str | None = None
    # True: jaw and expression as in the file, for an avatar that has learnt them; False: zero.
    face: bool = False

    def __post_init__(self):
        for name, least in (("begin", 0), ("count", 1), ("stride", 1)):
            value = getattr(self, name)
            if value is None and name == "count":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(
                    f"{name}: {value!r} is not possible; a whole number from {least} on is needed"
                )
        for name, choices in (
            ("up", UP_ROTATIONS),
            ("clean_up", CLEAN_UPS),
            ("hands", HANDS_FROM),
            ("units", (None, *UNITS)),
        ):
            if getattr(self, name) not in tuple(choices):
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} is unknown; use one of {', '.join(filter(None, choices))}"
                )


@dataclass(frozen=True)
class PoseSequence:
    """Poses to animate: x_world = rotation (turns skinning(x) + translations)."""

    poses: np.ndarray  # (F, 165) float32 axis-angle, SMPL-X order, eyes zero
    translations: np.ndarray  # (F, 3) float32 metres, in the file's world
    rotation: np.ndarray  # (3, 3) float32, the file's world -> ours, y up
    frames: np.ndarray  # (F,) int64 numbers of the frames in the file
    fps: float | None  # frames a second of this sequence, stride included; None where the file does not tell
    source: str  # the file, for messages
    turns: np.ndarray | None = None  # (F, 3, 3) float32 about the origin, EasyMocap's Rh; None: none
    expressions: np.ndarray | None = None  # (F, 10) float32; None: no frame has any
    told: str = ""  # one line: what the file was taken for
    doubts: tuple[str, ...] = ()  # a line each: what looks wrong, and what to do

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def playback_fps(self) -> float:
        """Frames a second to show it at: its own, or DEFAULT_FPS."""
        return self.fps or DEFAULT_FPS

    def placement(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """R (3, 3) and t (3,), float32, of the pose at a position: x_world = R skinning(x) + t."""
        turn = self.rotation if self.turns is None else self.rotation @ self.turns[index]
        return turn, self.rotation @ self.translations[index]

    def pose(self, index: int) -> Pose:
        """The pose at position `index` of this sequence, on the CPU."""
        import torch  # here, so that a viewer without torch can read poses

        from mmlphuman.types import Pose

        rotation, translation = self.placement(index)
        return Pose(
            joints=torch.from_numpy(self.poses[index].copy()),
            translation=torch.from_numpy(translation),
            rotation=torch.from_numpy(rotation.copy()),
            expression=torch.from_numpy(self.expression(index)),
        )

    def expression(self, index: int) -> np.ndarray:
        """(10,) at position `index`, a copy."""
        if self.expressions is None:
            return np.zeros(EXPRESSION_DIM, np.float32)
        return self.expressions[index].copy()

    def about_pelvis(self, pelvis: np.ndarray) -> PoseSequence:
        """The same motion in our world with rotation and turns in the root joint, as captures have it.

        pelvis: (3,) the root joint of the avatar's T-pose.
        """
        if self.turns is None and np.array_equal(self.rotation, np.eye(3)):
            return self
        turns = self.rotation if self.turns is None else self.rotation @ self.turns
        translations = self.translations @ self.rotation.T
        poses, translations = about_pelvis(self.poses, translations, turns, pelvis)
        return replace(
            self, poses=poses, translations=translations, rotation=np.eye(3, dtype=np.float32), turns=None
        )


def read_pose_file(
    path: str | Path, options: PoseOptions | None = None, model_file: str | Path | None = None
) -> PoseSequence:
    """Read the frames that `options` select (by default all, as they are).

    The order: clean up the whole file, take the frames, replace the hands. model_file: the SMPL-X model, which hands in
    PCA coefficients need. Raises FileNotFoundError, or ValueError that names the file, the array or option, and what is
    accepted.
    """
    options = options or PoseOptions()
    motion = read_motion(
        path, model_file, hands=options.hands == "file", translation=options.translation, face=options.face
    )
    _check_expressions(path, motion)
    poses, translations = motion.poses, _in_metres(path, motion, options.units)
    turns = None if motion.turns is None else motion.turns[:, None]
    if options.clean_up == "published":
        poses, translations = clean_up_published(poses, translations)
        turns = None if turns is None else smooth_rotations(turns)
    rows = _select(path, len(poses), options)
    poses, translations = poses[rows], translations[rows]
    if options.hands != "file":
        poses[:, HANDS_POSE] = hand_pose(options.hands)
    sequence = PoseSequence(
        poses=poses,
        translations=translations,
        rotation=np.array(UP_ROTATIONS[options.up], np.float32),
        frames=motion.frames[rows],
        fps=None if motion.fps is None else motion.fps / options.stride,
        source=str(path),
        turns=None if turns is None else _matrices(turns[rows, 0]),
        expressions=None if motion.expressions is None else motion.expressions[rows],
        told=motion.told,
    )
    return replace(
        sequence,
        doubts=tuple(filter(None, (_lies(sequence, options.up), _hastes(sequence, motion, options.units)))),
    )


def _matrices(vectors: np.ndarray) -> np.ndarray:
    """(F, 3) axis-angle -> (F, 3, 3) float32."""
    return Rotation.from_rotvec(vectors.astype(np.float64)).as_matrix().astype(np.float32)


def _check_expressions(path: str | Path, motion: Motion) -> None:
    """ValueError for coefficients that no face has."""
    largest = np.zeros(1) if motion.expressions is None else np.abs(motion.expressions).max(1)
    if largest.max() > MAX_EXPRESSION:
        raise ValueError(
            f"{path}: '{motion.expression_key}' reaches {largest.max():.4g} in frame {largest.argmax()}; coefficients "
            f"of at most {MAX_EXPRESSION:g} are needed"
        )


def _in_metres(path: str | Path, motion: Motion, units: str | None) -> np.ndarray:
    """(F, 3) translations. ValueError for places where no person is, and without `units` for a first frame that is as
    far away as another unit's numbers are."""
    translations = motion.translations * np.float32(UNITS[units or "m"])
    distances = np.linalg.norm(translations.astype(np.float64), axis=1)
    if distances.max() > MAX_TRANSLATION or (units is None and distances[0] > FAR):
        never = bool(distances.max() > MAX_TRANSLATION)
        frame = distances.argmax() if never else 0
        raise ValueError(
            f"{path}: '{motion.translation_key}' lies {distances[frame]:.4g} from the origin in frame {frame}, far "
            f"for metres (at most {MAX_TRANSLATION:g}); give --units cm or --units mm if these are centimetres or "
            f"millimetres{', and --units m if they are metres' * (not never)}"
        )
    return translations


def _hastes(sequence: PoseSequence, motion: Motion, units: str | None) -> str | None:
    """One line where the person moves from frame to frame as far as in another unit's numbers."""
    steps = np.linalg.norm(np.diff(motion.translations.astype(np.float64), axis=0), axis=1)
    if units is not None or not len(steps) or np.median(steps) < FAST:
        return None
    return (
        f"{sequence.source}: '{motion.translation_key}' moves by {np.median(steps):.3g} m from frame to frame; are "
        "these centimetres? then give --units cm, and --units m if they are metres"
    )


def _lies(sequence: PoseSequence, up: str) -> str | None:
    """One line where the person does not stand along the world's up axis, but along another axis most of the time."""
    trunks = _matrices(sequence.poses[:, :3])[:, :, 1]  # (F, 3) the body's y axis in the world
    if sequence.turns is not None:
        trunks = np.einsum("fij,fj->fi", sequence.turns, trunks)
    if np.median(trunks @ sequence.rotation[1]) > NOT_UPRIGHT:
        return None
    middle = np.median(trunks, axis=0)
    axis = int(np.abs(middle).argmax())
    if abs(middle[axis]) < UPRIGHT:
        return None
    name = "-" * bool(middle[axis] < 0) + "xyz"[axis]
    share = np.mean(trunks[:, axis] * np.sign(middle[axis]) > UPRIGHT)
    how = "stands on the head" if name.strip("-") == up.strip("-") else "lies"
    return (
        f"{sequence.source}: the person {how}: in {share:.0%} of the frames the trunk points along {name} of the "
        f"file's world, but --up is {up}; try --up={name}"
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
