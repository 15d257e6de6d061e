"""Landmarks in the pictures of several cameras -> points in space, with left and right put right.

Data path: Landmarks, Rig -> lens undone, brought to the capture's times -> Observations -> (swaps mended) -> Points.
Shape letters: V cameras, F frames, K landmarks, N points at once, P pairs of cameras.

Residuals are judged in metres across the ray (pixels x depth / focal length), so that nothing depends on the pictures'
size. Two rays that pass each other are no proof: a point is what most cameras agree on, found by trying every pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np

from mmlphuman.capture.images import has_distortion, opencv_intrinsics
from mmlphuman.capture.layout import HALF_PIXEL, CalibratedCamera
from mmlphuman.fitting.observations import LANDMARKS, Landmarks, Points, Rig

AGREE = 0.06  # metres across the ray within which a camera agrees: what networks are wrong by, and loose calibrations
MIN_CONFIDENCE = 0.05  # of an observation, to be used at all
MIN_ANGLE = np.deg2rad(3)  # between two rays that may fix a point
MAX_PAIRS = 300  # tried for each point; more cameras than 25 have more
REFINEMENTS = 5  # reweighted Gauss-Newton steps
NEAR = 0.1  # metres; nearer to a camera nobody stands

# Left and right are swapped of whole limbs. The hands' points come from the detectors' crops, one for each hand.
SWAP_GROUPS = {
    "face": ("eye", "ear"),
    "arms": ("shoulder", "elbow", "wrist"),
    "legs": ("hip", "knee", "ankle", "big_toe", "small_toe", "heel"),
    "hands": tuple(name.removeprefix("left_") for name in LANDMARKS if name.startswith("left_hand_")),
}
SWAP_ROUNDS = 4
SWAP_TRUNCATION = 0.15  # metres
# By how much the exchanged reading must be nearer, on average, as a share of how far left and right are apart in that
# picture (wholly exchanged landmarks reach 1, right ones -1); nearer than this left and right are not told apart.
SWAP_SHARE, SWAP_APART = 0.5, 0.015  # share, metres
SWAP_WINDOW = 2  # frames on either side over whose median points are taken as known
NOTED_ERROR = 0.03  # metres across the ray, median of a camera


@dataclass(frozen=True)
class Observations:
    """Landmarks as a pinhole camera would see them, each picture at its own time."""

    places: np.ndarray  # (V, F, K, 2) float64 pixels, lens undone
    confidence: np.ndarray  # (V, F, K)


@dataclass(frozen=True)
class Triangulated:
    points: Points
    landmarks: Landmarks  # as given, with left and right mended
    notes: tuple[str, ...]


def swap_partners(group: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a group's left and of its right landmarks, in the same order."""
    left = [LANDMARKS.index(f"left_{name}") for name in SWAP_GROUPS[group]]
    right = [LANDMARKS.index(f"right_{name}") for name in SWAP_GROUPS[group]]
    return np.array(left), np.array(right)


def undistorted(places: np.ndarray, camera: CalibratedCamera) -> np.ndarray:
    """(..., 2) pixels of the picture -> where the pinhole camera with the same K sees them."""
    if not has_distortion(camera):
        return places.astype(np.float64)
    K = opencv_intrinsics(camera, camera.K)
    flat = places.reshape(-1, 1, 2).astype(np.float64) - HALF_PIXEL  # OpenCV's centres are whole numbers
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-6)
    ideal = cv2.undistortPoints(flat, K, camera.dist, R=None, P=K, criteria=criteria)
    return ideal.reshape(places.shape) + HALF_PIXEL


def observe(landmarks: Landmarks, cameras: Sequence[CalibratedCamera]) -> Observations:
    """With the lens undone. What was hardly seen counts as not seen."""
    if len(cameras) != len(landmarks.places):
        raise ValueError(f"landmarks of {len(landmarks.places)} cameras for a rig of {len(cameras)}")
    places = np.stack([undistorted(p, c) for p, c in zip(landmarks.places, cameras, strict=True)])
    seen = (landmarks.confidence >= MIN_CONFIDENCE) & np.isfinite(places).all(-1)
    return Observations(np.where(seen[..., None], places, 0), np.where(seen, landmarks.confidence, 0))


def at_frames(observations: Observations, time_offsets: np.ndarray) -> Observations:
    """As seen at the capture's own times; linear between pictures, of which both must see the landmark."""
    places, confidence = observations.places.copy(), observations.confidence.copy()
    frames = places.shape[1]
    for view in np.flatnonzero(time_offsets):
        wanted = np.arange(frames) - time_offsets[view]  # the number of the picture that was taken then
        low = np.floor(wanted).astype(int)
        share = (wanted - low)[:, None]
        first, second = low.clip(0, frames - 1), (low + 1).clip(0, frames - 1)
        of_first, of_second = observations.confidence[view, first], observations.confidence[view, second]
        there = ((wanted >= 0) & (wanted <= frames - 1))[:, None]
        both = np.where(share > 0, np.minimum(of_first, of_second), of_first)
        confidence[view] = np.where(there, both, 0)
        places[view] = (1 - share[..., None]) * observations.places[view, first]
        places[view] += share[..., None] * observations.places[view, second]
    return Observations(places, confidence)


def project(camera: CalibratedCamera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 3) world -> (..., 2) pixels of the pinhole camera, (...) depth in metres (pixels hold where it is > 0)."""
    local = points @ camera.R.T + camera.T
    depth = local[..., 2]
    homogeneous = local @ camera.K.T
    return homogeneous[..., :2] / np.maximum(depth, NEAR)[..., None], depth


def triangulate(landmarks: Landmarks, rig: Rig) -> Triangulated:
    """Points of all frames; mends swaps of left and right first.

    Raises ValueError for fewer than two cameras, or landmarks of other cameras than the rig's.
    """
    if len(rig.cameras) < 2:
        raise ValueError(
            "points in space need two cameras at least, which see the person from different sides"
        )
    mended, notes = mend_swaps(landmarks, rig)
    observations = at_frames(observe(mended, rig.cameras), rig.time_offsets)
    places, confidence = locate(observations, rig.cameras)
    errors = reprojection_errors(places, confidence, observations, rig.cameras)
    points = Points(places.astype(np.float32), confidence.astype(np.float32), errors.astype(np.float32))
    return Triangulated(points, mended, (*notes, *_error_notes(points, rig.cameras)))


def locate(observations: Observations, cameras: Sequence[CalibratedCamera]) -> tuple[np.ndarray, np.ndarray]:
    """(F, K, 3) points that most cameras agree on, and (F, K) confidence, 0 where no two agree."""
    views, frames, count = observations.confidence.shape
    seen = observations.places.reshape(views, -1, 2), observations.confidence.reshape(views, -1)
    points, agreeing = _most_agreed(*seen, cameras)
    for _ in range(REFINEMENTS):
        points = _refined(points, *seen, agreeing, cameras)
        _, across = _residuals(points, seen[0], cameras)
        agreeing = (across < AGREE) & (seen[1] > 0)
    enough = agreeing.sum(0) >= 2
    # How sure the agreeing cameras are, and how many of those that saw something they are.
    votes = (seen[1] * agreeing).sum(0)
    confidence = np.where(enough, votes / agreeing.sum(0).clip(1) * votes / seen[1].sum(0).clip(1e-9), 0)
    points = np.where(enough[:, None], points, 0)
    return points.reshape(frames, count, 3), confidence.reshape(frames, count)


def reprojection_errors(
    points: np.ndarray,
    confidence: np.ndarray,
    observations: Observations,
    cameras: Sequence[CalibratedCamera],
) -> np.ndarray:
    """(V, F, K) pixels between point and observation, NaN where either is missing."""
    errors = np.full(observations.confidence.shape, np.nan)
    for view, camera in enumerate(cameras):
        there = (observations.confidence[view] > 0) & (confidence > 0)
        pixels, _ = project(camera, points)
        errors[view][there] = np.linalg.norm(pixels - observations.places[view], axis=-1)[there]
    return errors


def slopes(places: np.ndarray, camera: CalibratedCamera) -> np.ndarray:
    """(..., 2) pixels of the pinhole camera -> (..., 2) x / z and y / z in its coordinates."""
    homogeneous = np.concatenate([places, np.ones_like(places[..., :1])], -1)
    return (homogeneous @ np.linalg.inv(camera.K).T)[..., :2]


def rays(places: np.ndarray, camera: CalibratedCamera) -> np.ndarray:
    """(..., 2) pixels of the pinhole camera -> (..., 3) unit directions in the world."""
    directions = np.concatenate([slopes(places, camera), np.ones_like(places[..., :1])], -1) @ camera.R
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def nearest_points(seen: np.ndarray, weights: np.ndarray, cameras: Sequence[CalibratedCamera]) -> np.ndarray:
    """slopes (V, N, 2), weights (V, N) -> (N, 3) by linear least squares of all, NaN where fewer than two see it.

    No outlier is thrown out, nor are residuals weighed by distance: `locate` does both."""
    # x (R3 p + t3) = R1 p + t1, and so for y: two equations linear in p of each camera.
    R, T = np.stack([camera.R for camera in cameras]), np.stack([camera.T for camera in cameras])
    equations = R[:, None, :2] - seen[..., None] * R[:, None, 2:]  # (V, N, 2, 3)
    values = seen * T[:, None, 2:] - T[:, None, :2]
    normal = np.einsum("vn,vnra,vnrb->nab", weights**2, equations, equations)
    right = np.einsum("vn,vnra,vnr->na", weights**2, equations, values)
    known = ((weights > 0).sum(0) >= 2) & (np.linalg.det(normal) > 1e-12)
    points = np.full((seen.shape[1], 3), np.nan)
    points[known] = np.linalg.solve(normal[known], right[known, :, None])[..., 0]
    return points


def _most_agreed(
    places: np.ndarray, weights: np.ndarray, cameras: Sequence[CalibratedCamera]
) -> tuple[np.ndarray, np.ndarray]:
    """places (V, N, 2), weights (V, N) -> (N, 3) of the pair with which the most cameras agree, (V, N) bool which."""
    centres = np.stack([camera.center for camera in cameras])
    directions = np.stack([rays(p, c) for p, c in zip(places, cameras, strict=True)])
    best = np.zeros(places.shape[1])
    points = np.zeros((places.shape[1], 3))
    agreeing = np.zeros(weights.shape, bool)
    for a, b in _pairs(len(cameras)):
        cosine = (directions[a] * directions[b]).sum(-1)
        sine2 = 1 - cosine**2
        usable = np.flatnonzero((weights[a] > 0) & (weights[b] > 0) & (sine2 > np.sin(MIN_ANGLE) ** 2))
        if not len(usable):
            continue
        # The middle of the shortest line between both rays.
        u, v, cosine, sine2 = directions[a, usable], directions[b, usable], cosine[usable], sine2[usable]
        apart = centres[b] - centres[a]
        along_u = (u @ apart - cosine * (v @ apart)) / sine2
        along_v = (cosine * (u @ apart) - v @ apart) / sine2
        middle = (centres[a] + along_u[:, None] * u + centres[b] + along_v[:, None] * v) / 2
        _, across = _residuals(middle, places[:, usable], cameras)
        gain = weights[:, usable] * (1 - (across / AGREE).clip(0, 1) ** 2)
        gain[:, (along_u < NEAR) | (along_v < NEAR)] = 0
        score = gain.sum(0)
        better = score > best[usable]
        chosen = usable[better]
        best[chosen], points[chosen] = score[better], middle[better]
        agreeing[:, chosen] = gain[:, better] > 0
    return points, agreeing


def _pairs(views: int) -> list[tuple[int, int]]:
    """All, or of many an even choice: neighbours first are the steps along which every camera meets others."""
    pairs = list(combinations(range(views), 2))
    if len(pairs) > MAX_PAIRS:
        order = np.random.default_rng(0).permutation(len(pairs))[:MAX_PAIRS]
        pairs = [pairs[index] for index in sorted(order)]
    return pairs


def _residuals(
    points: np.ndarray, places: np.ndarray, cameras: Sequence[CalibratedCamera]
) -> tuple[np.ndarray, np.ndarray]:
    """(V, N, 2) pixels and (V, N) metres across the ray by which points miss the observations; inf behind a camera."""
    pixels, metres = [], []
    for camera, place in zip(cameras, places, strict=True):
        projected, depth = project(camera, points)
        pixels.append(projected - place)
        focal = np.sqrt(camera.K[0, 0] * camera.K[1, 1])
        metres.append(np.where(depth > NEAR, np.linalg.norm(pixels[-1], axis=-1) * depth / focal, np.inf))
    return np.stack(pixels), np.stack(metres)


def _refined(
    points: np.ndarray,
    places: np.ndarray,
    weights: np.ndarray,
    agreeing: np.ndarray,
    cameras: Sequence[CalibratedCamera],
) -> np.ndarray:
    """A Gauss-Newton step on the agreeing cameras' residuals in metres, weighted as Geman and McClure do."""
    normal, right = np.zeros((len(points), 3, 3)), np.zeros((len(points), 3))
    for view, camera in enumerate(cameras):
        local = points @ camera.R.T + camera.T
        depth = np.maximum(local[:, 2], NEAR)
        focal = camera.K[[0, 1], [0, 1]]
        missed = (places[view] - project(camera, points)[0]) * depth[:, None] / focal
        # Pixels times depth: d(x / z) z = dx - x / z dz.
        slope = np.zeros((len(points), 2, 3))
        slope[:, 0, 0] = slope[:, 1, 1] = 1
        slope[:, :, 2] = -local[:, :2] / depth[:, None]
        slope = slope @ camera.R
        robust = 1 / (1 + (missed**2).sum(1) / (AGREE / 2) ** 2) ** 2
        weight = weights[view] * agreeing[view] * robust
        normal += weight[:, None, None] * slope.swapaxes(1, 2) @ slope
        right += weight[:, None] * (slope.swapaxes(1, 2) @ missed[..., None])[..., 0]
    normal += 1e-9 * np.eye(3)
    return points + np.linalg.solve(normal, right[..., None])[..., 0]


def mend_swaps(landmarks: Landmarks, rig: Rig) -> tuple[Landmarks, tuple[str, ...]]:
    """Exchanges left and right, limb by limb, in pictures where the exchanged landmarks lie on the points and the given
    ones do not. The points: what most cameras agree on, taken over neighbouring frames, so that a frame in which
    half of the cameras err is decided by those around it."""
    places, confidence = landmarks.places.copy(), landmarks.confidence.copy()
    swapped = {group: np.zeros(confidence.shape[:2], bool) for group in SWAP_GROUPS}
    # In time each picture counts as the nearest frame: limbs are farther apart than they move meanwhile.
    shifts = np.round(rig.time_offsets).astype(int)
    for _ in range(SWAP_ROUNDS):
        observations = observe(Landmarks(places, confidence), rig.cameras)
        points, sure = locate(at_frames(observations, shifts.astype(float)), rig.cameras)
        known = _time_median(np.where(sure[..., None] > 0, points, np.nan))
        changed = False
        for group in SWAP_GROUPS:
            left, right = swap_partners(group)
            gain = np.stack(
                [
                    _swap_gain(observations, known, rig.cameras[view], view, shifts[view], left, right)
                    for view in range(len(rig.cameras))
                ]
            )
            wrong = gain > SWAP_SHARE
            for array in (places, confidence):
                exchanged = array[wrong]
                exchanged[:, np.concatenate([left, right])] = exchanged[:, np.concatenate([right, left])]
                array[wrong] = exchanged
            swapped[group] ^= wrong
            changed |= bool(wrong.any())
        if not changed:
            break
    notes = [
        _swap_note(group, pictures, rig.cameras) for group, pictures in swapped.items() if pictures.any()
    ]
    return replace(landmarks, places=places, confidence=confidence), tuple(notes)


def _time_median(points: np.ndarray) -> np.ndarray:
    """(F, K, 3), NaN where nothing is known -> the median over neighbouring frames, NaN where none of them knows."""
    frames = len(points)
    padded = np.pad(points, ((SWAP_WINDOW, SWAP_WINDOW), (0, 0), (0, 0)), constant_values=np.nan)
    around = np.stack([padded[shift : shift + frames] for shift in range(2 * SWAP_WINDOW + 1)])
    known = np.isfinite(around).any(0)
    return np.where(known, np.nanmedian(np.where(known, around, 0), axis=0), np.nan)


def _swap_gain(
    observations: Observations,
    known: np.ndarray,
    camera: CalibratedCamera,
    view: int,
    shift: int,
    left: np.ndarray,
    right: np.ndarray,
) -> np.ndarray:
    """(F,) by how much the exchanged reading is nearer to the points, as SWAP_SHARE, of a camera's pictures."""
    frames = len(known)
    points = known[(np.arange(frames) + shift).clip(0, frames - 1)]
    pixels, depth = project(camera, np.nan_to_num(points))
    there = np.asarray(np.isfinite(points).all(-1))
    focal = np.sqrt(camera.K[0, 0] * camera.K[1, 1])

    def misses(of_points: np.ndarray, of_pictures: np.ndarray) -> np.ndarray:
        apart = np.linalg.norm(pixels[:, of_points] - observations.places[view][:, of_pictures], axis=-1)
        return (apart * depth[:, of_points] / focal).clip(0, SWAP_TRUNCATION)

    between = (np.linalg.norm(pixels[:, left] - pixels[:, right], axis=-1) * depth[:, left] / focal).clip(
        0, SWAP_TRUNCATION
    )
    gain, apart, weight = np.zeros(frames), np.zeros(frames), np.zeros(frames)
    for first, second in ((left, right), (right, left)):
        # Of an observation: how much better it is as the other side's landmark.
        usable = there[:, first] & there[:, second]
        share = observations.confidence[view][:, first] * usable
        gain += (share * (misses(first, first) - misses(second, first))).sum(1)
        apart += (share * between).sum(1)
        weight += share.sum(1)
    return np.where(apart > SWAP_APART * weight, gain / np.maximum(apart, 1e-9), 0)


def _swap_note(group: str, pictures: np.ndarray, cameras: Sequence[CalibratedCamera]) -> str:
    counts = pictures.sum(1)
    worst = ", ".join(
        f"camera '{cameras[view].name}' in {counts[view]} (first in frame {pictures[view].argmax()})"
        for view in np.argsort(-counts)
        if counts[view]
    )
    return (
        f"left and right of the {group} were exchanged in {counts.sum()} of {pictures.size} pictures: {worst}; look "
        "at these in the contact sheet"
    )


def _error_notes(points: Points, cameras: Sequence[CalibratedCamera]) -> list[str]:
    """Cameras whose landmarks lie far from the points, and frames without enough of them."""
    notes = []
    for view, camera in enumerate(cameras):
        _, depth = project(camera, points.places)
        metres = points.errors[view] * depth / np.sqrt(camera.K[0, 0] * camera.K[1, 1])
        seen = np.isfinite(metres)
        if seen.any() and (depth[seen] <= 0).mean() > 0.5:
            notes.append(
                f"camera '{camera.name}': the person stands behind it; is its calibration camera to world, or another "
                "camera's?"
            )
        elif seen.any() and np.nanmedian(metres) > NOTED_ERROR:
            notes.append(
                f"camera '{camera.name}': its landmarks lie {100 * np.nanmedian(metres):.1f} cm (median) from where "
                "the other cameras put them; its calibration or its time may be wrong"
            )
        elif not seen.any():
            notes.append(
                f"camera '{camera.name}' has no landmark in common with others; does it see the person?"
            )
    return notes
