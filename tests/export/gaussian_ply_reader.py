"""The way back: a 3D Gaussian splatting PLY as Gaussians that `rasterize` draws, read apart from what writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyParseError
from torch import Tensor

from mmlphuman.avatar.offset_bases import covariance_factors
from mmlphuman.types import PosedGaussians, upper_triangles

GEOMETRY = ("x", "y", "z")
COLOR = ("f_dc_0", "f_dc_1", "f_dc_2")
SHAPE = ("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
DEGREES = {0: 0, 9: 1, 24: 2, 45: 3}  # f_rest numbers -> degree, of which we draw 0 and 1


def read_gaussian_ply(path: str | Path) -> PosedGaussians:
    """A 3D Gaussian splatting PLY as Gaussians in the file's world that `rasterize` draws.

    Degrees 2 and 3 must be zero. Raises FileNotFoundError if there is no such file and ValueError, naming file and
    property, if it is not one.
    """
    columns = _read_properties(Path(path))

    def stack(names: tuple[str, ...]) -> Tensor:
        return torch.from_numpy(np.stack([columns[name] for name in names], 1))

    xyz, count = stack(GEOMETRY), len(columns["x"])
    names = [name for name in columns if name.startswith("f_rest_")]
    rest = stack(tuple(names)).unflatten(1, (3, -1)) if names else torch.zeros(count, 3, 3)
    if rest[:, :, 3:].any():
        raise ValueError(f"{path}: has harmonics of degree 2 or more; degrees 0 and 1 can be drawn here")
    shape = stack(SHAPE)
    quats = torch.nn.functional.normalize(shape[:, 4:], dim=-1)  # viewers normalise too
    factors = covariance_factors(quats, shape[:, 1:4].exp())
    covariances = factors @ factors.transpose(1, 2)
    if not covariances.isfinite().all():
        raise ValueError(
            f"{path}: 'scale_0' to 'scale_2' are too large; they should be logarithms of lengths"
        )
    # Our direction is camera - position, theirs position - camera: degree 1 changes its sign.
    sh = torch.cat([stack(COLOR)[:, None], -rest[:, :, :3].transpose(1, 2)], 1)
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
    if rest not in DEGREES:
        raise ValueError(f"{path}: {rest} numbers f_rest_* are of no degree")
    wanted = GEOMETRY + COLOR + tuple(f"f_rest_{i}" for i in range(rest)) + SHAPE
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
