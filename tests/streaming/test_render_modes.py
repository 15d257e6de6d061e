"""Each render mode shows what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.pose_bar import COLOURS
from mmlphuman.animation.render_sequence import to_cameras
from mmlphuman.backend import PYTORCH
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.shading import to_bytes
from mmlphuman.streaming.messages import RENDER_MODES, PoseRequest
from mmlphuman.streaming.render_modes import (
    PosedView,
    anchor_colors,
    distance_colors,
    shortest_axes,
    show_mode,
    with_colors,
)
from mmlphuman.types import PosedGaussians, symmetric_matrices, upper_triangles
from tests.builders import look_at_origin, random_pose
from tests.streaming.live_scenes import ask, view


def blobs(*places, size: float = 0.02, shape=(1.0, 1.0, 1.0)) -> PosedGaussians:
    """Nearly opaque Gaussians; shape: their axes' lengths relative to size."""
    xyz = torch.tensor(places, dtype=torch.float32)
    eye = torch.eye(3).repeat(len(xyz), 1, 1)
    covariances = torch.diag(torch.tensor(shape).square() * size**2).repeat(len(xyz), 1, 1)
    sh = torch.randn(len(xyz), 4, 3, generator=torch.Generator().manual_seed(0))
    return PosedGaussians(xyz, upper_triangles(covariances), torch.full((len(xyz),), 0.99), sh, eye)


def subject(trained, gaussians: PosedGaussians, camera: CameraView) -> PosedView:
    return PosedView(
        trained, random_pose(), gaussians, to_cameras(camera, "cpu"), torch.tensor([0.1, 0.5, 0.3]), PYTORCH
    )


def shown(mode: str, seen: PosedView) -> torch.Tensor:
    picture = show_mode(mode, seen)
    return picture.draw(0, len(picture.picture.loads))


def test_given_colors_are_the_same_from_everywhere():
    gaussians = blobs((0.0, 0, 0), (0.2, 0, 0), size=0.1)
    colors = torch.tensor([[0.0, 0.7, 3.5], [1.0, 0.2, 0.0]])
    for cameras in (look_at_origin(views=4)[i : i + 1] for i in range(4)):
        render = rasterize(with_colors(gaussians, colors), cameras, torch.zeros(3))
        single = rasterize(
            with_colors(replace(gaussians, opacities=torch.tensor([0.99, 0.0])), colors),
            cameras,
            torch.zeros(3),
        )
        assert render.alphas.max() > 0.9
        expected = single.alphas[..., None] * colors[0]
        torch.testing.assert_close(single.colors, expected, atol=1e-5, rtol=1e-5)


def test_alpha_is_the_rasterisers(scene, trained):
    drawn = scene.draw(ask(PoseRequest(frame=1), show="alpha")).image
    black, white = (
        scene.draw(ask(PoseRequest(frame=1), background=(c, c, c))).image.astype(int) for c in (0, 1)
    )
    transparency = (white - black).mean(-1)  # of the background that shines through, where nothing is cut off
    unclipped = (white < 255).all(-1) & (black > 0).all(-1)
    assert unclipped.any() and (np.abs(255 - transparency - drawn[..., 0])[unclipped] <= 2).all()
    assert (drawn == drawn[..., :1]).all() and drawn[0, 0, 0] == 0


def test_depth_goes_from_red_to_blue_and_ignores_the_background(trained):
    places = ((-0.5, 0.0, 0.8), (0.5, 0.0, -0.8))  # the first one nearer to the camera at z = 3
    seen = subject(trained, blobs(*places, size=0.1), view())
    focal, picture = float(seen.cameras.intrinsics[0, 0, 0]), shown("depth", seen)
    near, far = (picture[32, int(32 + focal * x / (3 - z))] for x, _, z in places)
    assert near[0] > 2 * near[2] and far[2] > 2 * far[0]
    assert torch.equal(picture[0, 0], seen.background)
    other = shown("depth", replace(seen, background=torch.zeros(3)))
    opaque = shown("alpha", seen)[..., 0] > 0.95
    assert opaque.any() and (picture - other)[opaque].abs().max() < 0.03


def test_depth_does_not_change_when_all_moves_along(trained):
    gaussians = blobs((-0.5, 0, 0.8), (0.5, 0, -0.8), (0, 0.5, 0), size=0.1)
    moved = replace(gaussians, xyz=gaussians.xyz + torch.tensor([5.0, -2, 1]))
    shift = np.eye(4)
    shift[:3, 3] = [-5, 2, -1]
    camera = replace(view(), w2c=view().w2c @ shift)
    here, there = (
        shown("depth", subject(trained, gaussians, view())),
        shown("depth", subject(trained, moved, camera)),
    )
    assert ((here - there).abs().amax(-1) > 0.05).float().mean() < 0.001


def test_depth_of_nobody_is_background(trained):
    behind = subject(trained, blobs((0, 0, 9.0)), view())
    assert torch.equal(shown("depth", behind), behind.background.expand(64, 64, 3))
    single = subject(trained, blobs((0.0, 0, 0), size=0.1), view())
    assert shown("depth", single).isfinite().all()


def test_normals_look_at_the_camera_from_all_sides(trained):
    disc = blobs((0.0, 0, 0), size=0.3, shape=(1.0, 1.0, 0.01))
    straight = [0.5, 0.5, 1.0]
    for angle in (0.0, np.pi):
        torch.testing.assert_close(
            shown("normals", subject(trained, disc, view(angle)))[32, 32],
            torch.tensor(straight),
            atol=0.02,
            rtol=0,
        )
    right = shown("normals", subject(trained, disc, view(-0.8)))[32, 32]  # seen from its left: it faces right
    left = shown("normals", subject(trained, disc, view(0.8)))[32, 32]
    assert right[0] > 0.75 > 0.25 > left[0] and abs(right[1] - 0.5) < 0.02
    tilted = replace(disc, covariances=_turned_up(disc.covariances))
    assert shown("normals", subject(trained, tilted, view()))[32, 32, 1] > 0.75


def _turned_up(covariances: torch.Tensor) -> torch.Tensor:
    """A disc that faced +z faces upwards as well."""
    turn = torch.tensor([[1.0, 0, 0], [0, 0.7071, 0.7071], [0, -0.7071, 0.7071]])
    return upper_triangles(turn @ symmetric_matrices(covariances) @ turn.T)


def test_shortest_axes_are_eigenvectors_of_the_smallest_eigenvalue():
    generator = torch.Generator().manual_seed(0)
    factors = torch.linalg.qr(torch.randn(500, 3, 3, generator=generator))[0]
    scales = torch.rand(500, 3, generator=generator).sort(1, descending=True).values * 0.01
    scales = scales * torch.tensor([1.0, 0.8, 0.4])
    covariances = factors @ torch.diag_embed(scales.square()) @ factors.transpose(1, 2)
    cosine = (shortest_axes(covariances) * factors[..., 2]).sum(1).abs()
    assert cosine.min() > 0.999
    for degenerate in (torch.eye(3) * 1e-6, torch.diag(torch.tensor([1.0, 1e-9, 1e-9])), torch.zeros(3, 3)):
        assert shortest_axes(degenerate[None]).isfinite().all()


def test_anchors_paint_the_gaussians_that_follow_them(scene, trained):
    drawn = scene.draw(ask(show="anchors", background=(0, 0, 0))).image
    table = trained.avatar.gaussian_to_anchor
    colors = anchor_colors(10)[table.index[:, 0]]  # ascending distance: the first weighs most
    posed = scene.posed.gaussians
    expected = rasterize(with_colors(posed, colors), to_cameras(view(), "cpu"), torch.zeros(3)).colors[0]
    assert np.array_equal(drawn, to_bytes(expected).numpy())


def test_anchor_colors_are_told_apart():
    colors = anchor_colors(300)
    apart = torch.cdist(colors, colors).fill_diagonal_(9)
    assert apart.min() > 0.005 and ((colors >= 0) & (colors <= 1)).all()
    neighbours = torch.stack([apart[i, i + 1 : i + 5].min() for i in range(290)])
    assert neighbours.min() > 0.2


def test_distance_marks_the_limb_that_training_never_moved_so(scene, trained):
    calm = torch.tensor(COLOURS[0][1]) / 255
    torch.testing.assert_close(distance_colors(torch.zeros(2)), calm.expand(2, 3))
    torch.testing.assert_close(distance_colors(torch.tensor([90.0])), torch.tensor([COLOURS[-1][1]]) / 255)
    known = scene.draw(ask(PoseRequest(frame=5), show="distance", background=(0, 0, 0)))
    alpha = scene.draw(ask(PoseRequest(frame=5), show="alpha")).image[..., :1] / 255
    assert np.abs(known.image / 255 - alpha * calm.numpy()).max() < 0.02

    joints = scene.poses[5].astype(np.float64)
    joints[3 * 18 : 3 * 19] += [2.5, 0, 0]  # the left elbow
    joints[0:3] += 0.5  # root and eyes are none of the MLPs' business
    joints[69:75] += 1.0
    given = PoseRequest("given", joints=joints, translation=scene.translations[5], rotation=np.eye(3))
    drawn = scene.draw(ask(given, show="distance", background=(0, 0, 0))).image
    degrees = trained.distances(scene.posed.pose)
    expected = with_colors(scene.posed.gaussians, distance_colors(degrees))
    picture = rasterize(expected, to_cameras(view(), "cpu"), torch.zeros(3)).colors[0]
    assert np.array_equal(drawn, to_bytes(picture).numpy())
    see_it = (trained.avatar.mlp_inputs == 3 * 18).any(1)[trained.avatar.gaussian_to_anchor.index]
    assert (degrees[see_it.all(1)] > 30).all() and not degrees[~see_it.any(1)].any()
    forearm = trained.avatar.lbs_weights[:, 18] > 0.7
    assert (degrees[forearm] > 10).all() and (~see_it.any(1)).float().mean() > 0.2


def test_gaussian_scale_multiplies_sizes(scene, trained):
    request = ask(PoseRequest(frame=2), gaussian_scale=0.25)
    drawn = scene.draw(request).image
    posed = scene.posed.gaussians
    smaller = replace(posed, covariances=posed.covariances / 16)
    expected = rasterize(smaller, to_cameras(view(), "cpu"), torch.ones(3)).colors[0].detach()
    assert np.array_equal(drawn, to_bytes(expected).numpy())
    whole = scene.draw(ask(PoseRequest(frame=2))).image
    assert (drawn == 255).all(-1).sum() > (whole == 255).all(-1).sum()


@pytest.mark.parametrize("mode", RENDER_MODES)
def test_strips_are_the_picture(scene, trained, mode):
    """Drawn one by one, and after the avatar has changed."""
    camera = to_cameras(view(0.4, size=100, distance=1.2), "cpu")  # the last strip is half a row of tiles
    posed = trained.pose(scene.pose(PoseRequest(frame=1)), False)
    background = torch.tensor([0.1, 0.5, 0.3])
    seen = PosedView(trained, scene.pose(PoseRequest(frame=1)), posed, camera, background, PYTORCH)
    whole, picture = shown(mode, seen), show_mode(mode, seen)
    for tensor in (posed.xyz, posed.covariances, posed.opacities, posed.sh):
        tensor.mul_(0.3)
    rows = range(len(picture.picture.loads))
    strips = [picture.draw(row, row + 1) for row in rows]
    assert len(strips) == 13 and strips[-1].shape == (4, 100, 3)
    torch.testing.assert_close(torch.cat(strips), whole, atol=1e-5, rtol=0)
    assert (whole != whole[0, 0]).any()
