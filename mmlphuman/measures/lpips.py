"""LPIPS with VGG16: how different two images look (Zhang et al. 2018), as a training loss and as a score.

Data path: person_crops of render and ground truth -> VGG16 features at five depths, each pixel's feature
vector made unit length -> squared difference, weighted per channel -> mean over the picture -> sum of depths.

The network keeps nothing between calls: a metric object that collects every call's state slows a training run
down to a crawl. Shape letters: V views, H, W height and width, F feature channels.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

# VGG16 as torchvision numbers its layers: convolutions (output channels) between 2x2 max pools.
VGG16_LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)
FEATURE_CHANNELS = (64, 128, 256, 512, 512)  # at relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
SMALLEST_IMAGE = 16  # pixels: four pools must leave one
NORM_EPS = 1e-8  # inside the root, as in torchmetrics: the gradient stays finite where all features are zero

# LPIPS was trained on images in [-1, 1], then standardised with these (ImageNet's mean and deviation there).
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)

HEADS_IN_TORCHMETRICS = Path("functional/image/lpips_models/vgg.pth")


class VGG16Features(nn.Module):
    """VGG16's convolutions; parameters are named as in torchvision's vgg16 (`features.0.weight` ...)."""

    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for entry in VGG16_LAYERS:
            if entry == "pool":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU(inplace=True)]
                channels = entry
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(V, 3, H, W) standardised -> five maps (V, F, h, w): what each block holds before its pool."""
        blocks, x = [], images
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                blocks.append(x)
            x = layer(x)
        return [*blocks, x]


class LPIPS(nn.Module):
    """Frozen and stateless. Made by `load_lpips`, or `with_random_weights` for tests and benchmarks."""

    shift: Tensor
    scale: Tensor

    def __init__(self):
        super().__init__()
        self.vgg = VGG16Features()
        self.heads = nn.ParameterList(torch.zeros(channels) for channels in FEATURE_CHANNELS)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def with_random_weights(cls, seed: int) -> LPIPS:
        """The same network with meaningless weights, for tests and timing."""
        model = cls()
        generator = torch.Generator().manual_seed(seed)
        for layer in model.vgg.features:
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None, "all layers of this network have one"
                nn.init.kaiming_normal_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)
        for head in model.heads:
            head.uniform_(generator=generator)
        return model

    def _unit_features(self, images: Tensor) -> list[Tensor]:
        channels_first = images.permute(0, 3, 1, 2)
        standardised = (2 * channels_first - 1 - self.shift) / self.scale
        return [
            features / (features.square().sum(1, keepdim=True) + NORM_EPS).sqrt()
            for features in self.vgg(standardised)
        ]

    def forward(self, render: Tensor, target: Tensor) -> Tensor:
        """Mean LPIPS of V image pairs, a scalar; the gradient flows to `render` only.

        render, target: (V, H, W, 3) in [0, 1], H and W at least 16.
        """
        assert render.shape == target.shape and render.shape[-1] == 3, (
            f"{render.shape} against {target.shape}"
        )
        assert min(render.shape[1:3]) >= SMALLEST_IMAGE, f"LPIPS needs 16 pixels, got {tuple(render.shape)}"
        with torch.no_grad():
            target_features = self._unit_features(target)
        distance = render.new_zeros(())
        for head, ours, theirs in zip(self.heads, self._unit_features(render), target_features, strict=True):
            # Channels are weighted after the mean over the picture: the same sum, and a far smaller product.
            distance = distance + ((ours - theirs).square().mean((0, 2, 3)) * head).sum()
        return distance


def load_lpips(vgg_path: Path | str, heads_path: Path | str | None = None) -> LPIPS:
    """LPIPS with the published weights, on the CPU.

    vgg_path: torchvision's `vgg16-397923af.pth`, or any state dict with the same `features.*` entries.
    heads_path: the lpips package's `vgg.pth`; by default the copy that torchmetrics carries.
    Raises FileNotFoundError or ValueError, one line each, for a missing or an unfit file.
    """
    vgg_path = Path(vgg_path)
    if not vgg_path.is_file():
        raise FileNotFoundError(
            f"{vgg_path}: the VGG16 weights for LPIPS are not there; put torchvision's vgg16-397923af.pth "
            "there (config key vgg_path), or set lambda_lpips: 0 to train without LPIPS"
        )
    heads_path = Path(heads_path) if heads_path is not None else _heads_of_torchmetrics()
    if not heads_path.is_file():
        raise FileNotFoundError(
            f"{heads_path}: the linear heads of LPIPS (the lpips package's vgg.pth) are not there"
        )

    model = LPIPS()
    weights = read_weights(vgg_path)
    for name, parameter in model.vgg.named_parameters():
        fill(parameter, weights, name, vgg_path)
    weights = read_weights(heads_path)
    for index, head in enumerate(model.heads):
        fill(head[None, :, None, None], weights, f"lin{index}.model.1.weight", heads_path)
    return model


def _heads_of_torchmetrics() -> Path:
    # Finds the folder without the seconds that importing takes.
    spec = importlib.util.find_spec("torchmetrics")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("torchmetrics, which carries the linear heads of LPIPS, is not installed")
    return Path(spec.submodule_search_locations[0]) / HEADS_IN_TORCHMETRICS


def read_weights(path: Path) -> dict[str, Tensor]:
    """Named weights of a file, never unpickled. ValueError, one line, for anything else."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        raise ValueError(f"{path}: not a readable file of weights; fetch it again") from error
    if not isinstance(weights, dict):
        raise ValueError(f"{path}: holds a {type(weights).__name__}, not named weights")
    return weights


def fill(parameter: Tensor, weights: dict[str, Tensor], name: str, path: Path) -> None:
    """Copy one entry into a parameter, or say which entry of which file does not fit."""
    value = weights.get(name)
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        found = tuple(value.shape) if isinstance(value, Tensor) else "nothing"
        raise ValueError(f"{path}: needs {name} {tuple(parameter.shape)}, has {found}; is it the right file?")
    if not torch.isfinite(value).all():
        raise ValueError(f"{path}: {name} has values that are not finite; fetch the file again")
    parameter.copy_(value)
