"""What the stages of fitting hand to each other.

Data path: footage -> Landmarks, masks -> (cameras checked, times found) Rig -> Points -> BodyFit -> a capture.

Shape letters: V cameras, in the calibration's order; F frames, as the capture will number them; K landmarks.
Conventions are those of mmlphuman.types: metres, world to camera, x right, y down, z forward. Places in pictures are in
pixels of the picture as it lies in the capture: pixel (row i, column j) covers [j, j + 1) x [i, i + 1), and the lens is
not undone. What was not seen has confidence 0 and any finite place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmlphuman.capture.layout import CalibratedCamera

# COCO-WholeBody without its 68 points of the face. Left and right are the person's own.
BODY_LANDMARKS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    *("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel"),
)
FINGERS = ("thumb", "index", "middle", "ring", "little")
# The wrist, then of each finger the points from the palm to the tip.
HAND_LANDMARKS = ("wrist", *(f"{finger}_{place}" for finger in FINGERS for place in (1, 2, 3, 4)))
LANDMARKS = (
    *BODY_LANDMARKS,
    *(f"left_hand_{name}" for name in HAND_LANDMARKS),
    *(f"right_hand_{name}" for name in HAND_LANDMARKS),
)
LEFT_HAND = slice(len(BODY_LANDMARKS), len(BODY_LANDMARKS) + len(HAND_LANDMARKS))
RIGHT_HAND = slice(LEFT_HAND.stop, LEFT_HAND.stop + len(HAND_LANDMARKS))


@dataclass(frozen=True)
class Landmarks:
    """Where the landmarks of one person are in the pictures."""

    places: np.ndarray  # (V, F, K, 2) float32 pixels, K = len(LANDMARKS)
    confidence: np.ndarray  # (V, F, K) float32, 0 (not seen) to 1

    def __post_init__(self):
        views, frames, count = self.confidence.shape
        if self.places.shape != (views, frames, count, 2) or count != len(LANDMARKS):
            raise ValueError(
                f"Landmarks need places (V, F, {len(LANDMARKS)}, 2) and confidence (V, F, {len(LANDMARKS)}), got "
                f"{self.places.shape} and {self.confidence.shape}"
            )
        if not np.isfinite(self.places).all() or not np.isfinite(self.confidence).all():
            raise ValueError(
                "Landmarks hold numbers that are not finite; give what was not seen confidence 0"
            )


@dataclass(frozen=True)
class Rig:
    """The cameras as they stood, and when each took its pictures."""

    cameras: tuple[CalibratedCamera, ...]  # V, with image_size
    time_offsets: np.ndarray  # (V,) frames: picture f of camera v was taken at time f + time_offsets[v]


@dataclass(frozen=True)
class Points:
    """The landmarks in space, at the capture's own times: time f is frame f."""

    places: np.ndarray  # (F, K, 3) float32 metres
    confidence: np.ndarray  # (F, K) float32, 0 where no two cameras agree
    errors: (
        np.ndarray
    )  # (V, F, K) float32 pixels between the point and what the camera saw; NaN where it saw nothing


@dataclass(frozen=True)
class BodyFit:
    """One person's shape, a pose for each frame, and the body file whose surface they move."""

    betas: np.ndarray  # (10,) float32
    poses: np.ndarray  # (F, 165) float32 axis-angle, SMPL-X order
    translations: np.ndarray  # (F, 3) float32 metres
    normal_offsets: np.ndarray  # (B,) float32 metres by which the body file's surface moves along its normals
    overlap: np.ndarray  # (V, F) float32 intersection over union of body and mask; NaN where there is no mask
