"""Gradients of several poses on GPUs: the recorded backward pass overwrites its own results, the rows must not."""

import numpy as np
import pytest
import torch

from mmlphuman.benchmark.subject import untrained_subject
from mmlphuman.benchmark.training_step import make_trainer, training_capture
from mmlphuman.body.smplx_model import load_body
from mmlphuman.config import default_config
from mmlphuman.gpu.pose_rows import PoseRows
from mmlphuman.synthetic.motion import BETAS, make_motion
from tests.outer_products import all_gradients

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="looks at recorded GPU work, which needs a GPU"
)


@pytest.fixture(scope="module")
def subject(synthetic_body, tmp_path_factory):
    config = default_config(
        init_num_gs=600, num_verts=100, num_features=8, weight_volume_resolution=16, lambda_ssim=0.1,
        edge_radius=1, random_background=False,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("motion") / "smpl_params.npz"
    joints = load_body(synthetic_body, BETAS[0]).joints.double().numpy()
    np.savez(path, **make_motion(joints, 40, 0, 0))
    return untrained_subject(config, synthetic_body, path, (96, 128), torch.device("cuda"))


def take_gradients(trainer) -> dict[str, torch.Tensor]:
    """Of all poses that were added."""
    trainer.optimisers.stepper.rows.take()
    return all_gradients(trainer.avatar, trainer.optimisers.stepper.rows)


def test_two_poses_by_recorded_work_give_the_mean_of_their_gradients(subject, tmp_path):
    """The second time as well, when everything is replayed. Adam hides a wrong factor: looked at before it."""
    dataset = training_capture(subject, tmp_path, edge_radius=1)
    trainer = make_trainer(subject, dataset, "auto", 1)
    assert trainer.optimisers.stepper is not None
    pairs = [trainer.next_samples() + trainer.next_samples() for _ in range(2)]
    assert len({sample.name() for pair in pairs for sample in pair}) == 4
    draws = trainer.draws.get_state()
    means = []
    for pair in pairs:
        single = []
        for sample in pair:
            trainer.add_gradients(sample)
            single.append(take_gradients(trainer))
        means.append({name: (gradient + single[1][name]) / 2 for name, gradient in single[0].items()})

    trainer.draws.set_state(draws)
    trainer.poses_per_step = 2
    trainer.pose_step.share_of_mean.fill_(0.5)  # where recordings read it
    trainer.optimisers.stepper.rows = PoseRows(trainer.ranks, 2)
    seen = []

    def look() -> torch.Tensor:
        seen.append(take_gradients(trainer))
        return torch.ones((), device="cuda")

    trainer.optimisers.step = look
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
