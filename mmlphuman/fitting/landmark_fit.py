"""Points and landmarks of one person -> poses in time and shape of a body file.

Data path: Points -> root of each frame, shape from bone lengths -> pose on the points -> on the landmarks in the
pictures. All frames at once, by L-BFGS. body_fit.py goes on with the masks.
Shape letters: V cameras, F frames, K landmarks, J joints (55).

Every residual is in metres (in pictures: across the ray) over what it is usually off by, so that the sums are
negative logarithms of probabilities but for a constant, and weights need no tuning to a picture's size. Landmarks are
compared at the time of their picture: the body between two frames is a mixture of both.
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
from mmlphuman.fitting.observations import LANDMARKS, LEFT_HAND, RIGHT_HAND, Points, Rig
from mmlphuman.fitting.pose_prior import STILL, PosePrior, make_pose_prior
from mmlphuman.fitting.posed_body import BodyFrame, FittedBody, Shaped
from mmlphuman.fitting.triangulation import Observations
from mmlphuman.pose_layout import LEFT_FINGERS, NUM_JOINTS

POINT_ERROR = 0.015  # metres
# From where a point counts as wrong, metres (a T-pose is far from all, later few are), and how much smoothness weighs
# (frames that hang together are slow to bring from the T-pose to where they belong).
POINT_STAGES = ((1.0, 0.0), (0.2, 0.1), (0.08, 1.0))
PICTURE_ERROR, PICTURE_LIMIT = 0.015, 0.05  # the same of a landmark in a picture, across the ray
HAND_WEIGHT = 0.3  # of each of a hand's landmarks: a network errs in all 21 together
ACCELERATION = (
    0.006  # metres a frame^2 of a joint of the body; fingers move with their wrist, and count by angles only
)
TURN_CHANGE = np.deg2rad(2.5)  # second difference of a joint's angles
# So many times as large they cost in proportion, no more as squares: hands at 25 frames a second reach 10 times the
# usual acceleration, and the landmarks, whose cost has an end, would give way.
SUDDEN = 1.0
BETA_SPREAD = 1.5  # people differ more than a body model's ten components say
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

# L-BFGS needs variables that are alike in scale: how far each usually is from its start, and by how much smoothness in
# time outweighs what is seen of a frame's body and fingers (see `time_basis`).
TRANSLATION_SCALE, FINGER_SCALE, BETA_SCALE, OFFSET_SCALE = 0.3, 4.0, 1.0, 0.1
BODY_STIFFNESS, FINGER_STIFFNESS = 1.5, 15.0
HISTORY = 30

# Of L-BFGS, at most, on points (at each of its stages) and on landmarks.
POINT_STEPS, LANDMARK_STEPS = 150, 100

Progress = Callable[[str], None]


class Variables:
    """What is fitted: a state, and changes of it in units in which L-BFGS finds its way (leaves of the gradient)."""

    def __init__(self, root: Tensor, pose: Tensor, translation: Tensor, betas: Tensor, offsets: Tensor):
        """root: (F, 3, 3); pose: (F, J - 1, 3) radians; translation: (F, 3); betas: (10,); offsets: (K, 3) metres."""
        self._state = (root, pose, translation, betas, offsets)
        scale = torch.ones(NUM_JOINTS - 1, 1, device=pose.device)
        scale[LEFT_FINGERS.start - 1 :] = FINGER_SCALE
        scale[[joint - 1 for joint in STILL]] = 0
        self._scale = scale
        self.rebase(smooth=False)

    def rebase(self, smooth: bool = True) -> None:
        """Starts counting changes from where it is. smooth: changes are those of which smooth motions are made."""
        if hasattr(self, "turn"):
            root = self._state[0] @ rotation_matrices(self._in_time(self.turn))
            self._state = (
                root, self.angles(), self.translations(), self.shape(), self.landmark_offsets()
            )  # fmt: skip
        root, pose, translation, betas, offsets = self._state
        self._bases = None
        if smooth and len(root) > 2:
            self._bases = tuple(
                time_basis(len(root), stiffness).to(root.device)
                for stiffness in (BODY_STIFFNESS, FINGER_STIFFNESS)
            )
        self.turn, self.pose = torch.zeros_like(translation), torch.zeros_like(pose)
        self.translation, self.betas, self.offsets = map(torch.zeros_like, (translation, betas, offsets))

    def __len__(self) -> int:
        return len(self.turn)

    @property
    def device(self) -> torch.device:
        return self.turn.device

    def motion(self) -> list[Tensor]:
        """The leaves that are of each frame."""
        return [self.turn, self.pose, self.translation]

    def _in_time(self, change: Tensor, fingers: bool = False) -> Tensor:
        if self._bases is None:
            return change
        return (self._bases[fingers] @ change.flatten(1)).view_as(change)

    def angles(self) -> Tensor:
        """(F, J - 1, 3) radians; jaw and eyes hold still."""
        first = LEFT_FINGERS.start - 1
        change = torch.cat(
            [self._in_time(self.pose[:, :first]), self._in_time(self.pose[:, first:], True)], 1
        )
        return self._state[1] + change * self._scale

    def root(self) -> Tensor:
        """(F, 3, 3)"""
        return self._state[0] @ rotation_matrices(self._in_time(self.turn))

    def rotations(self) -> Tensor:
        """(F, J, 3, 3)"""
        return torch.cat([self.root()[:, None], rotation_matrices(self.angles())], 1)

    def translations(self) -> Tensor:
        return self._state[2] + TRANSLATION_SCALE * self._in_time(self.translation)

    def shape(self) -> Tensor:
        return self._state[3] + BETA_SCALE * self.betas

    def landmark_offsets(self) -> Tensor:
        return self._state[4] + OFFSET_SCALE * self.offsets

    def poses(self) -> np.ndarray:
        """(F, 165) float32 axis-angle."""
        poses = np.zeros((len(self), NUM_JOINTS, 3), np.float32)
        poses[:, 0] = Rotation.from_matrix(self.root().detach().cpu().double().numpy()).as_rotvec()
        poses[:, 1:] = self.angles().detach().cpu().numpy()
        return poses.reshape(len(poses), -1)


def time_basis(frames: int, stiffness: float) -> Tensor:
    """(F, F) cosines of all frequencies as columns, each as large as it may be: 1 / sqrt(1 + stiffness w^2), w the
    eigenvalue of the second difference. In these the loss curves alike in all directions, whose second differences
    would else be up to 16 * stiffness times as steep as what the pictures tell."""
    numbers = torch.arange(frames, dtype=torch.float64)
    basis = torch.cos(torch.pi / frames * (numbers[:, None] + 0.5) * numbers) * np.sqrt(2 / frames)
    basis[:, 0] /= np.sqrt(2)
    eigenvalue = 2 - 2 * torch.cos(torch.pi * numbers / frames)
    return (basis / (1 + stiffness * eigenvalue**2).sqrt()).float()


def variables_at(
    poses: np.ndarray, translations: np.ndarray, betas: np.ndarray, device: str | torch.device
) -> Variables:
    """poses: (F, 165) axis-angle."""
    joints = poses.reshape(len(poses), NUM_JOINTS, 3).astype(np.float64)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.tensor(np.asarray(array), dtype=torch.float32, device=device)

    return Variables(
        root=tensor(Rotation.from_rotvec(joints[:, 0]).as_matrix()),
        pose=tensor(joints[:, 1:]),
        translation=tensor(translations),
        betas=tensor(betas),
        offsets=tensor(np.zeros((len(LANDMARKS), 3))),
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


def landmark_weights() -> np.ndarray:
    """(K,) float32"""
    weights = np.ones(len(LANDMARKS), np.float32)
    weights[LEFT_HAND.start : RIGHT_HAND.stop] = HAND_WEIGHT
    return weights


def picture_terms(
    observations: Observations, rig: Rig, device: str | torch.device
) -> tuple[PictureTerm, ...]:
    def tensor(array: np.ndarray) -> Tensor:
        return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device)

    terms = []
    for view, camera in enumerate(rig.cameras):
        time = float(rig.time_offsets[view])
        confidence = observations.confidence[view]
        weights = confidence * landmark_weights() * inside_capture(len(confidence), time)[:, None]
        terms.append(
            PictureTerm(
                K=tensor(camera.K),
                R=tensor(camera.R),
                T=tensor(camera.T),
                places=tensor(observations.places[view]),
                weights=tensor(weights),
                time=time,
            )
        )
    return tuple(terms)


def start_from_points(body: FittedBody, points: Points, device: str | torch.device) -> Variables:
    """Shape from bone lengths, and the root of every frame from the torso.

    Raises ValueError if the torso is known in no frame.
    """
    frame = body.frame()
    betas = shape_from_bones(frame, points)
    root, translations = _stand(frame.shaped(betas), points)
    poses = np.zeros((len(root), NUM_JOINTS, 3))
    poses[:, 0] = root.as_rotvec()
    poses[:, 1:] = make_pose_prior().mean.numpy()
    return variables_at(poses.reshape(len(root), -1), translations, betas.numpy(), device)


def shape_from_bones(frame: BodyFrame, points: Points) -> Tensor:
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
        landmarks = frame.shaped(betas).landmarks
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


def pseudo_huber(squared: Tensor, limit: float) -> Tensor:
    """Squared residual -> the same up to about limit^2, growing as its root from there on."""
    return 2 * limit**2 * ((1 + squared / limit**2).sqrt() - 1)


@dataclass(frozen=True)
class PosedTerms:
    """What the terms of the fit look at, of one state of the variables."""

    shaped: Shaped
    transforms: Tensor  # (F, J, 4, 4)
    landmarks: Tensor  # (F, K, 3) world, with their offsets
    joints: Tensor  # (F, J, 3) world


def pose_state(frame: BodyFrame, variables: Variables) -> PosedTerms:
    shaped = frame.shaped(variables.shape())
    transforms = shaped.transforms(variables.rotations())
    moved = variables.translations()[:, None]
    landmarks = shaped.posed_landmarks(transforms, variables.landmark_offsets()) + moved
    return PosedTerms(shaped, transforms, landmarks, shaped.posed_joints(transforms) + moved)


def prior_loss(variables: Variables, state: PosedTerms, prior: PosePrior, smooth: float = 1.0) -> Tensor:
    """Usual poses, smooth in time, a usual shape, small offsets; mean over frames."""
    frames = len(variables)
    angles = variables.angles()
    loss = prior.penalty(angles).mean()
    if frames > 2:
        joints = state.joints[:, : LEFT_FINGERS.start]
        bend = angles[2:] - 2 * angles[1:-1] + angles[:-2]
        swing = joints[2:] - 2 * joints[1:-1] + joints[:-2]
        rough = pseudo_huber(((bend / TURN_CHANGE) ** 2).sum(-1), SUDDEN).sum()
        rough = rough + pseudo_huber(((swing / ACCELERATION) ** 2).sum(-1), SUDDEN).sum()
        loss = loss + smooth * rough / frames
    # Shape and offsets are one decision, but the networks' errors too are alike in all frames, and tell it no better.
    loss = loss + ((variables.shape() / BETA_SPREAD) ** 2).sum()
    return loss + ((variables.landmark_offsets() / state.shaped.landmark_spread) ** 2).sum()


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
        leaf.grad = None
    with torch.no_grad():
        reached = float(loss())
    if not np.isfinite(reached):
        raise ValueError("the fit does not converge: are cameras in metres, and the landmarks of one person?")
    return reached


def fit_points(body: FittedBody, points: Points, variables: Variables, progress: Progress = print) -> None:
    """Poses and shape on the points in space, in place."""
    device = variables.device
    weighted = points.confidence * landmark_weights()
    places, weights = (torch.tensor(a, device=device) for a in (points.places, weighted))
    prior, frame = make_pose_prior().to(device), body.frame()

    leaves = variables.motion()
    for limit, smooth in POINT_STAGES:

        def loss(limit=limit, smooth=smooth) -> Tensor:
            state = pose_state(frame, variables)
            return prior_loss(variables, state, prior, smooth) + point_loss(state, places, weights, limit)

        reached = minimise(loss, leaves, POINT_STEPS)
        progress(f"body on points, wrong from {limit:g} m on (loss {reached:.1f})")
        variables.rebase()
        leaves = [*variables.motion(), variables.betas, variables.offsets]


def fit_landmarks(
    body: FittedBody,
    terms: Sequence[PictureTerm],
    variables: Variables,
    progress: Progress = print,
) -> None:
    """Poses, shape and the landmarks' offsets on what the cameras saw, in place."""
    prior, frame = make_pose_prior().to(variables.device), body.frame()

    def loss() -> Tensor:
        state = pose_state(frame, variables)
        return prior_loss(variables, state, prior) + landmark_loss(state, terms)

    variables.rebase()
    leaves = [*variables.motion(), variables.betas, variables.offsets]
    reached = minimise(loss, leaves, LANDMARK_STEPS)
    progress(f"body on landmarks (loss {reached:.1f})")
