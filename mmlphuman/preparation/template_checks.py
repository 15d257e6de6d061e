"""Judges a template: one line for each thing that makes it doubtful.

Data path: Template (+ how well its outline fits the pictures) -> lines -> the command's output and exit status.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmlphuman.preparation.template import Template

FEW_VIEWS = 40  # (frame, camera) pairs; fewer leave places that no camera looks along
VOLUME_RANGE = (0.95, 2.5)  # times the body's; from tight sportswear to a long coat
DROPPED = 0.02  # share of the volume in parts beside the largest
UNSEEN = 0.25  # share of the surface
AT_LIMIT = 0.002  # share of the surface
INSIDE = 0.05  # share of the surface
MOST_HANDLES = 12  # of the surface; arms akimbo in every frame make two, crossed fingers some
WORST_OVERLAP = 0.85  # intersection over union of the posed template and the mask, mean over the pictures


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
