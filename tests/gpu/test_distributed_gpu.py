"""Gradients of several poses on GPUs: the recorded backward pass overwrites its own results, the sums must not."""

import copy

import numpy as np
import pytest
import torch

from mmlphuman.benchmark.subject import untrained_subject
from mmlphuman.benchmark.training_step import make_trainer, training_capture
from mmlphuman.body.smplx_model import load_body
from mmlphuman.config import Config
from mmlphuman.synthetic.motion import BETAS, make_motion
from mmlphuman.training.optimisers import Optimisers
from tests.builders import small_avatar

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="looks at recorded GPU work, which needs a GPU"
)


@pytest.fixture(scope="module")
def subject(synthetic_body, tmp_path_factory):
    config = Config(
        init_num_gs=600, num_verts=100, num_features=8, weight_volume_resolution=16, lambda_ssim=0.1,
        edge_radius=1, random_background=False,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("motion") / "smpl_params.npz"
    joints = load_body(synthetic_body, BETAS[0]).joints.double().numpy()
    np.savez(path, **make_motion(joints, 40, 0, 0))
    return untrained_subject(config, synthetic_body, path, (96, 128), torch.device("cuda"))


def gradients(trainer) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad for name, parameter in trainer.avatar.named_parameters()}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def test_two_poses_by_recorded_work_give_the_mean_of_their_gradients(subject, tmp_path):
    """The second time as well, when everything is replayed. Adam hides a wrong factor: looked at before it."""
    dataset = training_capture(subject, tmp_path, edge_radius=1)
    trainer = make_trainer(subject, dataset, "auto", 1)
    assert trainer.optimisers.kernel_steps is not None
    pairs = [trainer.next_samples() + trainer.next_samples() for _ in range(2)]
    assert len({sample.name() for pair in pairs for sample in pair}) == 4
    draws = trainer.draws.get_state()
    means = []
    for pair in pairs:
        single = []
        for sample in pair:
            trainer.optimisers.zero_grad()
            trainer.add_gradients(sample)
            single.append(gradients(trainer))
        means.append({name: (gradient + single[1][name]) / 2 for name, gradient in single[0].items()})

    trainer.draws.set_state(draws)
    trainer.poses_per_step = 2
    trainer.share_of_mean = torch.tensor(0.5, device="cuda")
    steps = trainer.optimisers.kernel_steps
    seen = []

    def look() -> torch.Tensor:
        seen.append(gradients(trainer))
        return torch.ones((), device="cuda")

    trainer.optimisers.kernel_steps = [look for _ in steps]
    for pair in pairs:
        trainer.step(*pair)
    for mean, sums in zip(means, seen, strict=True):
        assert sums.keys() == mean.keys()
        for name, gradient in mean.items():
            # gsplat adds in no fixed order, LPIPS's network computes in bfloat16
            assert (sums[name] - gradient).abs().max() <= 0.02 * gradient.abs().max() + 1e-12, name
            if gradient.any():
                cosine = torch.nn.functional.cosine_similarity(sums[name].flatten(), gradient.flatten(), 0)
                assert cosine > 0.999, name


def test_stepping_by_parts_equals_stepping_at_once(synthetic_body):
    """As several ranks do; one parameter has no gradient at first."""
    from mmlphuman.training.kernel_adam import KernelAdam
    from mmlphuman.training.optimisers import parts_of

    config = Config(init_num_gs=600, num_verts=120, num_features=10)
    whole = small_avatar(synthetic_body).cuda()
    parted = copy.deepcopy(whole)
    at_once, by_parts = (Optimisers(avatar, config, 1.0, kernels=True) for avatar in (whole, parted))
    by_parts.parts = parts_of(by_parts.parameters(), 4)
    by_parts.kernel_steps = [KernelAdam(by_parts.optimisers, part) for part in by_parts.parts]
    assert len(by_parts.parts) > 1
    generator = torch.Generator().manual_seed(0)
    for iteration in range(4):
        for name, parameter in whole.named_parameters():
            late = name == "sh1" and iteration < 2
            grad = None if late else torch.randn(parameter.shape, generator=generator).cuda()
            parameter.grad = grad
            parted.get_parameter(name).grad = None if late else grad.clone()
        if iteration == 3:
            parted.sh0.grad[0, 0] = whole.sh0.grad[0, 0] = torch.nan
        for optimisers in (at_once, by_parts):
            optimisers.set_rates(iteration)
            assert torch.isfinite(optimisers.step()) == (iteration < 3)
        for name, parameter in whole.named_parameters():
            torch.testing.assert_close(
                parted.get_parameter(name), parameter, rtol=0, atol=0, equal_nan=True, msg=name
            )
