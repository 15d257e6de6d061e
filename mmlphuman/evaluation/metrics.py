"""Scores of one rendered picture against the captured one.

Data path: ImagePair (ground truth, render, mask; uint8, exactly what is written as PNG) -> FrameScore -> ScoreTable.

The background of both pictures is white. PSNR and SSIM are of the whole picture, and once more of the person's crop:
the mask's bounding square resized to 512, which is what LPIPS and FID see. PSNR is also given for the inside of the
person and for a band about the mask's edge apart, because an edge that is off by a pixel hides everything else: most
of a converged avatar's squared error lies there.
SSIM mirrors the picture at its border and averages over every pixel, as torchmetrics does. scikit-image leaves out
the outer 5 pixels, where the window reaches over the border; the two agree on all others.
Sharpness needs no network's weights: how much detail the person shows, of the truth's, wherever it lies. PSNR likes a
blurred avatar better than one whose wrinkles are as crisp as the true ones and lie beside them; this does not.
Shape letters: H, W height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from mmlphuman.measures.comparison import mask_square, person_crops, regions, ssim
from mmlphuman.measures.lpips import LPIPS


@dataclass(frozen=True)
class ImagePair:
    """A render and what it should look like."""

    camera: int | str  # id in the capture; of other programs' files the folder they lie in
    frame: int | str  # number in the capture; of other programs' files the name
    ground_truth: np.ndarray  # (H, W, 3) uint8 RGB on white
    render: np.ndarray  # (H, W, 3) uint8 RGB on white
    mask: np.ndarray | None = None  # (H, W) bool, True on the person; None where it is not known
    cut_out: np.ndarray | None = (
        None  # (H, W, 4) uint8 the render without background, straight colour; not scored
    )


@dataclass(frozen=True)
class FrameScore:
    """One picture's scores; None where there is nothing to measure (no mask, nobody in it, no network weights)."""

    camera: int | str
    frame: int | str
    size: tuple[int, int]  # (width, height) pixels
    psnr: float  # dB, whole picture; infinite for equal pictures
    ssim: float
    psnr_inside: float | None = None  # dB, pixels of the person farther than EDGE_WIDTH from the mask's edge
    psnr_edge: float | None = None  # dB, pixels within EDGE_WIDTH of the mask's edge, to both sides
    edge_share: float | None = None  # of the whole picture's squared error that lies in that band, 0 to 1
    psnr_crop: float | None = None  # dB, on the mask's bounding square resized to 512
    ssim_crop: float | None = None  # on the same
    lpips: float | None = None  # VGG, on the same
    sharpness: float | None = None  # inside the person, of the truth's: `sharpness`

    def label(self) -> str:
        """For a contact sheet."""
        return f"camera {self.camera}, frame {self.frame}: {self.psnr:.1f} dB"


def person_pair(picture: ImagePair, device: torch.device | str = "cpu") -> torch.Tensor | None:
    """(2, 512, 512, 3) in [0, 1]: the person's crop of ground truth and render; None where no mask shows anybody."""
    if picture.mask is None or not picture.mask.any():
        return None
    square = mask_square(picture.mask)
    return person_crops(_float_pair(picture, device), [square, square], torch.ones(3, device=device))


def score_picture(
    picture: ImagePair, lpips: LPIPS | None = None, device: torch.device | str = "cpu"
) -> FrameScore:
    """Score one picture; without a mask only the whole picture.

    lpips: the network, on `device`; None leaves LPIPS out. device: where SSIM and LPIPS are computed.
    ValueError, naming frame and camera, for arrays that differ in size.
    """
    truth, render = picture.ground_truth, picture.render
    if truth.shape != render.shape or (picture.mask is not None and picture.mask.shape != render.shape[:2]):
        mask_shape = None if picture.mask is None else picture.mask.shape
        raise ValueError(
            f"frame {picture.frame}, camera {picture.camera}: ground truth {truth.shape}, render {render.shape} "
            f"and mask {mask_shape} must be of one size"
        )
    squared_error = np.square(truth.astype(np.float32) / 255 - render.astype(np.float32) / 255).mean(-1)
    psnr = _psnr(squared_error)
    assert psnr is not None, "a picture has pixels"
    whole = FrameScore(
        camera=picture.camera,
        frame=picture.frame,
        size=(truth.shape[1], truth.shape[0]),
        psnr=psnr,
        ssim=_ssim(_float_pair(picture, device)),
    )
    if picture.mask is None:
        return whole
    inside, edge = regions(picture.mask)
    by_region = _region_scores(squared_error, inside, edge)
    detail = sharpness(truth, render, inside)
    return replace(whole, **by_region, **_crop_scores(picture, lpips, device), sharpness=detail)


def sharpness(truth: np.ndarray, render: np.ndarray, inside: np.ndarray) -> float | None:
    """Detail of the render over the truth's: 1 is as sharp, less is blurred, more is noisy. None where the truth is
    flat or the render black.

    The detail of a picture is (sum of |gradient|) / (sum of grey) over the pixels `inside` (H, W), with central
    differences of the mean of the three channels: an absolute-gradient focus measure (Pertuz et al. 2013, Pattern
    Recognition 46), divided by the brightness, so that a gain changes nothing. truth, render: (H, W, 3) uint8.
    """
    true_detail, detail = _detail(truth, inside), _detail(render, inside)
    return detail / true_detail if true_detail and detail is not None else None


def _detail(picture: np.ndarray, inside: np.ndarray) -> float | None:
    grey = picture.mean(-1, dtype=np.float32)
    brightness = float(grey[inside].sum(dtype=np.float64))
    if min(grey.shape) < 2 or brightness == 0:
        return None
    return float(np.hypot(*np.gradient(grey))[inside].sum(dtype=np.float64)) / brightness


def _region_scores(
    squared_error: np.ndarray, inside: np.ndarray, edge: np.ndarray
) -> dict[str, float | None]:
    total = float(squared_error.sum(dtype=np.float64))
    return {
        "psnr_inside": _psnr(squared_error[inside]),
        "psnr_edge": _psnr(squared_error[edge]),
        "edge_share": float(squared_error[edge].sum(dtype=np.float64)) / total if total > 0 else None,
    }


@torch.no_grad()
def _crop_scores(
    picture: ImagePair, lpips: LPIPS | None, device: torch.device | str
) -> dict[str, float | None]:
    crops = person_pair(picture, device)
    if crops is None:
        return {}
    truth, render = crops.split(1)
    scores: dict[str, float | None] = {
        "psnr_crop": _psnr((truth - render).square().mean(-1).cpu().numpy()),
        "ssim_crop": _ssim(crops),
    }
    if lpips is not None:
        scores["lpips"] = float(lpips(render, truth))
    return scores


def _float_pair(picture: ImagePair, device: torch.device | str) -> torch.Tensor:
    """(2, H, W, 3) in [0, 1]."""
    return torch.from_numpy(np.stack([picture.ground_truth, picture.render])).to(device).float() / 255


@torch.no_grad()
def _ssim(pair: torch.Tensor) -> float:
    truth, render = pair.split(1)
    return float(ssim(render, truth))


def _psnr(squared_error: np.ndarray) -> float | None:
    """dB from squared errors of colours in [0, 1]; None for no pixels, infinite for no error."""
    if squared_error.size == 0:
        return None
    mean = float(squared_error.mean(dtype=np.float64))
    return -10 * math.log10(mean) if mean > 0 else math.inf
