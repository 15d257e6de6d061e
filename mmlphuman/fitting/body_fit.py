"""Points, landmarks and masks of one person -> shape, poses and surface of a body file.

Data path: Points -> root of each frame, shape from bone lengths -> pose on the points -> on the landmarks in the
pictures -> on the masks (silhouettes.py) -> BodyFit. All frames at once, by L-BFGS.
Shape letters: V cameras, F frames, K landmarks, J joints (55), B vertices.

Every residual is in metres (in pictures: across the ray) over what it is usually off by, so that the sums are
negative logarithms of probabilities but for a constant, and weights need no tuning to a picture's size. Landmarks and
masks are compared at the time of their picture: the body between two frames is a mixture of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from mmlphuman.body.kinematics import rotation_matrices
from mmlphuman.body.smplx_model import NUM_BETAS
from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.fitting.observations import LANDMARKS, LEFT_HAND, RIGHT_HAND, Points, Rig
from mmlphuman.fitting.pose_prior import STILL, PosePrior, make_pose_prior
from mmlphuman.fitting.posed_body import FittedBody, Shaped
from mmlphuman.fitting.triangulation import Observations
from mmlphuman.pose_layout import LEFT_FINGERS, NUM_JOINTS

POINT_ERROR = 0.015  # metres
# From where a point counts as wrong, metres (a T-pose is far from all, later few are), and how much smoothness weighs
# (frames that hang together are slow to bring from the T-pose to where they belong).
POINT_STAGES = ((1.0, 0.0), (0.2, 0.1), (0.08, 1.0))
PICTURE_ERROR, PICTURE_LIMIT = 0.015, 0.05  # the same of a landmark in a picture, across the ray
HAND_ERROR = 0.006  # of a finger's points against their wrist's
ACCELERATION = 0.006  # metres a frame^2 of a joint
TURN_CHANGE = np.deg2rad(2.5)  # second difference of a joint's angles
BETA_SPREAD = 2.0  # people differ more than a body model's ten components say
OFFSET_SPREAD = 0.02  # metres between a network's landmark and the body's
HAND_OFFSET_SPREAD = 0.004
MIN_POINTS = 3  # of the torso, to know how a frame's body stands

TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
BONES = (
    *(("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("left_eye", "right_eye")),
    *(("left_ear", "right_ear"), ("nose", "left_ear"), ("nose", "right_ear")),
    *(
        (f"{side}_{first}", f"{side}_{second}")
        for side in ("left", "right")
        for first, second in (
            ("shoulder", "hip"), ("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"),
            ("ankle", "big_toe"), ("ear", "shoulder"), ("wrist", "hand_middle_1"), ("wrist", "hand_index_1"),
        )
    ),
)  # fmt: skip
BONE_ERROR = 0.01  # metres of a bone's median length

# How far a variable usually is from its start, which L-BFGS needs alike for all.
TRANSLATION_SCALE, FINGER_SCALE, BETA_SCALE, OFFSET_SCALE = 0.3, 4.0, 3.0, 0.1
HISTORY = 30

Progress = Callable[[str], None]


@dataclass
class Variables:
    """What is fitted, in units in which it is well conditioned; leaves of the gradient."""

    root: Tensor  # (F, 3, 3) as started from, not fitted
    turn: Tensor  # (F, 3) axis-angle by which the root turns further
    pose: Tensor  # (F, J - 1, 3) axis-angle, fingers in FINGER_SCALE
    translation: Tensor  # (F, 3) in TRANSLATION_SCALE
    betas: Tensor  # (10,) in BETA_SCALE
    offsets: Tensor  # (K, 3) of the landmarks in OFFSET_SCALE

    def angles(self) -> Tensor:
        """(F, J - 1, 3) radians; jaw and eyes hold still."""
        scale = torch.ones(NUM_JOINTS - 1, 1, device=self.pose.device)
        scale[LEFT_FINGERS.start - 1 :] = FINGER_SCALE
        scale[[joint - 1 for joint in STILL]] = 0
        return self.pose * scale

    def rotations(self) -> Tensor:
        """(F, J, 3, 3)"""
        root = self.root @ rotation_matrices(self.turn)
        return torch.cat([root[:, None], rotation_matrices(self.angles())], 1)

    def translations(self) -> Tensor:
        return TRANSLATION_SCALE * self.translation

    def shape(self) -> Tensor:
        return BETA_SCALE * self.betas

    def landmark_offsets(self) -> Tensor:
        return OFFSET_SCALE * self.offsets

    def poses(self) -> np.ndarray:
        """(F, 165) float32 axis-angle."""
        root = (self.root @ rotation_matrices(self.turn)).detach().cpu().double().numpy()
        poses = np.zeros((len(root), NUM_JOINTS, 3), np.float32)
        poses[:, 0] = Rotation.from_matrix(root).as_rotvec()
        poses[:, 1:] = self.angles().detach().cpu().numpy()
        return poses.reshape(len(root), -1)


def variables_at(
    poses: np.ndarray, translations: np.ndarray, betas: np.ndarray, device: str | torch.device
) -> Variables:
    """poses: (F, 165) axis-angle."""
    frames = len(poses)
    joints = poses.reshape(frames, NUM_JOINTS, 3).astype(np.float64)
    pose = joints[:, 1:].copy()
    pose[:, LEFT_FINGERS.start - 1 :] /= FINGER_SCALE

    def leaf(array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=device)

    return Variables(
        root=leaf(Rotation.from_rotvec(joints[:, 0]).as_matrix()),
        turn=leaf(np.zeros((frames, 3))),
        pose=leaf(pose),
        translation=leaf(translations / TRANSLATION_SCALE),
        betas=leaf(betas / BETA_SCALE),
        offsets=leaf(np.zeros((len(LANDMARKS), 3))),
    )


@dataclass(frozen=True)
class PictureTerm:
    """A camera for the fit: landmarks as the pinhole camera saw them, and the time of its pictures."""

    K: Tensor  # (3, 3)
    R: Tensor  # (3, 3)
    T: Tensor  # (3,)
    places: Tensor  # (F, K, 2)
    weights: Tensor  # (F, K)
    time: float  # frames by which the pictures are late

    def local(self, points: Tensor) -> Tensor:
        """(F, P, 3) world at the frames' times -> camera's coordinates at the pictures' times."""
        return at_pictures(points, self.time) @ self.R.T + self.T

    def across(self, points: Tensor) -> Tensor:
        """(F, K, 3) -> (F, K) squared metres across the ray from what was seen."""
        local = self.local(points)
        depth = local[..., 2].clamp(min=0.1)
        focal = torch.stack([self.K[0, 0], self.K[1, 1]])
        ray = (self.places - self.K[:2, 2]) / focal
        return ((local[..., :2] - ray * depth[..., None]) ** 2).sum(-1)


def at_pictures(values: Tensor, time: float) -> Tensor:
    """(F, ...) at the frames' times -> at the times f + time; held at both ends."""
    if time == 0:
        return values
    frames = len(values)
    wanted = (torch.arange(frames, device=values.device) + time).clamp(0, frames - 1)
    low = wanted.floor().long().clamp(max=max(frames - 2, 0))
    share = (wanted - low).view(-1, *[1] * (values.dim() - 1))
    return (1 - share) * values[low] + share * values[(low + 1).clamp(max=frames - 1)]


def inside_capture(frames: int, time: float) -> np.ndarray:
    """(F,) whether a camera's picture was taken between the first frame and the last."""
    wanted = np.arange(frames) + time
    return (wanted >= 0) & (wanted <= frames - 1)


def picture_terms(
    observations: Observations, rig: Rig, device: str | torch.device
) -> tuple[PictureTerm, ...]:
    def tensor(array: np.ndarray) -> Tensor:
        return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device)

    terms = []
    for view, camera in enumerate(rig.cameras):
        time = float(rig.time_offsets[view])
        weights = observations.confidence[view] * inside_capture(len(observations.confidence[view]), time)[:, None]
        terms.append(
            PictureTerm(
                *map(tensor, (camera.K, camera.R, camera.T, observations.places[view], weights)), time
            )
        )
    return tuple(terms)


def start_from_points(body: FittedBody, points: Points, device: str | torch.device) -> Variables:
    """Shape from bone lengths, and the root of every frame from the torso.

    Raises ValueError if the torso is known in no frame.
    """
    betas = shape_from_bones(body, points)
    shaped = body.shaped(betas)
    root, translations = _stand(shaped, points)
    poses = np.zeros((len(root), NUM_JOINTS, 3))
    poses[:, 0] = root.as_rotvec()
    poses[:, 1:] = make_pose_prior().mean.numpy()
    return variables_at(poses.reshape(len(root), -1), translations, betas.numpy(), device)


def shape_from_bones(body: FittedBody, points: Points) -> Tensor:
    """(10,) betas whose skeleton has the median lengths between landmarks that move together."""
    pairs, lengths = [], []
    for first, second in BONES:
        a, b = LANDMARKS.index(first), LANDMARKS.index(second)
        known = (points.confidence[:, a] > 0) & (points.confidence[:, b] > 0)
        if known.any():
            apart = np.linalg.norm(points.places[known, a] - points.places[known, b], axis=-1)
            pairs.append((a, b))
            lengths.append(np.median(apart))
    if not pairs:
        return torch.zeros(NUM_BETAS)
    first, second = torch.tensor(pairs).T
    wanted = torch.tensor(np.array(lengths), dtype=torch.float32)

    def lengths_of(betas: Tensor) -> Tensor:
        landmarks = body.shaped(betas).landmarks
        return (landmarks[first] - landmarks[second]).norm(dim=-1)

    betas = torch.zeros(NUM_BETAS)
    for _ in range(5):  # Gauss-Newton; lengths are nearly linear in betas
        slope = torch.autograd.functional.jacobian(lengths_of, betas) / BONE_ERROR
        missing = (wanted - lengths_of(betas)) / BONE_ERROR
        weight = 1 / (1 + (missing / 4) ** 2)  # a length that no shape has counts less
        normal = slope.T @ (weight[:, None] * slope) + torch.eye(NUM_BETAS) / BETA_SPREAD**2
        betas = betas + torch.linalg.solve(normal, slope.T @ (weight * missing) - betas / BETA_SPREAD**2)
    return betas


def _stand(shaped: Shaped, points: Points) -> tuple[Rotation, np.ndarray]:
    """(F,) rotations and (F, 3) translations that lay the T-pose's torso on the points; frames between are mixed."""
    torso = [LANDMARKS.index(name) for name in TORSO]
    rest = shaped.landmarks[torso].numpy().astype(np.float64)
    known = (points.confidence[:, torso] > 0).sum(1) >= MIN_POINTS
    if not known.any():
        raise ValueError(
            "shoulders and hips are known in no frame: at least two cameras must see them; look at the landmarks"
        )
    turns, moves = [], []
    for frame in np.flatnonzero(known):
        weight = points.confidence[frame, torso].astype(np.float64)
        there = points.places[frame, torso].astype(np.float64)
        share = weight / weight.sum()
        middle, rest_middle = share @ there, share @ rest
        u, _, vt = np.linalg.svd((weight[:, None] * (rest - rest_middle)).T @ (there - middle))
        mirror = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
        turn = vt.T @ mirror @ u.T
        turns.append(turn)
        moves.append(middle - turn @ rest_middle)
    frames, times = np.arange(len(known)), np.flatnonzero(known)
    rotations = Rotation.from_matrix(np.stack(turns))
    if len(times) > 1:
        rotations = Slerp(times, rotations)(frames.clip(times[0], times[-1]))
    else:
        rotations = Rotation.from_matrix(np.repeat(np.stack(turns), len(frames), 0))
    moved = np.stack([np.interp(frames, times, axis) for axis in np.stack(moves).T], 1)
    return rotations, moved


def geman_mcclure(squared: Tensor, error: float, limit: float) -> Tensor:
    """Squared metres -> squared residual over `error`^2, that grows no more from `limit` on."""
    return squared / (1 + squared / limit**2) / error**2


@dataclass(frozen=True)
class PosedTerms:
    """What the terms of the fit look at, of one state of the variables."""

    shaped: Shaped
    transforms: Tensor  # (F, J, 4, 4)
    landmarks: Tensor  # (F, K, 3) world, with their offsets
    joints: Tensor  # (F, J, 3) world


def pose_state(body: FittedBody, variables: Variables, displacements: Tensor | None = None) -> PosedTerms:
    shaped = body.shaped(variables.shape(), displacements)
    transforms = shaped.transforms(variables.rotations())
    moved = variables.translations()[:, None]
    landmarks = shaped.posed_landmarks(transforms, variables.landmark_offsets()) + moved
    return PosedTerms(shaped, transforms, landmarks, shaped.posed_joints(transforms) + moved)


def prior_loss(variables: Variables, state: PosedTerms, prior: PosePrior, smooth: float = 1.0) -> Tensor:
    """Usual poses, smooth in time, a usual shape, small offsets; mean over frames."""
    frames = len(variables.pose)
    angles = variables.angles()
    loss = prior.penalty(angles).mean()
    if frames > 2:
        bend = angles[2:] - 2 * angles[1:-1] + angles[:-2]
        jerk = state.joints[2:] - 2 * state.joints[1:-1] + state.joints[:-2]
        rough = ((bend / TURN_CHANGE) ** 2).sum() + ((jerk / ACCELERATION) ** 2).sum()
        loss = loss + smooth * rough / frames
    spread = torch.full((len(LANDMARKS), 1), OFFSET_SPREAD, device=angles.device)
    spread[LEFT_HAND.start : RIGHT_HAND.stop] = HAND_OFFSET_SPREAD
    loss = loss + (variables.turn**2).sum() * 1e-6  # keeps a free root from drifting
    # Shape and offsets are one decision for all frames.
    loss = loss + ((variables.shape() / BETA_SPREAD) ** 2).sum() / frames
    return loss + ((variables.landmark_offsets() / spread) ** 2).sum()


def point_loss(state: PosedTerms, points: Tensor, weights: Tensor, limit: float) -> Tensor:
    """points: (F, K, 3), weights: (F, K)."""
    squared = ((state.landmarks - points) ** 2).sum(-1)
    return (weights * geman_mcclure(squared, POINT_ERROR, limit)).sum() / len(points)


def landmark_loss(state: PosedTerms, terms: Sequence[PictureTerm]) -> Tensor:
    total = state.landmarks.new_zeros(())
    for term in terms:
        squared = term.across(state.landmarks)
        total = total + (term.weights * geman_mcclure(squared, PICTURE_ERROR, PICTURE_LIMIT)).sum()
    return total / len(state.landmarks)


def minimise(loss: Callable[[], Tensor], leaves: Sequence[Tensor], steps: int) -> float:
    """L-BFGS over the leaves in place; the loss that was reached. ValueError where it is not finite."""
    for leaf in leaves:
        leaf.requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        leaves, max_iter=steps, history_size=HISTORY, line_search_fn="strong_wolfe",
        tolerance_change=1e-9, tolerance_grad=1e-7,
    )  # fmt: skip

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    for leaf in leaves:
        leaf.requires_grad_(False)
    with torch.no_grad():
        reached = float(loss())
    if not np.isfinite(reached):
        raise ValueError("the fit does not converge: are cameras in metres, and the landmarks of one person?")
    return reached


def fit_points(
    body: FittedBody, points: Points, variables: Variables, steps: int = 150, progress: Progress = print
) -> None:
    """Poses and shape on the points in space, in place."""
    device = variables.pose.device
    places, weights = (torch.tensor(a, device=device) for a in (points.places, points.confidence))
    prior = make_pose_prior().to(device)

    leaves = [variables.turn, variables.pose, variables.translation]
    for limit, smooth in POINT_STAGES:

        def loss(limit=limit, smooth=smooth) -> Tensor:
            state = pose_state(body, variables)
            return prior_loss(variables, state, prior, smooth) + point_loss(state, places, weights, limit)

        reached = minimise(loss, leaves, steps)
        progress(f"body on points, wrong from {limit:g} m on: {reached:.1f} a frame")
        if limit == POINT_STAGES[0][0]:
            leaves += [variables.betas, variables.offsets]


def fit_landmarks(
    body: FittedBody,
    terms: Sequence[PictureTerm],
    variables: Variables,
    steps: int = 100,
    progress: Progress = print,
) -> None:
    """Poses, shape and the landmarks' offsets on what the cameras saw, in place."""
    prior = make_pose_prior().to(variables.pose.device)

    def loss() -> Tensor:
        state = pose_state(body, variables)
        return prior_loss(variables, state, prior) + landmark_loss(state, terms)

    leaves = [variables.turn, variables.pose, variables.translation, variables.betas, variables.offsets]
    reached = minimise(loss, leaves, steps)
    progress(f"body on landmarks: {reached:.1f} a frame")
