"""The bank of spatially distributed MLPs: every anchor owns one (paper sec. 3).

Shape letters: A anchors, I and O a layer's inputs and outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLPBank(nn.Module):
    """A independent MLPs, ReLU between their layers, evaluated together; as published of widths 512, 256, 256, 256."""

    def __init__(
        self,
        anchors: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        widths = (inputs, *hidden, outputs)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            bound = 1 / math.sqrt(fan_in)  # nn.Linear's default for weights and biases
            self.weights.append(
                torch.empty(anchors, fan_out, fan_in).uniform_(-bound, bound, generator=generator)
            )
            self.biases.append(torch.empty(anchors, fan_out).uniform_(-bound, bound, generator=generator))

    def forward(self, features: Tensor) -> Tensor:
        """(I,) for all anchors the same, or (A, I) -> (A, O)."""
        anchors = self.weights[0].shape[0]
        hidden = features.expand(anchors, -1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias[:, :, None], weight, hidden[:, :, None])[:, :, 0]
            if layer < last:
                hidden = hidden.relu()
        return hidden
