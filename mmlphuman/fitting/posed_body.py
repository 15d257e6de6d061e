"""A body file as a torch function of shape and poses: landmarks and chosen vertices of all frames at once.

Data path: body file -> FittedBody -> (betas, displacements) Shaped -> (rotations) -> landmarks, vertices.
Shape letters: B vertices, P chosen ones, J joints (55), K landmarks, F frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from smplx.vertex_ids import vertex_ids
from torch import Tensor

from mmlphuman.body.kinematics import chain_rotations
from mmlphuman.body.smplx_model import NUM_BETAS, load_body
from mmlphuman.files import read_npz
from mmlphuman.fitting.observations import FINGERS, LANDMARKS, LEFT_HAND, RIGHT_HAND
from mmlphuman.pose_layout import LEFT_FINGERS, RIGHT_FINGERS
from mmlphuman.types import MovableToDevice

JOINT_OF = {
    "shoulder": 16,
    "elbow": 18,
    "wrist": 20,
    "hip": 1,
    "knee": 4,
    "ankle": 7,
}  # left; right is one more
VERTEX_OF = {"eye": "eye", "ear": "ear", "big_toe": "BigToe", "small_toe": "SmallToe", "heel": "Heel"}
# Metres between a detector's landmark and the body's: of detectors in general, what persons differ by where a detector
# has been measured, and of fingers.
UNKNOWN_SPREAD, KNOWN_SPREAD, HAND_SPREAD = 0.02, 0.008, 0.004
FINGER_ORDER = ("index", "middle", "little", "ring", "thumb")  # of SMPL-X's joints


def landmark_source(name: str) -> tuple[int | None, int | None]:
    """(joint, None) or (None, vertex) of SMPL-X that a landmark is."""
    if name == "nose":
        return None, vertex_ids["smplx"]["nose"]
    side, part = name.split("_", 1)
    right = side == "right"
    if part.startswith("hand_"):
        part = part.removeprefix("hand_")
        if part == "wrist":
            return JOINT_OF["wrist"] + right, None
        finger, place = part.split("_")
        assert finger in FINGERS
        if place == "4":
            tip = "pinky" if finger == "little" else finger
            return None, vertex_ids["smplx"][f"{side[0]}{tip}"]
        first = (RIGHT_FINGERS if right else LEFT_FINGERS).start
        return first + 3 * FINGER_ORDER.index(finger) + int(place) - 1, None
    if part in JOINT_OF:
        return JOINT_OF[part] + right, None
    letter = side[0] if part in ("eye", "ear") else side[0].upper()
    return None, vertex_ids["smplx"][f"{letter}{VERTEX_OF[part]}"]


@dataclass(frozen=True)
class Shaped(MovableToDevice):
    """The body with a shape, in the T-pose."""

    joints: Tensor  # (J, 3)
    landmarks: Tensor  # (K, 3)
    landmark_weights: Tensor  # (K, J)
    landmark_spread: Tensor  # (K, 1)
    parents: tuple[int, ...]

    def transforms(self, rotations: Tensor) -> Tensor:
        """(F, J, 3, 3) of each joint against its parent -> (F, J, 4, 4) from the T-pose, about the origin."""
        return chain_rotations(rotations, self.joints, self.parents)

    def posed_joints(self, transforms: Tensor) -> Tensor:
        """(F, J, 3) without translation."""
        return (transforms[..., :3, :3] @ self.joints[:, :, None])[..., 0] + transforms[..., :3, 3]

    def posed_landmarks(self, transforms: Tensor, offsets: Tensor | None = None) -> Tensor:
        """(F, K, 3) without translation. offsets: (K, 3) in the T-pose's axes, which turn with the landmark's joint."""
        landmarks = self.landmarks if offsets is None else self.landmarks + offsets
        return skin(self.landmark_weights, transforms, landmarks)


@dataclass(frozen=True)
class BodyFrame(MovableToDevice):
    """Skeleton and landmarks of any shape: both are linear in betas, and need no vertices."""

    joints: Tensor  # (J, 3) of the mean shape
    joint_directions: Tensor  # (J, 3, 10)
    landmarks: Tensor  # (K, 3)
    landmark_directions: Tensor  # (K, 3, 10)
    landmark_weights: Tensor  # (K, J)
    landmark_spread: Tensor  # (K, 1)
    parents: tuple[int, ...]

    def shaped(self, betas: Tensor) -> Shaped:
        return Shaped(
            joints=self.joints + self.joint_directions @ betas,
            landmarks=self.landmarks + self.landmark_directions @ betas,
            landmark_weights=self.landmark_weights,
            landmark_spread=self.landmark_spread,
            parents=self.parents,
        )


def skin(weights: Tensor, transforms: Tensor, points: Tensor) -> Tensor:
    """(P, J) weights, (F, J, 4, 4) transforms, (P, 3) points -> (F, P, 3)."""
    blended = (weights @ transforms[..., :3, :].flatten(-2)).unflatten(-1, (3, 4))
    return (blended[..., :3] @ points[:, :, None])[..., 0] + blended[..., 3]


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(B, 3) unit normals, of the triangles around by their areas."""
    corners = vertices[faces]
    of_faces = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    summed = torch.zeros_like(vertices)
    for corner in range(3):
        summed = summed.index_add(0, faces[:, corner], of_faces)
    return torch.nn.functional.normalize(summed, dim=1)


@dataclass(frozen=True)
class FittedBody(MovableToDevice):
    """What fitting needs of a body file, float32."""

    template: Tensor  # (B, 3)
    shape_directions: Tensor  # (B, 3, 10)
    regressor: Tensor  # (J, B)
    weights: Tensor  # (B, J)
    faces: Tensor  # (F, 3) int64
    parents: tuple[int, ...]
    landmark_joints: Tensor  # (K,) int64
    landmark_vertices: Tensor  # (K,) int64, -1 for joints
    landmark_shifts: (
        Tensor  # (K, 3) metres in the T-pose's axes from there to where a detector sees the landmark
    )
    landmark_spread: Tensor  # (K, 1) metres by which that is off, in a person

    def vertices(self, betas: Tensor, displacements: Tensor | None = None) -> Tensor:
        """(B, 3) in the T-pose. displacements: (B, 3) metres."""
        shaped = self.template + self.shape_directions @ betas
        return shaped if displacements is None else shaped + displacements

    def frame(self, displacements: Tensor | None = None) -> BodyFrame:
        """Skeleton and landmarks of the body whose vertices are displaced by (B, 3) metres in the T-pose."""
        template = self.template if displacements is None else self.template + displacements
        on_surface = self.landmark_vertices >= 0
        surface = self.landmark_vertices.clamp(min=0)
        joints = self.regressor @ template
        directions = torch.einsum("jb,bcs->jcs", self.regressor, self.shape_directions)
        rigid = torch.eye(len(self.parents), device=template.device)[self.landmark_joints]
        return BodyFrame(
            joints=joints,
            joint_directions=directions,
            landmarks=torch.where(on_surface[:, None], template[surface], joints[self.landmark_joints])
            + self.landmark_shifts,
            landmark_directions=torch.where(
                on_surface[:, None, None], self.shape_directions[surface], directions[self.landmark_joints]
            ),
            landmark_weights=torch.where(on_surface[:, None], self.weights[surface], rigid),
            landmark_spread=self.landmark_spread,
            parents=self.parents,
        )


def read_fitted_body(path: str | Path, shifts: np.ndarray | None = None) -> FittedBody:
    """shifts: (K, 3) metres by which the detector is known to be off, NaN of landmarks of which it is not known.

    Raises as `load_body`: FileNotFoundError, or ValueError for what is no body in the SMPL-X form."""
    body = load_body(path, np.zeros(NUM_BETAS))  # checks the file
    arrays = read_npz(path, ("v_template", "shapedirs", "J_regressor"))
    if len(arrays["v_template"]) <= max(vertex_ids["smplx"].values()):
        raise ValueError(
            f"{path}: has {len(arrays['v_template'])} vertices; fitting needs SMPL-X's 10475, of which nose, toes and "
            "finger tips are known by number"
        )
    if shifts is None:
        shifts = np.full((len(LANDMARKS), 3), np.nan)
    spread = np.where(np.isfinite(shifts).all(1), KNOWN_SPREAD, UNKNOWN_SPREAD).astype(np.float32)
    spread[LEFT_HAND.start : RIGHT_HAND.stop] = HAND_SPREAD
    sources = [landmark_source(name) for name in LANDMARKS]
    vertices = torch.tensor([-1 if vertex is None else vertex for _, vertex in sources])
    main = body.lbs_weights.argmax(1)
    joints = torch.tensor([main[vertex].item() if joint is None else joint for joint, vertex in sources])
    return FittedBody(
        template=torch.from_numpy(arrays["v_template"].astype(np.float32)),
        shape_directions=torch.from_numpy(arrays["shapedirs"][:, :, :NUM_BETAS].astype(np.float32)),
        regressor=torch.from_numpy(arrays["J_regressor"].astype(np.float32)),
        weights=body.lbs_weights,
        faces=body.faces,
        parents=body.parents,
        landmark_joints=joints,
        landmark_vertices=vertices,
        landmark_shifts=torch.from_numpy(np.nan_to_num(shifts).astype(np.float32)),
        landmark_spread=torch.from_numpy(spread[:, None]),
    )
