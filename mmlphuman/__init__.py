"""Gaussian human avatars driven by position-interpolated, spatially distributed MLPs (CVPR 2025)."""
