"""Whole steps for a Gaussian's bases: chosen together, so that what one basis errs the others make good.

Data path: bases in steps + covariance of their coefficients over the training poses -> whole steps, for compact.encode.

A Gaussian adds sum_k z_k b_k to its numbers, with coefficients z that its three anchors give. Few of z's K directions
are ever taken: with the covariance S of z, rounding errors e of the bases make a mean squared error of e' S e, which is
sum_k L_kk^2 (e_k + sum_{j>k} L_jk / L_kk e_j)^2 with S = L L'. So the last basis is rounded first, and each one before
it to make good what those after it err (Babai's nearest plane; of networks' weights known as GPTQ). Where a smaller
whole number costs a picture little and saves bits, it is taken (rate-distortion optimisation).

Shape letters: P Gaussians with bases, K bases, D numbers of each (11 or 9).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Added to the variance of each coefficient, whose mean one is 1: other poses take other directions than training's.
UNSEEN = 0.1
LARGEST = 127  # of a byte: a single number beyond would give all of them a second byte
MOST = 40  # whole numbers beyond it are taken to need as many bits


def whole_steps(values: Tensor, weight: Tensor, covariance: Tensor, bit: float) -> Tensor:
    """-> (P, K, D) whole numbers near `values` (P, K, D), at most LARGEST.

    weight: (P, D) error of a picture for a squared error of 1 in a number. covariance: (P, K, K) of the coefficients.
    bit: error of a picture for which a bit may be saved; 0 takes the least error that rounding one by one finds.
    """
    bases = values.shape[1]
    steady = covariance + UNSEEN * torch.eye(bases, dtype=values.dtype, device=values.device)
    factor = torch.linalg.cholesky(steady)
    whole = _chosen(values, weight, factor, None, 0.0)
    return _chosen(values, weight, factor, code_lengths(whole), bit) if bit and len(values) else whole


def code_lengths(whole: Tensor) -> Tensor:
    """(K, D, MOST + 1) bits that a good code has for each magnitude, of each basis and number: from how often it is
    there. The sign of those above 0 is a bit more."""
    size = whole.abs().clamp_max(MOST).long().permute(1, 2, 0)
    counts = torch.ones(*size.shape[:2], MOST + 1, dtype=whole.dtype, device=whole.device)
    counts.scatter_add_(2, size, torch.ones_like(size, dtype=whole.dtype))
    bits = -(counts / counts.sum(2, keepdim=True)).log2()
    bits[..., 1:] += 1
    return bits


def _chosen(values: Tensor, weight: Tensor, factor: Tensor, lengths: Tensor | None, bit: float) -> Tensor:
    """lengths: of `code_lengths`; None: no matter."""
    whole, errors = torch.zeros_like(values), torch.zeros_like(values)
    for k in reversed(range(values.shape[1])):
        own = factor[:, k, k, None]
        wanted = values[:, k] + torch.einsum("pj,pjd->pd", factor[:, k + 1 :, k] / own, errors[:, k + 1 :])
        best = wanted.round().clamp(-LARGEST, LARGEST)
        if lengths is not None:
            nearest, cost = best, torch.full_like(best, torch.inf)
            for choice in (nearest, nearest - nearest.sign(), torch.zeros_like(nearest)):
                bits = lengths[k].T.gather(0, choice.abs().clamp_max(MOST).long())
                paid = weight * (own * (wanted - choice)).square() + bit * bits
                best, cost = torch.where(paid < cost, choice, best), torch.minimum(paid, cost)
        whole[:, k], errors[:, k] = best, values[:, k] - best
    return whole
