"""A robust visual hull in canonical space: which points the masks of nearly all frames allow.

Data path: MaskView list + Body + WeightVolume + canonical points -> Hull -> template.
Shape letters: M points, J joints, B bins.

In one frame the person is rigid, and the hull is strict: a point lies as deep inside as the least favourable camera
says, as signed distance to the mask's contour in metres (pixels times depth over focal length). Over frames cloth
moves by centimetres and fits err, and a strict intersection would keep only where cloth always is: a low quantile
over frames is taken. It errs inwards where cloth moves and outwards in hollows, which no camera looks along; measured
on the synthetic subject, 0.1 balances the two (0.3 puts 5 % less of the surface within 1.5 cm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_volume import WeightVolume
from mmlphuman.preparation.mask_views import MaskView, canonical_to_world, contour_distance, pose_points

LIMIT = 0.05  # metres; hull distances are clipped here
NUM_BINS = 20  # of their histogram over frames, 5 mm each; read with interpolation
FAR_BINS = 5  # the lowest, 2.5 cm outside and more
FRAMES_TO_SORT_OUT = 4  # after so many frames, points that are surely far outside are no longer asked about
DECIDING = 0.015  # metres
QUANTILE = 0.1  # share of the frames that may see a point outside


@dataclass(frozen=True)
class Hull:
    """What the masks say about M canonical points."""

    distance: np.ndarray  # (M,) float32 metres to the hull's surface, positive inside, within +-LIMIT
    deciding: np.ndarray  # (M,) float32 number of frames that put the point within DECIDING of their surface


def carve(views: Sequence[MaskView], body: Body, volume: WeightVolume, points: np.ndarray) -> Hull:
    """Ask the masks about canonical points (M, 3). views: grouped by frame.

    A camera that does not see a point has no say; a point that none saw in any frame counts as inside.
    """
    points = torch.from_numpy(points)
    weights = volume.query(points)
    histogram = torch.zeros(len(points), NUM_BINS)
    frames = [list(group) for _, group in groupby(views, key=lambda view: view.frame)]
    enough = QUANTILE * len(frames)
    open_nodes = torch.arange(len(points))  # whose quantile is not yet known to be far outside
    for number, frame in enumerate(tqdm(frames, desc="carving", unit="frame", disable=None)):
        if number % FRAMES_TO_SORT_OUT == FRAMES_TO_SORT_OUT - 1:
            open_nodes = open_nodes[histogram[open_nodes, :FAR_BINS].sum(1) <= enough]
        posed, _ = pose_points(
            points[open_nodes], weights[open_nodes], canonical_to_world(frame[0].pose, body)
        )
        hull = torch.full((len(posed),), torch.inf)
        for view in frame:
            hull = torch.fmin(hull, view.metres(contour_distance(view.mask), posed))  # ignores NaN
        _count_frame(histogram, open_nodes, hull)
    reach = round(NUM_BINS * DECIDING / (2 * LIMIT))
    near_zero = histogram[:, NUM_BINS // 2 - reach : NUM_BINS // 2 + reach]
    return Hull(read_quantile(histogram, QUANTILE, LIMIT).numpy(), near_zero.sum(1).numpy())


def _count_frame(histogram: Tensor, nodes: Tensor, hull: Tensor) -> None:
    """Add one frame's distances at `nodes` to the histogram (M, B); infinite ones are no observation."""
    seen = hull.isfinite().nonzero()[:, 0]
    count = histogram.shape[1]
    bins = ((hull[seen] + LIMIT) * (count / (2 * LIMIT))).long().clamp(0, count - 1)
    histogram.view(-1)[nodes[seen] * count + bins] += 1  # a point appears once in a frame: nothing is lost


def read_quantile(histogram: Tensor, level: float, limit: float) -> Tensor:
    """(M, B) counts of values in -limit..limit -> (M,) their quantile; limit where nothing was counted."""
    cumulated = histogram.cumsum(1)
    target = level * cumulated[:, -1:]
    last = histogram.shape[1] - 1
    index = (cumulated < target).sum(1, keepdim=True).clamp(max=last)
    content = histogram.gather(1, index)
    share = (target - cumulated.gather(1, index) + content) / content.clamp_min(1e-12)
    value = (2 * (index + share.clamp(0, 1)) / (last + 1) - 1) * limit
    return torch.where(cumulated[:, -1] > 0, value[:, 0], limit)
