"""Gaussian human avatars driven by position-interpolated, spatially distributed MLPs (CVPR 2025)."""

import os

# Before PyTorch is loaded, which reads it then: its threads sleep while they wait for each other instead of spinning.
# Where others use the cores too, threads that spin for one that is not running cost a run most of its speed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
