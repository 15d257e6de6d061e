"""Template mesh of the clothed person in the canonical pose, from the masks of a capture.

Data path: poses -> well-spread frames; their masks, BodyDistance -> carved grid -> marching cubes -> largest part ->
smoothing, decimation -> Template -> warnings (with how well its outline fits the pictures) -> gen_template's status.
Shape letters: X, Y, Z grid nodes, M nodes of the band, P points.

Hands keep the body's surface: fingers are thinner than what masks from metres away and this grid resolve.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import fast_simplification
import numpy as np
import torch
import trimesh
from scipy import ndimage
from skimage.measure import marching_cubes

from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_volume import WeightVolume
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.poses import SmplParams
from mmlphuman.pose_layout import BODY_POSE, HAND_JOINTS
from mmlphuman.preparation.carving import (
    BodyDistance,
    Grid,
    MaskView,
    body_distance,
    carve,
    grid_around,
    read_mask_views,
)

FEW_FRAMES = 3  # a place that fewer frames decided about counts as unseen
BLUR = 0.6  # grid spacings; a noisier field leaves cracks between cells
FEWEST_FACES = 500
AGGRESSIVENESS = (3, 5, 7, 1)  # of the decimation, tried in turn: now and then one pinches a finger off
SMOOTHING_ROUNDS = 10  # of Taubin's filter, which keeps the volume
DEFAULT_FACES = 30_000
FAR_INSIDE = 0.015  # metres inside the body, where clothes cannot be
FEW_VIEWS = 40  # (frame, camera) pairs; fewer leave places that no camera looks along
VOLUME_RANGE = (0.95, 2.5)  # times the body's; from tight sportswear to a long coat
DROPPED = 0.02  # share of the volume in parts beside the largest
UNSEEN = 0.25  # share of the surface
AT_LIMIT = 0.002  # share of the surface
INSIDE = 0.05  # share of the surface
MOST_HANDLES = 12  # of the surface; arms akimbo in every frame make two, crossed fingers some
WORST_OVERLAP = 0.85  # intersection over union of the posed template and the mask, mean over the pictures


def well_spread_frames(poses: SmplParams, frames: Collection[int], count: int) -> list[int]:
    """At most `count` of `frames`, sorted: the one nearest the mean body pose, then always the farthest.

    Distance is that of the 63 body-joint numbers. Deterministic. ValueError for no frames or count < 1.
    """
    ordered = np.asarray(sorted(frames))
    if count < 1 or len(frames) == 0:
        raise ValueError(f"choosing {count} of {len(frames)} frames: at least one of each is needed")
    body = poses.poses[ordered][:, BODY_POSE].astype(np.float64)
    chosen = [int(np.linalg.norm(body - body.mean(0), axis=1).argmin())]
    distance = np.linalg.norm(body - body[chosen[0]], axis=1)
    while len(chosen) < min(count, len(frames)):
        distance[chosen] = -1  # equal poses are taken too, each once
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(body - body[chosen[-1]], axis=1))
    return sorted(ordered[chosen].tolist())


@dataclass(frozen=True)
class TemplateSettings:
    """ValueError for lengths or counts that cannot work."""

    spacing: float = 0.006  # metres between grid nodes
    reach: float = 0.12  # metres around the body in which cloth is looked for
    faces: int = DEFAULT_FACES  # triangles after decimation, about

    def __post_init__(self):
        if not 0.002 <= self.spacing <= 0.05:
            raise ValueError(f"grid spacing of {1000 * self.spacing:g} mm: choose 2 to 50 mm")
        if not 2 * self.spacing <= self.reach <= 0.5:
            raise ValueError(
                f"reach of {self.reach:g} m: cloth is looked for at least two grid spacings "
                f"({2 * self.spacing:g} m) and at most 0.5 m around the body"
            )
        if self.faces < FEWEST_FACES:
            raise ValueError(f"{self.faces} triangles: a template needs at least {FEWEST_FACES}")


@dataclass(frozen=True)
class Template:
    """The mesh and what was measured while it was made; `template_warnings` judges it."""

    mesh: trimesh.Trimesh  # canonical pose, metres
    views: int  # masks used
    skipped: int  # masks empty or full
    volume_ratio: float  # of the mesh over the body
    dropped_share: float  # of the volume of all parts, in parts that were dropped
    unseen_share: float  # of the surface, hands left out, that too few frames decided about
    at_limit_share: float  # of the surface that ends where the search did
    inside_share: float  # of the surface that lies well inside the body


def make_template(
    dataset: CaptureDataset,
    frames: Sequence[int],
    body: Body,
    volume: WeightVolume,
    settings: TemplateSettings | None = None,
    say=print,
) -> Template:
    """The clothed person's canonical surface from the masks of `frames` in all of the data set's cameras.

    Raises ValueError for unreadable views and masks that leave nothing of the person.
    """
    settings = settings or TemplateSettings()
    grid = grid_around(body, settings.spacing, settings.reach)
    views, skipped = read_mask_views(dataset, frames)
    if not views:
        raise ValueError(
            f"{dataset.layout.root}: every mask of the chosen frames is empty or full; check the mask files"
        )
    say(f"grid of {' x '.join(map(str, grid.shape))} nodes around the body, {1000 * grid.spacing:g} mm apart")
    near = body_distance(body, grid, settings.reach)
    values, deciding = carved_distance(near, views, body, volume)
    mesh, dropped_share = largest_part(extract_surface(values, grid))
    mesh = simplify(mesh, settings.faces)
    return Template(
        mesh=mesh,
        views=len(views),
        skipped=skipped,
        volume_ratio=float(mesh.volume / _volume_of(body)),
        dropped_share=dropped_share,
        unseen_share=_unseen_share(mesh, near, deciding, volume),
        **_body_shares(mesh, near, settings.reach),
    )


def carved_distance(
    near: BodyDistance, views: Sequence[MaskView], body: Body, volume: WeightVolume
) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z) metres, positive inside: the hull's distance in the band, the body's at the hands.

    Also (M,) the number of frames that decided about each node of the band, see Hull.
    """
    points = near.grid.positions(near.band)
    hull = carve(views, body, volume, points)
    values = near.values.copy()
    values.ravel()[near.band] = hull.distance
    values = ndimage.gaussian_filter(values, BLUR)
    hand = _hand_share(volume, points)
    at_band = values.ravel()[near.band]
    values.ravel()[near.band] = at_band + hand * (near.values.ravel()[near.band] - at_band)
    return values, hull.deciding


def _unseen_share(
    mesh: trimesh.Trimesh, near: BodyDistance, deciding: np.ndarray, volume: WeightVolume
) -> float:
    """Share of the surface, hands left out, that too few frames decided about."""
    frames = np.zeros(near.grid.shape, np.float32)
    frames.ravel()[near.band] = deciding
    at_surface = ndimage.map_coordinates(frames, near.grid.coordinates(mesh.vertices), order=1)
    elsewhere = _hand_share(volume, mesh.vertices) < 0.5
    return float((at_surface[elsewhere] < FEW_FRAMES).mean()) if elsewhere.any() else 1.0


def _body_shares(mesh: trimesh.Trimesh, near: BodyDistance, reach: float) -> dict[str, float]:
    """How the surface lies to the body, see Template."""
    body = ndimage.map_coordinates(near.values, near.grid.coordinates(mesh.vertices), order=1, mode="nearest")
    return {
        "at_limit_share": float((body < 2 * near.grid.spacing - reach).mean()),
        "inside_share": float((body > FAR_INSIDE).mean()),
    }


def _volume_of(body: Body) -> float:
    return float(trimesh.Trimesh(body.canonical_vertices.numpy(), body.faces.numpy(), process=False).volume)


def _hand_share(volume: WeightVolume, points: np.ndarray) -> np.ndarray:
    """(P,) skinning weight of the hands."""
    return volume.query(torch.tensor(points, dtype=torch.float32))[:, HAND_JOINTS].sum(1).numpy()


def extract_surface(values: np.ndarray, grid: Grid) -> trimesh.Trimesh:
    """The zero level of (X, Y, Z) distances, in metres. ValueError if nothing is inside."""
    if not (values > 0).any():
        raise ValueError("the masks leave nothing of the person: check masks, poses and calibration")
    vertices, faces, _, _ = marching_cubes(values, 0.0)
    return trimesh.Trimesh(vertices * grid.spacing + grid.origin, faces, process=False)


def largest_part(mesh: trimesh.Trimesh) -> tuple[trimesh.Trimesh, float]:
    """The connected part with the largest volume, outwards oriented, and the volume share of the others.

    Cavities, whose volume is negative, do not count: what lies inside the person is no surface.
    """
    if mesh.volume < 0:
        mesh.invert()
    parts = mesh.split(only_watertight=False)
    volumes = np.array([part.volume for part in parts])
    best = int(volumes.argmax())
    return parts[best], float(1 - volumes[best] / volumes[volumes > 0].sum())


def simplify(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """Smooth out the grid's steps and reduce to about `faces` triangles."""
    smooth = trimesh.smoothing.filter_taubin(mesh.copy(), lamb=0.5, nu=0.53, iterations=SMOOTHING_ROUNDS)
    if len(smooth.faces) <= faces:
        return smooth
    for aggressiveness in AGGRESSIVENESS:
        vertices, triangles = fast_simplification.simplify(
            smooth.vertices.astype(np.float32),
            smooth.faces.astype(np.int32),
            target_count=faces,
            agg=aggressiveness,
        )[:2]
        simple = trimesh.Trimesh(vertices, triangles, process=False)
        if simple.is_watertight or not smooth.is_watertight:
            break
    return simple


def template_warnings(template: Template, overlaps: Sequence[float] = ()) -> list[str]:
    """Lines that say what is doubtful and what to do; none for a good template.

    overlaps: intersection over union with the mask in each picture that was drawn.
    """
    mesh, low, high = template.mesh, *VOLUME_RANGE
    handles = (2 - mesh.euler_number) // 2
    mean_overlap = float(np.mean(overlaps)) if len(overlaps) else 1.0
    findings = [
        (not mesh.is_watertight, "the surface has holes; try another --resolution"),
        (
            mesh.is_watertight and handles > MOST_HANDLES,
            f"the surface has {handles} handles, such as a hand grown to the hip; give more --frames",
        ),
        (
            template.dropped_share > DROPPED,
            f"{template.dropped_share:.1%} of the volume was in loose parts, which are dropped; a limb or a "
            "thing held may be missing",
        ),
        (
            not low <= template.volume_ratio <= high,
            f"its volume is {template.volume_ratio:.2f} times the body's; {low} to {high} is usual: check "
            "betas, masks and the scale of the calibration",
        ),
        (
            template.views < FEW_VIEWS,
            f"only {template.views} masks were looked at; {FEW_VIEWS} or more are needed for a full surface",
        ),
        (
            template.skipped > 0,
            f"{template.skipped} masks are empty or full and were left out; check the mask files",
        ),
        (
            template.unseen_share > UNSEEN,
            f"{template.unseen_share:.0%} of the surface was decided by too few frames and may bridge "
            "hollows; give more --frames or cameras",
        ),
        (
            template.at_limit_share > AT_LIMIT,
            f"{template.at_limit_share:.1%} of the surface ends where the search around the body ended; "
            "raise --reach for wide clothes",
        ),
        (
            template.inside_share > INSIDE,
            f"{template.inside_share:.0%} of the surface lies well inside the body: body, poses or cameras do "
            "not fit the masks",
        ),
        (
            mean_overlap < WORST_OVERLAP,
            f"posed, it covers the masks badly (overlap {mean_overlap:.2f}); look at the picture, check poses "
            "and cameras",
        ),
    ]
    return [line for doubtful, line in findings if doubtful]
