"""What the method says about steps and losses, in its own numbers: rates, Adam, weight decay, windows, crops."""

from dataclasses import replace

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from mmlphuman.avatar.avatar import Avatar, AvatarOutput
from mmlphuman.config import Config, default_config
from mmlphuman.training.losses import Losses, TrainingLoss, choose_crops
from mmlphuman.training.optimisers import Optimisers
from mmlphuman.types import Box, Render, Sample
from tests.builders import look_at_origin, random_layout, random_pose

SCENE_SCALE = 2.5  # metres
# Parameter: (rate, factor that it has decayed to at the end, whether the scene's scale multiplies it).
RATES = {
    "control_offsets": (1.6e-4, 0.01, True),
    "log_scales": (5e-4, 0.1, False),
    "quats": (5e-4, 0.1, False),
    "opacity_logits": (5e-4, 0.1, False),
    "sh0": (5e-4, 0.1, False),
    "sh1": (2.5e-5, 0.1, False),
    "xyz_offsets": (1e-3, 0.1, False),
    "position_bases": (1.6e-5, 0.1, True),
    "property_bases": (1e-4, 1.0, False),
    "sh1_bases": (2.5e-6, 1.0, False),
    "light": (5e-3, 0.1, False),
    "bank": (5e-4, 0.1, False),
}


@pytest.fixture
def avatar() -> Avatar:
    return small(light="place")


def small(light: str) -> Avatar:
    avatar = Avatar(
        random_layout(torch.Generator().manual_seed(0)), 4, num_gsparam_bases=2, num_position_bases=1,
        hidden_widths=(8, 7, 6, 5), light=light,
    )  # fmt: skip
    return avatar.double()


def test_an_avatar_without_light_has_no_rate_for_it():
    for light in ("none", "normal"):
        optimisers = Optimisers(small(light), default_config(), SCENE_SCALE)
        names = [group["name"] for each in optimisers.optimisers for group in each.param_groups]
        assert names.count("light") == (light != "none") and names.count("color") == 1


def expected_rate(name: str, progress: float, poses: int) -> float:
    rate, decay, scaled = RATES[name.split(".")[0]]
    return poses**0.5 * rate * (SCENE_SCALE if scaled else 1) * decay**progress


@pytest.mark.parametrize("poses", [1, 4, 9])
@pytest.mark.parametrize("progress", [0, 0.3, 1])
def test_rates_of_every_parameter_begin_decay_and_end_as_published(avatar, progress, poses):
    optimisers = Optimisers(avatar, default_config(iterations=1000), SCENE_SCALE, poses=poses)
    optimisers.set_rates(round(1000 * progress))
    groups = [group for each in optimisers.optimisers for group in each.param_groups]
    rates = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(avatar.parameters()))
    for name, parameter in avatar.named_parameters():
        assert rates[parameter] == pytest.approx(expected_rate(name, progress, poses), rel=1e-9), name


def test_settings_change_the_rate_and_the_decay_of_their_own_parameter_only(avatar):
    usual, changed = default_config(iterations=100), default_config(iterations=100, rotation_lr=3.0)
    changed.lr_decay.opacity = 0.5
    rates = []
    for config in (usual, changed):
        optimisers = Optimisers(avatar, config, SCENE_SCALE)
        optimisers.set_rates(50)
        groups = [group for each in optimisers.optimisers for group in each.param_groups]
        rates.append({parameter: group["lr"] for group in groups for parameter in group["params"]})
    differing = {name for name, each in avatar.named_parameters() if rates[0][each] != rates[1][each]}
    assert differing == {"quats", "opacity_logits"}
    assert rates[1][avatar.quats] == pytest.approx(3 * 0.1**0.5)
    assert rates[1][avatar.opacity_logits] == pytest.approx(5e-4 * 0.5**0.5)


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-14])
def test_three_steps_are_adam_s_by_the_published_numbers(avatar, size):
    """Betas 0.9 and 0.999, epsilon 1e-15, which gradients of 1e-14 still see; the MLPs shrink by 1e-3 of their rate."""
    optimisers = Optimisers(avatar, default_config(iterations=10), SCENE_SCALE)
    generator = torch.Generator().manual_seed(1)
    numbers = {name: parameter.detach().clone() for name, parameter in avatar.named_parameters()}
    start = {name: value.clone() for name, value in numbers.items()}
    first, second = ({name: torch.zeros_like(value) for name, value in numbers.items()} for _ in range(2))
    for step in range(3):
        for name, parameter in avatar.named_parameters():
            gradient = size * torch.randn(parameter.shape, generator=generator, dtype=torch.double)
            parameter.grad = gradient.clone()
            rate = expected_rate(name, step / 10, 1)
            if name.startswith("bank"):
                numbers[name] = numbers[name] * (1 - rate * 1e-3)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            numbers[name] = numbers[name] - rate * mean / (square.sqrt() + 1e-15)
        optimisers.set_rates(step)
        optimisers.step()
    for name, parameter in avatar.named_parameters():
        moved = parameter.detach() - start[name]
        torch.testing.assert_close(moved, numbers[name] - start[name], rtol=1e-6, atol=1e-12, msg=name)


SIZE = 64


def make_sample(masks: torch.Tensor, **others) -> Sample:
    """masks: (V, SIZE, SIZE)."""
    images = torch.randint(
        0, 256, (*masks.shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return Sample(
        0, (0,), random_pose(), look_at_origin(size=SIZE), images, masks, torch.zeros_like(masks), **others
    )


def losses_of(config: Config, sample: Sample, colors: torch.Tensor, iteration: int = 0, lpips=None) -> Losses:
    crops = choose_crops(sample, False, torch.Generator())
    output = AvatarOutput(None, torch.full((4, 3), 0.005), torch.zeros(8, 3))
    neighbours, background = torch.arange(7).repeat(8, 1), torch.tensor([0.2, 0.5, 0.7])
    return TrainingLoss(config, lpips)(
        iteration, sample, Render(colors, None), output, neighbours, background, crops
    )


@pytest.fixture
def sample() -> Sample:
    masks = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    masks[0, 20:40, 25:35] = True
    return make_sample(masks, persons=(Box(20, 40, 25, 35),))


def test_l1_of_a_window_is_that_of_the_whole_image(sample):
    """What lies outside the window is background in both: its pixels add nothing to the sum, and count."""
    colors = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    colors = torch.where(sample.masks[..., None], colors, torch.tensor([0.2, 0.5, 0.7]))
    whole = losses_of(default_config(), sample, colors)
    window = replace(
        sample,
        images=sample.images[:, 16:48, 16:48], masks=sample.masks[:, 16:48, 16:48], edges=sample.edges[:, 16:48, 16:48],
        share=0.25, persons=(Box(4, 24, 9, 19),),
    )  # fmt: skip
    cut = losses_of(default_config(), window, colors[:, 16:48, 16:48])
    assert whole.terms["l1"] > 0.01
    torch.testing.assert_close(cut.terms["l1"], whole.terms["l1"])
    torch.testing.assert_close(cut.total, whole.total)


def test_a_white_byte_is_one_and_brighter_than_white_is_white(sample):
    white = replace(sample, images=torch.full_like(sample.images, 255), masks=torch.ones_like(sample.masks))
    for brightness in (1.0, 1.5, 3.0):
        terms = losses_of(default_config(), white, torch.full((1, SIZE, SIZE, 3), brightness)).terms
        assert terms["l1"] == 0, brightness


def test_ssim_sees_the_person_s_box_and_eight_pixels_about_it(sample):
    colors = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    term = losses_of(default_config(lambda_ssim=1.0), sample, colors).terms["ssim"]
    truth = torch.where(sample.masks[..., None], sample.images / 255, torch.tensor([0.2, 0.5, 0.7]))
    pair = (each.permute(0, 3, 1, 2) for each in (colors, truth))
    _, everywhere = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
    assert everywhere.shape == (1, 3, SIZE, SIZE)
    expected = 1 - everywhere[..., 12:48, 17:43].mean()
    assert term.item() == pytest.approx(expected.item(), abs=1e-4)


def test_perceptual_crops_are_squares_first_and_patches_of_512_later():
    persons = (Box(100, 1100, 300, 700), Box(0, 200, 50, 90))  # 1000 pixels high, and smaller than a patch
    sample = make_sample(torch.ones(2, SIZE, SIZE, dtype=torch.bool), persons=persons)
    squares = choose_crops(sample, False, torch.Generator().manual_seed(0)).squares
    assert [(each.top, each.left, each.size) for each in squares] == [(100, 0, 1000), (0, -30, 200)]
    drawn = [choose_crops(sample, True, torch.Generator().manual_seed(seed)).squares for seed in range(20)]
    assert all(small == squares[1] for _, small in drawn)
    tops, lefts = zip(*((each.top, each.left) for each, _ in drawn), strict=True)
    assert {each.size for each, _ in drawn} == {512}
    assert len(set(tops)) > 10 and len(set(lefts)) > 10
    assert min(tops) >= 100 and max(tops) <= 588 and min(lefts) >= 0 and max(lefts) <= 488
