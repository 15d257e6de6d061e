"""Parts of check_capture by themselves: how numbers are named, jumps, reduced masks, the drawn overlay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from checked_capture import SIZE

from mmlphuman import drawing
from mmlphuman.body.smplx_model import load_body
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.images import make_view_reader
from mmlphuman.capture.poses import SmplParams, read_smpl_params
from mmlphuman.preparation import fit_measure, overlays, pose_checks
from mmlphuman.preparation.findings import ERROR, OK, WARNING, Finding, format_table, name_numbers, overall
from mmlphuman.preparation.fit_measure import (
    load_reduced_mask,
    project_points,
    spread_points,
    undistort_picture,
)
from mmlphuman.preparation.pose_checks import check_face, check_jumps, joint_steps
from tests.capture.small_capture import pose_arrays


def test_numbers_are_named_as_ranges():
    assert name_numbers([7, 1, 2, 3, 9, 10]) == "1-3, 7, 9-10"
    assert name_numbers(range(0, 40, 2)).endswith("and 12 more")


def test_overall_is_the_worst():
    row = {result: Finding("check", result, "what") for result in (OK, WARNING, ERROR)}
    assert overall([row[OK], row[WARNING]]) == WARNING and overall([]) == OK
    assert overall([row[WARNING], row[ERROR], row[OK]]) == ERROR


def test_table_keeps_every_word():
    long = "word " * 60 + "end"
    table = format_table([Finding("check", ERROR, long, "/a/long-path/with-hyphens")])
    assert table.split().count("word") == 60 and "/a/long-path/with-hyphens" in table
    assert max(map(len, table.splitlines())) <= 118


def test_the_face_is_told_and_a_damaged_one_is_no_error(tmp_path):
    path, arrays = tmp_path / "smpl_params.npz", pose_arrays()
    jaw = np.zeros_like(arrays["jaw_pose"])
    jaw[2, 0] = np.deg2rad(20)
    still = np.ones_like(arrays["expression"])
    for changes, result, words in (
        ({"jaw_pose": jaw}, OK, ["up to 20 degrees", "the expression moves"]),
        ({"jaw_pose": 0 * jaw, "expression": still}, OK, ["the jaw is shut", "no expression moves"]),
        ({"expression": still[:, :9]}, WARNING, ["face: true", "'expression'", "(frames, 10)"]),
    ):
        np.savez(path, **arrays | changes)
        found = check_face(path)
        assert found.result == result and all(word in found.what for word in words), found
    np.savez(path, **{key: value for key, value in arrays.items() if key not in ("jaw_pose", "expression")})
    assert check_face(path).what == "the jaw is shut in every frame, no expression moves"


def params_of(poses: np.ndarray) -> SmplParams:
    return SmplParams(
        np.zeros(10, np.float32), poses.astype(np.float32), np.zeros((len(poses), 3), np.float32)
    )


def test_joint_steps_are_angles_whatever_the_axis_angle():
    """pi about an axis and -pi about it are one rotation; so are an angle and that plus a full turn."""
    poses = np.zeros((3, 165))
    poses[0, 3:6], poses[1, 3:6], poses[2, 3:6] = [3.1, 0, 0], [3.1 - 2 * np.pi, 0, 0], [3.0, 0, 0]
    np.testing.assert_allclose(joint_steps(poses)[:, 1], [0, 0.1], atol=1e-6)


def test_lively_motion_is_no_jump_but_a_glitch_in_calm_motion_is():
    time = np.arange(60)
    lively = np.zeros((60, 165))
    lively[20:, 3] = 1.2 * np.sin(time[20:])  # begins abruptly, up to 65 degrees a frame
    assert check_jumps(params_of(lively)).result == OK
    calm = np.zeros((60, 165))
    calm[:, 3] = 0.5 * np.sin(time / 10)
    assert check_jumps(params_of(calm)).result == OK
    calm[30, 3] += 1.0
    finding = check_jumps(params_of(calm))
    assert finding.result == WARNING and "frame 29-30" in finding.where and "frame 30-31" in finding.where


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 12, 13, 14, 25, 60])
def test_limits_of_jumps_are_those_of_a_step_by_step_look(monkeypatch, count):
    """Also where a sequence is looked at in several pieces."""
    monkeypatch.setattr(pose_checks, "AT_ONCE", 7)
    steps = np.random.default_rng(count).gamma(0.5, 0.3, (count, 4))
    wanted = np.empty_like(steps)
    for index in range(count):
        limits = [np.full(4, 0.2)]
        for side in (steps[max(0, index - 11) : max(0, index - 1)], steps[index + 2 : index + 12]):
            limits += [4 * np.quantile(side, 0.75, axis=0)] if len(side) else []
        wanted[index] = steps[index] / np.max(limits, 0)
    np.testing.assert_allclose(pose_checks._excess(steps, 0.2), wanted)
    poses = np.random.default_rng(count).normal(0, 1, (count + 1, 9))
    pairs = [joint_steps(poses[index : index + 2])[0] for index in range(count)]
    np.testing.assert_allclose(joint_steps(poses), pairs, atol=1e-7)


@pytest.mark.parametrize("dist", [(0, 0, 0, 0, 0), (-0.2, 0.05, 0.01, -0.01, 0)])
def test_reduced_mask_is_where_the_reader_has_it(clean_check_captures, monkeypatch, dist):
    """The checks undistort the reduced mask, training the full one: they agree but for the outline."""
    monkeypatch.setattr(fit_measure, "REDUCED_SIDE", SIZE // 2)
    layout = open_capture(clean_check_captures("avatarrex"))
    camera = replace(layout.cameras[1], dist=np.array(dist, float))
    layout = replace(layout, cameras=(layout.cameras[0], camera))
    reader = make_view_reader(camera, (SIZE, SIZE), 0.5, edge_radius=2)
    view = reader.read(layout.image_path(1, 3), layout.mask_path(1, 3))
    reduced = load_reduced_mask(layout, 3, 1)
    np.testing.assert_allclose(reduced.K, reader.intrinsics)
    assert reduced.mask.shape == view.mask.shape
    assert not (reduced.mask != view.mask)[~view.edge].any()


def test_picture_without_distortion_is_left_alone(clean_check_captures):
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    camera = open_capture(clean_check_captures("avatarrex")).cameras[0]
    assert undistort_picture(picture, camera.K, camera) is picture


def test_silhouette_has_no_gaps_and_no_margin(synthetic_body):
    """A camera 3 m in front sees a body of the height and the area that its triangles have."""
    body = load_body(synthetic_body, np.zeros(10))
    surface = spread_points(body)
    assert all(0.005 < hand.mean() < 0.1 for hand in surface.hands.values())
    points = surface.posed(torch.zeros(165), np.zeros(3, np.float32))
    w2c = np.diag([1.0, -1, -1, 1])
    w2c[2, 3] = 3
    middle = points.mean(0)
    w2c[:3, 3] -= w2c[:3, :3] @ middle
    K = np.array([[500.0, 0, 256], [0, 500, 256], [0, 0, 1]])
    projection = project_points(points, w2c, K, (512, 512))
    assert projection.in_view.all() and projection.pixels_per_metre == pytest.approx(500 / 3, rel=0.05)
    rows, columns = np.nonzero(projection.silhouette())
    pixels = (points - middle) * [1, -1, -1] + [0, 0, 3]
    pixels = pixels[:, :2] / pixels[:, 2:] * 500 + 256
    assert abs(rows.min() - pixels[:, 1].min()) < 3 and abs(rows.max() - pixels[:, 1].max()) < 3
    inside_trunk = projection.silhouette()[190:280, 250:262]
    assert inside_trunk.all()


def test_overlay_shows_the_body_in_the_mask_in_green(clean_check_captures, synthetic_body):
    layout = open_capture(clean_check_captures("avatarrex"))
    params = read_smpl_params(layout.pose_path)
    body = load_body(synthetic_body, params.betas)
    fits = overlays.draw_body(layout, params, body, 2, 0).astype(int)
    moved = replace(params, translations=params.translations + np.array([0.5, 0, 0], np.float32))
    misses = overlays.draw_body(layout, moved, body, 2, 0).astype(int)
    assert fits.shape == misses.shape == (drawing.BODY_HEIGHT, drawing.BODY_WIDTH, 3)

    def share(picture, channel, other):
        return (picture[..., channel] > picture[..., other] + 60).mean()

    green, red = 1, 0
    assert share(fits, green, red) > 0.05 and share(fits, red, green) < 0.05
    assert share(misses, red, green) > 2 * share(fits, red, green)
