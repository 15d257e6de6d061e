"""One layer of the MLP bank as a GPU kernel, forward and backward: every anchor multiplies its own matrix with its
own vector, so the time is that of reading the weights once (paper sec. 3).

Plain twin: MLPBank.forward; tests compare values and gradients.   Shape letters: A anchors, I inputs, O outputs.
"""

from __future__ import annotations

import triton
import triton.language as tl


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
