"""A recorded step gives the gradients and loss terms of one that is not, whatever the sample's size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlphuman.avatar.avatar import ActiveParts
from mmlphuman.benchmark.subject import untrained_subject
from mmlphuman.benchmark.training_step import make_trainer, training_capture
from mmlphuman.body.smplx_model import load_body
from mmlphuman.config import default_config
from mmlphuman.measures import comparison
from mmlphuman.synthetic.motion import BETAS, make_motion
from mmlphuman.training.losses import choose_crops
from mmlphuman.types import Render, Sample
from tests.outer_products import all_gradients

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs")


def test_painting_in_one_pass_equals_the_plain_one(device):
    from mmlphuman.gpu.painting import painted_pair

    generator = torch.Generator().manual_seed(0)
    shape = (2, 21, 30)
    colors = 2 * torch.rand(*shape, 3, generator=generator) - 0.5  # outside [0, 1] too, where nothing pulls
    images = torch.randint(0, 256, (*shape, 3), generator=generator, dtype=torch.uint8)
    masks, edges = (torch.rand(shape, generator=generator) > 0.5 for _ in range(2))
    background, weights = torch.rand(3, generator=generator), torch.rand(*shape, 3, generator=generator)
    sample = Sample(0, (0, 1), None, None, images, masks, edges).to(device)
    found = []
    for paint in (comparison.painted_pair, painted_pair):
        leaf = colors.to(device).requires_grad_()
        image, truth, mean = paint(Render(leaf, torch.zeros(shape)), sample, background.to(device))
        ((image * weights.to(device)).sum() + 5000 * mean).backward()
        found.append((image.detach(), truth, mean.detach(), leaf.grad))
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    assert (leaf.grad == 0).any() and (leaf.grad != 0).any()


@pytest.mark.parametrize("size", [63, 64, 400, 513, 1500, 2048])
@pytest.mark.usefixtures("device")
def test_sizes_are_rounded_up_by_a_quarter_at_most(size):
    from mmlphuman.gpu.recorded_step import SMALLEST_GRANULE, rounded

    assert size <= rounded(size) <= max(1.25 * size, SMALLEST_GRANULE * -(-size // SMALLEST_GRANULE))


@pytest.fixture(scope="module")
def make_subject(synthetic_body, tmp_path_factory):
    def make(size: tuple[int, int], device: torch.device, **settings):
        config = default_config(
            num_verts=200, num_features=8, weight_volume_resolution=16, lambda_ssim=0.1, edge_radius=1,
            random_background=False, **settings,
        )  # fmt: skip
        path = tmp_path_factory.mktemp("motion") / "smpl_params.npz"
        joints = load_body(synthetic_body, BETAS[0]).joints.double().numpy()
        np.savez(path, **make_motion(joints, 40, 0, 0))
        return untrained_subject(config, synthetic_body, path, size, device)

    return make


@pytest.fixture(scope="module")
def subject(make_subject):
    return make_subject((384, 512), torch.device("cuda"), init_num_gs=2000)


def test_a_sample_laid_into_a_larger_window_gives_the_same_gradients(make_subject, tmp_path, device):
    """Without a graph: what a recording would do, by whatever poses and draws on this machine."""
    from mmlphuman.gpu.pose_rows import PoseRow, pieces_of_row
    from mmlphuman.gpu.recorded_step import Recording, Shape

    small = make_subject((72, 96), device, init_num_gs=400, lambda_lpips=0.0)
    trainer = make_trainer(small, training_capture(small, tmp_path, edge_radius=1), "plain", 2)
    (sample,) = trainer.next_samples()
    sample = sample.to(device)
    crops = choose_crops(sample, False, torch.Generator().manual_seed(0))
    background, active = torch.tensor([0.2, 0.5, 0.9], device=device), ActiveParts()
    output, expected = trainer.pose_step(trainer.iteration, sample, crops, background, active)
    parameters = dict(trainer.avatar.named_parameters())
    plain = PoseRow.of(pieces_of_row(parameters, output.activations))
    for parameter in parameters.values():
        parameter.grad = None
    cameras = sample.cameras
    shape = Shape(len(cameras), cameras.height + 24, cameras.width + 40, exact=False)
    recording = Recording(shape, trainer.pose_step, sample)
    for _ in range(2):  # what the first leaves behind changes nothing
        recording.take(sample, crops, background)
        result = recording.run(trainer.iteration, active)
        assert result.row.layout == plain.layout
        found = dict(zip(result.names, result.terms.tolist(), strict=True))
        assert found == pytest.approx({name: float(term) for name, term in expected.items()}, rel=1e-5)
        assert found["ssim"] > 0 and found["l1"] > 0
        difference = (result.row.numbers - plain.numbers).abs().max()
        assert difference <= 1e-4 * plain.numbers.abs().max()
    assert all(parameter.grad is None for parameter in parameters.values())


def test_where_a_step_cannot_be_recorded_it_is_run(make_subject, tmp_path, device, monkeypatch, caplog):
    """One line, and training goes on."""
    from mmlphuman.gpu.fused_avatar import RecordedAvatar
    from mmlphuman.gpu.recorded_step import RecordedStep, Recording

    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    monkeypatch.setattr(Recording, "record", refuse)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    small = make_subject((72, 96), device, init_num_gs=150, lambda_lpips=0.0)
    trainer = make_trainer(small, training_capture(small, tmp_path, edge_radius=1), "plain", 1)
    step = replace(trainer.pose_step, pose_avatar=RecordedAvatar(trainer.avatar))
    rows, background = [], torch.tensor([0.2, 0.5, 0.9], device=device)
    stepper = type("Stepper", (), {"add_row": staticmethod(lambda row, active: rows.append(row))})()
    recorded, generator = RecordedStep(step, stepper), torch.Generator().manual_seed(0)
    sample = trainer.next_samples()[0].to(device)
    for _ in range(3):
        terms = recorded(
            trainer.iteration, sample, choose_crops(sample, False, generator), background, ActiveParts()
        )
        assert terms["total"].isfinite()
    assert len(rows) == 3 and rows[0].numbers.any()
    torch.testing.assert_close(rows[2].numbers, rows[0].numbers, rtol=1e-3, atol=1e-6)
    assert not recorded.recordable
    (record,) = caplog.records
    assert "cannot be recorded here (operation not permitted" in record.getMessage()
    assert "\n" not in record.getMessage()


def narrower(sample: Sample, columns: int) -> Sample:
    """The same sample without its last columns."""
    cameras = replace(sample.cameras, width=sample.cameras.width - columns)
    kept = slice(0, cameras.width)
    persons = tuple(replace(box, right=min(box.right, cameras.width)) for box in sample.persons)
    return replace(
        sample, cameras=cameras, images=sample.images[:, :, kept].contiguous(), persons=persons,
        masks=sample.masks[:, :, kept].contiguous(), edges=sample.edges[:, :, kept].contiguous(),
    )  # fmt: skip


@needs_gpu
@pytest.mark.parametrize("views", [1, 2])
def test_a_recorded_step_equals_one_that_is_not(subject, tmp_path, views):
    """New sizes, known ones, and the schedule's parts; each several times, that all ways are taken. Of two equal
    trainers, for graphs of one avatar's two ways would meet in its parameters."""
    from mmlphuman.gpu.recorded_step import rounded

    dataset = training_capture(subject, tmp_path, edge_radius=1)
    plain, ours = (make_trainer(subject, dataset, "auto", views) for _ in range(2))
    assert ours.recorded_step is not None
    samples = [plain.next_samples()[0] for _ in range(2)]
    samples += [narrower(sample, 5) for sample in samples]
    generator, background = torch.Generator().manual_seed(0), torch.tensor([0.2, 0.5, 0.9], device="cuda")
    for active in (ActiveParts(), ActiveParts(sh1=False), ActiveParts()):
        for sample in (*samples, *samples):
            given = plain.iteration, sample, choose_crops(sample, False, generator), background, active
            output, terms = plain.pose_step(*given)
            plain.optimisers.add_pose(output, active)
            expected = {name: float(term) for name, term in terms.items()}
            found = {name: float(term) for name, term in ours.recorded_step(*given).items()}
            assert found == pytest.approx(expected, rel=2e-3)
            for name, gradient in gradients(plain).items():
                # gsplat adds in no fixed order, LPIPS's network computes in bfloat16
                difference = gradients(ours)[name] - gradient
                assert difference.abs().max() <= 0.02 * gradient.abs().max() + 1e-12, name
            for trainer in (plain, ours):
                trainer.optimisers.stepper.rows.take()
    recordings = ours.recorded_step.recordings
    assert any(recording.graph is not None for recording in recordings.values())
    windows = {(rounded(sample.cameras.height), rounded(sample.cameras.width)) for sample in samples[:2]}
    made = {(shape.height, shape.width) for shape in recordings}
    assert made <= windows, "5 columns less fit where 5 more were"


def gradients(trainer) -> dict[str, torch.Tensor]:
    """Of the pose that was added last."""
    return all_gradients(trainer.avatar, trainer.optimisers.stepper.rows)


@needs_gpu
def test_a_picture_that_outgrows_its_recording_is_recorded_anew(subject, tmp_path):
    dataset = training_capture(subject, tmp_path, edge_radius=1)
    trainer = make_trainer(subject, dataset, "auto", 1)
    samples = trainer.next_samples()  # always these: another window may have a recording of its own
    for _ in range(3):
        trainer.step(*samples)
    (recording,) = trainer.recorded_step.recordings.values()
    first, room = recording.graph, recording.room
    torch.cuda.synchronize()
    assert first is not None and 0 < int(recording.needed) <= room
    recording.needed.fill_(room + 1)  # as if it had been a larger picture
    trainer.step(*samples)
    assert recording.graph is not first and recording.room > room


@needs_gpu
def test_samples_of_other_windows_train_as_without_recordings(subject, tmp_path):
    """Both runs take the same samples; what they learn differs by rounding alone."""
    dataset = training_capture(subject, tmp_path, edge_radius=1)
    avatars = []
    for recording in (True, False):
        trainer = make_trainer(subject, dataset, "auto", 1)
        if not recording:
            trainer.recorded_step = None
        for _ in range(12):
            terms, finite = trainer.step(*trainer.next_samples())
            assert finite.isfinite() and terms["total"].isfinite()
            trainer.iteration += 1
        avatars.append(trainer.avatar.state_dict())
    for name, value in avatars[0].items():
        if value.is_floating_point():
            torch.testing.assert_close(
                value, avatars[1][name], rtol=0, atol=2e-2 * float(value.abs().max()) + 1e-3
            )
