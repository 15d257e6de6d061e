"""Which frames of a capture to look at when looking at all would take too long.

Data path: poses of a sequence -> the frames whose body poses lie farthest apart -> carving, pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmlphuman.capture.poses import SmplParams
from mmlphuman.pose_layout import BODY_POSE


def well_spread_frames(poses: SmplParams, frames: Sequence[int], count: int) -> list[int]:
    """At most `count` of `frames`, sorted: the one nearest the mean body pose, then always the farthest.

    Distance is that of the 63 body-joint numbers. Deterministic. ValueError for no frames or count < 1.
    """
    frames = np.asarray(sorted(frames))
    if count < 1 or len(frames) == 0:
        raise ValueError(f"choosing {count} of {len(frames)} frames: at least one of each is needed")
    body = poses.poses[frames][:, BODY_POSE].astype(np.float64)
    chosen = [int(np.linalg.norm(body - body.mean(0), axis=1).argmin())]
    distance = np.linalg.norm(body - body[chosen[0]], axis=1)
    while len(chosen) < min(count, len(frames)):
        distance[chosen] = -1  # equal poses are taken too, each once
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(body - body[chosen[-1]], axis=1))
    return sorted(frames[chosen].tolist())
