"""Arrays of joints' rotations, however they are written -> axis-angle. Without torch.

Data path: an array of a pose file -> (F, J, 3) axis-angle.   Shape letters: F frames, J joints.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

BODY_JOINTS = 22  # with the root
BODY_PARENTS = (0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)  # of joints 1 to 21
WHAT_TO_DO = {  # numbers a frame that people have and that are not read
    263: "HumanML3D's features describe joint positions; fit SMPL to them first",
    32: "is this VPoser's code? decode it to 63 numbers",
    75: "are these pose and translation in one? save them as 'poses' and 'trans'",
    85: "are these camera, pose and shape in one? save columns 3 to 75 as 'poses'",
    159: "are these pose and translation in one? save them as 'poses' and 'trans'",
    168: "are these pose and translation in one? save them as 'poses' and 'trans'",
}
ROTATION_TOLERANCE = 0.01  # of a matrix's products and a quaternion's length
REAL_PART, CLEARLY = 0.7, 0.3  # mean size of a real part, and how much larger than the other candidate's
RIGID = 0.01  # relative: a bone's length varies less where numbers are joint positions
SHORTEST_BONE = 0.02  # metres; hardly any joint's axis-angle keeps so far from its parent's


class Rotations:
    """Brings a file's arrays to axis-angle, and remembers how they are written."""

    def __init__(self):
        self.form = ""  # for people, where it is not axis-angle
        self.real_first: bool | None = None  # of quaternions, once their numbers have told

    def axis_angle(self, where: str, array: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        """(F, J, 3) float32 of an array of finite numbers; J is one of `counts`.

        where: file and array, with which errors begin. ValueError for other shapes, what is no rotation, and what could
        be read in two ways.
        """
        candidates = [array, array[None]]  # the second: a single frame
        if array.ndim > 2 and len(array) == 1:
            candidates.insert(1, array[0])  # a single person
        for candidate in candidates:
            joints = self._read(where, candidate, counts)
            if joints is not None:
                return joints
        numbers = int(np.prod(array.shape[1:])) if array.ndim > 1 else array.size
        hint = WHAT_TO_DO.get(numbers, "")
        if array.ndim > 2 and self._read(where, array[0], counts) is not None:
            hint = f"are these {len(array)} persons? save one's alone"
        ordered = sorted(counts)
        raise ValueError(
            f"{where} has shape {array.shape}; (frames, {' or '.join(str(3 * count) for count in ordered)}) is needed, "
            f"or (frames, J, 3) or (frames, J, 3, 3) of J = {' or '.join(map(str, ordered))} joints"
            + f"; {hint}"
            * bool(hint)
        )

    def _read(self, where: str, array: np.ndarray, counts: Sequence[int]) -> np.ndarray | None:
        """As `axis_angle`; None where the shape is none of those that are known."""
        tail = array.shape[1:]
        for count in counts:
            if tail in ((3 * count,), (count, 3)):
                joints = array.reshape(len(array), count, 3)
                if are_positions(joints):
                    raise ValueError(
                        f"{where} holds the joints' positions (bones keep their length), not rotations; fit SMPL to it"
                    )
                return joints
            if tail in ((count, 3, 3), (9 * count,), (count, 9)) or (count == 1 and tail == (3, 3)):
                return self._of_matrices(where, array.reshape(len(array), count, 3, 3))
            if tail == (count, 4) or (count == 1 and tail == (4,)):
                return self._of_quaternions(where, array.reshape(len(array), count, 4))
            if tail in ((count, 6), (6 * count,), (count, 3, 2)):
                raise ValueError(
                    f"{where} has shape {array.shape}: 6D rotations, whose numbers libraries order differently; save "
                    "the rotation matrices of the library that wrote them, (frames, J, 3, 3)"
                )
        return None

    def _of_matrices(self, where: str, matrices: np.ndarray) -> np.ndarray:
        self.form = " as rotation matrices"
        errors = np.abs(matrices @ matrices.swapaxes(-1, -2) - np.eye(3, dtype=np.float32)).max((-1, -2))
        errors = np.where(np.linalg.det(matrices) > 0, errors, np.inf).max(1)
        _refuse_any(f"{where} holds matrices that are no rotations", errors > ROTATION_TOLERANCE)
        return _vectors(Rotation.from_matrix(matrices.reshape(-1, 3, 3)), matrices.shape[:2])

    def _of_quaternions(self, where: str, quats: np.ndarray) -> np.ndarray:
        """The real part is the one that is large on average: most of a person's joints are turned little."""
        errors = np.abs(np.linalg.norm(quats, axis=-1) - 1).max(1)
        _refuse_any(f"{where} holds quaternions that have not the length 1", errors > ROTATION_TOLERANCE)
        if self.real_first is None:
            first, last = (float(np.abs(quats[..., part]).mean()) for part in (0, 3))
            if quats.shape[1] == 1 or max(first, last) < REAL_PART or abs(first - last) < CLEARLY:
                raise ValueError(
                    f"{where} has shape {quats.shape}: quaternions that do not tell whether the real part is first or "
                    "last; save rotation matrices, (frames, J, 3, 3)"
                )
            self.real_first = first > last
        self.form = f" as quaternions, real part {'first' if self.real_first else 'last'}"
        real_last = np.roll(quats, -1, -1) if self.real_first else quats
        return _vectors(Rotation.from_quat(real_last.reshape(-1, 4)), quats.shape[:2])


def _vectors(rotations: Rotation, shape: tuple[int, ...]) -> np.ndarray:
    return rotations.as_rotvec().reshape(*shape, 3).astype(np.float32)


def _refuse_any(message: str, wrong: np.ndarray) -> None:
    """ValueError with the first of the frames (F,) that are wrong."""
    if wrong.any():
        raise ValueError(f"{message}, first in frame {wrong.argmax()}")


def are_positions(joints: np.ndarray) -> bool:
    """Whether (F, J, 3) numbers are places: every bone of the body keeps its length while the person moves."""
    if len(joints) < 2 or joints.shape[1] < BODY_JOINTS or not (joints != joints[0]).any():
        return False
    bones = joints[:, 1:BODY_JOINTS] - joints[:, list(BODY_PARENTS)]
    lengths = np.linalg.norm(bones.astype(np.float64), axis=-1)
    return bool((lengths.mean(0) > SHORTEST_BONE).all() and (lengths.std(0) < RIGID * lengths.mean(0)).all())
