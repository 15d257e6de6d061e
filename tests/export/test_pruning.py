"""What pruning keeps, and that nothing else changes."""

from dataclasses import replace

import pytest
import torch

from mmlphuman.export.compact_reader import load_compact
from mmlphuman.export.compact_report import compare
from mmlphuman.export.pruning import Selection, VisibleChange, mean_offsets, prune, select, visible_change
from tests.builders import canonical_of, random_pose
from tests.export.compact_files import GAUSSIANS, STILL, everything, write

pytestmark = pytest.mark.usefixtures("small_pictures")


def test_only_gaussians_that_vary_are_kept(change):
    assert (change.properties[STILL] == 0).all() and (change.sh1[STILL] == 0).all()
    assert change.properties[400:].max() > 0
    selection = select(change, min_psnr=70)
    kept = selection.order[: selection.num_properties]
    assert 0 < len(kept) <= 200 and (kept >= 400).all()
    least = change.properties[kept].minimum(torch.ones(())).min()
    assert change.properties[selection.order[selection.num_properties :]].max() <= least


def test_more_quality_keeps_more_and_shares_are_shares(change):
    counts = [select(change, min_psnr=psnr).num_properties for psnr in (0, 40, 60, 80)]
    assert counts == sorted(counts) and counts[0] == 0
    for keep in (0, 0.1, 0.25, 1):
        selection = select(change, keep)
        assert selection.num_properties == round(keep * GAUSSIANS)
        assert selection.num_sh1 <= selection.num_properties
        assert sorted(selection.order.tolist()) == list(range(GAUSSIANS))


def test_degree_one_bases_are_kept_only_with_the_others():
    change = VisibleChange(torch.tensor([0.0, 1, 2, 0]), torch.tensor([3.0, 0, 2, 0]))
    selection = select(change, min_psnr=0.0)  # an error of 1 is allowed, four times what one causes
    assert selection.order[: selection.num_sh1].tolist() == [0, 2]
    assert selection.num_properties == 3 or selection.num_properties == 2


def test_the_estimate_is_what_a_single_gaussian_changes(trained, change):
    """First order, one Gaussian: pruning it alone changes pictures by the estimate, within the estimate's noise."""
    one = int(change.properties.argmax())
    others = torch.cat([torch.arange(one), torch.arange(one + 1, GAUSSIANS), torch.tensor([one])])
    measured = compare(trained, prune(trained, Selection(others, 599, 599, 0.0)), others, 8).psnr
    estimated = -10 * float((change.properties + change.sh1)[one].log10())
    assert abs(measured - estimated) < 6


def test_pruned_gaussians_take_their_mean_and_the_others_do_not_move(trained, change):
    selection = select(change, 0.2)
    pruned, mean, pose = prune(trained, selection), mean_offsets(trained), random_pose(4)
    kept = selection.num_properties
    gone, stay = selection.order[kept:], selection.order[:kept]
    ours, truth = canonical_of(pruned.avatar, pose), canonical_of(trained.avatar, pose)
    torch.testing.assert_close(ours.xyz, truth.xyz[selection.order])
    for name in ("scales", "quats", "opacities"):
        torch.testing.assert_close(getattr(ours, name)[:kept], getattr(truth, name)[stay])
    torch.testing.assert_close(ours.sh[:kept, 0], truth.sh[stay, 0])
    both = selection.num_sh1
    torch.testing.assert_close(ours.sh[:both], truth.sh[selection.order[:both]])
    neutral = trained.avatar
    torch.testing.assert_close(ours.sh[kept:, 0], (neutral.sh0 + mean.properties[:, :3])[gone])
    torch.testing.assert_close(ours.sh[both:, 1:], (neutral.sh1 + mean.sh1)[selection.order[both:]])
    torch.testing.assert_close(ours.scales[kept:], (neutral.log_scales + mean.properties[:, 3:6])[gone].exp())
    logits = neutral.opacity_logits + mean.properties[:, 10]
    torch.testing.assert_close(ours.opacities[kept:], logits[gone].sigmoid())


def test_another_order_is_the_same_picture(trained):
    assert trained.avatar.light is not None and trained.avatar.light.coefficients.abs().max() > 0.1
    order = torch.randperm(GAUSSIANS, generator=torch.Generator().manual_seed(3))
    shuffled = prune(trained, replace(everything(trained.avatar), order=order))
    assert compare(trained, shuffled, order, 2).psnr > 80
    assert compare(trained, shuffled, order, 2).position_max < 1e-6
    assert torch.equal(shuffled.avatar.normals, trained.avatar.normals[order])
    ours, truth = shuffled.pose(random_pose(5)), trained.pose(random_pose(5))  # away from the origin
    torch.testing.assert_close(ours.sh, truth.sh[order])


def test_an_avatar_that_lost_all_bases_still_poses(trained, tmp_path):
    bare = prune(trained, Selection(torch.arange(GAUSSIANS), 0, 0, 0.0))
    loaded = load_compact(write(tmp_path / "bare.safetensors", bare))
    assert loaded.avatar(random_pose(1)).posed.xyz.isfinite().all()
    assert loaded.avatar.property_bases.shape == (0, 15, 11)


def test_bases_that_training_never_switched_on_are_all_dropped(trained):
    early = replace(trained, config=replace(trained.config, iteration_gsparam_basis=100))
    selection = select(visible_change(early, 1, quiet=True))
    assert selection.num_properties == 0
    ours, truth = (
        prune(early, selection).avatar(random_pose(2), early.active),
        early.avatar(random_pose(2), early.active),
    )
    torch.testing.assert_close(ours.posed.sh, truth.posed.sh)
