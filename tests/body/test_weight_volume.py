"""The weight volume: reading it, building it, its file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlphuman.body.smplx_model import Body
from mmlphuman.body.weight_volume import WeightVolume, build_weight_volume
from mmlphuman.pose_layout import NUM_JOINTS

MOVING_JOINTS = 5  # of the 55; the others have no weight


@pytest.fixture(scope="module")
def spindle() -> Body:
    """A closed surface 1.6 m tall whose weights pass smoothly from joint to joint along its height."""
    rings, sectors = 60, 48
    polar, azimuth = torch.meshgrid(
        torch.linspace(0.02, torch.pi - 0.02, rings),
        torch.arange(sectors) * 2 * torch.pi / sectors,
        indexing="ij",
    )
    directions = torch.stack([polar.sin() * azimuth.cos(), polar.cos(), polar.sin() * azimuth.sin()], -1)
    vertices = directions.flatten(0, 1) * torch.tensor([0.25, 0.8, 0.15]) + torch.tensor([0.1, -0.3, 0.05])
    corner = torch.arange((rings - 1) * sectors).unflatten(0, (rings - 1, sectors))
    right, below = corner.roll(-1, 1), corner + sectors
    faces = torch.cat(
        [torch.stack([corner, right, below], -1), torch.stack([right, right + sectors, below], -1)]
    )
    centres = torch.linspace(-1.1, 0.5, MOVING_JOINTS)
    weights = torch.zeros(len(vertices), NUM_JOINTS)
    weights[:, :MOVING_JOINTS] = (-(((vertices[:, 1:2] - centres) / 0.25) ** 2)).softmax(1)
    return Body(
        vertices, vertices, faces.flatten(0, 1), torch.zeros(NUM_JOINTS, 3), tuple(range(-1, 54)), weights
    )


@pytest.fixture(scope="module")
def volume(spindle) -> WeightVolume:
    return build_weight_volume(spindle, resolution=40)


def linear_volume(dims=(4, 5, 6)) -> WeightVolume:
    """Two joints whose weights are linear in position, over a box that is no cube."""
    low, high = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 3.0, 2.5])
    axes = [torch.linspace(low[i], high[i], dims[i]) for i in range(3)]
    first = linear_weight(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1))
    return WeightVolume(torch.stack([first, 1 - first], -1), low, high)


def linear_weight(points: torch.Tensor) -> torch.Tensor:
    return 0.2 + 0.1 * (points[..., 0] + 1) + 0.05 * points[..., 1] + 0.3 * (points[..., 2] - 2)


def test_query_is_exact_on_a_linear_field_up_to_both_ends_of_the_box():
    volume = linear_volume()
    inside = volume.bbox_min + torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * (
        volume.bbox_max - volume.bbox_min
    )
    points = torch.cat([inside, volume.bbox_min[None], volume.bbox_max[None]])
    torch.testing.assert_close(volume.query(points)[:, 0], linear_weight(points))


def test_points_outside_take_the_border_values():
    volume = linear_volume()
    outside = torch.tensor([[-9.0, 1.0, 2.2], [0.5, 7.0, 2.1], [5.0, -5.0, 9.0]])
    on_border = outside.clamp(volume.bbox_min, volume.bbox_max)
    torch.testing.assert_close(volume.query(outside), volume.query(on_border))


def test_query_normalises_rows_and_refuses_empty_space():
    volume = linear_volume()
    scaled = WeightVolume(volume.grid * 0.7, volume.bbox_min, volume.bbox_max)
    points = torch.tensor([[0.3, 1.2, 2.3]])
    torch.testing.assert_close(scaled.query(points), volume.query(points))
    empty = WeightVolume(volume.grid * 0, volume.bbox_min, volume.bbox_max)
    with pytest.raises(ValueError, match="1 of 1 points lie where the weight volume is empty"):
        empty.query(points)


def test_volume_is_the_published_cube(spindle, volume):
    side = volume.bbox_max - volume.bbox_min
    low, high = spindle.canonical_vertices.amin(0), spindle.canonical_vertices.amax(0)
    torch.testing.assert_close(side, (1.1 * (high - low).max()).expand(3))
    torch.testing.assert_close((volume.bbox_max + volume.bbox_min) / 2, (high + low) / 2)


def test_weights_are_non_negative_and_sum_to_one_everywhere(volume):
    assert volume.grid.min() >= 0
    half = 5e-4  # what half precision leaves of a node's sum; queries have none of it
    torch.testing.assert_close(volume.grid.sum(-1), torch.ones(volume.grid.shape[:3]), atol=half, rtol=0)
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) * 4 - 2
    torch.testing.assert_close(volume.query(points).sum(1), torch.ones(500))


def test_volume_agrees_with_the_body_at_its_surface(spindle, volume):
    error = (volume.query(spindle.canonical_vertices) - spindle.lbs_weights).abs()
    assert error.max() < 0.02, f"largest difference {error.max():.4f}"
    coarse = build_weight_volume(spindle, resolution=14).query(spindle.canonical_vertices)
    assert error.mean() < (coarse - spindle.lbs_weights).abs().mean()


def test_weights_continue_smoothly_away_from_the_surface(spindle, volume):
    grid = volume.grid
    change = torch.cat([grid.diff(dim=axis).abs().flatten() for axis in range(3)])
    voxel = (volume.bbox_max - volume.bbox_min)[0] / (grid.shape[0] - 1)
    order = spindle.canonical_vertices[:, 1].argsort()
    along = spindle.canonical_vertices[order, 1].diff()
    slope = spindle.lbs_weights[order].diff(dim=0).abs()[along > 1e-4].div(along[along > 1e-4, None]).max()
    # No jump anywhere steeper than the body's own weights, twice over.
    assert change.max() < 2 * slope * voxel
    # A point 5 cm off the surface still belongs to the joint it came from.
    normals = torch.nn.functional.normalize(
        (spindle.canonical_vertices - spindle.canonical_vertices.mean(0))
        / torch.tensor([0.25, 0.8, 0.15]) ** 2
    )
    off_surface = volume.query(spindle.canonical_vertices + 0.05 * normals)
    assert (off_surface - spindle.lbs_weights)[:, :MOVING_JOINTS].abs().mean() < 0.05


def test_save_and_load(volume, tmp_path):
    path = tmp_path / "gaussian" / "lbs_weights_grid.npz"
    volume.save(path)
    loaded = WeightVolume.load(path)
    assert torch.equal(loaded.grid, volume.grid)
    assert torch.equal(loaded.bbox_min, volume.bbox_min) and torch.equal(loaded.bbox_max, volume.bbox_max)
    with np.load(path) as arrays:
        assert arrays["grid"].dtype == np.float16
        assert arrays["grid_dims"].tolist() == [40, 40, 40]
        assert "grid_resolution" in arrays
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_published_files_in_single_precision_are_read(volume, tmp_path):
    path = tmp_path / "lbs_weights_grid.npz"
    grid = volume.grid.numpy() * np.float32(1 - 1e-5)  # not representable in half precision
    np.savez(path, grid=grid, bbox_min=volume.bbox_min.numpy(), bbox_max=volume.bbox_max.numpy())
    np.testing.assert_array_equal(WeightVolume.load(path).grid, grid)


def test_interrupted_save_leaves_the_old_file(volume, tmp_path, monkeypatch):
    path = tmp_path / "lbs_weights_grid.npz"
    linear_volume().save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        volume.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"grid": None}, "'grid' is missing"),
        ({"bbox_max": None}, "'bbox_max' is missing"),
        ({"grid": np.zeros((64, 55))}, r"'grid' has shape \(64, 55\)"),
        ({"grid": np.ones((4, 4, 4, 24))}, r"'grid' has shape \(4, 4, 4, 24\)"),
        ({"grid": np.full((4, 4, 4, 55), np.nan)}, "'grid' holds numbers that are not finite"),
        ({"bbox_min": np.zeros(2)}, r"'bbox_min' has shape \(2,\)"),
        ({"bbox_min": np.full(3, 2.0)}, "must exceed bbox_min"),
        ({"grid_dims": np.array([4, 4, 5])}, "'grid_dims'"),
    ],
)
def test_bad_files(tmp_path, damage, message):
    arrays = {"grid": np.full((4, 4, 4, 55), 1 / 55), "bbox_min": np.zeros(3), "bbox_max": np.ones(3)}
    arrays = {key: value for key, value in {**arrays, **damage}.items() if value is not None}
    path = tmp_path / "volume.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        WeightVolume.load(path)
    assert "volume.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_silly_resolution(spindle, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        WeightVolume.load(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="resolution must be from 8 to 512"):
        build_weight_volume(spindle, resolution=2)
