"""The pose sequence by itself: jumps, units, hands that were never fitted, and what there is of a face.

Data path: SmplParams -> Findings.   Shape letters: F frames, J joints.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mmlphuman.body.kinematics import rotation_matrices
from mmlphuman.capture.poses import SmplParams
from mmlphuman.pose_layout import JAW_POSE, LEFT_HAND_POSE, RIGHT_HAND_POSE
from mmlphuman.poses.motion_file import read_motion
from mmlphuman.preparation.findings import OK, WARNING, Finding, cut_list
from mmlphuman.text import one_line

# A step from one frame to the next is a jump if it is larger than both: what a body can do in a thirtieth of a
# second, and a multiple of what this joint does around that moment (captures may be thinned out).
JUMP_ANGLE = 0.6  # radians
JUMP_DISTANCE = 0.2  # metres
JUMP_FACTOR = 4.0
LIVELY = 0.75  # quantile of the steps around it that stands for what the joint does there
NEIGHBOURHOOD = 10  # steps either side
LARGEST_ANGLE = 2.5 * np.pi  # radians; axis-angle beyond a full turn means degrees or another parametrisation
LARGEST_BETA = 8.0  # standard deviations of the shape space
ROOT = 0
AT_ONCE = 4096  # frames


def check_poses(params: SmplParams) -> list[Finding]:
    """Rows on the numbers themselves, jumps of the pose, and the hands."""
    return [_check_numbers(params), check_jumps(params), _check_hands(params)]


def check_jumps(params: SmplParams) -> Finding:
    """Frames at which the pose jumps, worst first."""
    if len(params) < 2:
        return Finding("pose jumps", OK, "a single frame")
    angles = joint_steps(params.poses)
    distances = np.linalg.norm(np.diff(params.translations.astype(np.float64), axis=0), axis=1)
    excess = _excess(angles, JUMP_ANGLE)
    far = _excess(distances[:, None], JUMP_DISTANCE)[:, 0]
    found = []
    for step in np.flatnonzero((excess > 1).any(1) | (far > 1)):
        parts = []
        if far[step] > 1:
            parts.append(f"moves {distances[step]:.2f} m")
        if (excess[step] > 1).any():
            joint = int(angles[step].argmax())
            name = "the whole body" if joint == ROOT else f"joint {joint}"
            parts.append(f"{name} turns {np.degrees(angles[step, joint]):.0f} degrees")
        found.append((max(excess[step].max(), far[step]), f"frame {step}-{step + 1} " + " and ".join(parts)))
    if not found:
        return Finding("pose jumps", OK, f"none in {len(params)} frames")
    found.sort(reverse=True)
    return Finding(
        "pose jumps",
        WARNING,
        f"{len(found)} sudden changes from one frame to the next; a bad fit? leave such frames out",
        cut_list([text for _, text in found], "; "),
    )


def joint_steps(poses: np.ndarray) -> np.ndarray:
    """(F, J * 3) axis-angle -> (F - 1, J) angles in radians by which each joint turns between frames."""
    steps = [np.zeros((0, poses.shape[1] // 3))]
    for begin in range(0, len(poses) - 1, AT_ONCE):
        some = torch.from_numpy(poses[begin : begin + AT_ONCE + 1].astype(np.float64))
        rotations = rotation_matrices(some.unflatten(-1, (-1, 3)))
        cosine = ((rotations[1:] * rotations[:-1]).sum((-1, -2)) - 1) / 2  # of trace(R_a^T R_b)
        steps.append(cosine.clamp(-1, 1).arccos().numpy())
    return np.concatenate(steps)


def _excess(steps: np.ndarray, smallest: float) -> np.ndarray:
    """(S, J) steps over their limit: above 1 is a jump.

    The limit is that of the livelier side, so that the first step of a lively part is no jump, and leaves the
    step's direct neighbours out: one bad frame makes two large steps.
    """
    limit = np.full(steps.shape, smallest)
    count, reach = len(steps), NEIGHBOURHOOD
    # lively[i]: of the steps i to i + reach; fewer at the sequence's ends, where each has a number of its own.
    for begin in range(0, count - reach + 1, AT_ONCE):
        windows = np.lib.stride_tricks.sliding_window_view(
            steps[begin : begin + AT_ONCE + reach - 1], reach, 0
        )
        lively = JUMP_FACTOR * np.quantile(windows, LIVELY, axis=-1)
        here = np.arange(begin, begin + len(lively))
        for index in (here + reach + 1, here - 2):  # those that this is before, and after
            possible = (index >= 0) & (index < count)
            limit[index[possible]] = np.maximum(limit[index[possible]], lively[possible])
    for index in range(count):
        before, after = (max(0, index - 1 - reach), index - 1), (index + 2, min(index + 2 + reach, count))
        for first, last in (before, after):
            if 0 < last - first < reach:
                lively = JUMP_FACTOR * np.quantile(steps[first:last], LIVELY, axis=0)
                limit[index] = np.maximum(limit[index], lively)
    return steps / limit


def _check_numbers(params: SmplParams) -> Finding:
    """Units: axis-angle in radians, shape in standard deviations."""
    angles = np.linalg.norm(params.poses.reshape(len(params), -1, 3), axis=2)
    if angles.max() > LARGEST_ANGLE:
        frame, joint = np.unravel_index(angles.argmax(), angles.shape)
        return Finding(
            "pose numbers",
            WARNING,
            f"a joint is turned by {angles.max():.1f} radians, more than a full turn; are these degrees?",
            f"smpl_params.npz frame {frame}, joint {joint}",
        )
    if np.abs(params.betas).max() > LARGEST_BETA:
        return Finding(
            "pose numbers",
            WARNING,
            f"a shape coefficient is {np.abs(params.betas).max():.1f} standard deviations from the mean; "
            "is it of another body model?",
            f"smpl_params.npz betas[{np.abs(params.betas).argmax()}]",
        )
    return Finding("pose numbers", OK, f"{len(params)} frames, finite")


def _check_hands(params: SmplParams) -> Finding:
    never = [
        name
        for name, where in (("left", LEFT_HAND_POSE), ("right", RIGHT_HAND_POSE))
        if not params.poses[:, where].any()
    ]
    if never:
        return Finding(
            "hand poses",
            WARNING,
            f"{' and '.join(never)} hand is zero in every frame: it is drawn flat; if the fit left it at the "
            "mean pose, add hands_meanl and hands_meanr of the model file to the poses",
            "smpl_params.npz",
        )
    return Finding("hand poses", OK, "both hands move or are posed")


def check_face(path: Path) -> Finding:
    """What `face: true` would train with. A damaged face is nobody else's concern, so it is no error."""
    try:
        motion = read_motion(path, hands=False, face=True)
    except ValueError as error:
        return Finding("face", WARNING, f"the settings' face: true cannot be used: {one_line(error)}")
    jaw = np.degrees(np.linalg.norm(motion.poses[:, JAW_POSE], axis=1).max())
    moves = motion.expressions is not None and bool(np.ptp(motion.expressions, 0).any())
    parts = [f"the jaw turns by up to {jaw:.0f} degrees" if jaw else "the jaw is shut in every frame"]
    parts.append("the expression moves" if moves else "no expression moves")
    return Finding("face", OK, ", ".join(parts))
