"""The avatar's GPU kernels against plain PyTorch: values, gradients under random cotangents, and what drawing uses."""

from dataclasses import replace

import pytest
import torch

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.body.kinematics import rotation_matrices
from mmlphuman.config import default_config
from mmlphuman.processes import Ranks
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.shading import kernel_colors, view_colors
from mmlphuman.training.pose_rows import PoseRows, pieces_of_row
from tests.builders import look_at_origin, random_pose, randomise, small_avatar
from tests.outer_products import all_gradients

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="compares GPU kernels, which need a GPU"
)

SCHEDULES = {
    "everything": ActiveParts(),
    "no view dependence": ActiveParts(sh1=False),
    "position bases alone": ActiveParts(property_bases=False),
    "nothing yet": ActiveParts(False, False, False),
}


@pytest.fixture(scope="module")
def avatar(synthetic_body):
    return randomise(small_avatar(synthetic_body)).cuda()


@pytest.fixture
def pose():
    turned = rotation_matrices(torch.tensor([0.3, 0.2, -0.5]))
    return replace(random_pose(1), rotation=turned)


@pytest.fixture(autouse=True)
def full_precision():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def values(forward, colors, pose, active, cameras):
    output = forward(pose, active)
    posed = output.posed
    return {
        "xyz": posed.xyz,
        "covariances": posed.covariances,
        "opacities": posed.opacities,
        "colors": colors(posed, cameras),
        "linear": posed.linear,
        "scales": output.scales,
        "controls": output.control_offsets,
        "activations": output.activations,
    }


def gradients_of(avatar, activations, active) -> dict[str, torch.Tensor | None]:
    """Of all parameters; after the kernels' backward pass those of the large ones follow from its row."""
    found = {part: parameter.grad for part, parameter in avatar.named_parameters()}
    if not activations:
        return found
    row = PoseRows(Ranks(torch.device("cuda")), 1)
    row.add(pieces_of_row(dict(avatar.named_parameters()), activations), active)
    row.take()
    return found | all_gradients(avatar, row)


def largest(difference: torch.Tensor, size: torch.Tensor) -> float:
    return float(difference.abs().max() / size.abs().max().clamp_min(1e-9))


@pytest.mark.parametrize("name", SCHEDULES)
def test_fused_avatar_equals_the_plain_one(avatar, pose, name):
    from mmlphuman.avatar.fused import FusedAvatar

    active, cameras, pose = SCHEDULES[name], look_at_origin(views=3).to("cuda"), pose.to("cuda")
    generator = torch.Generator().manual_seed(3)
    results, gradients = [], []
    for forward, colors in ((avatar, view_colors), (FusedAvatar(avatar), kernel_colors)):
        avatar.zero_grad(set_to_none=True)
        result = values(forward, colors, pose, active, cameras)
        activations = result.pop("activations")
        generator.manual_seed(3)
        total = 0.0
        for part, value in result.items():
            if part != "linear":
                total = total + (value * torch.randn(value.shape, generator=generator).cuda()).sum()
        total.backward()
        results.append({part: value.detach() for part, value in result.items()})
        gradients.append(gradients_of(avatar, activations, active))
    plain, fused = results
    for part, value in plain.items():
        assert largest(fused[part] - value, value) < 3e-6, part
    worst = 0.0
    for part, gradient in gradients[0].items():
        ours = gradients[1][part]
        if gradient is None or not gradient.any():
            assert ours is None or not ours.any(), part
            continue
        worst = max(worst, largest(ours - gradient, gradient))
        assert largest(ours - gradient, gradient) < 1e-5, part
    print(f"{name}: largest relative gradient error {worst:.1e}")


def test_gradients_do_not_depend_on_chance(avatar, pose):
    """No atomic additions: two backward passes are equal bit for bit."""
    from mmlphuman.avatar.fused import FusedAvatar

    fused, pose, first = FusedAvatar(avatar), pose.to("cuda"), None
    for _ in range(2):
        avatar.zero_grad(set_to_none=True)
        output = fused(pose)
        output.posed.xyz.square().sum().backward()
        now = list(pieces_of_row(dict(avatar.named_parameters()), output.activations).values())
        assert first is None or all(torch.equal(a, b) for a, b in zip(first, now, strict=True))
        first = now


@pytest.fixture(scope="module")
def trained(avatar):
    config = default_config(init_num_gs=600, num_verts=120, num_features=10)
    space = PoseSpace.fit(0.2 * torch.randn(40, 63, generator=torch.Generator().manual_seed(0)), 20)
    return TrainedAvatar(avatar, space, config, iteration=10**6).to("cuda")


def test_recorded_half_precision_draws_the_same_picture(trained, pose):
    cameras, white = look_at_origin(size=256).to("cuda"), torch.ones(3, device="cuda")
    prepared = trained.prepared(torch.device("cuda"))
    assert prepared.poser is not None and trained.poser is None
    for project in (False, True):
        for seed in (
            1,
            2,
            1,
        ):  # the second call overwrites the first's Gaussians; the third is the first again
            moved = replace(random_pose(seed), rotation=pose.rotation, translation=torch.zeros(3))
            plain = rasterize(trained.pose(moved, project), cameras, white, "gsplat").colors.clamp(0, 1)
            fast = rasterize(prepared.pose(moved, project), cameras, white, "gsplat").colors.clamp(0, 1)
            psnr = -10 * (fast - plain).square().mean().log10()
            print(f"recorded against plain: {psnr:.1f} dB")
            assert psnr > 50


def test_bytes_equal_the_plain_conversion_but_for_exact_halves():
    from mmlphuman.render.color_kernels import bytes_of

    image = torch.rand(37, 41, 3, device="cuda") * 1.4 - 0.2
    plain = (image.clamp(0, 1) * 255).round().int()
    assert (bytes_of(image).int() - plain).abs().max() <= 1
