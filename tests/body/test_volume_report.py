"""The numbers that judge a weight volume, and what they are computed from."""

from __future__ import annotations

import pytest
import torch

from mmlphuman.body.canonical_surface import nearest_surface_weights, vertex_normals, weight_gradients
from mmlphuman.body.smplx_model import Body, load_body
from mmlphuman.body.volume_report import gradient_norm, measure_weight_volume
from mmlphuman.body.weight_volume import WeightVolume, build_weight_volume
from mmlphuman.pose_layout import NUM_JOINTS

SLOPE = torch.tensor([0.1, 0.3, -0.2])  # of the first joint's weight, per metre


@pytest.fixture(scope="module")
def body(synthetic_body) -> Body:
    """The synthetic body with weights that are linear in space: what is measured has a known answer."""
    body = load_body(synthetic_body, torch.zeros(10))
    first = 0.5 + body.canonical_vertices @ SLOPE
    weights = torch.zeros(len(first), NUM_JOINTS)
    weights[:, 0], weights[:, 1] = first, 1 - first
    return Body(body.vertices, body.canonical_vertices, body.faces, body.joints, body.parents, weights)


def test_normals_point_outwards(body):
    normals = vertex_normals(body)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(len(normals)))
    # Divergence theorem: the volume enclosed is positive, and about a person's.
    corners = body.canonical_vertices[body.faces]
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    moved = (body.canonical_vertices + 0.005 * normals)[body.faces]
    assert 0.03 < volume < 0.12
    assert (moved[:, 0] * torch.linalg.cross(moved[:, 1], moved[:, 2])).sum() / 6 > volume


def test_gradients_lie_in_the_surface_and_are_those_of_the_field(body):
    gradients, normals = weight_gradients(body).float(), vertex_normals(body)
    assert (gradients[:, :, 0] * normals).sum(1).abs().max() < 1e-4
    tangential = SLOPE - normals * (normals @ SLOPE)[:, None]
    error = (gradients[:, :, 0] - tangential).norm(dim=1)
    assert error.mean() < 0.05 * SLOPE.norm()
    torch.testing.assert_close(gradients.sum(2), torch.zeros_like(normals), atol=1e-4, rtol=0)


def test_nearest_surface_point_of_points_on_and_off_a_face(body):
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(body.faces), (300,), generator=generator)
    shares = torch.rand(300, 3, generator=generator) + 0.2
    shares /= shares.sum(1, keepdim=True)
    corners = body.faces[chosen]
    on_face = (shares[:, :, None] * body.canonical_vertices[corners]).sum(1)
    expected = (shares[:, :, None] * body.lbs_weights[corners]).sum(1)
    torch.testing.assert_close(nearest_surface_weights(body, on_face), expected, atol=1e-4, rtol=0)
    a, b, c = body.canonical_vertices[corners].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a))
    off_face = nearest_surface_weights(body, on_face + 2e-4 * normal)
    torch.testing.assert_close(off_face, expected, atol=1e-3, rtol=0)


def test_gradient_of_a_linear_volume():
    low, high = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 3.0, 2.5])
    axes = [torch.linspace(low[i], high[i], 6 + i) for i in range(3)]
    first = 0.3 + torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) @ SLOPE
    volume = WeightVolume(torch.stack([first, 1 - first], -1), low, high)
    points = low + (high - low) * torch.tensor([[0.5, 0.5, 0.5], [0.3, 0.6, 0.7]])
    torch.testing.assert_close(gradient_norm(volume, points), (2**0.5 * SLOPE.norm()).expand(2))


def test_a_volume_of_linear_weights_has_no_errors(body):
    errors = measure_weight_volume(build_weight_volume(body, 32), body)
    assert errors.at_surface.mean() < 0.005
    assert (errors.gradient / errors.own_gradient).median() == pytest.approx(1, abs=0.3)
    assert errors.outside.mean() < 0.03 and errors.inside.mean() < 0.03
    assert len(errors.table().splitlines()) == 7


def test_volume_of_the_synthetic_body_at_any_density(synthetic_body):
    """Coarse, so the bounds are those of 32 nodes and of what is no hand; finer is better."""
    whole = load_body(synthetic_body, torch.zeros(10))
    edges = torch.cat([whole.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]).sort(1).values
    edges, number = edges.unique(dim=0, return_inverse=True)
    middle = (number + len(whole.vertices)).view(3, -1).T  # (F, 3) vertices in the middle of the edges
    corner = whole.faces
    faces = torch.cat(
        [middle] + [torch.stack([corner[:, i], middle[:, i], middle[:, i - 1]], 1) for i in range(3)]
    )

    def subdivided(attribute: torch.Tensor) -> torch.Tensor:
        return torch.cat([attribute, attribute[edges].mean(1)])

    fine = Body(
        subdivided(whole.vertices), subdivided(whole.canonical_vertices), faces, whole.joints, whole.parents,
        subdivided(whole.lbs_weights),
    )  # fmt: skip
    volumes = [build_weight_volume(body, 32) for body in (whole, fine)]
    for volume, body in zip(volumes, (whole, fine), strict=True):
        errors = measure_weight_volume(volume, body)
        rest = ~errors.is_hand
        assert errors.at_surface[rest].mean() < 0.08
        assert errors.outside[rest].mean() < 0.12 and errors.inside[rest].mean() < 0.12
        assert errors.gradient[rest].mean() < 1.1 * errors.own_gradient[rest].mean()
    between = [volume.query(whole.canonical_vertices) for volume in volumes]
    assert (between[0] - between[1]).abs().sum(1).mean() < 0.05
