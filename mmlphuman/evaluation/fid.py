"""FID: how far apart two sets of pictures lie in the features of an Inception network (Heusel et al. 2017).

Data path: person's crops (512, uint8) -> Inception -> 2048 features each -> two Gaussians -> Frechet distance.
Shape letters: n, m pictures, D features (2048).
"""

from __future__ import annotations

import numpy as np

from mmlphuman.evaluation.inception import NUM_FEATURES


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


def _few_rows(rows: np.ndarray) -> np.ndarray:
    """(n, D) -> at most D rows with the same X^T X, which leaves the singular values of products alone."""
    return np.linalg.qr(rows, mode="r") if len(rows) > rows.shape[1] else rows


def bias_note(count: int) -> str | None:
    """What to say beside a FID of `count` pictures, if anything."""
    if count >= NUM_FEATURES:
        return None
    return (
        f"FID of {count} images is biased (fewer than its {NUM_FEATURES} features): compare it only with a FID of "
        "the same number of images"
    )
