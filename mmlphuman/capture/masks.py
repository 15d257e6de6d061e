"""Whether a mask can be one of a person: the same judgement before training and in check_capture.

Data path: mask file -> grey pixels -> MaskMeasures -> useless or not, and why.
Shape letters: H, W of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mmlphuman.capture.images import MASK_THRESHOLD, decode_image, decode_mask

if TYPE_CHECKING:
    from mmlphuman.types import Sample

EMPTY_SHARE = 5e-4  # of the picture; a person is never smaller
FULL_SHARE = 0.85  # of the picture; a person is never larger
INVERTED_BORDER = 0.6  # share of the picture's border that a mask covers only if black and white are swapped
REACH = 2.0  # metres about a pose's translation within which all of the person lies
LOOKED_AT = 3  # masks of a camera whose first one shows nobody: the person may not have come yet


@dataclass(frozen=True)
class MaskMeasures:
    share: float  # of the picture that the mask covers
    border_share: float  # of the picture's border

    @classmethod
    def of(cls, mask: np.ndarray) -> MaskMeasures:
        """mask: (H, W) bool."""
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        return cls(float(mask.mean()), float(border.mean()))

    @property
    def is_empty(self) -> bool:
        return self.share < EMPTY_SHARE

    @property
    def is_full(self) -> bool:
        return self.share > FULL_SHARE or self.border_share > INVERTED_BORDER


def check_masks(files: Sequence[tuple[Path, Path]]) -> None:
    """Looks at the first of one camera's masks, and at a few others if that shows nobody. files: of masks and images,
    which may be the same.

    Raises ValueError, one line that names a file, if they are useless.
    """
    chosen = dict.fromkeys(np.linspace(0, len(files) - 1, LOOKED_AT).round().astype(int).tolist())
    for path, image_path in [files[index] for index in chosen]:
        measures = MaskMeasures.of(decode_mask(path, image_path) > MASK_THRESHOLD)
        if measures.is_full:
            raise ValueError(
                f"mask {path} covers the picture or its border ({100 * measures.share:.0f} % of its pixels are above "
                f"{MASK_THRESHOLD}); are black and white swapped, or was nothing cut out? Make the masks anew"
            )
        if not measures.is_empty:
            return
    raise ValueError(
        f"mask {files[0][0]} shows nobody: {why_empty(*files[0])}; mend this camera's masks, or leave it out of "
        "train_cam_ids"
    )


def check_direction(sample: Sample) -> None:
    """Raises ValueError, one line, for a view whose mask lies nowhere near where calibration and poses put the person.

    Catches cameras that look away, and lengths in other units; script/check_capture.py measures the rest.
    """
    translation = sample.pose.translation.double().numpy()
    for camera, mask, w2c, K in zip(
        sample.camera_ids,
        sample.masks.numpy(),
        sample.cameras.w2c.double().numpy(),
        sample.cameras.intrinsics.double().numpy(),
        strict=True,
    ):
        rows, columns = mask.nonzero()
        center = w2c[:3, :3] @ translation + w2c[:3, 3]
        distance = float(np.linalg.norm(center))
        if distance <= REACH or len(rows) == 0:
            continue
        rays = np.linalg.inv(K) @ np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
        cosines = (center / distance) @ (rays / np.linalg.norm(rays, axis=0))
        away = math.acos(min(1.0, cosines.max()))
        if away > math.asin(REACH / distance):
            raise ValueError(
                f"camera {camera}: in frame {sample.frame} the mask lies {math.degrees(away):.0f} degrees from where "
                f"calibration and poses put the person, {distance:.3g} m away; do they belong together, in metres, R "
                "and T from world to camera? script/check_capture.py looks closer"
            )


def why_empty(path: Path, image_path: Path) -> str:
    """What its file holds in the place of values above the threshold."""
    if path == image_path:
        return "its alpha channel is empty"
    pixels = decode_image(path, cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint8:
        return f"its values have {8 * pixels.itemsize} bits and end at {pixels.max()}; write them in 8 bits"
    if pixels.ndim == 3 and pixels.shape[2] == 4 and np.ptp(pixels[..., 3]):
        return "it has the person in its alpha channel only, which is not looked at; write that as a grey picture"
    if pixels.max() <= MASK_THRESHOLD:
        return f"no value is above {pixels.max()}, and the person must be above {MASK_THRESHOLD}"
    return f"hardly a pixel is above {MASK_THRESHOLD}, as the person must be"
