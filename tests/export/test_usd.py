"""Splats as USD, read back by usd-core, which is not needed for anything else."""

import sys

import numpy as np
import pytest
import torch

from mmlphuman.export.splats import Splats, splats_of
from mmlphuman.export.usd import SUFFIXES, require_usd, write_usd
from tests.export.test_gaussian_ply import posed_avatar
from tests.export.test_splat_files import picture_psnr


@pytest.fixture(scope="module")
def posed(synthetic_body):
    return posed_avatar(synthetic_body, "place")


@pytest.fixture(scope="module")
def frames(posed) -> list[Splats]:
    splats = splats_of(posed)
    moved = Splats(
        splats.xyz + 0.25, splats.sh * 0.5, splats.opacities, splats.scales, splats.quats.roll(1, 0)
    )
    return [splats, moved]


def read_at(prim, time) -> Splats:
    """As the schema has it."""
    numbers = {name: prim.GetAttribute(name).Get(time) for name in ("positions", "opacities", "scales")}
    quats = [[q.GetReal(), *q.GetImaginary()] for q in prim.GetAttribute("orientations").Get(time)]
    sh = np.array(prim.GetAttribute("radiance:sphericalHarmonicsCoefficients").Get(time))
    count = len(quats)
    return Splats(
        torch.tensor(np.array(numbers["positions"])),
        torch.tensor(sh).reshape(count, -1, 3),
        torch.tensor(np.array(numbers["opacities"])),
        torch.tensor(np.array(numbers["scales"])),
        torch.tensor(quats),
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_usd_core_reads_every_frame(suffix, posed, frames, tmp_path):
    usd = pytest.importorskip("pxr.Usd", reason="no usd-core: pip install usd-core")
    from pxr import UsdGeom

    path = tmp_path / f"a{suffix}"
    write_usd(path, iter(frames), fps=25.0)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    stage = usd.Stage.Open(str(path))
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (0, 1, 25)
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    prim = stage.GetDefaultPrim()
    assert prim.GetTypeName() == "ParticleField3DGaussianSplat"
    assert prim.GetAttribute("radiance:sphericalHarmonicsDegree").Get() == 1
    assert not prim.GetAttribute("positions").Get(usd.TimeCode.Default())
    for time, truth in enumerate(frames):
        found = read_at(prim, time)
        for name in ("xyz", "sh", "opacities", "scales", "quats"):
            assert torch.allclose(getattr(found, name), getattr(truth, name), rtol=1e-6, atol=1e-9), name
        low, high = np.array(prim.GetAttribute("extent").Get(time))
        assert (truth.xyz.numpy() >= low).all() and (truth.xyz.numpy() <= high).all()
    assert picture_psnr(posed, read_at(prim, 0)) > 45


def test_one_frame_is_no_animation(frames, tmp_path):
    usd = pytest.importorskip("pxr.Usd", reason="no usd-core: pip install usd-core")
    write_usd(tmp_path / "a.usdc", iter(frames), animated=False)
    stage = usd.Stage.Open(str(tmp_path / "a.usdc"))
    assert not stage.HasAuthoredTimeCodeRange()
    assert torch.equal(read_at(stage.GetDefaultPrim(), usd.TimeCode.Default()).xyz, frames[0].xyz)


def test_a_frame_that_fails_leaves_no_file(frames, tmp_path):
    pytest.importorskip("pxr.Usd", reason="no usd-core: pip install usd-core")

    def broken():
        yield frames[0]
        raise ValueError("the pose is not finite")

    with pytest.raises(ValueError, match="not finite"):
        write_usd(tmp_path / "a.usdc", broken())
    assert not list(tmp_path.iterdir())


def test_without_usd_core_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(ValueError, match="pip install usd-core"):
        require_usd()
