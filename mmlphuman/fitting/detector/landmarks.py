"""What MediaPipe's 35 points of a body are: 33 landmarks, and two about which the region lies."""

from __future__ import annotations

# COCO's 17 and the feet (big toe, small toe, heel; MediaPipe has no small toe) among the 33.
BODY = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
FEET = (31, None, 29, 32, None, 30)
HANDS = {"left": (13, 15, 17, 19), "right": (14, 16, 18, 20)}  # elbow, wrist, little finger, index
LANDMARKS = slice(33)
BELOW_FACE = slice(11, 33)
HIPS, REACH = 33, 34  # between the hips, and at the end of the body's circle, above the head
# Each point's of the other side.
MIRRORED = (0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(i for k in range(11, 33, 2) for i in (k + 1, k)), HIPS, REACH)
