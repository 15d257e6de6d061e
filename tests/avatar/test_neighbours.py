"""Position-based interpolation: weights by inverse distance that survive coinciding points."""

import pytest
import torch

from mmlphuman.avatar.neighbours import interpolation, nearest


def test_nearest_equals_brute_force():
    queries, points = torch.randn(50, 3), torch.randn(80, 3)
    distance, index = nearest(queries, points, 4)
    expected = torch.cdist(queries.double(), points.double()).topk(4, largest=False)
    torch.testing.assert_close(distance, expected.values.float())
    assert (index == expected.indices).all()


def test_weights_sum_to_one_and_fall_with_distance():
    table = interpolation(torch.randn(100, 3), torch.randn(30, 3))
    torch.testing.assert_close(table.weight.sum(1), torch.ones(100))
    assert (table.weight[:, :-1] >= table.weight[:, 1:]).all() and (table.weight > 0).all()


def test_a_point_on_an_anchor_takes_that_anchors_value():
    anchors = torch.randn(10, 3)
    values = torch.randn(10, 5)
    table = interpolation(anchors.clone(), anchors)
    assert table.weight.isfinite().all()
    torch.testing.assert_close(table(values), values, atol=1e-5, rtol=1e-5)


def test_two_anchors_at_one_place_share_the_weight():
    anchors = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]])
    table = interpolation(torch.zeros(1, 3), anchors)
    torch.testing.assert_close(table(torch.tensor([[2.0], [4.0], [100.0]])), torch.tensor([[3.0]]))


def test_interpolation_is_the_weighted_mean_by_inverse_distance():
    anchors = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 4]])
    value = interpolation(torch.zeros(1, 3), anchors)(torch.tensor([[1.0], [2.0], [3.0]]))
    expected = (1 / 1 + 2 / 2 + 3 / 4) / (1 / 1 + 1 / 2 + 1 / 4)
    torch.testing.assert_close(value, torch.tensor([[expected]]))


def test_too_few_points_is_said():
    with pytest.raises(ValueError, match="3 nearest neighbours were asked of only 2 points"):
        nearest(torch.zeros(1, 3), torch.zeros(2, 3), 3)
