"""People, their landmarks and soft outlines in one camera's pictures, by MediaPipe's networks: script/detect_people.py.

Runs in an environment of its own (fitting/networks.py says why) of Python 3.10 to 3.12. Hence these modules import the
standard library, numpy below 2, cv2, mediapipe 0.10.21, protobuf, which it brings, and each other; nothing else of
mmlphuman.

Stages in order: files -> Region (regions.py) -> passes of the networks about it (graphs.py) -> Person (person.py) ->
hands (hands.py); the person from picture to picture (following.py) -> JSON and PNGs (files.py).

A single pass of these networks is off by more than the networks have to be: each picture is seen several times, turned,
scaled and mirrored about the person, and medians are taken. How far passes disagree lowers the confidence. The outline
is the mean of those of the landmarks' network; MediaPipe's selfie segmentation finds no whole bodies.
"""
