"""The 3D Gaussian splatting PLY: what a viewer sees is what we render; files that cannot be read say why."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from scipy.spatial.transform import Rotation

from mmlphuman.export.ply import properties, write_gaussian_ply
from mmlphuman.export.splats import TURNS, rotation_quaternions, splats_of, world_sh
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.shading import view_colors
from mmlphuman.types import Cameras, Pose, PosedGaussians, symmetric_matrices, upper_triangles
from tests.builders import look_at_origin, random_pose, randomise, small_avatar
from tests.export.gaussian_ply_reader import read_gaussian_ply

ENOUGH = 45  # dB
SAME = 90  # dB: rounding
PROPERTIES = properties(1)


def write_ply(path, posed: PosedGaussians, up: str = "-y", degree: int = 3) -> None:
    write_gaussian_ply(path, splats_of(posed, up), degree)


def posed_avatar(body_path, light: str) -> PosedGaussians:
    avatar = randomise(small_avatar(body_path, light=light), seed=1)
    with torch.no_grad():
        avatar.sh1 += 0.4 * torch.randn(avatar.sh1.shape, generator=torch.Generator().manual_seed(2))
        pose = random_pose(3, size=0.4)
        return avatar(Pose(pose.joints, torch.zeros(3), about_y(0.7))).posed


@pytest.fixture(scope="module")
def posed(synthetic_body) -> PosedGaussians:
    """A posed avatar about the origin, in the scene's light, with strongly view-dependent colours and skinning that is
    no rotation."""
    out = posed_avatar(synthetic_body, "place")
    stretch = torch.linalg.svdvals(out.linear)
    assert (stretch[:, 0] / stretch[:, 2]).max() > 1.2  # else the tests below would not see the stretch
    return out


def about_y(angle: float) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_euler("y", angle).as_matrix()).float()


def cameras_around(size: int = 64) -> Cameras:
    """Eight on a ring, one from above and one from below."""
    ring = look_at_origin(distance=2.5, size=size, views=8)
    poles = []
    for angle in (torch.pi / 2, -torch.pi / 2):
        turn = torch.from_numpy(Rotation.from_euler("x", angle).as_matrix()).float()
        w2c = ring.w2c[0].clone()
        w2c[:3, :3] = w2c[:3, :3] @ turn
        poles.append(w2c)
    w2c = torch.cat([ring.w2c, torch.stack(poles)])
    return Cameras(w2c, ring.intrinsics[:1].repeat(len(w2c), 1, 1), size, size)


def turned_along(cameras: Cameras, up: str) -> Cameras:
    """The cameras in the world of a file with that axis up: half a turn about z where y points down, written down on
    its own."""
    half = Rotation.from_euler("z", 180, degrees=True).as_matrix()
    turns = {"y": np.eye(3), "-y": half, "z": Rotation.from_euler("x", 90, degrees=True).as_matrix()}
    to_ours = torch.eye(4)
    to_ours[:3, :3] = torch.from_numpy(turns[up]).float().T
    return replace(cameras, w2c=cameras.w2c @ to_ours)


def psnr(a, b) -> torch.Tensor:
    """dB of each view."""
    return -10 * torch.log10((a - b).square().flatten(1).mean(1).clamp_min(1e-12))


def viewer_colors(vertex, centers: np.ndarray) -> np.ndarray:
    """(V, N, 3): what a splatting viewer computes from the numbers of a file of degree 3, written down on its own."""
    xyz = np.stack([vertex["x"], vertex["y"], vertex["z"]], 1)
    direction = xyz - centers[:, None]
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    x, y, z = direction[..., 0], direction[..., 1], direction[..., 2]
    channels = []
    for c in range(3):
        r0, r1, r2 = (vertex[f"f_rest_{15 * c + i}"] for i in range(3))
        value = 0.2820948 * vertex[f"f_dc_{c}"] - 0.4886025 * y * r0 + 0.4886025 * z * r1 - 0.4886025 * x * r2
        assert not any(vertex[f"f_rest_{15 * c + i}"].any() for i in range(3, 15))  # degrees 2 and 3
        channels.append(np.maximum(value + 0.5, 0))
    return np.stack(channels, -1)


@pytest.mark.parametrize("up", TURNS)
def test_the_file_drawn_again_is_the_native_picture_from_all_sides(up, posed, tmp_path):
    """Positions, shapes and the colours that change with the view turn together, whichever axis is up."""
    write_ply(tmp_path / "a.ply", posed, up)
    cameras, background = cameras_around(), torch.tensor([0.2, 0.9, 0.4])
    native = rasterize(posed, cameras, background)
    back = rasterize(read_gaussian_ply(tmp_path / "a.ply"), turned_along(cameras, up), background)
    assert (native.alphas.flatten(1).amax(1) > 0.5).all()  # the person is in every picture
    scores = psnr(native.colors, back.colors)
    assert (scores > ENOUGH).all(), scores
    # What is lost is lost by the fit of view dependence, not by turning.
    write_ply(tmp_path / "b.ply", posed, "y")
    unturned = rasterize(read_gaussian_ply(tmp_path / "b.ply"), cameras, background)
    assert (psnr(unturned.colors, back.colors) > SAME).all()


@torch.no_grad()
def test_viewers_that_turn_a_file_see_the_person_upright_and_from_the_front(synthetic_body, tmp_path):
    """SuperSplat and its relatives turn every file by half a turn about z; there y is up, and z towards the camera."""
    avatar = small_avatar(synthetic_body)
    posed = avatar(Pose(torch.zeros(165), torch.zeros(3), torch.eye(3))).posed
    write_ply(tmp_path / "a.ply", posed)
    shown = read_gaussian_ply(tmp_path / "a.ply").xyz * torch.tensor([-1.0, -1, 1])
    torch.testing.assert_close(shown, posed.xyz)
    head, feet = avatar.joints[15], avatar.joints[10:12].mean(0)
    highest, lowest = (shown[int(shown[:, 1].argmax())], shown[int(shown[:, 1].argmin())])
    assert (highest - head).norm() < 0.3 and (lowest - feet).norm() < 0.3


def test_degree_1_says_the_same_in_less_space(posed, tmp_path):
    files = {degree: tmp_path / f"{degree}.ply" for degree in (1, 3)}
    for degree, path in files.items():
        write_ply(path, posed, degree=degree)
    assert (files[1].stat().st_size / files[3].stat().st_size) == pytest.approx(104 / 248, abs=0.02)
    one, other = (vars(read_gaussian_ply(path)) for path in files.values())
    assert all(torch.equal(one[name], other[name]) for name in ("xyz", "covariances", "opacities", "sh"))


def test_the_file_is_in_the_scenes_light(posed, synthetic_body, tmp_path):
    unlit, cameras, background = posed_avatar(synthetic_body, "none"), cameras_around(), torch.ones(3)
    torch.testing.assert_close(posed.xyz, unlit.xyz)
    write_ply(tmp_path / "a.ply", posed)
    back = rasterize(read_gaussian_ply(tmp_path / "a.ply"), turned_along(cameras, "-y"), background).colors
    lit, dark = (rasterize(scene, cameras, background).colors for scene in (posed, unlit))
    assert (psnr(lit, dark) < ENOUGH - 10).all()  # there is something to lose
    assert (psnr(lit, back) > ENOUGH).all()


def test_a_viewers_colours_are_ours(posed, tmp_path):
    write_ply(tmp_path / "a.ply", posed)
    cameras = cameras_around()
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"].data
    centers = turned_along(cameras, "-y").centers.numpy()
    theirs = torch.from_numpy(viewer_colors(vertex, centers)).float()
    ours = view_colors(posed, cameras)
    flat = PosedGaussians(posed.xyz, posed.covariances, posed.opacities, posed.sh * 0, posed.linear)
    assert (psnr(ours, view_colors(flat, cameras)) < 20).all()  # there is something to get wrong
    scores = psnr(ours, theirs)
    assert (scores > ENOUGH).all(), scores


def test_colours_are_exact_where_posing_is_a_scaled_rotation(posed, tmp_path):
    turns = torch.from_numpy(Rotation.random(len(posed), random_state=0).as_matrix()).float()
    rigid = PosedGaussians(posed.xyz, posed.covariances, posed.opacities, posed.sh, 1.3 * turns)
    write_ply(tmp_path / "a.ply", rigid)
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"].data
    cameras = cameras_around()
    theirs = viewer_colors(vertex, turned_along(cameras, "-y").centers.numpy())
    np.testing.assert_allclose(theirs, view_colors(rigid, cameras).numpy(), atol=2e-5)


def test_world_colours_are_the_least_squares_fit(posed):
    """Against a plain least-squares solve over many random directions, for strongly stretched Gaussians."""
    stretched = posed.linear[:20] @ torch.diag(torch.tensor([1.6, 1.0, 0.5]))
    some = PosedGaussians(
        posed.xyz[:20], posed.covariances[:20], posed.opacities[:20], posed.sh[:20], stretched
    )
    directions = torch.nn.functional.normalize(
        torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    fitted = world_sh(some)
    for n in range(len(some)):
        x, y, z = torch.nn.functional.normalize(-directions @ stretched[n], dim=-1).T
        truth = torch.stack([-y, z, -x], 1) @ some.sh[n, 1:]
        x, y, z = directions.T
        best = torch.linalg.lstsq(torch.stack([-y, z, -x], 1), truth).solution
        torch.testing.assert_close(fitted[n, 1:], best, atol=0.01, rtol=0.01)
    assert torch.equal(fitted[:, 0], some.sh[:, 0])


def test_shapes_and_opacities_in_the_file(posed, tmp_path):
    write_ply(tmp_path / "a.ply", posed, "y")
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"].data
    quats = np.stack([vertex[f"rot_{i}"] for i in range(4)], 1)
    np.testing.assert_allclose(np.linalg.norm(quats, axis=1), 1, atol=1e-5)
    rotations = Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix()
    scales = np.exp(np.stack([vertex[f"scale_{i}"] for i in range(3)], 1))
    covariances = np.einsum("nij,nj,nkj->nik", rotations, scales**2, rotations)
    expected = symmetric_matrices(posed.covariances)
    size = expected.flatten(1).norm(dim=1)[:, None, None].numpy()
    np.testing.assert_allclose(covariances / size, expected.numpy() / size, atol=1e-4)
    np.testing.assert_allclose(1 / (1 + np.exp(-vertex["opacity"])), posed.opacities.numpy(), atol=1e-5)


def test_layout_is_what_viewers_expect(posed, tmp_path):
    write_ply(tmp_path / "a.ply", posed)
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")[0].decode().splitlines()
    floats = [line.removeprefix("property float ") for line in header[3:]]
    assert header[:3] == ["ply", "format binary_little_endian 1.0", f"element vertex {len(posed)}"]
    rest = " ".join(f"f_rest_{i}" for i in range(45))
    assert " ".join(floats) == (
        f"x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 {rest} opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    )


def test_quaternions_of_all_rotations():
    """Half turns included, where the usual formula divides by zero."""
    turns = Rotation.concatenate(
        [Rotation.random(50, random_state=1), Rotation.from_rotvec(np.pi * np.eye(3)), Rotation.identity(1)]
    )
    quats = rotation_quaternions(torch.from_numpy(turns.as_matrix())).numpy()
    back = Rotation.from_quat(quats[:, [1, 2, 3, 0]])
    assert (back * turns.inv()).magnitude().max() < 1e-6


def test_degenerate_gaussians_stay_finite(tmp_path):
    """Posings that flatten space to a plane, a line or nothing, flat and indefinite covariances, opacities 0 and 1."""
    linear = torch.stack(
        [torch.diag(torch.tensor(d)) for d in ([1.0, 1, 0], [1.0, 0, 0], [0.0, 0, 0], [1, 1, 1e-20])]
    )
    covariances = torch.stack(
        [
            torch.zeros(3, 3),
            torch.diag(torch.tensor([1e-4, 1e-4, -1e-11])),
            torch.eye(3),
            1e-12 * torch.eye(3),
        ]
    )
    covariances = upper_triangles(covariances)
    gaussians = PosedGaussians(
        torch.zeros(4, 3), covariances, torch.tensor([0.0, 1, 0.5, 1]), torch.ones(4, 4, 3), linear
    )
    write_ply(tmp_path / "a.ply", gaussians)
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"].data
    numbers = np.stack([vertex[name] for name in PROPERTIES])
    assert np.isfinite(numbers).all()
    assert np.abs(numbers).max() < 100
    back = read_gaussian_ply(tmp_path / "a.ply")  # half a turn about z changes none of these covariances
    torch.testing.assert_close(back.covariances, covariances, atol=1e-8, rtol=1e-4)


def test_gaussians_that_are_not_finite_are_refused_and_nothing_is_written(posed, tmp_path):
    for name in ("xyz", "covariances", "opacities", "sh", "linear"):
        parts = {**vars(posed), name: getattr(posed, name).clone()}
        parts[name].view(len(posed), -1)[7] = torch.nan
        with pytest.raises(ValueError, match=r"1 of 600 Gaussians are not finite"):
            write_ply(tmp_path / "a.ply", PosedGaussians(**parts))
    assert list(tmp_path.iterdir()) == []


def write_table(path, columns: dict, text: bool = False) -> None:
    table = np.zeros(3, [(name, "<f4") for name in columns])
    for name, value in columns.items():
        table[name] = value
    PlyData([PlyElement.describe(table, "vertex")], text=text).write(path)


WHOLE = {name: 0.1 for name in PROPERTIES}


@pytest.mark.parametrize("text", [False, True])
def test_other_programs_files(tmp_path, text):
    """Without normals and view-dependence, doubles or text: whatever has the properties."""
    wanted = {name: 0.5 for name in PROPERTIES if not name.startswith(("n", "f_rest"))}
    write_table(tmp_path / "a.ply", wanted, text)
    gaussians = read_gaussian_ply(tmp_path / "a.ply")
    assert len(gaussians) == 3
    assert (gaussians.sh[:, 1:] == 0).all()
    first = symmetric_matrices(gaussians.covariances)[0]
    torch.testing.assert_close(first, torch.eye(3) * np.exp(1.0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({k: v for k, v in WHOLE.items() if k != "scale_1"}, "property 'scale_1' is missing"),
        (
            {**{k: v for k, v in WHOLE.items() if k != "f_rest_4"}, "f_rest_9": 0},
            "property 'f_rest_4' is missing",
        ),
        ({**WHOLE, "opacity": [0, np.nan, 0]}, "'opacity' of Gaussian 1 is nan"),
        ({**WHOLE, "y": [0, 0, np.inf]}, "'y' of Gaussian 2 is inf"),
        ({**WHOLE, "scale_0": 80}, "'scale_0' to 'scale_2' are too large"),
        ({**WHOLE, **{f"rot_{i}": 0 for i in range(4)}}, "are all zero"),
        ({**WHOLE, **{f"f_rest_{i}": 0.1 for i in range(45)}}, "harmonics of degree 2 or more"),
        ({**WHOLE, "f_rest_9": 0}, "10 numbers f_rest_\\* are of no degree"),
    ],
)
def test_faulty_files(tmp_path, columns, message):
    write_table(tmp_path / "a.ply", columns)
    with pytest.raises(ValueError, match=message) as error:
        read_gaussian_ply(tmp_path / "a.ply")
    assert "a.ply" in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_ply(posed, tmp_path):
    path = tmp_path / "a.ply"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_gaussian_ply(path)
    write_ply(path, posed)
    whole = path.read_bytes()
    for content in (
        b"",
        b"ply",
        b"\x89PNG\xff" * 9,
        whole[:300],
        whole[:-50],
        whole.replace(b"vertex", b"points"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.ply: not a readable PLY file"):
            read_gaussian_ply(path)
