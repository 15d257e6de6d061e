"""Drawing for viewers: equal to drawing by hand, each way to show shows what it says, nothing is disturbed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmlphuman.animation.camera_file import CameraView
from mmlphuman.animation.hands import hand_pose
from mmlphuman.animation.pose_bar import COLOURS
from mmlphuman.animation.render_sequence import to_cameras
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import PYTORCH
from mmlphuman.body.kinematics import canonical_pose
from mmlphuman.config import default_config
from mmlphuman.pose_layout import BODY_POSE
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.shading import to_bytes
from mmlphuman.streaming.looks import (
    Subject,
    anchor_colors,
    distance_colors,
    shortest_axes,
    show_depth,
    show_normals,
    with_colors,
)
from mmlphuman.streaming.messages import MAX_SIDE, SHOW, PoseRequest, RenderRequest
from mmlphuman.streaming.protocol import decode_server, encode
from mmlphuman.streaming.scene import LiveScene, scene_of_model, world_up
from mmlphuman.types import Pose, PosedGaussians, symmetric_matrices, upper_triangles
from tests.builders import look_at_origin, random_pose, randomise, small_avatar

FRAMES = 12


@pytest.fixture(scope="module")
def trained(synthetic_body) -> TrainedAvatar:
    avatar = randomise(small_avatar(synthetic_body, num_gsparam_bases=3, num_position_bases=3))
    poses = torch.stack([random_pose(seed).joints[BODY_POSE] for seed in range(FRAMES)])
    config = default_config(
        num_features=10, iteration_dxyz_basis=0, iteration_gsparam_basis=0, iteration_sh_degree=0
    )
    return TrainedAvatar(avatar, PoseSpace.fit(poses, 4), config, 100)


@pytest.fixture
def scene(trained) -> LiveScene:
    poses = np.stack([random_pose(seed).joints.numpy() for seed in range(FRAMES)])
    translations = np.random.default_rng(0).normal(0, 0.1, (FRAMES, 3)).astype(np.float32)
    return LiveScene(trained, PYTORCH, poses, translations, range(100, 100 + FRAMES), {3: view()}, "a test")


def view(angle: float = 0.0, size: int = 64, distance: float = 3.0, fovx: float = 50.0) -> CameraView:
    """A camera that goes about the y axis, upright, looking at the origin; at angle 0 from +z."""
    turn = np.array(
        [[np.cos(angle), 0, -np.sin(angle)], [0, -1, 0], [-np.sin(angle), 0, -np.cos(angle)]], float
    )
    w2c = np.eye(4)
    w2c[:3, :3], w2c[2, 3] = turn, distance
    return CameraView(w2c, fovx, size, size)


def ask(pose: PoseRequest | None = None, camera: CameraView | None = None, **more) -> RenderRequest:
    return RenderRequest(1, camera or view(), pose or PoseRequest(), **more)


@torch.no_grad()
def by_hand(trained, pose: Pose, request: RenderRequest) -> np.ndarray:
    output = trained.avatar(pose, trained.active, trained.features(pose, request.project))
    cameras = to_cameras(request.camera, "cpu")
    return to_bytes(rasterize(output.posed, cameras, torch.tensor(request.background)).colors[0]).numpy()


# --- poses and cameras -------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", [False, True])
def test_a_training_frame_is_drawn_as_by_hand(scene, trained, project):
    request = ask(PoseRequest(frame=7), project=project, background=(0.2, 0.4, 0.9))
    pose = Pose(torch.from_numpy(scene.poses[7]), torch.from_numpy(scene.translations[7]), torch.eye(3))
    drawn = scene.draw(request)
    assert np.array_equal(drawn.image, by_hand(trained, pose, request))
    assert (drawn.iteration, drawn.gaussians) == (100, 600) and drawn.distance == pytest.approx(0, abs=1e-3)
    assert (drawn.image != drawn.image[0, 0]).any(), "the person is not in the picture"


def test_a_given_pose_is_turned_after_everything_else(scene, trained):
    joints = random_pose(50).joints.numpy().astype(np.float64)
    translation, rotation = np.array([0.1, 0.2, -0.1]), np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    request = ask(PoseRequest("given", joints=joints, translation=translation, rotation=rotation))
    pose = Pose(
        torch.from_numpy(joints).float(),
        torch.from_numpy(rotation @ translation).float(),
        torch.from_numpy(rotation).float(),
    )
    drawn = scene.draw(request)
    assert np.array_equal(drawn.image, by_hand(trained, pose, request))
    assert drawn.distance == pytest.approx(float(trained.pose_space.distance(pose.body))) and (
        drawn.distance > 1
    )


def test_named_poses_hands_and_translation(scene):
    assert not scene.pose(PoseRequest("t")).joints.any()
    assert torch.equal(scene.pose(PoseRequest("big")).joints, canonical_pose())
    for hands in ("relaxed", "fist"):
        pose = scene.pose(PoseRequest(frame=2, hands=hands))
        assert np.array_equal(pose.joints[75:].numpy(), hand_pose(hands))
        assert np.array_equal(pose.joints[:75].numpy(), scene.poses[2, :75])
    assert np.array_equal(scene.pose(PoseRequest(frame=2)).translation.numpy(), scene.translations[2])
    assert not scene.pose(PoseRequest(frame=2, use_translation=False)).translation.any()
    assert scene.poses[2, 75:].any(), "the training hands were to be seen"


def upside_down(camera: CameraView) -> CameraView:
    return replace(camera, w2c=np.diag([-1.0, -1, 1, 1]) @ camera.w2c)


@pytest.mark.parametrize(
    ("camera", "up"),
    [
        (view(0.3), (0, 1, 0)),
        (upside_down(view(0.3)), (0, -1, 0)),
        (replace(view(), w2c=view().w2c @ np.eye(4)[[0, 2, 1, 3]] * [1, -1, 1, 1]), (0, 0, 1)),
    ],
)
def test_the_person_stands_up_where_the_cameras_do(trained, camera, up):
    poses, translations = np.zeros((2, 165)), np.array([[2.0, 3, 4], [2, 3, 6]])
    scene = LiveScene(trained, PYTORCH, poses, translations, range(2), {0: camera}, "")
    assert scene.welcome(False).up == up and tuple(world_up([camera])) == up
    root = trained.avatar.joints[0].numpy()
    np.testing.assert_allclose(scene.welcome(False).center, translations.mean(0) + root, atol=1e-6)
    pose = scene.pose(PoseRequest("t"))
    joints = trained.avatar.joints @ pose.rotation.T + pose.translation
    np.testing.assert_allclose(joints[0], scene.center, atol=1e-5)
    head = (joints[15] - joints[0]).numpy()
    assert head @ np.array(up) > 0.9 * np.linalg.norm(head)


def test_without_cameras_up_is_y():
    assert tuple(world_up([])) == (0, 1, 0)


def test_welcome_survives_the_wire(trained):
    wide = replace(view(), width=MAX_SIDE * 2, height=MAX_SIDE)
    scene = LiveScene(trained, PYTORCH, np.zeros((2, 165)), np.ones((2, 3)), [8, 5], {4: wide}, "some/model")
    welcome = decode_server(encode(scene.welcome(training=True)))
    assert (welcome.title, welcome.gaussians, welcome.training) == ("some/model", 600, True)
    assert welcome.frames == (8, 5) and [entry.id for entry in welcome.cameras] == [4]
    camera = welcome.cameras[0].camera
    assert (camera.width, camera.height, camera.fovx) == (MAX_SIDE, MAX_SIDE // 2, wide.fovx)


def test_a_compact_file_lends_its_pose_space(trained):
    scene = scene_of_model(Path("avatar.safetensors"), trained, PYTORCH)
    welcome = scene.welcome(training=False)
    assert welcome.cameras == () and welcome.frames == tuple(range(FRAMES))
    pose = scene.pose(PoseRequest(frame=3))
    assert torch.equal(pose.body, trained.pose_space.training_poses[3]) and not pose.translation.any()


@pytest.mark.parametrize("frame", [FRAMES, 2**53 - 1])
def test_a_frame_that_does_not_exist_is_one_line(scene, frame):
    with pytest.raises(ValueError, match=f"position {frame} does not exist.*0 to 11") as error:
        scene.draw(ask(PoseRequest(frame=frame)))
    assert "\n" not in str(error.value)
    scene.draw(ask())  # and the next is drawn


def test_a_picture_too_large_for_a_cpu_is_refused(scene):
    with pytest.raises(ValueError, match="4096 x 4096 pixels"):
        scene.draw(ask(camera=view(size=4096)))


# --- what is kept, and what is left alone -------------------------------------------------------------------


def test_a_still_pose_is_posed_once_while_the_camera_moves(scene, trained):
    calls = []
    hook = trained.avatar.register_forward_hook(lambda *_: calls.append(1))
    for angle in (0, 0.5, 1):
        scene.draw(ask(camera=view(angle), show="depth" if angle else "color"))
    assert len(calls) == 1
    scene.draw(ask(PoseRequest(frame=1)))
    scene.draw(ask(PoseRequest(frame=1), project=True))
    scene.draw(ask(PoseRequest(frame=1, hands="fist"), project=True))
    assert len(calls) == 4
    scene.trained = replace(trained, iteration=101)
    moved = scene.draw(ask(PoseRequest(frame=1, hands="fist"), project=True))
    assert len(calls) == 5 and moved.iteration == 101
    hook.remove()


def test_the_kept_pose_is_drawn_like_a_new_one(scene, trained):
    scene.draw(ask(PoseRequest(frame=4), show="distance"))
    kept = scene.draw(ask(PoseRequest(frame=4), view(0.7), gaussian_scale=0.5)).image
    scene.posed = None
    assert np.array_equal(kept, scene.draw(ask(PoseRequest(frame=4), view(0.7), gaussian_scale=0.5)).image)


@pytest.mark.parametrize("show", SHOW)
def test_drawing_disturbs_nothing(scene, trained, show):
    before = {name: value.clone() for name, value in trained.avatar.state_dict().items()}
    state, mode = torch.get_rng_state(), trained.avatar.training
    drawn = scene.draw(ask(show=show, project=True, gaussian_scale=0.7))
    assert drawn.image.shape == (64, 64, 3) and drawn.image.dtype == np.uint8
    assert torch.equal(state, torch.get_rng_state()) and trained.avatar.training == mode
    assert all(torch.equal(before[name], value) for name, value in trained.avatar.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in trained.avatar.parameters())
    assert torch.is_grad_enabled()


# --- ways to show ------------------------------------------------------------------------------------------


def blobs(*places, size: float = 0.02, shape=(1.0, 1.0, 1.0)) -> PosedGaussians:
    """Nearly opaque Gaussians; shape: their axes' lengths relative to size."""
    xyz = torch.tensor(places, dtype=torch.float32)
    eye = torch.eye(3).repeat(len(xyz), 1, 1)
    covariances = torch.diag(torch.tensor(shape).square() * size**2).repeat(len(xyz), 1, 1)
    sh = torch.randn(len(xyz), 4, 3, generator=torch.Generator().manual_seed(0))
    return PosedGaussians(xyz, upper_triangles(covariances), torch.full((len(xyz),), 0.99), sh, eye)


def subject(trained, gaussians: PosedGaussians, camera: CameraView) -> Subject:
    return Subject(
        trained, random_pose(), gaussians, to_cameras(camera, "cpu"), torch.tensor([0.1, 0.5, 0.3]), PYTORCH
    )


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
    focal, picture = float(seen.cameras.intrinsics[0, 0, 0]), show_depth(seen)
    near, far = (picture[32, int(32 + focal * x / (3 - z))] for x, _, z in places)
    assert near[0] > 2 * near[2] and far[2] > 2 * far[0]
    assert torch.equal(picture[0, 0], seen.background)
    other = show_depth(replace(seen, background=torch.zeros(3)))
    opaque = seen.draw().alphas[0] > 0.95
    assert opaque.any() and (picture - other)[opaque].abs().max() < 0.03


def test_depth_does_not_change_when_all_moves_along(trained):
    gaussians = blobs((-0.5, 0, 0.8), (0.5, 0, -0.8), (0, 0.5, 0), size=0.1)
    moved = replace(gaussians, xyz=gaussians.xyz + torch.tensor([5.0, -2, 1]))
    shift = np.eye(4)
    shift[:3, 3] = [-5, 2, -1]
    camera = replace(view(), w2c=view().w2c @ shift)
    here, there = show_depth(subject(trained, gaussians, view())), show_depth(subject(trained, moved, camera))
    assert ((here - there).abs().amax(-1) > 0.05).float().mean() < 0.001


def test_depth_of_nobody_is_background(trained):
    behind = subject(trained, blobs((0, 0, 9.0)), view())
    assert torch.equal(show_depth(behind), behind.background.expand(64, 64, 3))
    single = subject(trained, blobs((0.0, 0, 0), size=0.1), view())
    assert show_depth(single).isfinite().all()


def test_normals_look_at_the_camera_from_all_sides(trained):
    disc = blobs((0.0, 0, 0), size=0.3, shape=(1.0, 1.0, 0.01))
    straight = [0.5, 0.5, 1.0]
    for angle in (0.0, np.pi):
        torch.testing.assert_close(
            show_normals(subject(trained, disc, view(angle)))[32, 32],
            torch.tensor(straight),
            atol=0.02,
            rtol=0,
        )
    right = show_normals(subject(trained, disc, view(-0.8)))[32, 32]  # seen from its left: it faces right
    left = show_normals(subject(trained, disc, view(0.8)))[32, 32]
    assert right[0] > 0.75 > 0.25 > left[0] and abs(right[1] - 0.5) < 0.02
    tilted = replace(disc, covariances=_turned_up(disc.covariances))
    assert show_normals(subject(trained, tilted, view()))[32, 32, 1] > 0.75


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
    joints[0:3] += 0.5  # root and hands are none of the MLPs' business
    joints[80:160] += 1.0
    given = PoseRequest("given", joints=joints, translation=scene.translations[5], rotation=np.eye(3))
    scene.draw(ask(given, show="distance"))
    degrees = trained.pose_space.joint_distances(scene.posed.pose.body)
    assert degrees.argmax() == 17 and degrees.max() > 30
    scene.draw(ask(given, view(0), show="distance"))
    alarming = distance_colors(trained.avatar.lbs_weights[:, 1:22] @ degrees)[:, 2] < 0.3
    forearm = trained.avatar.lbs_weights[:, 18] > 0.7
    away = trained.avatar.lbs_weights[:, [16, 18, 20]].sum(1) < 0.01
    assert (
        alarming[forearm].all()
        and not alarming[away & (trained.avatar.lbs_weights[:, :22].sum(1) > 0.9)].any()
    )


def test_gaussian_scale_multiplies_sizes(scene, trained):
    request = ask(PoseRequest(frame=2), gaussian_scale=0.25)
    drawn = scene.draw(request).image
    posed = scene.posed.gaussians
    smaller = replace(posed, covariances=posed.covariances / 16)
    expected = rasterize(smaller, to_cameras(view(), "cpu"), torch.ones(3)).colors[0].detach()
    assert np.array_equal(drawn, to_bytes(expected).numpy())
    whole = scene.draw(ask(PoseRequest(frame=2))).image
    assert (drawn == 255).all(-1).sum() > (whole == 255).all(-1).sum()
