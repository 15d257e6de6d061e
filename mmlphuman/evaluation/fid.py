"""FID: how far apart two sets of pictures lie in the features of an Inception network (Heusel et al. 2017).

Data path: person's crops (512, uint8) -> resized to 299 -> Inception-v3, as its TensorFlow original computes it -> 2048
features each (the last average pool) -> two Gaussians -> Frechet distance.

The weights are TensorFlow's of 2015-12-05, ported to PyTorch: 1008 classes, entries named as in torchvision's
inception_v3. FID's network differs from torchvision's in its pools: average pools leave padding out of the mean, and
the last block has a maximum pool. TensorFlow 1 resizes without antialiasing, sampling pixel i at i * old / new.
Shape letters: n, m, V pictures, D features (2048), H, W height and width, C channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mmlphuman.measures.lpips import fill, read_weights

NUM_FEATURES = 2048
NUM_CLASSES = 1008
INPUT_SIZE = 299  # pixels
MIDDLE_GREY = 128  # of uint8 colours; also their scale: (x - 128) / 128
BATCHNORM_EPS = 1e-3
WEIGHTS_NAME = "pt_inception-2015-12-05-6726825d.pth"
# The same bytes, as torch-fidelity's release names them.
OTHER_NAME = "weights-inception-2015-12-05-6726825d.pth"
UNUSED_ENTRY = "num_batches_tracked"  # of batch norms in training; a file may have it or not


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float | None:
    """Frechet distance of the Gaussians fitted to (n, D) and (m, D): |mean difference|^2 + tr(A + B - 2 (A B)^(1/2))
    of the means and the covariances A, B (unbiased, as in numpy.cov). None for fewer than 2 pictures.

    The trace of the root is the sum of the singular values of the centred X_a X_b^T: with few pictures A and B are
    of low rank, and a matrix root or the eigenvalues of A B would be lost in rounding. Float64 throughout.
    """
    if min(len(features_a), len(features_b)) < 2:
        return None
    means = [features.astype(np.float64).mean(0) for features in (features_a, features_b)]
    # Rows scaled so that X^T X is the covariance.
    rows_a, rows_b = (
        (features - mean) / np.sqrt(len(features) - 1)
        for features, mean in zip((features_a, features_b), means, strict=True)
    )
    overlap = np.linalg.svd(_few_rows(rows_a) @ _few_rows(rows_b).T, compute_uv=False).sum()
    spread = np.square(rows_a).sum() + np.square(rows_b).sum()
    return float(max(np.square(means[0] - means[1]).sum() + spread - 2 * overlap, 0.0))


def _few_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, D) -> at most D rows with the same X^T X, which leaves the singular values of products alone."""
    if len(rows) <= rows.shape[1]:
        return rows
    return np.linalg.qr(rows, mode="r")  # pyright: ignore[reportReturnType]  # numpy's types know no mode


def bias_note(count: int) -> str | None:
    """What to say beside a FID of `count` pictures, if anything."""
    if count >= NUM_FEATURES:
        return None
    return (
        f"FID of {count} images is biased (fewer than its {NUM_FEATURES} features): compare it only with a FID of "
        "the same number of images"
    )


Kernel = int | tuple[int, int]
# One convolution: the name of its parameters, output channels, kernel (height, width).
Step = tuple[str, int, Kernel]


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padded: bool = True):
        super().__init__()
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCHNORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """A block: parallel chains of convolutions and a pool, their channels stacked.

    chains: each a list of steps; a chain may end in a list of two steps that both see what came before.
    pool: "average" or "max", followed by a 1x1 convolution to `pooled` channels; with pooled None the block halves
    the picture: the pool and the last step of each chain have stride 2 and no padding.
    """

    def __init__(self, inputs: int, chains: list[list], pool: str, pooled: int | None):
        super().__init__()
        self.pool, self.halves = pool, pooled is None
        self.chains, self.outputs = [], 0 if pooled else inputs
        for chain in chains:
            names, channels = [], inputs
            for position, entry in enumerate(chain):
                steps: list[Step] = entry if isinstance(entry, list) else [entry]
                last = position == len(chain) - 1
                for name, outputs, kernel in steps:
                    stride = 2 if last and self.halves else 1
                    self.add_module(name, Convolution(channels, outputs, kernel, stride, padded=stride == 1))
                names.append([name for name, _, _ in steps])
                channels = sum(outputs for _, outputs, _ in steps)
            self.chains.append(names)
            self.outputs += channels
        if pooled:
            self.branch_pool = Convolution(inputs, pooled, 1)
            self.outputs += pooled

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for chain in self.chains:
            y = x
            for names in chain:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            parts.append(y)
        if self.halves:
            parts.append(F.max_pool2d(x, 3, stride=2))
        elif self.pool == "max":
            parts.append(self.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1)))
        else:
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            parts.append(self.branch_pool(pooled))
        return torch.cat(parts, 1)


def _block_35(inputs: int, pooled: int) -> Mixed:
    """At 35 x 35 pixels."""
    chains = [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    ]
    return Mixed(inputs, chains, "average", pooled)


def _block_35_to_17(inputs: int) -> Mixed:
    chains = [
        [("branch3x3", 384, 3)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    ]
    return Mixed(inputs, chains, "max", None)


def _block_17(inputs: int, narrow: int) -> Mixed:
    """At 17 x 17 pixels; narrow: channels of the steps between."""
    chains = [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", narrow, 1), ("branch7x7_2", narrow, (1, 7)), ("branch7x7_3", 192, (7, 1))],
        [
            ("branch7x7dbl_1", narrow, 1),
            ("branch7x7dbl_2", narrow, (7, 1)),
            ("branch7x7dbl_3", narrow, (1, 7)),
            ("branch7x7dbl_4", narrow, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        ],
    ]
    return Mixed(inputs, chains, "average", 192)


def _block_17_to_8(inputs: int) -> Mixed:
    chains = [
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)],
        [
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3),
        ],
    ]
    return Mixed(inputs, chains, "max", None)


def _block_8(inputs: int, pool: str) -> Mixed:
    """At 8 x 8 pixels."""
    chains = [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))],
        ],
    ]
    return Mixed(inputs, chains, pool, 192)


class Inception(nn.Module):
    """Frozen. Made by `load_inception`, or `with_random_weights` for tests."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padded=False)
        self.Mixed_5b = _block_35(192, pooled=32)
        self.Mixed_5c = _block_35(self.Mixed_5b.outputs, pooled=64)
        self.Mixed_5d = _block_35(self.Mixed_5c.outputs, pooled=64)
        self.Mixed_6a = _block_35_to_17(self.Mixed_5d.outputs)
        self.Mixed_6b = _block_17(self.Mixed_6a.outputs, narrow=128)
        self.Mixed_6c = _block_17(self.Mixed_6b.outputs, narrow=160)
        self.Mixed_6d = _block_17(self.Mixed_6c.outputs, narrow=160)
        self.Mixed_6e = _block_17(self.Mixed_6d.outputs, narrow=192)
        self.Mixed_7a = _block_17_to_8(self.Mixed_6e.outputs)
        self.Mixed_7b = _block_8(self.Mixed_7a.outputs, "average")
        self.Mixed_7c = _block_8(self.Mixed_7b.outputs, "max")
        self.fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)  # in the file; FID stops before it
        self.requires_grad_(False).eval()

    @classmethod
    def with_random_weights(cls, seed: int) -> Inception:
        """The same network with meaningless weights whose features neither vanish nor explode."""
        model = cls()
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                for values, spread in ((module.running_mean, 0.1), (module.bias, 0.1)):
                    values.normal_(0, spread, generator=generator)
                for values in (module.running_var, module.weight):
                    values.uniform_(0.8, 1.2, generator=generator)
        return model

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(V, H, W, 3) uint8 -> (V, 2048) float32."""
        assert images.dtype == torch.uint8 and images.shape[-1] == 3, f"{images.dtype} {tuple(images.shape)}"
        x = resize_as_tensorflow(images.permute(0, 3, 1, 2).float(), INPUT_SIZE)
        x = (x - MIDDLE_GREY) / MIDDLE_GREY
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))


def resize_as_tensorflow(images: Tensor, size: int) -> Tensor:
    """(V, C, H, W) -> (V, C, size, size), bilinear as TensorFlow 1: pixel i comes from i * H / size, whose upper
    neighbour is cut off at the border; no antialiasing."""
    for axis in (2, 3):
        length = images.shape[axis]
        position = torch.arange(size, device=images.device, dtype=images.dtype) * (length / size)
        low = position.long()
        high = (low + 1).clamp_max(length - 1)
        weight = (position - low).view((-1, 1) if axis == 2 else (1, -1))
        images = torch.lerp(images.index_select(axis, low), images.index_select(axis, high), weight)
    return images


def load_inception(path: Path | str) -> Inception:
    """The network with the published weights, on the CPU.

    Raises FileNotFoundError or ValueError, one line each, for a missing or an unfit file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the Inception weights for FID ({WEIGHTS_NAME}) are not there")
    model, weights = Inception(), read_weights(path)
    needed = {name: value for name, value in model.state_dict().items() if not name.endswith(UNUSED_ENTRY)}
    for name in weights:
        if name not in needed and not name.endswith(UNUSED_ENTRY):
            raise ValueError(
                f"{path}: holds {name}, which FID's network does not have; is it the right file?"
            )
    for name, value in needed.items():
        fill(value, weights, name, path)
    return model
