"""Frechet distance: closed forms, torchmetrics' formula, few pictures."""

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid

from mmlphuman.evaluation.evaluate import fid_of_cameras
from mmlphuman.evaluation.fid import bias_note, frechet_distance


def samples(count, features, seed=0, scale=1.0, shift=0.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(count, features))


def by_torchmetrics(a, b):
    moments = [torch.from_numpy(moment) for x in (a, b) for moment in (x.mean(0), np.cov(x, rowvar=False))]
    return float(_compute_fid(*moments))


def test_diagonal_gaussians_have_their_closed_form():
    # Rows +-sqrt(3) s on each axis: mean 0 and, over n - 1, exactly the covariance diag(s^2).
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * np.sqrt(3) / 2
    sigma_a, sigma_b, mean = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5]), np.array([0.0, 4.0, 1.0])
    expected = np.square(mean).sum() + np.square(sigma_a - sigma_b).sum()
    assert frechet_distance(signs * sigma_a, signs * sigma_b + mean) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("counts", [(50, 50), (40, 70), (2000, 300)])
def test_equals_torchmetrics(counts):
    a, b = samples(counts[0], 12), samples(counts[1], 12, seed=1, scale=1.5, shift=0.2)
    expected = by_torchmetrics(a, b)
    assert expected > 0.5
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_few_pictures_give_a_finite_distance():
    a, b = samples(6, 2048).astype(np.float32), samples(9, 2048, seed=1).astype(np.float32)
    distance = frechet_distance(a, b)
    assert np.isfinite(distance) and distance > 0
    assert distance == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6 * float(np.square(a).sum()))
    # Low rank by hand: the features lie in 5 dimensions, where the closed form is not degenerate.
    rotation = np.linalg.qr(samples(100, 5))[0]
    low_a, low_b = samples(30, 5), samples(30, 5, seed=1, shift=1.0)
    assert frechet_distance(low_a @ rotation.T, low_b @ rotation.T) == pytest.approx(
        by_torchmetrics(low_a, low_b), rel=1e-6
    )


def test_grows_with_the_difference():
    a = samples(40, 16)
    distances = [frechet_distance(a, a + shift) for shift in (0.0, 0.1, 1.0)]
    assert distances == pytest.approx([0, 0.16, 16], abs=1e-6)


def test_one_picture_has_no_distance():
    assert frechet_distance(samples(1, 8), samples(5, 8)) is None


def test_cameras_apart_and_all_together():
    pairs = {
        camera: list(np.stack([samples(5, 8, camera), samples(5, 8, camera + 9)], 1)) for camera in (1, 2)
    }
    result = fid_of_cameras({**pairs, 3: pairs[1][:1]})
    assert set(result) == {1, 2, None}  # camera 3 has a single picture
    everything = np.stack(pairs[1] + pairs[2] + pairs[1][:1])
    assert result[None] == pytest.approx(frechet_distance(everything[:, 0], everything[:, 1]))
    assert result[1] == pytest.approx(frechet_distance(samples(5, 8, 1), samples(5, 8, 10)))
    assert fid_of_cameras({}) == {}


def test_few_pictures_are_said_to_be_few():
    assert "500 images" in bias_note(500) and "2048" in bias_note(500)
    assert bias_note(2048) is None
