"""FID of features by hand and by formula; its network against independent ones."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from mmlphuman.evaluation.evaluate import fid_of_cameras
from mmlphuman.evaluation.fid import (
    Inception,
    bias_note,
    frechet_distance,
    load_inception,
    resize_as_tensorflow,
)


def samples(count, features, seed=0, scale=1.0, shift=0.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(count, features))


def by_torchmetrics(a, b):
    moments = [torch.from_numpy(moment) for x in (a, b) for moment in (x.mean(0), np.cov(x, rowvar=False))]
    return float(_compute_fid(*moments))


def test_diagonal_gaussians_have_their_closed_form():
    # Rows +-sqrt(3) s on each axis: mean 0 and, over n - 1, exactly the covariance diag(s^2).
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * np.sqrt(3) / 2
    sigma_a, sigma_b, mean = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5]), np.array([0.0, 4.0, 1.0])
    expected = np.square(mean).sum() + np.square(sigma_a - sigma_b).sum()
    assert frechet_distance(signs * sigma_a, signs * sigma_b + mean) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("counts", [(50, 50), (40, 70), (2000, 300)])
def test_equals_torchmetrics(counts):
    a, b = samples(counts[0], 12), samples(counts[1], 12, seed=1, scale=1.5, shift=0.2)
    expected = by_torchmetrics(a, b)
    assert expected > 0.5
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_few_pictures_give_a_finite_distance():
    a, b = samples(6, 2048).astype(np.float32), samples(9, 2048, seed=1).astype(np.float32)
    distance = frechet_distance(a, b)
    assert np.isfinite(distance) and distance > 0
    assert distance == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6 * float(np.square(a).sum()))
    # Low rank by hand: the features lie in 5 dimensions, where the closed form is not degenerate.
    rotation = np.linalg.qr(samples(100, 5))[0]
    low_a, low_b = samples(30, 5), samples(30, 5, seed=1, shift=1.0)
    assert frechet_distance(low_a @ rotation.T, low_b @ rotation.T) == pytest.approx(
        by_torchmetrics(low_a, low_b), rel=1e-6
    )


def test_grows_with_the_difference():
    a = samples(40, 16)
    distances = [frechet_distance(a, a + shift) for shift in (0.0, 0.1, 1.0)]
    assert distances == pytest.approx([0, 0.16, 16], abs=1e-6)


def test_one_picture_has_no_distance():
    assert frechet_distance(samples(1, 8), samples(5, 8)) is None


def test_cameras_apart_and_all_together():
    pairs = {
        camera: list(np.stack([samples(5, 8, camera), samples(5, 8, camera + 9)], 1)) for camera in (1, 2)
    }
    result = fid_of_cameras({**pairs, 3: pairs[1][:1]})
    assert set(result) == {1, 2, None}  # camera 3 has a single picture
    everything = np.stack(pairs[1] + pairs[2] + pairs[1][:1])
    assert result[None] == pytest.approx(frechet_distance(everything[:, 0], everything[:, 1]))
    assert result[1] == pytest.approx(frechet_distance(samples(5, 8, 1), samples(5, 8, 10)))
    assert fid_of_cameras({}) == {}


def test_few_pictures_are_said_to_be_few():
    assert "500 images" in bias_note(500) and "2048" in bias_note(500)
    assert bias_note(2048) is None


@pytest.fixture(scope="module")
def network():
    return Inception.with_random_weights(0)


@pytest.fixture(scope="module")
def weight_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


def pictures(count=2, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


def test_features_are_of_each_picture_alone(network):
    images = pictures(3)
    features = network(images)
    assert features.shape == (3, 2048) and torch.isfinite(features).all()
    assert features.std(0).mean() > 1e-3
    torch.testing.assert_close(network(images[[2]]), features[[2]], rtol=1e-4, atol=1e-5)


def test_colours_are_centred_as_published(network):
    seen = []
    handle = network.Conv2d_1a_3x3.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    for value in (0, 128, 255):
        network(torch.full((1, 40, 40, 3), value, dtype=torch.uint8))
    handle.remove()
    assert [float(x.mean()) for x in seen] == pytest.approx([-1, 0, 127 / 128])
    assert seen[0].shape == (1, 3, 299, 299)


def test_every_weight_of_the_trunk_counts(network):
    """No convolution is built and then not used."""
    used = set()
    handles = [
        module.register_forward_hook(lambda *_, name=name: used.add(name))
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    network(pictures(1))
    for handle in handles:
        handle.remove()
    convolutions = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert used == convolutions and len(used) == 94


@pytest.mark.parametrize(
    ("name", "expected"), [("Mixed_5c", "average"), ("Mixed_7b", "average"), ("Mixed_7c", "max")]
)
def test_pools_leave_padding_out(network, name, expected):
    """Of ones, a mean that counted padding would be less at the border."""
    block = network.get_submodule(name)
    inputs = block.branch_pool.conv.in_channels
    seen = []
    handle = block.branch_pool.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    ramp = torch.arange(25.0).view(1, 1, 5, 5).expand(1, inputs, 5, 5)
    block(ramp)
    handle.remove()
    corner = {"average": torch.tensor([0, 1, 5, 6.0]).mean(), "max": torch.tensor(6.0)}[expected]
    assert seen[0][0, 0, 0, 0] == corner


def test_resizing_samples_as_tensorflow_1():
    row = torch.tensor([0.0, 10, 20, 30])
    image = row.expand(1, 1, 4, 4)
    assert resize_as_tensorflow(image, 8)[0, 0, 0].tolist() == [0, 5, 10, 15, 20, 25, 30, 30]
    assert resize_as_tensorflow(image, 2)[0, 0, 0].tolist() == [0, 20]  # not averaged
    across = resize_as_tensorflow(image.transpose(2, 3), 8)[0, 0, :, 0]
    assert across.tolist() == [0, 5, 10, 15, 20, 25, 30, 30]
    same = torch.rand(1, 3, 9, 9)
    assert torch.equal(resize_as_tensorflow(same, 9), same)


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is None, reason="needs torch-fidelity")
def test_equals_the_network_of_torch_fidelity(monkeypatch, network, weight_file):
    # Its package imports torchvision, its network does not: the network's module is imported by itself.
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(importlib.util.find_spec("torch_fidelity").submodule_search_locations)
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    theirs = module.FeatureExtractorInceptionV3("test", ["2048"], str(weight_file))
    assert set(theirs.state_dict()) == set(network.state_dict())
    for size in (96, 512):
        images = pictures(1, size)
        expected = theirs(images.permute(0, 3, 1, 2))[0]
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


def test_the_file_fills_every_entry(network, weight_file, tmp_path):
    loaded = load_inception(weight_file)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    weights = {
        name: value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(weights, tmp_path / "short.pth")
    images = pictures(1)
    assert torch.equal(load_inception(tmp_path / "short.pth")(images), network(images))


def lacking(weights):
    del weights["Mixed_6c.branch7x7_2.conv.weight"]
    return "Mixed_6c.branch7x7_2.conv.weight"


def more(weights):
    weights["AuxLogits.conv0.conv.weight"] = torch.zeros(3)
    return "AuxLogits.conv0.conv.weight"


def other_classes(weights):
    weights["fc.weight"] = torch.zeros(1000, 2048)
    return "fc.weight"


def not_finite(weights):
    weights["Mixed_5b.branch1x1.bn.running_var"] = torch.full((64,), torch.nan)
    return "Mixed_5b.branch1x1.bn.running_var"


@pytest.mark.parametrize("damage", [lacking, more, other_classes, not_finite])
def test_unfit_weights_are_named(network, tmp_path, damage):
    weights = dict(network.state_dict())
    entry = damage(weights)
    torch.save(weights, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth") as caught:
        load_inception(tmp_path / "bad.pth")
    assert entry in str(caught.value) and "\n" not in str(caught.value)


def test_code_in_a_weight_file_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"fc.bias": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(ValueError, match=r"harmful\.pth"):
        load_inception(tmp_path / "harmful.pth")
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth.*6726825d"):
        load_inception(tmp_path / "nothing.pth")
