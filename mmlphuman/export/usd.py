"""Splats as USD: one ParticleField3DGaussianSplat, whose numbers are time samples where there are several frames.

Data path: Splats, frame by frame -> .usd, .usda, .usdc or .usdz. Needs usd-core 26 or later, which has the schema.
The stage is in metres, y up, as the avatar's world. Coefficients of degrees 0 and 1, a splat's together, are as
in the 3D Gaussian PLY.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmlphuman.export.splats import Splats

SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")
SCHEMA = "ParticleField3DGaussianSplat"


def require_usd() -> None:
    """ValueError, one line, that says what to install."""
    try:
        from pxr import Usd
    except ImportError as error:
        raise ValueError("USD files need usd-core: pip install usd-core") from error
    if not Usd.SchemaRegistry().FindConcretePrimDefinition(SCHEMA):
        raise ValueError(f"this usd-core does not know {SCHEMA}: pip install --upgrade usd-core")


def write_usd(path: str | Path, frames: Iterable[Splats], fps: float = 30.0, animated: bool = True) -> None:
    """Whole or not at all. frames: made one at a time; as many splats in each. animated: else the first is all."""
    require_usd()
    from pxr import Sdf, Usd, UsdGeom, UsdUtils

    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        layer = Path(folder) / ("avatar.usdc" if path.suffix == ".usdz" else f"avatar{path.suffix}")
        stage = Usd.Stage.CreateNew(str(layer))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        prim = stage.DefinePrim("/avatar", SCHEMA)
        stage.SetDefaultPrim(prim)
        prim.CreateAttribute("radiance:sphericalHarmonicsDegree", Sdf.ValueTypeNames.Int).Set(1)
        last = 0
        for last, splats in enumerate(frames):
            time = Usd.TimeCode(last) if animated else Usd.TimeCode.Default()
            for name, value in _values(splats).items():
                prim.GetAttribute(name).Set(value, time)
            if not animated:
                break
        if animated:
            stage.SetTimeCodesPerSecond(fps)
            stage.SetFramesPerSecond(fps)
            stage.SetStartTimeCode(0)
            stage.SetEndTimeCode(last)
        stage.GetRootLayer().Save()
        made = layer
        if path.suffix == ".usdz":
            made = Path(folder) / "avatar.usdz"
            if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(made)):
                raise OSError(f"{path}: usd-core could not write the package")
        made.replace(path)


def _values(splats: Splats) -> dict[str, Any]:
    """Attribute -> what USD holds of a frame."""
    from pxr import Vt

    reach = 3 * splats.scales.amax(1, keepdim=True)
    low, high = (splats.xyz - reach).amin(0), (splats.xyz + reach).amax(0)
    return {
        "positions": Vt.Vec3fArray.FromNumpy(splats.xyz.contiguous().numpy()),
        # Numpy's quaternions are USD's in memory: the imaginary numbers first.
        "orientations": Vt.QuatfArray.FromNumpy(
            np.ascontiguousarray(np.roll(splats.quats.numpy(), -1, axis=1))
        ),
        "scales": Vt.Vec3fArray.FromNumpy(splats.scales.contiguous().numpy()),
        "opacities": Vt.FloatArray.FromNumpy(splats.opacities.contiguous().numpy()),
        "radiance:sphericalHarmonicsCoefficients": Vt.Vec3fArray.FromNumpy(
            np.ascontiguousarray(splats.sh.numpy().reshape(-1, 3))
        ),
        "extent": Vt.Vec3fArray.FromNumpy(np.stack([low.numpy(), high.numpy()])),
    }
