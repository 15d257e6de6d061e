"""A capture's template.ply: taken if it can be the clothed body, else one line that says why not."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from mmlphuman.avatar.build import load_template
from tests.builders import body_and_volume


@pytest.fixture(scope="module")
def body(synthetic_body):
    return body_and_volume(synthetic_body)[0]


def written(folder, vertices, faces):
    path = folder / "template.ply"
    path.write_bytes(trimesh.Trimesh(vertices, faces, process=False).export(file_type="ply"))
    return path


def z_up(vertices):
    return np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], 1)


WRONG = {
    "centimetres": (lambda v: v * 100, "as if it were in centimetres"),
    "millimetres": (lambda v: v * 1000, "as if it were in millimetres"),
    "nearly nothing": (lambda v: v * 1e-20, "times the body's"),
    "elsewhere": (lambda v: v + 3, "its middle lies 3.00 m from"),
    "lying": (z_up, "not upright"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_template_that_cannot_be_the_body_is_one_line(body, tmp_path, fault):
    change, message = WRONG[fault]
    path = written(tmp_path, change(body.canonical_vertices.double().numpy()), body.faces.numpy())
    with pytest.raises(
        ValueError, match=f"template.ply: not a .*: .*{message}.*; mend it, or remove"
    ) as error:
        load_template(path, body)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("index", [-1, 10**6])
def test_a_face_that_points_nowhere_is_one_line(body, tmp_path, index):
    faces = body.faces.numpy().copy()
    faces[3, 1] = index
    path = written(tmp_path, body.canonical_vertices.numpy(), faces)
    with pytest.raises(ValueError, match="template.ply: not a usable template mesh: .*; mend it") as error:
        load_template(path, body)
    assert "\n" not in str(error.value)


def test_clothes_are_no_fault_and_without_a_file_it_is_the_body(body, tmp_path):
    vertices = body.canonical_vertices.numpy()
    for wider in (np.array([1.3, 1.1, 1.8]), np.array([0.9, 1.0, 0.9])):
        mesh = load_template(written(tmp_path, vertices * wider, body.faces.numpy()), body)
        np.testing.assert_allclose(mesh.vertices, vertices * wider, atol=1e-5)
    own = load_template(tmp_path / "none.ply", replace(body))
    np.testing.assert_array_equal(own.vertices, vertices)


@pytest.mark.parametrize("kind", ["link to nowhere", "folder", "pipe"])
def test_what_stands_in_the_place_of_a_template_is_not_passed_over(body, tmp_path, kind):
    path = tmp_path / "template.ply"
    make = {
        "link to nowhere": lambda: path.symlink_to("moved.ply"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }
    make[kind]()
    with pytest.raises(
        ValueError, match="template.ply: no file but a link that leads nowhere, .*; mend it, or remove"
    ):
        load_template(path, body)
