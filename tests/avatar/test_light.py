"""The scene's light: each function spelled out with numpy, what it multiplies, where it stops, and its gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mmlphuman.avatar.light import FUNCTIONS, SceneLight
from mmlphuman.render.shading import view_colors
from mmlphuman.types import Pose, PosedGaussians
from tests.builders import look_at_origin, random_pose, randomise, small_avatar

COUNT = 9
LOWEST, HIGHEST, INSIDE = torch.tensor([[-1, 0.5, 2], [1.5, 0.75, 5], [0.5, 0.6, 2.5]], dtype=torch.double)
KINDS = ("normal", "place")


@pytest.fixture
def posed() -> PosedGaussians:
    """Of a skinning that is no rotation, near INSIDE; colours far from black."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.double)

    sh = 0.2 * random(COUNT, 4, 3)
    linear = torch.eye(3).double() + 0.5 * random(COUNT, 3, 3)
    return PosedGaussians(INSIDE + 0.5 * random(COUNT, 3), random(COUNT, 6), random(COUNT), sh, linear)


@pytest.fixture
def normals() -> torch.Tensor:
    found = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    return found / found.norm(dim=1, keepdim=True)


def scene_light(kind: str, size: float = 0.0) -> SceneLight:
    """size: of its random coefficients."""
    light = SceneLight(FUNCTIONS[kind], LOWEST, HIGHEST).double()
    with torch.no_grad():
        light.coefficients.copy_(
            size * torch.randn(light.coefficients.shape, generator=torch.Generator().manual_seed(2))
        )
    return light


def functions_of(
    kind: str, n: int, posed: PosedGaussians, normals: torch.Tensor, place: list[float]
) -> list[float]:
    """One Gaussian's, of the place that its pose counts as."""
    x, y, z = posed.linear[n].numpy() @ normals[n].numpy()
    length = math.sqrt(x * x + y * y + z * z)
    x, y, z = x / length, y / length, z / length
    found = [x, y, z, x * y, y * z, x * z, x**2 - y**2, 3 * z**2 - 1]
    if kind == "place":
        for axis in range(3):
            moved = posed.xyz[n, axis].item() - INSIDE[axis].item() + place[axis]
            from_middle = moved - (LOWEST[axis].item() + HIGHEST[axis].item()) / 2
            found += [from_middle, from_middle * x, from_middle * y, from_middle * z]
    return found


def shades_of(light: SceneLight, kind: str, posed, normals, place) -> np.ndarray:
    """(N, 3)."""
    rows = [functions_of(kind, n, posed, normals, place) for n in range(len(posed))]
    return np.maximum(1 + np.array(rows) @ light.coefficients.detach().numpy(), 0.05)


def test_of_how_many_functions():
    assert FUNCTIONS == {"none": 0, "normal": 8, "place": 20}


@pytest.mark.parametrize("kind", KINDS)
def test_the_functions_are_those_written_out(kind, posed, normals):
    found = scene_light(kind).functions(posed, normals, INSIDE)
    assert found.shape == (FUNCTIONS[kind], COUNT)
    expected = [functions_of(kind, n, posed, normals, INSIDE.tolist()) for n in range(COUNT)]
    np.testing.assert_allclose(found.T.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_light_changes_nothing(kind, posed, normals):
    assert not scene_light(kind).coefficients.any()
    lit = scene_light(kind)(posed, normals, INSIDE)
    assert torch.equal(lit.unlit, posed.sh)
    for name, value in vars(posed).items():
        assert name == "unlit" or torch.equal(getattr(lit, name), value), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_shade_multiplies_the_drawn_colour_degree_one_too(kind, posed, normals):
    light, cameras = scene_light(kind, 0.05), look_at_origin(views=2)
    cameras = replace(cameras, w2c=cameras.w2c.double())
    lit = light(posed, normals, INSIDE)
    before, after = view_colors(posed, cameras), view_colors(lit, cameras)
    shades = shades_of(light, kind, posed, normals, INSIDE.tolist())
    assert shades.std() > 0.03 and before.min() > 0
    np.testing.assert_allclose(after.detach().numpy(), before.numpy() * shades, rtol=1e-9)
    assert (view_colors(posed, cameras)[0] - view_colors(posed, cameras)[1]).abs().max() > 0.05, (
        "degree 1 counts"
    )
    for name in ("xyz", "covariances", "opacities", "linear"):
        assert getattr(lit, name) is getattr(posed, name)


@pytest.mark.parametrize(
    ("translation", "counts_as"),
    [
        ([0.5, 0.6, 2.5], [0.5, 0.6, 2.5]),
        ([-4.0, 0.6, 2.5], [-1.0, 0.6, 2.5]),
        ([9.0, 9.0, 9.0], [1.5, 0.75, 5.0]),
        ([0.5, 0.1, 1.0], [0.5, 0.5, 2.0]),
    ],
)
def test_a_pose_outside_is_lit_as_at_the_nearest_place(translation, counts_as, posed, normals):
    light, there = scene_light("place", 0.1), torch.tensor(translation, dtype=torch.double)
    lit = light(replace(posed, xyz=posed.xyz - INSIDE + there), normals, there)
    nearest = torch.tensor(counts_as, dtype=torch.double)
    same = light(replace(posed, xyz=posed.xyz - INSIDE + nearest), normals, nearest)
    torch.testing.assert_close(lit.sh, same.sh, rtol=1e-9, atol=1e-12)
    shades = shades_of(light, "place", posed, normals, counts_as)
    expected = posed.sh[:, 1:].numpy() * shades[:, None]
    np.testing.assert_allclose(lit.sh[:, 1:].detach().numpy(), expected, rtol=1e-9)


def test_the_darkest_shade_is_a_twentieth(posed, normals):
    light = scene_light("normal")
    with torch.no_grad():
        light.coefficients[2] = -1000.0  # dark above, bright below
    shades = light(posed, normals, INSIDE).sh[:, 1:] / posed.sh[:, 1:]
    world = (posed.linear @ normals[:, :, None])[:, 2, 0]
    assert (world > 0).any() and (world < 0).any()
    torch.testing.assert_close(shades[world > 0], torch.full_like(shades[world > 0], 0.05))
    assert (shades[world < 0] > 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_coefficients_and_colours_and_move_nothing(kind, posed, normals):
    """By differences; a third of the shades lies at the darkest, where coefficients get none."""
    light = scene_light(kind, 0.8)
    sh, xyz, linear = (each.clone().requires_grad_() for each in (posed.sh, posed.xyz, posed.linear))
    cotangent = torch.randn(posed.sh.shape, generator=torch.Generator().manual_seed(3), dtype=torch.double)

    def loss(coefficients: torch.Tensor, colours: torch.Tensor) -> float:
        rows = [functions_of(kind, n, posed, normals, INSIDE.tolist()) for n in range(COUNT)]
        shades = (1 + torch.tensor(rows, dtype=torch.double) @ coefficients).clamp(min=0.05)[:, None]
        grey = torch.zeros(4, 1).double()
        grey[0] = math.sqrt(math.pi)  # 0.5 in the unit of degree 0
        return float((((colours + grey) * shades - grey) * cotangent).sum())

    lit = light(replace(posed, sh=sh, xyz=xyz, linear=linear), normals, INSIDE)
    (lit.sh * cotangent).sum().backward()
    assert xyz.grad is None and linear.grad is None
    shades = shades_of(light, kind, posed, normals, INSIDE.tolist())
    assert 0.1 < (shades == 0.05).mean() < 0.7
    for which, gradient in enumerate((light.coefficients.grad, sh.grad)):
        for index in np.ndindex(*gradient.shape):
            sides = []
            for step in (1e-6, -1e-6):
                given = [light.coefficients.detach().clone(), posed.sh.clone()]
                given[which][index] += step
                sides.append(loss(*given))
            assert gradient[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6, abs=1e-7)


@pytest.fixture(scope="module")
def avatars(synthetic_body):
    return {kind: randomise(small_avatar(synthetic_body, light=kind)) for kind in ("none", *KINDS)}


def test_turning_the_body_turns_the_normals_and_walking_moves_the_place(avatars):
    """A light that sees the z of normals alone: shades of the turned body are those of turned normals."""
    turn = torch.from_numpy(Rotation.from_rotvec([0.7, -0.3, 0.4]).as_matrix()).float()
    still = replace(random_pose(1), translation=torch.tensor([0.1, 0.0, 0.2]))
    for kind in KINDS:
        avatar = avatars[kind]
        light = avatar.light
        with torch.no_grad():
            before = light.coefficients.clone()
            light.coefficients.zero_()
            light.coefficients[2] = 0.3
            shades = []
            for pose in (still, replace(still, rotation=turn)):
                posed = avatar(pose).posed
                world = torch.nn.functional.normalize(
                    (posed.linear @ avatar.normals[:, :, None])[..., 0], dim=1
                )
                unlit = avatars["none"](pose).posed if kind == "normal" else None
                if unlit is not None:
                    torch.testing.assert_close(
                        posed.sh[:, 1:], unlit.sh[:, 1:] * (1 + 0.3 * world[:, 2])[:, None, None]
                    )
                shades.append((world, posed.sh))
            light.coefficients.copy_(before)
        torch.testing.assert_close(shades[1][0], shades[0][0] @ turn.T, atol=1e-5, rtol=1e-5)
        assert (shades[1][1] - shades[0][1]).abs().max() > 0.01


def test_walking_changes_the_light_that_knows_places_alone(avatars):
    here = replace(random_pose(2), translation=torch.zeros(3))
    there = replace(here, translation=torch.tensor([0.3, 0.1, 0.4]))
    with torch.no_grad():
        changes = {kind: avatar(there).posed.sh - avatar(here).posed.sh for kind, avatar in avatars.items()}
    assert changes["none"].abs().max() == 0 and changes["normal"].abs().max() < 1e-6
    assert changes["place"].abs().max() > 0.01


def test_an_avatar_without_light_has_neither_normals_nor_coefficients(avatars):
    names = set(avatars["none"].state_dict())
    assert not {name for name in names if "light" in name or "normal" in name}
    extra = {"normals", "light.coefficients", "light.lowest", "light.highest"}
    assert set(avatars["place"].state_dict()) - names == set(avatars["normal"].state_dict()) - names == extra


def test_a_lit_avatar_can_be_had_without_its_light(avatars):
    """As the same avatar is whose light has no coefficients; one without a light is itself."""
    pose = random_pose(4)
    for kind in KINDS:
        with torch.no_grad():
            posed, light = avatars[kind](pose).posed, avatars[kind].light
            avatars[kind].light = None
            dark = avatars[kind](pose).posed
            avatars[kind].light = light
        unlit = posed.without_light()
        for name, value in vars(dark).items():
            assert name == "unlit" or torch.equal(getattr(unlit, name), value), name
        assert (unlit.sh - posed.sh).abs().max() > 0.01
    plain = avatars["none"](pose).posed
    assert plain.unlit is None and plain.without_light() is plain


def test_a_pose_is_lit_by_its_own_translation(avatars):
    """Avatar's last stage is the light with the pose's translation, not the Gaussians'."""
    avatar, pose = avatars["place"], random_pose(3)
    pose = Pose(pose.joints, torch.tensor([5.0, -5.0, 0.1]), pose.rotation)  # outside
    nearest = replace(pose, translation=torch.tensor([0.4, -0.2, 0.1]))
    with torch.no_grad():
        torch.testing.assert_close(avatar(pose).posed.sh, avatar(nearest).posed.sh, atol=1e-4, rtol=1e-4)
        assert (avatar(pose).posed.sh - avatars["none"](pose).posed.sh).abs().max() > 0.01
