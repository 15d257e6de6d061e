"""LPIPS for training on a GPU: VGG16 in bfloat16, channels last, features compared by a kernel, all of it recorded.

Data path: as LPIPS.forward, its plain twin; tests compare values and gradients. The sum and the features' lengths are
computed in single precision. A call has some hundred small kernels, which take longer to start than to run: forward and
backward are recorded as CUDA graphs at the first call and replayed from then on.
Shape letters: V views, P pixels of all views, F feature channels.
"""

from __future__ import annotations

import copy

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmlphuman.measures.lpips import LPIPS, NORM_EPS

BLOCK_NUMBERS = 4096  # features a program holds


@triton.jit
def _unit(features, eps):
    """(P, F) -> the same with each pixel's vector made unit length, and the lengths."""
    length = tl.sqrt(tl.sum(features * features, 1) + eps)[:, None]
    return features / length, length


@triton.jit
def feature_forward(
    ours, theirs, head, partial,  # (P, F) of any precision twice, (F), (programs)
    P, eps, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum over a block of pixels of the weighted squared differences of unit features."""
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    f = tl.arange(0, F)
    inside = (p < P)[:, None]
    at = p.to(tl.int64)[:, None] * F + f[None, :]
    a, _ = _unit(tl.load(ours + at, inside, 0.0).to(tl.float32), eps)
    b, _ = _unit(tl.load(theirs + at, inside, 0.0).to(tl.float32), eps)
    difference = a - b
    each = tl.sum(difference * difference * tl.load(head + f)[None, :], 1)
    tl.store(partial + tl.program_id(0), tl.sum(tl.where(p < P, each, 0.0), 0))


@triton.jit
def feature_backward(
    ours, theirs, head, grad, d_ours,  # as above; (): of the mean over pixels; (P, F)
    P, eps, F: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    f = tl.arange(0, F)
    inside = (p < P)[:, None]
    at = p.to(tl.int64)[:, None] * F + f[None, :]
    a, length = _unit(tl.load(ours + at, inside, 0.0).to(tl.float32), eps)
    b, _ = _unit(tl.load(theirs + at, inside, 0.0).to(tl.float32), eps)
    d = 2 * tl.load(grad) / P * (a - b) * tl.load(head + f)[None, :]
    d = (d - a * tl.sum(a * d, 1)[:, None]) / length
    tl.store(d_ours + at, d.to(d_ours.dtype.element_ty), inside)


class FastLPIPS:
    """Called like LPIPS, with the same number of views and size each time."""

    def __init__(self, lpips: LPIPS):
        self.network = _Network(lpips)
        self.recorded = None

    def __call__(self, render: Tensor, target: Tensor) -> Tensor:
        if self.recorded is None:
            example = (torch.rand_like(render).requires_grad_(), torch.rand_like(target))
            # Recording replaces a module's forward; the network itself stays what others may record.
            self.recorded = torch.cuda.make_graphed_callables(_Wrapped(self.network), example)
        return self.recorded(render, target)


class _Wrapped(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, render: Tensor, target: Tensor) -> Tensor:
        return self.network(render, target)


class _Network(nn.Module):
    def __init__(self, lpips: LPIPS):
        super().__init__()
        self.vgg = copy.deepcopy(lpips.vgg).to(torch.bfloat16, memory_format=torch.channels_last)
        self.heads = [head.detach() for head in lpips.heads]
        self.shift, self.scale = lpips.shift, lpips.scale

    def forward(self, render: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            theirs = self.features(target)
        ours = self.features(render)
        return sum(FeatureDistance.apply(*maps) for maps in zip(ours, theirs, self.heads, strict=True))

    def features(self, images: Tensor) -> list[Tensor]:
        """(V, H, W, 3) in [0, 1] -> what VGG16Features gives, in bfloat16."""
        x = (2 * images - 1).permute(0, 3, 1, 2)
        x = ((x - self.shift) / self.scale).to(torch.bfloat16)
        blocks = []
        for layer in self.vgg.features:
            if isinstance(layer, nn.Conv2d):
                x = _ConvolutionReLU.apply(x, layer.weight, layer.bias)
            elif isinstance(layer, nn.MaxPool2d):
                blocks.append(x)
                x = layer(x)
        return [*blocks, x]


class _ConvolutionReLU(torch.autograd.Function):
    """3 x 3 convolution, bias and ReLU in one kernel; the weights are frozen."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)
        ctx.save_for_backward(x, weight, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, out = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        only_input = (True, False, False)
        d_x, _, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, only_input
        )
        return d_x, None, None


class FeatureDistance(torch.autograd.Function):
    """Mean over pixels of the channels' weighted squared differences between unit features; gradient to the first.

    ours, theirs: (V, F, h, w), channels last; head: (F,).
    """

    @staticmethod
    def forward(ctx, ours: Tensor, theirs: Tensor, head: Tensor) -> Tensor:
        for maps in (ours, theirs):
            assert maps.is_contiguous(memory_format=torch.channels_last), "features must be channels last"
        views, channels, height, width = ours.shape
        pixels, block = views * height * width, BLOCK_NUMBERS // channels
        programs = triton.cdiv(pixels, block)
        partial = torch.empty(programs, device=ours.device)
        feature_forward[(programs,)](ours, theirs, head, partial, pixels, NORM_EPS, F=channels, BLOCK=block)
        ctx.save_for_backward(ours, theirs, head)
        return partial.sum() / pixels

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        ours, theirs, head = ctx.saved_tensors
        views, channels, height, width = ours.shape
        pixels, block = views * height * width, BLOCK_NUMBERS // channels
        d_ours = torch.empty_like(ours)
        feature_backward[(triton.cdiv(pixels, block),)](
            ours, theirs, head, grad, d_ours, pixels, NORM_EPS, F=channels, BLOCK=block
        )
        return d_ours, None, None
