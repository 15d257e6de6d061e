"""Other numbers for the same avatar, and steps: what they promise of pictures."""

import torch

from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.export import LEVEL_NAMES, pruning
from mmlphuman.export.precision import LEVELS, MAX_SHIFT, even_steps, steps_of
from mmlphuman.export.pruning import Selection, Sensitivity, along_curve, curve_order, in_curve_order, look
from mmlphuman.export.standard_form import standard_form
from tests.builders import random_pose, small_trained

FINISHED = 10**6


def lively(body) -> TrainedAvatar:
    trained = small_trained(body, FINISHED)
    with torch.no_grad():
        for weight in trained.avatar.bank.weights:
            weight.mul_(2)
    return trained


def same_look(one: TrainedAvatar, other: TrainedAvatar, order=slice(None)) -> None:
    for seed in range(2):
        ours, truth = one.pose(random_pose(seed)), other.pose(random_pose(seed))
        for name, tolerance in (("xyz", 1e-5), ("covariances", 1e-5), ("opacities", 1e-4), ("sh", 1e-3)):
            difference = getattr(ours, name) - getattr(truth, name)[order]
            assert difference.abs().max() < tolerance, name


def test_standard_form_poses_alike_with_coefficients_of_mean_0_and_variance_1(synthetic_body):
    trained = lively(synthetic_body)
    before = {name: value.clone() for name, value in trained.avatar.state_dict().items()}
    ours = standard_form(trained)
    same_look(ours, trained)
    assert all(torch.equal(before[name], value) for name, value in trained.avatar.state_dict().items()), (
        "a copy"
    )
    poses = trained.pose_space.training_poses
    found = torch.stack([ours.avatar.coefficients(pose, ours.active) for pose in poses])  # (F, A, K + L)
    assert found.mean(0).abs().max() < 1e-3
    flat = found.flatten(0, 1)[:, :15]
    variances = flat.square().mean(0)
    assert ((variances - 1).abs() < 0.02).sum() >= 10 and variances.max() < 1.02
    correlation = (flat.T @ flat / len(flat)) / (variances[:, None] * variances).sqrt().clamp_min(1e-9)
    assert (correlation - torch.eye(15)).abs().max() < 0.05
    quats = ours.avatar.quats
    torch.testing.assert_close(quats.norm(dim=1), torch.ones(len(quats)))
    assert (quats[:, 0] >= 0).all()
    sizes = ours.avatar.property_bases.square().sum((0, 2))
    assert sizes[0] > sizes[-1], "the first bases say most"


def test_parts_that_training_has_not_reached_stay_as_they_are(synthetic_body):
    trained = small_trained(synthetic_body, 0)
    same_look(standard_form(trained), trained)
    assert torch.equal(standard_form(trained).avatar.control_offsets, trained.avatar.control_offsets)


def test_a_curve_takes_neighbours_one_after_the_other():
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))]
    order = curve_order(grid)
    assert sorted(order.tolist()) == list(range(512))
    steps = (grid[order][1:] - grid[order][:-1]).norm(dim=1)
    assert steps.mean() < 2 and (grid[1:] - grid[:-1]).norm(dim=1).mean() > 4
    assert len(curve_order(torch.zeros(0, 3))) == 0


def test_another_order_of_gaussians_and_control_points_is_the_same_avatar(synthetic_body):
    trained = lively(synthetic_body)
    same_look(in_curve_order(trained), trained)
    shuffled = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    selection = along_curve(Selection(shuffled, 200, 50, 0.0), trained.avatar)
    assert set(selection.order[:50].tolist()) == set(shuffled[:50].tolist())
    assert set(selection.order[:200].tolist()) == set(shuffled[:200].tolist())


def test_sensitivity_is_what_a_change_does_to_pictures(synthetic_body, monkeypatch):
    """Of colour, which enters linearly: squared error of a picture for a change of one Gaussian's red."""
    monkeypatch.setattr(pruning, "PROBE_SIZE", 96)
    trained = lively(synthetic_body)
    _, sensitivity = look(trained, 24, quiet=True)
    one, size = int(sensitivity.properties[:, 0].argmax()), 0.02
    from mmlphuman.backend import choose_backend
    from mmlphuman.render.rasterize import rasterize

    backend = choose_backend("torch", "plain", torch.device("cpu"))
    squared, covered = 0.0, 0.0
    for probe in pruning.probes(trained, 24):
        pictures = []
        for change in (0.0, size):
            with torch.no_grad():
                trained.avatar.sh0[one, 0] += change
                posed = trained.avatar(probe.pose, trained.active).posed
                pictures.append(rasterize(posed, probe.cameras, torch.ones(3), backend))
                trained.avatar.sh0[one, 0] -= change
        squared += float((pictures[1].colors - pictures[0].colors).square().sum())
        covered += 3 * float(pictures[0].alphas.sum())
    measured = squared / covered / size**2
    assert 0.3 < float(sensitivity.properties[one, 0]) / measured < 3  # 24 random signs


def test_steps_share_the_error_that_a_level_allows(synthetic_body):
    avatar = lively(synthetic_body).avatar
    generator = torch.Generator().manual_seed(0)
    matters = torch.rand(600, 1, generator=generator) ** 6  # some Gaussians much, most little
    sensitivity = Sensitivity(
        matters * torch.rand(600, 11, generator=generator), matters * torch.rand(600, 9, generator=generator)
    )
    spread = torch.full((600,), 15.0)  # variance 1 each
    for level in LEVELS.values():
        steps = steps_of(level, sensitivity, spread, avatar)
        assert steps.shift.min() >= 0 and steps.shift.max() <= MAX_SHIFT and steps.shift.unique().numel() > 2
        square = 4.0 ** steps.shift[:, None] / 12
        of_properties = sensitivity.properties * steps.properties**2 * square
        error = 16 * (of_properties.sum() + (sensitivity.sh1 * steps.sh1**2 * square).sum())
        capped = (steps.properties == 0.5).any() or (steps.sh1 == 0.5).any()
        assert capped or abs(-10 * float(error.log10()) - level.rounding_psnr) < 0.1
    order = sensitivity.properties.sum(1) + sensitivity.sh1.sum(1)
    assert steps.shift[order.argmax()] < steps.shift[order.argmin()], "what matters less is rounded more"
    high, tiny = (steps_of(LEVELS[name], sensitivity, spread, avatar) for name in ("high", "tiny"))
    assert (high.properties <= tiny.properties).all()
    assert even_steps(avatar).shift.max() == 0


def test_commands_know_all_levels():
    assert tuple(LEVELS) == LEVEL_NAMES
