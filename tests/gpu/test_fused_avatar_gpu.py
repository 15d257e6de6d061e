"""The avatar's GPU kernels against plain PyTorch: values, gradients under random cotangents, and what drawing uses."""

import copy
from dataclasses import replace

import pytest
import torch

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.avatar.mlp_bank import MLPBank
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.backend import choose_backend
from mmlphuman.body.kinematics import rotation_matrices
from mmlphuman.config import default_config
from mmlphuman.gpu.pose_rows import PoseRow, PoseRows, pieces_of_row
from mmlphuman.processes import Ranks
from mmlphuman.render.rasterize import rasterize
from mmlphuman.render.shading import view_colors
from mmlphuman.types import PosedGaussians
from tests.builders import look_at_origin, random_pose, random_poses
from tests.outer_products import all_gradients

SCHEDULES = {
    "everything": ActiveParts(),
    "no view dependence": ActiveParts(sh1=False),
    "position bases alone": ActiveParts(property_bases=False),
    "nothing yet": ActiveParts(False, False, False),
}


@pytest.fixture(scope="module")
def avatar(avatar_of_each_method):
    return copy.deepcopy(avatar_of_each_method)


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
    row = PoseRows(Ranks(avatar.xyz.device), 1)
    row.add(PoseRow.of(pieces_of_row(dict(avatar.named_parameters()), activations)), active)
    row.take()
    return found | all_gradients(avatar, row)


def largest(difference: torch.Tensor, size: torch.Tensor) -> float:
    return float(difference.abs().max() / size.abs().max().clamp_min(1e-9))


@pytest.mark.parametrize("name", SCHEDULES)
def test_fused_avatar_equals_the_plain_one(avatar, pose, device, name):
    from mmlphuman.gpu.fused_avatar import FusedAvatar
    from mmlphuman.gpu.view_colors import kernel_colors

    active, cameras, pose = SCHEDULES[name], look_at_origin(views=3).to(device), pose.to(device)
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
                total = total + (value * torch.randn(value.shape, generator=generator).to(device)).sum()
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


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_pose_that_asks_for_it_gets_the_plain_one_s_gradient(avatar, pose, device, name):
    """Joints and translation, under a turned world; and nothing else changes by it."""
    from mmlphuman.gpu.fused_avatar import FusedAvatar
    from mmlphuman.gpu.view_colors import kernel_colors

    active, cameras, fused = SCHEDULES[name], look_at_origin(views=3).to(device), FusedAvatar(avatar)
    results = []
    for forward, colors, asks in (
        (avatar, view_colors, True), (fused, kernel_colors, True), (fused, kernel_colors, False),
    ):  # fmt: skip
        avatar.zero_grad(set_to_none=True)
        given = pose.to(device)
        given = replace(
            given,
            joints=given.joints.clone().requires_grad_(asks),
            translation=given.translation.clone().requires_grad_(asks),
        )
        output = forward(given, active)
        generator = torch.Generator().manual_seed(4)
        looked_at = output.posed.xyz, output.posed.covariances, colors(output.posed, cameras)
        sum(
            (part * torch.randn(part.shape, generator=generator).to(device)).sum() for part in looked_at
        ).backward()
        grads = {part: parameter.grad for part, parameter in avatar.named_parameters()}
        results.append((given.joints.grad, given.translation.grad, output, grads))
    (joints, translation, *_), ours, without = results
    assert joints.abs().max() > 0 and translation.abs().max() > 0
    assert largest(ours[0] - joints, joints) < 1e-5 and largest(ours[1] - translation, translation) < 1e-5
    # Another kernel is compiled for it, which rounds in another order.
    assert largest(ours[2].posed.xyz - without[2].posed.xyz, without[2].posed.xyz) < 1e-6
    for part, gradient in without[3].items():
        assert (gradient is None) == (ours[3][part] is None)
        assert gradient is None or largest(gradient - ours[3][part], gradient) < 1e-5, part


@pytest.mark.parametrize("size", [0.0, 1e-3, 0.3, 1.0])
def test_the_skeleton_s_gradient_is_autograd_s(avatar, device, size):
    """At the T-pose and near it, where series stand in, and far from it."""
    from mmlphuman.gpu.skeleton import world_transforms
    from mmlphuman.gpu.tables import FusedTables

    tables, exact = FusedTables.of(avatar), copy.deepcopy(avatar).double()
    turned = rotation_matrices(torch.tensor([0.3, 0.2, -0.5])).to(device)
    cotangent = torch.randn(len(avatar.joints), 12, generator=torch.Generator().manual_seed(2)).to(device)
    found = []
    for ours in (True, False):
        pose = replace(random_pose(7, size), rotation=turned).to(device)
        dtype = torch.float if ours else torch.double
        joints, translation = (
            part.to(dtype, copy=True).requires_grad_() for part in (pose.joints, pose.translation)
        )
        pose = replace(pose, joints=joints, translation=translation)
        if ours:
            value = world_transforms(avatar.joints, tables, pose)
        else:
            last = joints.new_tensor([[0, 0, 0, 1]])
            world = torch.cat([torch.cat([turned.double(), translation[:, None]], 1), last])
            value = (world @ exact.skinning_transforms(pose))[:, :3].flatten(1)
        found.append((value.detach(), *torch.autograd.grad((value * cotangent).sum(), (joints, translation))))
    for ours, plain in zip(*found, strict=True):
        assert largest(ours - plain, plain) < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs")
def test_recorded_steps_give_the_pose_its_gradient_each_time(avatar, pose):
    """Replayed for other poses, and recorded anew when a pose asks for none."""
    from mmlphuman.gpu.fused_avatar import FusedAvatar, RecordedAvatar

    # Parameters of its own: what adds to gradients on this stream must not reach into what is recorded.
    fused, recorded = FusedAvatar(avatar), RecordedAvatar(copy.deepcopy(avatar))
    for seed, asks in ((1, True), (2, True), (3, False), (4, True)):
        found = []
        for forward in (fused, recorded):
            avatar.zero_grad(set_to_none=True)
            given = replace(random_pose(seed), rotation=pose.rotation).to("cuda")
            given = replace(
                given,
                joints=given.joints.clone().requires_grad_(asks),
                translation=given.translation.clone().requires_grad_(asks),
            )
            output = forward(given, ActiveParts())
            (output.posed.xyz.square().sum() + 1e3 * output.posed.covariances.sum()).backward()
            del (
                output
            )  # its graph adds to gradients on this stream, which must not reach into what is recorded next
            found.append((given.joints.grad, given.translation.grad))
        for ours, expected in zip(found[1], found[0], strict=True):
            assert (ours is None) == (expected is None) == (not asks)
            assert ours is None or largest(ours - expected, expected) < 1e-5


@pytest.mark.parametrize("own", [False, True], ids=["all see the same", "each its own"])
def test_a_bank_with_more_inputs_than_a_program_reads_at_once(device, own):
    from mmlphuman.gpu.bank import BankFunction

    bank = MLPBank(2, 63, (264, 20), 7, torch.Generator().manual_seed(0)).to(device)
    shape = (2, 63) if own else (63,)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        expected = bank(features)
        assert (
            largest(BankFunction.apply(features, *bank.weights, *bank.biases)[0] - expected, expected) < 3e-6
        )


def test_gradients_do_not_depend_on_chance(avatar, pose, device):
    """No atomic additions: two backward passes are equal bit for bit."""
    from mmlphuman.gpu.fused_avatar import FusedAvatar

    fused, pose, first = FusedAvatar(avatar), pose.to(device), None
    for _ in range(2):
        avatar.zero_grad(set_to_none=True)
        output = fused(pose)
        output.posed.xyz.square().sum().backward()
        now = list(pieces_of_row(dict(avatar.named_parameters()), output.activations).values())
        assert first is None or all(torch.equal(a, b) for a, b in zip(first, now, strict=True))
        first = now


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs")
def test_recorded_half_precision_draws_the_same_picture(avatar, pose):
    config = default_config(init_num_gs=600, num_verts=120, num_features=10)
    space = PoseSpace.fit(random_poses(40, size=0.2), 20)
    trained = TrainedAvatar(avatar, space, config, iteration=10**6).to("cuda")
    cameras, white = look_at_origin(size=256).to("cuda"), torch.ones(3, device="cuda")
    backend = choose_backend("auto", "auto", "cuda")
    prepared = trained.prepared(torch.device("cuda"), backend)
    assert prepared.poser is not None and trained.poser is None
    for project in (False, True):
        for seed in (
            1,
            2,
            1,
        ):  # the second call overwrites the first's Gaussians; the third is the first again
            moved = replace(random_pose(seed), rotation=pose.rotation, translation=torch.zeros(3))
            plain = rasterize(trained.pose(moved, project), cameras, white, backend).colors.clamp(0, 1)
            fast = rasterize(prepared.pose(moved, project), cameras, white, backend).colors.clamp(0, 1)
            psnr = -10 * (fast - plain).square().mean().log10()
            print(f"recorded against plain: {psnr:.1f} dB")
            assert psnr > 50
            plain, fast = (each.pose(moved, project).unlit for each in (trained, prepared))
            assert (fast is None) == (plain is None) == (avatar.light is None)
            assert fast is None or largest(fast - plain, plain) < 3e-3, "without the light"


def test_colors_and_their_gradients_equal_the_plain_ones(device):
    """More Gaussians than a program takes, any 3 x 3 part, some colours cut off at zero, where no gradient is."""
    from mmlphuman.gpu.view_colors import kernel_colors

    generator, count = torch.Generator().manual_seed(0), 150
    cameras = look_at_origin(distance=2.0, views=2).to(device)
    xyz, linear, sh, cotangent = (
        torch.randn(shape, generator=generator).to(device)
        for shape in ((count, 3), (count, 3, 3), (count, 4, 3), (2, count, 3))
    )
    results = []
    for colors in (view_colors, kernel_colors):
        leaves = xyz.clone().requires_grad_(), sh.clone().requires_grad_()
        posed = PosedGaussians(leaves[0], sh.new_zeros(count, 6), sh.new_ones(count), leaves[1], linear)
        value = colors(posed, cameras)
        results.append((value.detach(), *torch.autograd.grad((value * cotangent).sum(), leaves)))
    plain, ours = results
    assert (plain[0] == 0).any() and plain[1].any()
    for expected, value in zip(plain, ours, strict=True):
        assert largest(value - expected, expected) < 3e-6


def test_bytes_equal_the_plain_conversion_but_for_exact_halves(device):
    from mmlphuman.gpu.view_colors import bytes_of

    steps = torch.arange(0, 510) / 510  # every byte, and every half between two
    beside = [steps.nextafter(steps.new_tensor(end)) for end in (-1.0, 2.0)]
    image = torch.cat([torch.rand(4000) * 1.4 - 0.2, steps, *beside, torch.tensor([-7.0, 1.0, 7.0])]).to(
        device
    )
    numbers = image.clamp(0, 1) * 255
    plain, ours = numbers.round().int(), bytes_of(image).int()
    halves = (
        numbers + 0.5
    ) % 1 == 0  # torch takes the even byte. To single precision one below 0.5 is 0.5, too
    assert 200 < halves.sum() < 400
    assert torch.equal(ours[~halves], plain[~halves])
    assert (ours - plain).abs().max() <= 1
