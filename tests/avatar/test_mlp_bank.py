"""The bank equals a loop of nn.Linear, value and gradient."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mmlphuman.avatar.mlp_bank import MLPBank
from mmlphuman.config import load_config

PUBLISHED = (512, 256, 256, 256)


def linear_twin(bank: MLPBank, anchor: int) -> nn.Sequential:
    layers = []
    for weight, bias in zip(bank.weights, bank.biases, strict=True):
        linear = nn.Linear(weight.shape[2], weight.shape[1])
        linear.weight.data, linear.bias.data = weight.data[anchor].clone(), bias.data[anchor].clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("hidden", [PUBLISHED, (64, 64), (5,)])
@pytest.mark.parametrize("own", [False, True], ids=["all see the same", "each its own"])
def test_equals_a_loop_of_linear_layers(hidden, own):
    bank = MLPBank(4, 63, hidden, outputs=30, generator=torch.Generator().manual_seed(0))
    assert [weight.shape[1] for weight in bank.weights] == [*hidden, 30]
    pose = torch.randn(*((4, 63) if own else (63,)), requires_grad=True)
    twin_pose = pose.detach().clone().requires_grad_()
    twins = [linear_twin(bank, anchor) for anchor in range(4)]
    together = bank(pose)
    apart = torch.stack([twin(twin_pose[anchor] if own else twin_pose) for anchor, twin in enumerate(twins)])
    torch.testing.assert_close(together, apart)

    cotangent = torch.randn_like(together)
    (together * cotangent).sum().backward()
    (apart * cotangent).sum().backward()
    torch.testing.assert_close(pose.grad, twin_pose.grad)
    for anchor, twin in enumerate(twins):
        for layer, linear in enumerate(twin[::2]):
            torch.testing.assert_close(bank.weights[layer].grad[anchor], linear.weight.grad)
            torch.testing.assert_close(bank.biases[layer].grad[anchor], linear.bias.grad)


def test_published_widths_and_size():
    bank = MLPBank(
        anchors=8, inputs=63, hidden=load_config(Path("config/published.yaml")).hidden_widths, outputs=30
    )
    assert [weight.shape[1:] for weight in bank.weights] == [
        (512, 63),
        (256, 512),
        (256, 256),
        (256, 256),
        (30, 256),
    ]
    per_anchor = sum(parameter.numel() for parameter in bank.parameters()) / 8
    assert 90e6 < 300 * per_anchor < 92e6  # "about 91 million" for 300 anchors


def test_anchors_start_different():
    outputs = MLPBank(anchors=3, inputs=63, hidden=PUBLISHED, outputs=30)(torch.randn(63))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
