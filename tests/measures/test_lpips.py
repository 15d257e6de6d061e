"""LPIPS: formula, gradients, no state, and what is said about missing and unfit weight files."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from mmlphuman.measures import lpips as lpips_module
from mmlphuman.measures.lpips import LPIPS, load_lpips


@pytest.fixture(scope="module")
def lpips():
    return LPIPS.with_random_weights(0)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory, lpips):
    """A file as torchvision ships it: its old serialisation, and entries of the classifier besides."""
    path = tmp_path_factory.mktemp("weights") / "vgg16-397923af.pth"
    weights = dict(lpips.vgg.state_dict()) | {"classifier.6.bias": torch.zeros(1000)}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    return path


def pictures(count=1, size=32, seed=0):
    return torch.rand((count, size, size, 3), generator=torch.Generator().manual_seed(seed))


def naive_lpips(model, a, b):
    """The formula of the paper, depth by depth, from the functional API."""
    weights = model.vgg.state_dict()
    mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = 0.0
    for pair in zip(a, b, strict=True):
        x, y = (((2 * image - 1 - mean) / deviation).permute(2, 0, 1)[None] for image in pair)
        for depth, indices in enumerate([(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)]):
            if depth:
                x, y = F.max_pool2d(x, 2), F.max_pool2d(y, 2)
            for index in indices:
                weight, bias = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
                x, y = (F.relu(F.conv2d(map_, weight, bias, padding=1)) for map_ in (x, y))
            difference = x / x.norm(dim=1, keepdim=True) - y / y.norm(dim=1, keepdim=True)
            head = model.heads[depth][None, :, None, None]
            total += (head * difference**2).sum(1).mean()
    return total / len(a)


def test_equals_the_formula(lpips):
    a, b = pictures(2), pictures(2, seed=1)
    expected = naive_lpips(lpips, a, b)
    assert expected > 0.01
    torch.testing.assert_close(lpips(a, b), expected, rtol=1e-3, atol=0)


def test_equals_the_network_of_torchmetrics_with_the_published_heads(monkeypatch, lpips, vgg_file):
    ours = load_lpips(vgg_file)
    # torchmetrics takes the layers of VGG16 from torchvision; here it gets ours, numbered alike.
    monkeypatch.setattr(
        torchmetrics_lpips, "_get_tv_model_features", lambda net, pretrained: lpips.vgg.features
    )
    theirs = torchmetrics_lpips._LPIPS(net="vgg", pnet_rand=True)
    a, b = pictures(2, 48), pictures(2, 48, seed=1)
    expected = theirs(a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2), normalize=True).mean()
    assert expected > 0.01
    torch.testing.assert_close(ours(a, b), expected, rtol=1e-4, atol=0)


def test_equal_images_are_at_distance_zero_with_a_finite_gradient(lpips):
    a = pictures().requires_grad_(True)
    distance = lpips(a, a.detach())
    assert distance.abs() < 1e-10
    distance.backward()
    assert torch.isfinite(a.grad).all()
    black = torch.zeros(1, 32, 32, 3, requires_grad=True)
    lpips(black, pictures()).backward()
    assert torch.isfinite(black.grad).all()


def test_gradient_reaches_the_render_only_and_lowers_the_distance(lpips):
    render, target = pictures().requires_grad_(True), pictures(seed=1).requires_grad_(True)
    before = lpips(render, target)
    before.backward()
    assert target.grad is None
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in lpips.parameters())
    assert render.grad.abs().max() > 0
    with torch.no_grad():
        step = 0.05 * render.grad / render.grad.norm()
        after = lpips(render - step, target)
    assert after < before


def test_the_two_thousandth_call_costs_what_the_twentieth_did(monkeypatch):
    # A narrow network: what is looked for is growth from call to call, not the cost of the convolutions. Compared
    # are the operations that run and the sizes they run on; clocks on a busy machine would tell less.
    monkeypatch.setattr(lpips_module, "VGG16_LAYERS", (4, "pool", 4, "pool", 4, "pool", 4, "pool", 4))
    monkeypatch.setattr(lpips_module, "FEATURE_CHANNELS", (4,) * 5)
    small = LPIPS.with_random_weights(0)
    state = {name: value.clone() for name, value in small.state_dict().items()}
    attributes = set(vars(small))
    render, target = pictures(size=16).requires_grad_(True), pictures(size=16, seed=1)
    distances = set()

    def call():
        distance = small(render, target)
        torch.autograd.grad(distance, render)
        distances.add(distance.item())

    def work_of_a_call():
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
        ) as trace:
            call()
        return sorted((event.name, str(event.input_shapes)) for event in trace.events())

    for _ in range(19):
        call()
    twentieth = work_of_a_call()
    for _ in range(1979):
        call()
    assert len(twentieth) > 50 and work_of_a_call() == twentieth
    assert max(distances) - min(distances) < 1e-6
    assert set(vars(small)) == attributes
    assert all(torch.equal(value, state[name]) for name, value in small.state_dict().items())


def test_loads_the_published_files_and_freezes_them(lpips, vgg_file):
    loaded = load_lpips(vgg_file)  # the heads come with torchmetrics
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(
        torch.equal(value, lpips.vgg.state_dict()[name]) for name, value in loaded.vgg.state_dict().items()
    )
    assert all((head >= 0).all() and head.max() > 0 for head in loaded.heads)
    assert loaded(pictures(), pictures(seed=1)) > 0


def test_missing_weights_say_which_file_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth.*vgg_path.*lambda_lpips: 0") as caught:
        load_lpips(tmp_path / "nothing.pth")
    assert str(tmp_path / "nothing.pth") in str(caught.value) and "\n" not in str(caught.value)


def test_missing_heads_are_named(vgg_file, tmp_path):
    with pytest.raises(FileNotFoundError, match="heads of LPIPS"):
        load_lpips(vgg_file, tmp_path / "heads.pth")


def truncated(vgg_file: Path, path: Path) -> None:
    path.write_bytes(vgg_file.read_bytes()[:100_000])


def text(vgg_file: Path, path: Path) -> None:
    path.write_text("<html>not found</html>")


def empty(vgg_file: Path, path: Path) -> None:
    path.write_bytes(b"")


def another_network(vgg_file: Path, path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, path)


def not_named(vgg_file: Path, path: Path) -> None:
    torch.save([torch.zeros(3)], path)


@pytest.mark.parametrize("damage", [truncated, text, empty, another_network, not_named])
def test_unfit_files_are_named(vgg_file, tmp_path, damage):
    path = tmp_path / "bad.pth"
    damage(vgg_file, path)
    with pytest.raises(ValueError, match=r"bad\.pth") as caught:
        load_lpips(path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(lpips, tmp_path):
    weights = dict(lpips.vgg.state_dict())
    weights["features.28.bias"] = torch.full((512,), torch.nan)
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan\.pth.*features\.28\.bias.*finite"):
        load_lpips(tmp_path / "nan.pth")


def test_code_in_a_weight_file_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"features.0.weight": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(ValueError, match=r"harmful\.pth"):
        load_lpips(tmp_path / "harmful.pth")
    assert not (tmp_path / "ran").exists()
