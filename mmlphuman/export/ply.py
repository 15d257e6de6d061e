"""Posed Gaussians in the 3D Gaussian splatting PLY that common viewers read, and back.

Data path: PosedGaussians -> position, colour in world space, logit opacity, log-scales, quaternion -> PLY file;
and from such a file to PosedGaussians that render.rasterize draws.

A vertex: x y z nx ny nz f_dc_0..2 f_rest_0..8 opacity scale_0..2 rot_0..3, float32, little endian. f_rest is
channel by channel (red's three degree-1 coefficients, then green's, then blue's), opacity a logit, scales natural
logarithms, rot (w, x, y, z) of unit length.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from mmlphuman.avatar.offset_bases import covariance_factors
from mmlphuman.export.world_sh import world_sh
from mmlphuman.files import atomic_write
from mmlphuman.types import PosedGaussians, symmetric_matrices, upper_triangles

MIN_SCALE = (
    1e-6  # metres; thinner Gaussians, and covariances that rounding made indefinite, are written as this
)
MIN_OPACITY = 1e-6  # opacities stay this far from 0 and 1, where the logit is infinite
SH1 = 9  # numbers of degree 1, all channels
HIGHER_DEGREES = {24: 2, 45: 3}  # f_rest numbers -> degree, which we cannot draw

GEOMETRY = ("x", "y", "z")
NORMALS = ("nx", "ny", "nz")  # always zero; some viewers expect them
COLOR = tuple(f"f_dc_{i}" for i in range(3))
REST = tuple(f"f_rest_{i}" for i in range(SH1))
SHAPE = ("opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4)))
PROPERTIES = GEOMETRY + NORMALS + COLOR + REST + SHAPE


def write_gaussian_ply(path: str | Path, gaussians: PosedGaussians) -> None:
    """Writes the file, whole or not at all. Raises ValueError if the Gaussians are not finite."""
    bad = ~torch.cat([field.flatten(1) for field in _numbers(gaussians)], 1).isfinite().all(1)
    if bad.any():
        raise ValueError(f"{path}: {int(bad.sum())} of {len(bad)} Gaussians are not finite; is the pose?")
    gaussians = gaussians.to("cpu")  # where it is written from; its batched eigenvalues are safe at any count
    scales, quats = scales_and_quaternions(symmetric_matrices(gaussians.covariances))
    sh = world_sh(gaussians)
    opacities = gaussians.opacities.clamp(MIN_OPACITY, 1 - MIN_OPACITY).logit()
    columns = torch.cat(
        [
            gaussians.xyz,
            torch.zeros_like(gaussians.xyz),
            sh[:, 0],
            sh[:, 1:].transpose(1, 2).flatten(1),  # channel-major
            opacities[:, None],
            scales.log(),
            quats,
        ],
        1,
    )
    table = np.ascontiguousarray(columns.numpy(), "<f4").view([(name, "<f4") for name in PROPERTIES])[:, 0]
    with atomic_write(path) as file:
        PlyData([PlyElement.describe(table, "vertex")], byte_order="<").write(file)


def _numbers(gaussians: PosedGaussians) -> list[Tensor]:
    g = gaussians
    return [g.xyz, g.covariances, g.opacities[:, None], g.sh, g.linear]


def scales_and_quaternions(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3, 3) -> standard deviations (N, 3) along the axes, at least MIN_SCALE, and unit quaternions (N, 4)."""
    values, axes = torch.linalg.eigh(covariances.double())
    axes[:, :, 0] *= axes.det().sign()[:, None]  # a rotation, not a reflection
    return values.clamp_min(MIN_SCALE**2).sqrt().to(covariances), rotation_quaternions(axes).to(covariances)


def rotation_quaternions(rotations: Tensor) -> Tensor:
    """(N, 3, 3) rotations -> (N, 4) unit quaternions, w first.

    Each of the four columns of 4 q q^T is a multiple of q; the one with the largest diagonal is far from zero.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotations.unbind(-2))
    outer = torch.stack(
        [
            1 + a + e + i, h - f, c - g, d - b,
            h - f, 1 + a - e - i, b + d, c + g,
            c - g, b + d, 1 - a + e - i, f + h,
            d - b, c + g, f + h, 1 - a - e + i,
        ],
        -1,
    ).unflatten(-1, (4, 4))  # fmt: skip
    best = outer.diagonal(dim1=1, dim2=2).argmax(1)
    return torch.nn.functional.normalize(outer[torch.arange(len(outer)), best], dim=-1)


def read_gaussian_ply(path: str | Path) -> PosedGaussians:
    """A 3D Gaussian splatting PLY of degree 0 or 1 as Gaussians in the world that `rasterize` draws.

    Raises FileNotFoundError if there is no such file and ValueError, naming file and property, if it is not one.
    """
    columns = _read_properties(Path(path))

    def stack(names: tuple[str, ...]) -> Tensor:
        return torch.from_numpy(np.stack([columns[name] for name in names], 1))

    xyz, count = stack(GEOMETRY), len(columns["x"])
    rest = stack(REST) if REST[0] in columns else torch.zeros(count, SH1)
    shape = stack(SHAPE)
    quats = torch.nn.functional.normalize(shape[:, 4:], dim=-1)  # viewers normalise too
    factors = covariance_factors(quats, shape[:, 1:4].exp())
    covariances = factors @ factors.transpose(1, 2)
    if not covariances.isfinite().all():
        raise ValueError(
            f"{path}: 'scale_0' to 'scale_2' are too large; they should be logarithms of lengths"
        )
    # Our direction is camera - position, theirs position - camera: degree 1 changes its sign.
    sh = torch.cat([stack(COLOR)[:, None], -rest.unflatten(1, (3, 3)).transpose(1, 2)], 1)
    return PosedGaussians(
        xyz=xyz,
        covariances=upper_triangles(covariances),
        opacities=shape[:, 0].sigmoid(),
        sh=sh,
        linear=torch.eye(3).repeat(count, 1, 1),
    )


def _read_properties(path: Path) -> dict[str, np.ndarray]:
    """Checked float32 columns: all that a viewer needs, f_rest_* only if there are any."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        vertices = PlyData.read(path)["vertex"]
    except (PlyParseError, KeyError, ValueError, EOFError, UnicodeDecodeError, MemoryError) as error:
        raise ValueError(
            f"{path}: not a readable PLY file with vertices (damaged or another format)"
        ) from error
    present = {field.name for field in vertices.properties}
    rest = sum(name.startswith("f_rest_") for name in present)
    if rest in HIGHER_DEGREES:
        raise ValueError(
            f"{path}: spherical harmonics of degree {HIGHER_DEGREES[rest]}; degrees 0 and 1 can be drawn here"
        )
    wanted = GEOMETRY + COLOR + (REST if rest else ()) + SHAPE
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ValueError(
            f"{path}: property '{missing[0]}' is missing; is it a 3D Gaussian splatting PLY, uncompressed?"
        )
    columns = {}
    for name in wanted:
        columns[name] = np.array(vertices[name])
        if columns[name].dtype.kind not in "fiu":
            raise ValueError(f"{path}: property '{name}' is a list, not one number a Gaussian")
        columns[name] = columns[name].astype(np.float32)
        if not np.isfinite(columns[name]).all():
            index = int(np.flatnonzero(~np.isfinite(columns[name]))[0])
            raise ValueError(
                f"{path}: '{name}' of Gaussian {index} is {columns[name][index]}, not a finite number"
            )
    if not np.any([columns[f"rot_{i}"] for i in range(4)], axis=0).all():
        raise ValueError(f"{path}: 'rot_0' to 'rot_3' of a Gaussian are all zero, which is no rotation")
    return columns
