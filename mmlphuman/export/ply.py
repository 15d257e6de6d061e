"""Splats in the 3D Gaussian splatting PLY that common viewers read.

A vertex: x y z nx ny nz f_dc_0..2 f_rest_0..44 opacity scale_0..2 rot_0..3, float32, little endian. f_rest is
channel by channel (red's 15 coefficients of degrees 1 to 3, then green's, then blue's), opacity a logit, scales natural
logarithms, rot (w, x, y, z) of unit length. Degrees 2 and 3 are zero: some readers know files of degree 3 alone. A file
of degree 1, f_rest_0..8, says the same in 42% of the space, for readers that look at the header.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement

from mmlphuman.export.splats import Splats
from mmlphuman.files import atomic_write

DEGREES = (1, 3)  # of the harmonics in the file
GEOMETRY = ("x", "y", "z")
NORMALS = ("nx", "ny", "nz")  # always zero; some viewers expect them
COLOR = tuple(f"f_dc_{i}" for i in range(3))
SHAPE = ("opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4)))


def rest_properties(degree: int) -> tuple[str, ...]:
    """Of the view-dependent colour: all channels' harmonics from degree 1 on."""
    return tuple(f"f_rest_{i}" for i in range(3 * _numbers_above_0(degree)))


def properties(degree: int) -> tuple[str, ...]:
    """Of a vertex, in their order."""
    return GEOMETRY + NORMALS + COLOR + rest_properties(degree) + SHAPE


def write_gaussian_ply(path: str | Path, splats: Splats, degree: int = 3) -> None:
    """Writes the file, whole or not at all; degree: of DEGREES."""
    rest = torch.nn.functional.pad(splats.sh[:, 1:].transpose(1, 2), (0, _numbers_above_0(degree) - 3))
    columns = torch.cat(
        [
            splats.xyz,
            torch.zeros_like(splats.xyz),
            splats.sh[:, 0],
            rest.flatten(1),  # channel-major
            splats.opacities.logit()[:, None],
            splats.scales.log(),
            splats.quats,
        ],
        1,
    )
    table = np.ascontiguousarray(columns.numpy(), "<f4").view([(name, "<f4") for name in properties(degree)])[
        :, 0
    ]
    with atomic_write(path) as file:
        PlyData([PlyElement.describe(table, "vertex")], byte_order="<").write(file)


def _numbers_above_0(degree: int) -> int:
    """Harmonics of degrees 1 to `degree`."""
    return (degree + 1) ** 2 - 1
