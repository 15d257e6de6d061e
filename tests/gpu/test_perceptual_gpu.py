"""LPIPS on the GPU, and against torchmetrics' network on torchvision's layers where that is installed."""

import importlib.util

import pytest
import torch

from mmlphuman.measures.lpips import LPIPS, load_lpips

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def pictures(count, size, seed):
    return torch.rand((count, size, size, 3), generator=torch.Generator().manual_seed(seed))


def test_value_and_gradient_equal_those_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # its rounding moves gradients by percents
    model = LPIPS.with_random_weights(0)
    results = {}
    for device in ("cpu", "cuda"):
        render = pictures(2, 64, 0).to(device).requires_grad_(True)
        distance = model.to(device)(render, pictures(2, 64, 1).to(device))
        (gradient,) = torch.autograd.grad(distance, render)
        results[device] = distance.detach().cpu(), gradient.cpu()
    torch.testing.assert_close(results["cuda"][0], results["cpu"][0], rtol=1e-3, atol=0)
    error = (results["cuda"][1] - results["cpu"][1]).norm() / results["cpu"][1].norm()
    assert error < 0.01, f"gradients differ by {error:.2%}"


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="needs torchvision")
def test_equals_the_network_of_torchmetrics(tmp_path):
    from torchmetrics.functional.image.lpips import _LPIPS

    torch.save(LPIPS.with_random_weights(0).vgg.state_dict(), tmp_path / "vgg.pth")
    ours = load_lpips(tmp_path / "vgg.pth").cuda()
    theirs = _LPIPS(net="vgg", pnet_rand=True).cuda()  # the published heads, random convolutions
    ours_by_layer = {f"{index}.{kind}": value for index, kind, value in _convolutions(ours)}
    for block in (
        theirs.net.slice1,
        theirs.net.slice2,
        theirs.net.slice3,
        theirs.net.slice4,
        theirs.net.slice5,
    ):
        for name, parameter in block.named_parameters():
            parameter.data.copy_(ours_by_layer[name])
    a, b = pictures(2, 96, 2).cuda(), pictures(2, 96, 3).cuda()
    expected = theirs(a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2), normalize=True).mean()
    torch.testing.assert_close(ours(a, b), expected, rtol=1e-3, atol=0)


def _convolutions(model):
    for name, value in model.vgg.state_dict().items():
        _, index, kind = name.split(".")
        yield index, kind, value
