"""Checks the cameras by the person in front of them: how each really stood, and when it took its pictures.

Data path: Landmarks, Rig as calibrated -> shifts by whole frames -> bundle adjustment of poses, times and points ->
Rig, and what changed.
Shape letters: V cameras, F frames, K landmarks, N points (landmarks of chosen frames) at once.

A calibration that is a little off, or a camera that started late, shows in landmarks that do not meet. What may be
expected of a calibration is the prior; the rest is decided by some thousand landmarks. The mean motion of all cameras
cannot be seen, and is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from mmlphuman.capture.layout import CalibratedCamera
from mmlphuman.fitting.observations import BODY_LANDMARKS, Landmarks, Rig
from mmlphuman.fitting.triangulation import (
    AGREE,
    NEAR,
    Observations,
    at_frames,
    locate,
    mend_swaps,
    observe,
    project,
    rays,
    reprojection_errors,
)

TURN, MOVE = np.deg2rad(0.5), 0.03  # what is expected of a calibration: radians, metres
LATE = (
    3.0  # frames from the whole shift; networks' errors do not imitate time, and it needs little of a prior
)
MUCH_TURN, MUCH_MOVE = np.deg2rad(1.5), 0.10  # told as doubtful: this is no drift, something is wrong
# Networks err alike over a whole capture (a hip is seen too high from behind): however long it is, all frames together
# tell no more than so many whose errors are independent.
INDEPENDENT_FRAMES = 1.0
HELD = 1e-4  # frames, in place of LATE where a fraction of a frame is not believed
BELIEVED = 0.97  # of a camera's error without it, below which a fraction is
# Networks see a joint elsewhere from each side, and right cameras would be moved by that (0.3 degrees, 1 cm) for
# landmarks that hardly meet better: errors 0.90 to 1.04 times as large were seen then, with loose calibrations in some
# cameras 0.26 to 0.68. So all stay where no camera's error becomes less than this share of what it is without.
MOVED_FOR = 0.85
MIN_ERROR = 0.003  # metres that landmarks are at least off by
ROBUST_SCALES = (
    0.30,
    0.10,
    0.05,
    0.05,
)  # metres from where an observation counts as wrong, one after the other
STEPS = 8  # Gauss-Newton, at each scale
MAX_FRAMES = 300  # that take part, evenly chosen
SAME_TIME = 0.1  # frames; closer cameras count as synchronous
MIN_FRAMES = 8  # with people in common, to say anything

# Search over whole frames.
MAX_SHIFT = 60  # frames
MAX_PARTNERS = 6  # cameras with which each is compared
RAY_LIMIT = 0.15  # metres between two rays from where they count as strangers
CLEARLY_BETTER = 0.8  # of the cost without the shift

# A landmark's track is read off a parabola through its neighbours, as noisy between pictures as on them: of points
# joined by lines those halfway would be smoother, and every shift would come out as half a frame.
KERNEL, TAPS = 1.5, 5  # frames: standard deviation, and how many on either side

SLOTS = 7  # of a camera: 3 turn, 3 move, 1 late


@dataclass(frozen=True)
class CameraChange:
    """What refining did to a camera."""

    name: str
    turned: float  # degrees
    moved: float  # metres
    time_offset: float  # frames by which its pictures are late
    error_before: float  # pixels, median of the landmarks
    error_after: float


@dataclass(frozen=True)
class RefinedRig:
    rig: Rig
    changes: tuple[CameraChange, ...]
    notes: tuple[str, ...]


def refine_rig(landmarks: Landmarks, rig: Rig, progress: Callable[[str], None] = print) -> RefinedRig:
    """Cameras as they stood and times at which they took pictures, judged by a person's landmarks.

    The time offsets of the given rig are where the search starts from. A rig that cannot be judged (fewer than two
    cameras, or hardly any landmark in common) comes back as it is, with a note.
    """
    body = slice(0, len(BODY_LANDMARKS))
    mended, _ = mend_swaps(landmarks, rig)
    seen = observe(mended, rig.cameras)
    seen = Observations(seen.places[:, :, body], seen.confidence[:, :, body])
    common = ((seen.confidence > 0).sum(0) >= 2).any(1).sum() if len(rig.cameras) > 1 else 0
    if common < MIN_FRAMES:
        note = (
            f"cameras are not checked: only {common} frames have landmarks that two cameras see; are these cameras of "
            "one moment, and landmarks of one person?"
        )
        unchanged = tuple(
            CameraChange(c.name, 0.0, 0.0, float(t), np.nan, np.nan)
            for c, t in zip(rig.cameras, rig.time_offsets, strict=True)
        )
        return RefinedRig(rig, unchanged, (note,))
    before = _median_errors(seen, rig)
    shifts = whole_shifts(seen, rig)
    progress(f"cameras are late by {', '.join(f'{shift:g}' for shift in shifts)} frames, roughly")
    cameras, offsets = _adjust_believed(seen, rig.cameras, shifts)
    offsets = offsets - offsets[_reference(offsets)]
    offsets[np.abs(offsets) < SAME_TIME] = 0
    refined, stayed = Rig(cameras, offsets), Rig(rig.cameras, offsets)
    after, without = _median_errors(seen, refined), _median_errors(seen, stayed)
    told = "cameras adjusted"
    if not (after < MOVED_FOR * without).any():
        refined, after, told = stayed, without, "cameras stay as they are calibrated"
    progress(f"{told}, landmarks within {np.nanmax(after):.1f} pixels (median of the worst camera)")
    changes = tuple(
        CameraChange(
            old.name,
            float(np.rad2deg(Rotation.from_matrix(new.R @ old.R.T).magnitude())),
            float(np.linalg.norm(new.center - old.center)),
            float(late),
            float(error_before),
            float(error_after),
        )
        for old, new, late, error_before, error_after in zip(
            rig.cameras, refined.cameras, offsets, before, after, strict=True
        )
    )
    return RefinedRig(refined, changes, _notes(changes, rig))


def _notes(changes: Sequence[CameraChange], rig: Rig) -> tuple[str, ...]:
    notes = []
    for change, given in zip(changes, rig.time_offsets, strict=True):
        if change.turned > np.rad2deg(MUCH_TURN) or change.moved > MUCH_MOVE:
            notes.append(
                f"camera '{change.name}' had to be turned by {change.turned:.1f} degrees and moved by "
                f"{100 * change.moved:.0f} cm: its calibration is of another place or another picture size"
            )
        if change.time_offset != given:
            notes.append(
                f"camera '{change.name}' took its pictures {abs(change.time_offset):.2f} frames "
                f"{'after' if change.time_offset > 0 else 'before'} the others; the fit interpolates, and for training "
                "pictures should be cut to start together"
            )
    return tuple(notes)


def _median_errors(seen: Observations, rig: Rig) -> np.ndarray:
    """(V,) pixels between the landmarks and the points that most cameras agree on."""
    at = at_frames(seen, rig.time_offsets)
    points, confidence = locate(at, rig.cameras)
    errors = reprojection_errors(points, confidence, at, rig.cameras).reshape(len(rig.cameras), -1)
    return np.array([np.nanmedian(of_view) if np.isfinite(of_view).any() else np.nan for of_view in errors])


def _reference(offsets: np.ndarray) -> int:
    """The camera whose clock most others share."""
    apart = np.abs(offsets[:, None] - offsets)
    return int(apart.clip(max=1.0).sum(1).argmin())


def whole_shifts(seen: Observations, rig: Rig) -> np.ndarray:
    """(V,) frames by which each camera is late, whole ones on top of the rig's own, by how near rays pass each other.

    A shift is believed if landmarks then meet clearly better; without motion none is.
    """
    views, frames = seen.confidence.shape[:2]
    reach = min(MAX_SHIFT, frames // 3)
    start = np.round(rig.time_offsets).astype(int)
    directions = np.stack([rays(p, c) for p, c in zip(seen.places, rig.cameras, strict=True)])
    costs = {}
    partners = min(MAX_PARTNERS, views - 1)
    steps = np.unique(np.linspace(1, views - 1, partners).round().astype(int)) if views > 1 else []
    for a in range(views):
        for b in {(a + step) % views for step in steps}:
            key = min(a, b), max(a, b)
            if key not in costs:
                costs[key] = _shift_costs(*key, seen.confidence, directions, rig.cameras, 2 * reach)

    def cost(shifts: np.ndarray, view: int) -> float:
        total = 0.0
        for (a, b), of_shift in costs.items():
            if view in (a, b):
                apart = shifts[b] - shifts[a]
                total += of_shift[apart + 2 * reach] if abs(apart) <= 2 * reach else RAY_LIMIT
        return total

    candidates = []
    for base in range(views):
        # Each camera where it suits this one, then where it suits all.
        shifts = start.copy()
        for (a, b), of_shift in costs.items():
            if base in (a, b):
                best = int(of_shift[reach : 3 * reach + 1].argmin()) - reach
                shifts[b if base == a else a] = start[base] + (best if base == a else -best)
        candidates.append(_descend(shifts, start, reach, cost))
    candidates.append(_descend(start.copy(), start, reach, cost))
    totals = [sum(cost(shifts, view) for view in range(views)) for shifts in candidates]
    shifts = candidates[int(np.argmin(totals))]
    shifts = shifts - shifts[_reference(shifts)]
    unshifted = sum(cost(start, view) for view in range(views))
    if min(totals) > CLEARLY_BETTER * unshifted:
        return rig.time_offsets.astype(float)
    for view in range(views):  # a camera that gains little stays
        stays = shifts.copy()
        stays[view] = start[view]
        if shifts[view] != start[view] and cost(shifts, view) > CLEARLY_BETTER * cost(stays, view):
            shifts = stays
    return np.where(shifts == start, rig.time_offsets, shifts).astype(float)


def _descend(
    shifts: np.ndarray, start: np.ndarray, reach: int, cost: Callable[[np.ndarray, int], float]
) -> np.ndarray:
    """One camera after the other to its best shift, until none moves."""
    for _ in range(10):
        before = shifts.copy()
        for view in range(len(shifts)):
            tried = []
            for shift in range(start[view] - reach, start[view] + reach + 1):
                shifts[view] = shift
                tried.append(cost(shifts, view))
            shifts[view] = start[view] - reach + int(np.argmin(tried))
        if np.array_equal(before, shifts):
            break
    return shifts


def _shift_costs(
    a: int,
    b: int,
    confidence: np.ndarray,
    directions: np.ndarray,
    cameras: Sequence[CalibratedCamera],
    reach: int,
) -> np.ndarray:
    """(2 reach + 1,) mean metres between rays if camera b is later than a by -reach ... reach frames."""
    frames = confidence.shape[1]
    apart = cameras[b].center - cameras[a].center
    costs = np.full(2 * reach + 1, RAY_LIMIT)
    for index, shift in enumerate(range(-reach, reach + 1)):
        # Picture f of b was taken when a took picture f + shift.
        of_a, of_b = (
            slice(max(shift, 0), frames + min(shift, 0)),
            slice(max(-shift, 0), frames - max(shift, 0)),
        )
        if of_a.stop - of_a.start < max(MIN_FRAMES, frames // 3):
            continue
        weight = confidence[a, of_a] * confidence[b, of_b]
        across = np.cross(directions[a, of_a], directions[b, of_b])
        sine = np.linalg.norm(across, axis=-1)
        weight = weight * (sine > 0.05)
        metres = (np.abs(across @ apart) / np.maximum(sine, 1e-9)).clip(max=RAY_LIMIT)
        if weight.sum() > 0:
            costs[index] = (weight * metres).sum() / weight.sum()
    return costs


def _adjust_believed(
    seen: Observations, cameras: tuple[CalibratedCamera, ...], shifts: np.ndarray
) -> tuple[tuple[CalibratedCamera, ...], np.ndarray]:
    """Adjusted with fractions of a frame for those cameras only whose landmarks then meet clearly better: a person who
    walks steadily across a picture looks alike late and turned a little."""
    views = len(cameras)
    held = _adjust(seen, cameras, shifts, np.full(views, HELD))
    free = _adjust(seen, cameras, shifts, np.full(views, LATE))
    without = _track_errors(seen, *held)
    apart = np.abs(free[1] - free[1][_reference(free[1])] - shifts)
    believed = (_track_errors(seen, *free) < BELIEVED * without) & (apart >= SAME_TIME)
    if not believed.any():
        return held
    some = _adjust(seen, cameras, shifts, np.where(believed, LATE, HELD))
    gained = _track_errors(seen, *some)[believed] < BELIEVED * without[believed]
    return some if gained.all() else held


def _track_errors(seen: Observations, cameras: Sequence[CalibratedCamera], offsets: np.ndarray) -> np.ndarray:
    """(V,) pixels, as `_median_errors`, of the smoothed tracks, which are as noisy at any fraction of a frame."""
    views, frames, count = seen.confidence.shape
    tracks = _steady(seen, cameras, offsets, AGREE)
    places, _, weights = _read_tracks(tracks, np.arange(frames), offsets)
    read = Observations(places.reshape(views, frames, count, 2), weights.reshape(views, frames, count))
    return _median_errors(read, Rig(tuple(cameras), np.zeros(views)))


def _adjust(
    seen: Observations, cameras: tuple[CalibratedCamera, ...], shifts: np.ndarray, expected_late: np.ndarray
) -> tuple[tuple[CalibratedCamera, ...], np.ndarray]:
    """Poses and times of the cameras together with all points, by Gauss-Newton; points are eliminated at each step.

    expected_late: (V,) frames, standard deviation from the whole shifts.
    """
    given = cameras
    frames = seen.confidence.shape[1]
    chosen = np.unique(np.linspace(0, frames - 1, min(frames, MAX_FRAMES)).round().astype(int))
    offsets = shifts.copy()
    for scale in ROBUST_SCALES:
        tracks = _steady(seen, cameras, offsets, max(scale, AGREE))
        points, confidence = locate(at_frames(tracks, offsets), cameras)
        points, sure = points[chosen].reshape(-1, 3), confidence[chosen].reshape(-1) > 0
        for _ in range(STEPS):
            places, speeds, weights = _read_tracks(tracks, chosen, offsets)
            weights = weights * sure
            step = _normal_equations(
                points, places, speeds, weights, scale, cameras, given, offsets - shifts, expected_late
            )
            points, cameras, offsets, size = _apply(step, points, cameras, offsets)
            if size < 1e-6:
                break
    return cameras, offsets


def _steady(
    seen: Observations, cameras: Sequence[CalibratedCamera], offsets: np.ndarray, limit: float
) -> Observations:
    """Without the observations that disagree with the other cameras by more than `limit` metres."""
    points, confidence = locate(at_frames(seen, offsets), cameras)
    kept = seen.confidence.copy()
    frames = len(points)
    for view, camera in enumerate(cameras):
        nearest = np.round(np.arange(frames) + offsets[view]).astype(int).clip(0, frames - 1)
        pixels, depth = project(camera, points[nearest])
        focal = np.sqrt(camera.K[0, 0] * camera.K[1, 1])
        metres = np.linalg.norm(pixels - seen.places[view], axis=-1) * depth / focal
        kept[view][(metres > 1.5 * limit) | (confidence[nearest] == 0)] = 0
    return Observations(seen.places, kept)


def _read_tracks(
    seen: Observations, frames: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (V, N, 2), speeds (V, N, 2) in pixels a frame and weights (V, N) at the capture's frames."""
    views, count, landmarks = seen.confidence.shape
    taps = np.arange(-TAPS, TAPS + 1)
    places, speeds = np.zeros((2, views, len(frames), landmarks, 2))
    weights = np.zeros((views, len(frames), landmarks))
    for view in range(views):
        wanted = frames - offsets[view]
        middle = np.round(wanted).astype(int)
        pictures = middle[:, None] + taps
        away = pictures - wanted[:, None]
        there = (pictures >= 0) & (pictures < count)
        confidence = seen.confidence[view, pictures.clip(0, count - 1)] * there[..., None]  # (f, taps, K)
        kernel = confidence * np.exp(-0.5 * (away / KERNEL) ** 2)[..., None]
        values = seen.places[view, pictures.clip(0, count - 1)]  # (f, taps, K, 2)
        powers = np.stack([np.ones_like(away), away, away**2], -1)  # (f, taps, 3)
        normal = np.einsum("ftk,fti,ftj->fkij", kernel, powers, powers)
        right = np.einsum("ftk,fti,ftkc->fkic", kernel, powers, values)
        # As good as a whole neighbourhood: what lies at the end of a track is not extrapolated.
        enough = (kernel.sum(1) > 0.35 * KERNEL * np.sqrt(2 * np.pi) * 0.5) & (
            ((kernel > 0) & (away[..., None] <= 0)).any(1) & ((kernel > 0) & (away[..., None] >= 0)).any(1)
        )
        enough &= ((kernel > 0).sum(1) >= 4) & ((wanted >= 0) & (wanted <= count - 1))[:, None]
        normal += 1e-6 * np.eye(3)
        solved = np.linalg.solve(normal, right)
        places[view], speeds[view] = solved[:, :, 0], solved[:, :, 1]
        weights[view] = np.where(enough, (kernel.sum(1) / (KERNEL * np.sqrt(2 * np.pi))).clip(0, 1), 0)
    flat = len(frames) * landmarks
    return places.reshape(views, flat, 2), speeds.reshape(views, flat, 2), weights.reshape(views, flat)


@dataclass(frozen=True)
class _Step:
    of_cameras: np.ndarray  # (V, 7)
    of_points: np.ndarray  # (N, 3)


def _normal_equations(
    points: np.ndarray,
    places: np.ndarray,
    speeds: np.ndarray,
    weights: np.ndarray,
    scale: float,
    cameras: Sequence[CalibratedCamera],
    given: Sequence[CalibratedCamera],
    late: np.ndarray,
    expected_late: np.ndarray,
) -> _Step:
    """A Gauss-Newton step of cameras (7 numbers each) and points, the points eliminated (Schur's complement).

    Residuals: (local.xy / local.z - ray) times the depth of all points in the mean, metres across the ray. (Times each
    point's own depth they would shrink with the whole scene, and noise would pull all cameras together.)
    late: (V,) frames from the whole shifts.
    """
    views, count = weights.shape
    frames = count / len(BODY_LANDMARKS)
    residuals, by_camera, by_point = [], [], []
    # Of the calibrated cameras, so that it stays the same at every step.
    usual_depth = float(np.mean([np.linalg.norm(c.center - points.mean(0)) for c in given]))
    for camera, place, speed in zip(cameras, places, speeds, strict=True):
        local = points @ camera.R.T + camera.T
        focal = camera.K[[0, 1], [0, 1]]
        ray = (place - camera.K[:2, 2]) / focal
        x, y, z = local.T
        depth = np.maximum(z, NEAR)
        residuals.append(usual_depth * (local[:, :2] / depth[:, None] - ray))
        across = np.zeros((count, 2, 3))  # by the point in the camera's coordinates
        across[:, 0, 0] = across[:, 1, 1] = usual_depth / depth
        across[:, :, 2] = -usual_depth * local[:, :2] / depth[:, None] ** 2
        zero = np.zeros(count)
        # d(exp(w) local) = w x local
        turning = np.stack([zero, z, -y, -z, zero, x, y, -x, zero], 1).reshape(count, 3, 3)
        of_camera = np.zeros((count, 2, SLOTS))
        of_camera[:, :, :3] = across @ turning
        of_camera[:, :, 3:6] = -across @ camera.R
        # A later camera showed, at a frame's time, an earlier picture.
        of_camera[:, :, 6] = speed / focal * usual_depth
        by_camera.append(of_camera)
        by_point.append(across @ camera.R)
    missed = np.stack(residuals)
    squared = (missed**2).sum(-1)
    used = weights > 0
    error = max(MIN_ERROR, float(np.sqrt(np.median(squared[used]) / 1.39))) if used.any() else 1.0
    weight = weights / (1 + squared / scale**2) ** 2 / error**2 * INDEPENDENT_FRAMES / frames
    of_points = np.zeros((count, 3, 3)) + 1e-6 * np.eye(3) / MOVE**2
    right_points = np.zeros((count, 3))
    of_cameras = np.zeros((views * SLOTS, views * SLOTS))
    right_cameras = np.zeros((views, SLOTS))
    mixed = np.zeros((count, views * SLOTS, 3))
    for view in range(views):
        camera_rows, point_rows, w = by_camera[view], by_point[view], weight[view][:, None, None]
        own = slice(view * SLOTS, (view + 1) * SLOTS)
        of_cameras[own, own] = (w * camera_rows.swapaxes(1, 2) @ camera_rows).sum(0)
        mixed[:, own] = w * camera_rows.swapaxes(1, 2) @ point_rows
        of_points += w * point_rows.swapaxes(1, 2) @ point_rows
        right_cameras[view] = -(
            w[..., 0] * (camera_rows.swapaxes(1, 2) @ missed[view][..., None])[..., 0]
        ).sum(0)
        right_points -= w[..., 0] * (point_rows.swapaxes(1, 2) @ missed[view][..., None])[..., 0]
        # The prior, about where the camera was calibrated.
        turned = Rotation.from_matrix(cameras[view].R @ given[view].R.T).as_rotvec()
        moved = cameras[view].center - given[view].center
        away = np.concatenate([turned, moved, [late[view]]])
        precision = 1 / np.repeat([TURN, MOVE, expected_late[view]], [3, 3, 1]) ** 2
        of_cameras[own, own] += np.diag(precision)
        right_cameras[view] -= precision * away
    inverse = np.linalg.inv(of_points)
    eliminated = mixed @ inverse
    system = of_cameras - np.einsum("nip,njp->ij", eliminated, mixed, optimize=True)
    right = right_cameras.ravel() - np.einsum("nip,np->i", eliminated, right_points)
    solved = np.linalg.solve(system, right)
    moved_points = (inverse @ (right_points - np.einsum("nip,i->np", mixed, solved))[..., None])[..., 0]
    return _Step(solved.reshape(views, SLOTS), moved_points)


def _apply(
    step: _Step, points: np.ndarray, cameras: Sequence[CalibratedCamera], offsets: np.ndarray
) -> tuple[np.ndarray, tuple[CalibratedCamera, ...], np.ndarray, float]:
    """The state after a step, and the step's size."""
    changed = []
    for camera, change in zip(cameras, step.of_cameras, strict=True):
        R = Rotation.from_rotvec(change[:3]).as_matrix() @ camera.R
        changed.append(replace(camera, R=R, T=-R @ (camera.center + change[3:6])))
    late = step.of_cameras[:, 6].clip(-LATE, LATE)
    return points + step.of_points, tuple(changed), offsets + late, float(np.abs(step.of_cameras).max())
