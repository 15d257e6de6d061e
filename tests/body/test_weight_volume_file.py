"""Which volume a run uses: the capture's own, one made before, or a new one."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from mmlphuman.body import weight_volume
from mmlphuman.body.smplx_model import Body, load_body
from mmlphuman.body.weight_volume import WeightVolume, find_or_make_weight_volume
from mmlphuman.pose_layout import NUM_JOINTS

RESOLUTION = 8


@pytest.fixture(scope="module")
def body(synthetic_body) -> Body:
    return load_body(synthetic_body, torch.zeros(10))


@pytest.fixture(scope="module")
def first_made(body, tmp_path_factory):
    """Path of a volume made of the body, and what was said."""
    path, said = tmp_path_factory.mktemp("made") / "gaussian" / "lbs_weights_grid.npz", []
    find_or_make_weight_volume(path, body, RESOLUTION, said.append)
    return path, said


@pytest.fixture
def made(first_made, tmp_path):
    """A copy of it that the test may change."""
    return Path(shutil.copy(first_made[0], tmp_path))


@pytest.fixture
def no_building(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("built again")

    monkeypatch.setattr(weight_volume, "build_weight_volume", refuse)


def test_a_missing_file_is_made_and_said(first_made):
    path, said = first_made
    assert path.is_file()
    assert said[0] == f"making the skinning weight volume {path} ({RESOLUTION} nodes a side)"
    assert said[1].startswith("raw weights sum to 1.000")


def test_the_file_is_used_again_in_silence(made, body, no_building):
    path = made
    before, said = path.read_bytes(), []
    nearly = replace(body, canonical_vertices=body.canonical_vertices + 1e-6)  # another machine's last digits
    for same in (body, nearly):
        volume = find_or_make_weight_volume(path, same, RESOLUTION, said.append)
        assert torch.equal(volume.grid, WeightVolume.load(path).grid)
    assert said == [] and path.read_bytes() == before


def other_shape(body):
    return replace(body, canonical_vertices=body.canonical_vertices * 1.01), RESOLUTION


def other_weights(body):
    return replace(body, lbs_weights=body.lbs_weights.roll(1, 1)), RESOLUTION


def other_faces(body):
    return replace(body, faces=body.faces[:-1]), RESOLUTION


def other_resolution(body):
    return body, RESOLUTION + 2


@pytest.mark.parametrize("change", [other_shape, other_weights, other_faces, other_resolution])
def test_changed_inputs_remake_the_file(made, body, change):
    path = made
    before, said = path.read_bytes(), []
    changed, resolution = change(body)
    volume = find_or_make_weight_volume(path, changed, resolution, said.append)
    assert said[0].startswith(f"remaking the skinning weight volume {path}")
    assert path.read_bytes() != before
    assert torch.equal(volume.grid, WeightVolume.load(path).grid) and volume.grid.shape[0] == resolution


def test_another_solver_remakes_the_file(made, body, monkeypatch):
    path = made
    said = []
    monkeypatch.setattr(weight_volume, "SOLVER_VERSION", weight_volume.SOLVER_VERSION + 1)
    find_or_make_weight_volume(path, body, RESOLUTION, said.append)
    assert said[0].startswith("remaking")


def foreign(body: Body, nodes=(24, 25, 26)) -> dict[str, np.ndarray]:
    """Arrays of a volume by the simplest method: each node has the weights of the vertex nearest to it."""
    low, high = body.canonical_vertices.amin(0) - 0.05, body.canonical_vertices.amax(0) + 0.05
    axes = [torch.linspace(float(low[i]), float(high[i]), nodes[i]) for i in range(3)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    nearest = KDTree(body.canonical_vertices.numpy()).query(points.numpy())[1]
    grid = body.lbs_weights[torch.from_numpy(nearest)].reshape(*nodes, NUM_JOINTS)
    return {"grid": grid.numpy(), "bbox_min": low.numpy(), "bbox_max": high.numpy()}


FOREIGN_FAULTS = {
    "centimetres": (lambda v: v | {key: v[key] * 100 for key in ("bbox_min", "bbox_max")}, "times as large"),
    "elsewhere": (lambda v: v | {key: v[key] + 5 for key in ("bbox_min", "bbox_max")}, "holds 0 % of the body"),
    "another body's joints": (lambda v: v | {"grid": v["grid"][..., ::-1]}, "differs from the body's own weights"),
    "uniform": (lambda v: v | {"grid": np.full_like(v["grid"], 1 / 55)}, "differs from the body's own weights"),
    "negative": (lambda v: v | {"grid": v["grid"] - 1e6}, "negative weights, down to -1e[+]06"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FOREIGN_FAULTS)
def test_a_file_of_another_program_that_cannot_be_this_bodys_is_one_line(body, tmp_path, no_building, fault):
    change, message = FOREIGN_FAULTS[fault]
    path = tmp_path / "published.npz"
    np.savez(path, **change(foreign(body)))
    with pytest.raises(
        ValueError, match=f"published.npz: not a weight .*: .*{message}.*; remove it"
    ) as error:
        find_or_make_weight_volume(path, body, RESOLUTION, lambda text: None)
    assert "\n" not in str(error.value)


def test_a_file_of_another_program_is_used_as_it_is(body, tmp_path, no_building):
    path, said = tmp_path / "published.npz", []
    np.savez(path, **foreign(body))
    before = path.read_bytes()
    volume = find_or_make_weight_volume(path, body, RESOLUTION, said.append)
    assert volume.grid.shape == (24, 25, 26, NUM_JOINTS) and path.read_bytes() == before
    assert "not made by this program" in said[0]


def test_a_damaged_file_is_one_line_and_stays(made, body):
    path = made
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="lbs_weights_grid.npz: not a readable npz file"):
        find_or_make_weight_volume(path, body, RESOLUTION)
    assert path.stat().st_size == 1000


def test_weights_that_do_not_sum_to_one_are_refused(body, tmp_path):
    path = tmp_path / "volume.npz"
    with pytest.raises(ValueError, match="'weights' must sum to 1 at every vertex"):
        find_or_make_weight_volume(path, replace(body, lbs_weights=body.lbs_weights * 0.9), RESOLUTION)
    assert not path.exists()


def test_a_capture_that_cannot_be_written_to_is_trained_on_all_the_same(body, tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(WeightVolume, "save", read_only)
    said = []
    volume = find_or_make_weight_volume(tmp_path / "volume.npz", body, RESOLUTION, said.append)
    assert volume.grid.shape[0] == RESOLUTION
    assert "cannot be kept there (Read-only file system)" in said[-1]
