"""From a person's own cameras to a capture: videos and a calibration -> pictures, masks, cameras, body and poses.

Stages in order: footage -> networks (landmarks, outlines) -> masks -> cameras and times -> points -> body -> writing.
What they hand to each other is in observations.py. detector/ runs the networks, in an environment of its own.
"""
