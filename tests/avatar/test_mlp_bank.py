"""The bank equals a loop of nn.Linear, value and gradient."""

import torch
from torch import nn

from mmlphuman.avatar.mlp_bank import HIDDEN, MLPBank


def linear_twin(bank: MLPBank, anchor: int) -> nn.Sequential:
    layers = []
    for weight, bias in zip(bank.weights, bank.biases, strict=True):
        linear = nn.Linear(weight.shape[2], weight.shape[1])
        linear.weight.data, linear.bias.data = weight.data[anchor].clone(), bias.data[anchor].clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_equals_a_loop_of_linear_layers():
    bank = MLPBank(anchors=4, inputs=63, outputs=30, generator=torch.Generator().manual_seed(0))
    pose = torch.randn(63, requires_grad=True)
    twin_pose = pose.detach().clone().requires_grad_()
    twins = [linear_twin(bank, anchor) for anchor in range(4)]
    together, apart = bank(pose), torch.stack([twin(twin_pose) for twin in twins])
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
    bank = MLPBank(anchors=8, inputs=63, outputs=30)
    assert HIDDEN == (512, 256, 256, 256)
    per_anchor = sum(parameter.numel() for parameter in bank.parameters()) / 8
    assert 90e6 < 300 * per_anchor < 92e6  # "about 91 million" for 300 anchors


def test_anchors_start_different():
    outputs = MLPBank(anchors=3, inputs=63, outputs=30)(torch.randn(63))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
