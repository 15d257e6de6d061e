"""Which of the selected training frames are worth training on: cuts, and no pose twice in a row.

Data path: select_frames + SmplParams -> filter_frames -> CaptureDataset.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from mmlphuman.capture.poses import SmplParams
from mmlphuman.pose_layout import BODY_POSE

log = logging.getLogger(__name__)


def filter_frames(
    frames: Sequence[int],
    poses: SmplParams,
    min_pose_change: float = 0.0,  # radians; 0: off
    skip_frames: Sequence[Sequence[int]] = (),  # (first, last), ends included
) -> tuple[int, ...]:
    """`frames` without those of `skip_frames`, and then without those that repeat the last kept frame's pose:
    whose 63 body numbers differ from it by at most `min_pose_change` in the mean of absolute values.

    The first frame is always kept. Raises ValueError for frames without a pose, and if none is left.
    """
    poses.check_frames(frames)
    kept = [frame for frame in frames if not any(first <= frame <= last for first, last in skip_frames)]
    if not kept:
        raise ValueError(
            f"skip_frames {[list(cut) for cut in skip_frames]} leaves none of the training frames"
        )
    if min_pose_change > 0:
        kept = _without_repeats(kept, poses.poses[:, BODY_POSE].astype(np.float64), min_pose_change)
    if len(kept) < len(frames):
        left_out = len(frames) - len(kept)
        log.info(
            "%d of %d training frames left out by skip_frames and min_pose_change", left_out, len(frames)
        )
    return tuple(kept)


def _without_repeats(frames: Sequence[int], body: np.ndarray, min_pose_change: float) -> list[int]:
    """body: (F, 63). Compared with the last kept frame, not the last frame: slow motion still advances."""
    kept = [frames[0]]
    for frame in frames[1:]:
        if np.abs(body[frame] - body[kept[-1]]).mean() > min_pose_change:
            kept.append(frame)
    return kept
