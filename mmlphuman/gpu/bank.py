"""The MLP bank as GPU kernels, one a layer, forward and backward: every anchor multiplies its own matrix with its own
vector, so the time is that of reading the weights once.

Data path: features -> coefficients at anchors, and what went into every layer.
Plain twin: MLPBank.forward (paper sec. 3); tests compare values and gradients.
The weights get no gradient (pose_rows says where theirs come from).   Shape letters: A anchors, I inputs, O outputs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable


@triton.jit
def layer_forward(
    weights, biases, inputs, input_stride, outputs,  # (A, O, I), (A, O), (A, I) or (I) with stride 0, (A, O)
    ins, outs, RELU: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    anchor = tl.program_id(0)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    rows = weights + anchor.to(tl.int64) * outs * ins + o[:, None] * ins
    total = tl.zeros([BLOCK_O], tl.float32)
    for start in range(0, ins, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        x = tl.load(inputs + anchor * input_stride + i, i < ins, 0.0).to(tl.float32)
        w = tl.load(rows + i[None, :], (o < outs)[:, None] & (i < ins)[None, :], 0.0).to(tl.float32)
        total += tl.sum(w * x[None, :], 1)
    total += tl.load(biases + anchor * outs + o, o < outs, 0.0).to(tl.float32)
    if RELU:
        total = tl.maximum(total, 0.0)
    tl.store(outputs + anchor * outs + o, total, o < outs)


@triton.jit
def layer_backward(
    weights, inputs, grad_outputs, d_inputs,  # (A, O, I), (A, I), (A, O), (A, I)
    ins, outs, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr,
):  # fmt: skip
    """The gradient of what the layer's ReLU received -> of what the ReLU before the layer received: where the inputs
    are zero it stops. A program owns a block of inputs."""
    anchor = tl.program_id(0)
    i = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    total = tl.zeros([BLOCK_I], tl.float32)
    base = anchor.to(tl.int64) * outs * ins
    for start in range(0, outs, BLOCK_O):
        o = start + tl.arange(0, BLOCK_O)
        g = tl.load(grad_outputs + anchor * outs + o, o < outs, 0.0)
        at = base + o[:, None] * ins + i[None, :]
        inside = (o < outs)[:, None] & (i < ins)[None, :]
        total += tl.sum(tl.load(weights + at, inside, 0.0) * g[:, None], 0)
    x = tl.load(inputs + anchor * ins + i, i < ins, 0.0)
    tl.store(d_inputs + anchor * ins + i, tl.where(x > 0, total, 0.0), i < ins)


class BankFunction(torch.autograd.Function):
    """MLPBank.forward; returns the hidden layers' outputs as well, after the bank's own."""

    @staticmethod
    def forward(ctx, features: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        """features (I,) or (A, I);
        parameters: weights (A, O, I) of every layer, of any precision, then biases (A, O)."""
        layers = len(parameters) // 2
        weights, biases = parameters[:layers], parameters[layers:]
        activations, stride = [features.contiguous()], 0 if features.dim() == 1 else features.shape[-1]
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            anchors, outputs, inputs = weight.shape
            out = torch.empty(anchors, outputs, device=weight.device)
            layer_forward[(anchors, triton.cdiv(outputs, 16))](
                weight, bias, activations[-1], stride, out, inputs, outputs,
                RELU=layer < layers - 1, BLOCK_O=16, BLOCK_I=min(256, triton.next_power_of_2(inputs)), num_warps=2,
            )  # fmt: skip
            activations.append(out)
            stride = outputs
        _, *hidden, coefficients = activations
        ctx.save_for_backward(*weights[1:], *hidden)
        ctx.mark_non_differentiable(*hidden)
        return coefficients, *hidden

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, *_: Tensor):
        behind_hidden = len(ctx.saved_tensors) // 2  # layers
        d_biases = [grad.contiguous()]
        for layer in reversed(range(behind_hidden)):
            weights, hidden = ctx.saved_tensors[layer], ctx.saved_tensors[behind_hidden + layer]
            anchors, outputs, inputs = weights.shape
            d_hidden = torch.empty_like(hidden)
            layer_backward[(anchors, triton.cdiv(inputs, 64))](
                weights, hidden, d_biases[0], d_hidden, inputs, outputs, BLOCK_O=64, BLOCK_I=64, num_warps=4,
            )  # fmt: skip
            d_biases.insert(0, d_hidden)
        return None, *(None for _ in d_biases), *d_biases
