"""The template: near the true clothed surface from masks alone, closed, honest about bad input."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree
from true_surface import agreement, true_canonical_surface

from mmlphuman.body.smplx_model import load_body
from mmlphuman.body.weight_volume import build_weight_volume
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import SmplParams, read_smpl_params
from mmlphuman.preparation.carving import Grid, body_distance, contour_distance, grid_around, read_quantile
from mmlphuman.preparation.overlays import template_picture, views_to_show
from mmlphuman.preparation.template import (
    Template,
    TemplateSettings,
    extract_surface,
    largest_part,
    make_template,
    simplify,
    template_warnings,
    well_spread_frames,
)
from mmlphuman.synthetic.capture_writer import make_capture, set_stage
from tests.commands.runs import call, call_here

CAPTURE = {"size": (192, 192), "num_cameras": 5, "num_frames": 10, "num_novel_frames": 0}


@pytest.fixture(scope="module")
def scene(tmp_path_factory, synthetic_body):
    """Capture, body, weights and the template made of them, at three eighths of the demo's picture size."""
    folder = tmp_path_factory.mktemp("template") / "capture"
    make_capture(folder, synthetic_body, **CAPTURE)
    layout = open_capture(folder)
    poses = read_smpl_params(layout.pose_path)
    dataset = CaptureDataset(layout, poses, range(CAPTURE["num_frames"]), range(CAPTURE["num_cameras"]))
    body = load_body(synthetic_body, poses.betas)
    volume = build_weight_volume(body, 48)
    settings = TemplateSettings(spacing=0.012, faces=20_000)
    template = make_template(dataset, dataset.frames, body, volume, settings, say=lambda text: None)
    return SimpleNamespace(
        folder=folder, dataset=dataset, body=body, volume=volume, template=template, body_path=synthetic_body
    )


def body_mesh(body) -> trimesh.Trimesh:
    return trimesh.Trimesh(body.canonical_vertices.numpy(), body.faces.numpy(), process=False)


def test_template_is_near_the_true_clothed_surface(scene):
    """With a sixth of the demo's masks, each a seventh of its pixels; the body itself is far from it."""
    truth = true_canonical_surface(set_stage(scene.body_path, **CAPTURE), scene.dataset.frames, 40_000)
    of_template, of_truth = agreement(scene.template.mesh, truth)
    assert of_template > 0.9 and of_truth > 0.88, (of_template, of_truth)
    of_body, truth_by_body = agreement(body_mesh(scene.body), truth)
    assert of_template > of_body + 0.2 and of_truth > truth_by_body + 0.2


def test_template_is_one_closed_outward_surface(scene):
    mesh = scene.template.mesh
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.body_count == 1
    assert mesh.volume > 1.1 * body_mesh(scene.body).volume
    assert 10_000 < len(mesh.faces) <= 20_010
    assert mesh.euler_number >= 2 - 2 * 4, "a few fingers may touch at this resolution, no more"


def test_hands_keep_the_body_surface(scene):
    fingertip = scene.body.canonical_vertices[:, 0].max()
    assert abs(scene.template.mesh.vertices[:, 0].max() - fingertip) < 0.012


def test_good_template_gives_no_warning(scene):
    views = views_to_show(scene.dataset, scene.dataset.frames, 3)
    picture = template_picture(scene.template.mesh, scene.dataset, views, scene.body, scene.volume)
    assert template_warnings(scene.template, picture.overlaps) == []
    assert min(picture.overlaps) > 0.88 and picture.image.dtype == np.uint8
    assert len({frame for frame, _ in views}) == len({camera for _, camera in views}) == 3


def test_picture_shows_a_misfit(scene):
    views = views_to_show(scene.dataset, scene.dataset.frames, 2)
    shifted = scene.template.mesh.copy()
    shifted.apply_translation([0, 0.2, 0])
    picture = template_picture(shifted, scene.dataset, views, scene.body, scene.volume)
    assert any("overlap" in line for line in template_warnings(scene.template, picture.overlaps))


def test_masks_of_someone_elsewhere_are_told(scene):
    """Poses a metre beside the person: nothing is left, or the result is called doubtful."""
    poses = scene.dataset.poses
    moved = SmplParams(poses.betas, poses.poses, poses.translations + np.float32([0.35, 0, 0]))
    dataset = CaptureDataset(scene.dataset.layout, moved, range(4), range(5))
    settings = TemplateSettings(spacing=0.02, faces=5_000)
    template = make_template(dataset, range(4), scene.body, scene.volume, settings, say=lambda text: None)
    lines = template_warnings(template)
    assert any("volume" in line for line in lines) and any("body" in line for line in lines), lines
    assert any("only 20 masks" in line for line in lines)


def closed_template(mesh: trimesh.Trimesh, **measured) -> Template:
    good = {
        "views": 320,
        "skipped": 0,
        "volume_ratio": 1.5,
        "dropped_share": 0.0,
        "unseen_share": 0.0,
        "at_limit_share": 0.0,
        "inside_share": 0.0,
    }
    return Template(mesh=mesh, **{**good, **measured})


@pytest.mark.parametrize(
    ("measured", "word"),
    [
        ({"volume_ratio": 0.5}, "volume"),
        ({"volume_ratio": 4.0}, "volume"),
        ({"dropped_share": 0.1}, "loose parts"),
        ({"unseen_share": 0.5}, "too few frames"),
        ({"at_limit_share": 0.05}, "--reach"),
        ({"inside_share": 0.2}, "inside the body"),
        ({"skipped": 3}, "empty or full"),
        ({"views": 8}, "masks were looked at"),
    ],
)
def test_each_doubt_has_its_line(measured, word):
    sphere = trimesh.creation.icosphere()
    assert template_warnings(closed_template(sphere)) == []
    lines = template_warnings(closed_template(sphere, **measured))
    assert len(lines) == 1 and word in lines[0]


def test_holes_are_told():
    sphere = trimesh.creation.icosphere()
    sphere.update_faces(np.arange(len(sphere.faces)) > 3)
    assert any("holes" in line for line in template_warnings(closed_template(sphere)))


def test_surface_of_a_distance_grid():
    """A ball, beside it a crumb, within it a cavity: the ball's outer surface is what remains."""
    grid = Grid(np.array([-0.3, -0.3, -0.3]), 0.01, (81, 61, 61))
    points = grid.positions(np.arange(np.prod(grid.shape))).reshape(*grid.shape, 3)
    ball = 0.2 - np.linalg.norm(points, axis=-1)
    crumb = 0.05 - np.linalg.norm(points - [0.4, 0, 0], axis=-1)
    cavity = 0.06 - np.linalg.norm(points, axis=-1)
    field = np.minimum(np.maximum(ball, crumb), -cavity)
    mesh, dropped = largest_part(extract_surface(field.astype(np.float32), grid))
    assert abs(dropped - 0.05**3 / (0.2**3 + 0.05**3)) < 0.003
    small = simplify(mesh, 1_000)
    radius = np.linalg.norm(small.vertices, axis=1)
    assert np.abs(radius - 0.2).max() < 0.004 and small.is_watertight and small.volume > 0
    assert 900 < len(small.faces) <= 1_000
    with pytest.raises(ValueError, match="leave nothing"):
        extract_surface(np.full((8, 8, 8), -1, np.float32), grid)


def test_body_distance_is_a_distance(scene):
    grid = grid_around(scene.body, 0.02, 0.1)
    near = body_distance(scene.body, grid, 0.1)
    positions = grid.positions(near.band)
    distance, _ = cKDTree(body_mesh(scene.body).sample(200_000, seed=0)).query(positions, workers=-1)
    np.testing.assert_allclose(np.abs(near.values.ravel()[near.band]), distance, atol=0.010)
    inside_volume = (near.values > 0).sum() * grid.spacing**3
    assert abs(inside_volume / body_mesh(scene.body).volume - 1) < 0.05
    assert near.values[0, 0, 0] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    "setting", [{"spacing": 0.5}, {"spacing": 0.0}, {"reach": 0.01}, {"reach": 2.0}, {"faces": 3}]
)
def test_settings_that_cannot_work_are_refused(setting):
    with pytest.raises(ValueError, match="mm|reach|triangles"):
        TemplateSettings(**setting)


def test_contour_distance_is_subpixel_exact():
    mask = np.zeros((20, 30), bool)
    mask[:, 12:] = True  # the contour is the line x = 12; the image's border is none
    expected = np.arange(30) + 0.5 - 12
    np.testing.assert_allclose(contour_distance(mask), np.tile(expected, (20, 1)), atol=1e-5)


def test_quantile_of_a_histogram():
    values = np.random.default_rng(0).uniform(-0.04, 0.03, 4_000)
    counts, _ = np.histogram(values, 20, (-0.05, 0.05))
    histogram = torch.tensor(np.stack([counts, 0 * counts]), dtype=torch.float32)
    for level in (0.1, 0.5):
        got = read_quantile(histogram, level, 0.05).tolist()
        assert abs(got[0] - np.quantile(values, level)) < 5e-4 and got[1] == pytest.approx(0.05)


def test_frames_are_well_spread():
    poses = np.zeros((50, 165), np.float32)
    poses[:, 10] = 0.01 * np.arange(50)
    poses[7, 20] = 3.0
    params = SmplParams(np.zeros(10, np.float32), poses, np.zeros((50, 3), np.float32))
    chosen = well_spread_frames(params, range(0, 50), 4)
    assert len(chosen) == 4 and {0, 7, 49} <= set(chosen)
    assert well_spread_frames(params, range(5), 40) == list(range(5))
    with pytest.raises(ValueError):
        well_spread_frames(params, [], 4)


def test_command_writes_once_and_says_when_in_doubt(scene, tmp_path):
    """Two frames are too few: written, with a warning and exit status 3; then an existing mesh is kept."""
    files = {path: path.read_bytes() for path in scene.folder.rglob("*") if path.is_file()}
    settings = tmp_path / "settings.yaml"
    settings.write_text("weight_volume_resolution: 16\n")
    command = ["script/gen_template.py", "--data_dir", scene.folder]
    command += ["--smpl_path", scene.body_path, "--config", settings, "--count", 10]
    command += ["--frames", 2, "--resolution", 25, "--cameras", 0, 1, 2, 3]
    status, _, err = call(*command)
    assert status == 3, err
    assert "warning: only 8 masks were looked at" in err
    written = {path for path in scene.folder.rglob("*") if path.is_file()} - set(files)
    gaussian = scene.folder / "gaussian"
    names = ("lbs_weights_grid.npz", "template.ply", "template.png")
    assert written == {gaussian / name for name in names}
    assert all(path.read_bytes() == data for path, data in files.items())
    mesh = trimesh.load(gaussian / "template.ply", process=False)
    assert mesh.is_watertight and len(mesh.faces) > 1_000
    before = (gaussian / "template.ply").read_bytes()
    status, _, err = call_here(*command)
    assert status == 1 and "--overwrite" in err and err.count("\n") == 1
    assert (gaussian / "template.ply").read_bytes() == before
