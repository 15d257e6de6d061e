"""All stages in their order, on a synthetic person in grey pictures whose landmarks and masks the user brings."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mmlphuman.capture.calibration import calibration_content
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.fitting import body_fit
from mmlphuman.fitting.fit_capture import (
    fit_capture,
    given_masks,
    refine_capture,
    require_human_size,
    take_footage,
    take_landmarks,
    y_up,
)
from mmlphuman.fitting.fit_request import FitRequest
from mmlphuman.fitting.fit_results import Renumbering
from mmlphuman.fitting.observations import BodyFit, Points, Rig
from mmlphuman.fitting.posed_body import read_fitted_body
from mmlphuman.fitting.report import body_in_time
from mmlphuman.fitting.silhouettes import draw_silhouette
from mmlphuman.fitting.writing import read_fit, write_fit
from tests.fitting.scene import FRAMES, SIZE, observed, picture_places

TURN = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # world with z up from one with y up


def quiet(_):
    pass


@pytest.fixture(scope="module")
def request_of_all(scene, body_path, tmp_path_factory):
    """Pictures, masks and keypoints in folders, and a calibration whose z is up."""
    folder = tmp_path_factory.mktemp("source")
    landmarks = observed(scene.landmarks, scene.cameras, noise=2.0)
    for view, camera in enumerate(scene.cameras):
        for kind in ("images", "masks"):
            (folder / kind / camera.name).mkdir(parents=True)
        annotations = []
        for frame, vertices in enumerate(scene.vertices):
            depth = (vertices @ camera.R.T + camera.T)[:, 2]
            mask = draw_silhouette(picture_places(camera, vertices), depth, scene.body.faces.numpy(), SIZE)
            large = cv2.resize(mask.astype(np.uint8) * 255, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(folder / f"masks/{camera.name}/m_{frame + 7:04d}.png"), large)
            grey = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
            cv2.imwrite(str(folder / f"images/{camera.name}/{frame:08d}.jpg"), grey)
            seen = np.concatenate(
                [landmarks.places[view, frame], landmarks.confidence[view, frame][:, None]], 1
            )
            parts = (
                ("keypoints", 0, 17),
                ("foot_kpts", 17, 23),
                ("lefthand_kpts", 23, 44),
                ("righthand_kpts", 44, 65),
            )
            annotations.append({"image_id": frame} | {key: seen[a:b].ravel().tolist() for key, a, b in parts})
        (folder / "keypoints").mkdir(exist_ok=True)
        images = [{"id": frame, "file_name": f"{frame:08d}.jpg"} for frame in range(FRAMES)]
        (folder / "keypoints" / f"{camera.name}.json").write_text(
            json.dumps({"images": images, "annotations": annotations})
        )
    z_up = [replace(camera, R=camera.R @ TURN.T) for camera in scene.cameras]
    (folder / "calibration.json").write_text(json.dumps(calibration_content(z_up)))
    return FitRequest(
        source=folder / "images",
        out=tmp_path_factory.mktemp("made") / "capture",
        calibration=folder / "calibration.json",
        body=body_path,
        networks=folder / "none",
        keypoints=folder / "keypoints",
        masks=folder / "masks",
    )


@pytest.fixture(scope="module")
def made(request_of_all):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_fit, "SHAPE_ROUNDS", 1)
        patch.setattr(body_fit, "SURFACE_ROUNDS", 1)
        patch.setattr(body_fit, "ROUND_STEPS", 15)
        return fit_capture(request_of_all, quiet)


def test_a_capture_with_y_up_comes_out(scene, made):
    layout = open_capture(made.folder)
    params = read_smpl_params(layout.pose_path)
    assert len(layout.cameras) == 4 and len(params) == FRAMES
    for view in range(4):
        for frame in range(FRAMES):
            assert layout.find_image(view, frame) is not None and layout.find_mask(view, frame) is not None
    # The world is the scene's own again, but for a turn about y.
    heights = params.translations[:, 1] - scene.motion["transl"][:, 1]
    assert np.abs(heights).max() < 0.04
    assert any("z is up in the calibration" in note for note in made.notes)
    assert made.overlap > 0.9 and made.worst <= made.overlap
    assert (made.folder / "contact_sheet.png").is_file() and (made.folder / "report.md").is_file()


def test_masks_of_another_numbering_and_size_come_out_as_the_pictures(made):
    for camera in open_capture(made.folder).cameras:
        for frame in range(FRAMES):
            mask = cv2.imread(str(made.folder / f"masks/{camera.name}/{frame:08d}.png"), cv2.IMREAD_UNCHANGED)
            assert mask.shape == SIZE[::-1] and 0.02 < (mask > 127).mean() < 0.6


def test_started_again_it_does_nothing_twice(request_of_all, made):
    body = made.folder / "fit" / "body.npz"
    before = body.stat().st_mtime_ns
    again = fit_capture(request_of_all, quiet)
    assert body.stat().st_mtime_ns == before
    assert again.overlap == made.overlap and again.notes == made.notes


def test_started_again_with_other_words_it_refuses(request_of_all, made):
    with pytest.raises(ValueError, match="begun with frames"):
        fit_capture(replace(request_of_all, frames=slice(0, 2)), quiet)


def test_refine_leaves_the_capture_as_it_is(request_of_all, made, tmp_path, monkeypatch):
    monkeypatch.setattr(body_fit, "SHAPE_ROUNDS", 1)
    monkeypatch.setattr(body_fit, "SURFACE_ROUNDS", 0)
    monkeypatch.setattr(body_fit, "ROUND_STEPS", 5)
    before = (made.folder / "smpl_params.npz").read_bytes()
    refined = refine_capture(made.folder, request_of_all.body, tmp_path / "refined", say=quiet)
    assert (made.folder / "smpl_params.npz").read_bytes() == before
    assert len(read_smpl_params(tmp_path / "refined" / "smpl_params.npz")) == FRAMES
    assert refined.overlap > 0.85


@pytest.mark.parametrize("up", [0, 1, 2, 3, 4, 5])
def test_any_axis_can_be_up(scene, up):
    """x, y, z, -x, -y, -z: the person stands along y afterwards, and projects to the same pixels."""
    axis = np.eye(3)[up % 3] * (1 if up < 3 else -1)
    side = np.eye(3)[(up + 1) % 3]
    to_other = np.stack([side, axis, np.cross(side, axis)]).T  # its y column is the axis
    cameras = tuple(replace(camera, R=camera.R @ to_other.T) for camera in scene.cameras)
    places = (scene.landmarks @ to_other.T).astype(np.float32)
    points = Points(
        places, np.ones(places.shape[:2], np.float32), np.zeros((4, *places.shape[:2]), np.float32)
    )
    rig, turned, _ = y_up(Rig(cameras, np.zeros(4)), points)
    head, ankle = turned.places[:, 0], turned.places[:, 15]
    assert ((head - ankle)[:, 1] > 1).all()
    for old, new in zip(cameras, rig.cameras, strict=True):
        assert np.allclose(places @ old.R.T, turned.places @ new.R.T, atol=1e-5)
        assert np.isclose(np.linalg.det(new.R), 1)


def test_whole_frames_that_cameras_were_late_are_numbered_away():
    """Picture n of camera v was taken at n + offset: in the capture's frame k all pictures are of one time."""
    offsets, frames = np.array([0.0, 2.9, -1.2, 0.55]), 10
    new = Renumbering.of(offsets, frames)
    times = np.arange(frames)[None] + offsets[:, None]
    taken = new.of_pictures(times)
    assert taken.shape == (4, new.frames) and new.frames == 10 - 3 - 1
    assert np.abs(taken - new.of_times(np.arange(frames))).max() < 0.75
    assert new.shifts == (0, 3, -1, 0)
    with pytest.raises(ValueError, match="no frame was seen by all"):
        Renumbering.of(np.array([0.0, 10.0]), frames)


def begun(request_of_all, out, **words):
    """A request whose footage is taken, and no more."""
    request = replace(request_of_all, out=out, **words)
    return request, take_footage(request, quiet)


def test_before_results_depend_on_a_word_it_may_change(request_of_all, tmp_path):
    request, _ = begun(request_of_all, tmp_path / "made")
    named = replace(request, people=("cam0,0,10,10",), keypoints=None, refine_cameras=False)
    take_footage(named, quiet)
    (request.out / "fit" / "person.json").write_text("{}")
    take_footage(named, quiet)
    with pytest.raises(ValueError, match=r"begun with people \['cam0,0,10,10'\], now it is \[\]"):
        take_footage(request, quiet)


def test_a_unit_that_comes_later_scales_the_cameras_once(request_of_all, tmp_path):
    request, first = begun(request_of_all, tmp_path / "made")
    in_other = replace(request, unit=0.001)
    for _ in range(2):
        scaled = take_footage(in_other, quiet)
        for old, new in zip(first.cameras, scaled.cameras, strict=True):
            assert np.allclose(new.T, 0.001 * old.T)


def test_what_cannot_be_extracted_leaves_nothing_and_can_be_started_again(request_of_all, tmp_path):
    """All that says what was asked for appears with the pictures, or nothing."""
    source = tmp_path / "source"
    shutil.copytree(request_of_all.source, source)
    broken = source / "cam3" / "00000002.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:300])
    request = replace(request_of_all, source=source, out=tmp_path / "made")
    with pytest.raises(ValueError, match="00000002.jpg"):
        take_footage(request, quiet)
    assert not request.out.exists()
    broken.write_bytes(whole)
    footage = take_footage(replace(request, frames=slice(0, 3)), quiet)
    assert footage.frames == 3


def test_without_networks_nothing_is_begun(request_of_all, tmp_path):
    request = replace(request_of_all, out=tmp_path / "made", masks=None)
    with pytest.raises(FileNotFoundError, match="environment is not there"):
        fit_capture(request, quiet)
    assert not request.out.exists()


@pytest.mark.parametrize("what", ["masks", "keypoints"])
def test_wrong_masks_and_keypoints_are_refused_before_networks_run(
    request_of_all, tmp_path, monkeypatch, what
):
    """One of them is given, so that the networks are needed for the other."""
    ran = []
    monkeypatch.setattr("mmlphuman.fitting.fit_capture.interpreter_in", lambda _: None)
    monkeypatch.setattr("mmlphuman.fitting.fit_capture.run_networks", lambda *_: ran.append(1))
    (tmp_path / "empty").mkdir()
    words = {"masks": None, "keypoints": None} | {what: tmp_path / "empty"}
    with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path / "empty")):
        fit_capture(replace(request_of_all, out=tmp_path / "made", **words), quiet)
    assert not ran


def test_a_capture_among_the_source_s_folders_of_pictures_is_refused(request_of_all):
    request = replace(request_of_all, out=request_of_all.source / "capture")
    with pytest.raises(ValueError, match="lies among the folders of pictures"):
        take_footage(request, quiet)
    assert not request.out.exists()


def test_frames_take_their_own_keypoints_and_masks(request_of_all, scene, tmp_path):
    request, footage = begun(request_of_all, tmp_path / "made", frames=slice(1, 4, 2))
    landmarks, outlines, _ = take_landmarks(request, footage, quiet)
    whole, whole_footage = begun(request_of_all, tmp_path / "whole")
    of_all = take_landmarks(whole, whole_footage, quiet)[0]
    assert outlines is None and np.array_equal(landmarks.places, of_all.places[:, [1, 3]])
    given_masks(request, footage)
    for frame, number in enumerate((1, 3)):
        mask = cv2.imread(str(request.out / f"fit/masks/cam2/{frame:08d}.png"), 0)
        given = cv2.imread(str(request.masks / f"cam2/m_{number + 7:04d}.png"), 0)
        assert np.array_equal(mask > 127, given[::2, ::2] > 127)


@pytest.mark.parametrize(("unit", "told"), [(0.001, 1000), (0.0254, 1 / 0.0254), (0.01, 100)])
def test_a_calibration_that_is_not_in_metres_is_told_its_unit(scene, unit, told):
    landmarks = observed(scene.landmarks, scene.cameras, noise=2.0)
    require_human_size(landmarks, scene.cameras, 1.0)
    cameras = [replace(camera, T=told * camera.T) for camera in scene.cameras]
    with pytest.raises(ValueError, match=f"--unit {unit}$"):
        require_human_size(landmarks, cameras, 1.0)
    with pytest.raises(ValueError, match="--unit 1$"):  # the unit was given, and was wrong
        require_human_size(landmarks, [replace(c, T=unit * c.T) for c in scene.cameras], unit)


def test_damaged_results_of_stages_are_told_how_to_mend(request_of_all, made, tmp_path):
    request = replace(request_of_all, out=tmp_path / "made")
    for name, content, match in [
        ("fit/footage/request.json", "{}", "request.json: is damaged.*remove .*made, it is made anew"),
        ("fit/footage/footage.json", "[]", "footage.json.*remove .*made, it is made anew"),
        ("fit/rig.json", "{", "rig.json: not readable.*remove .*rig.json, it is made anew"),
        ("fit/rig_changes.json", '{"changes": [{"name": 1}], "notes": []}', "remove .*rig.json"),
        ("fit/body_notes.json", "5", "remove .*body.npz"),
        ("fit/body_errors.npz", "PK", "body_errors.npz.*remove .*body.npz"),
    ]:
        shutil.copytree(made.folder, request.out, symlinks=True)
        (request.out / name).write_text(content)
        with pytest.raises(ValueError, match=match):
            fit_capture(request, quiet)
        shutil.rmtree(request.out)
    shutil.copytree(made.folder, request.out, symlinks=True)
    fit = read_fit(request.out / "fit" / "body.npz")
    for other in (
        replace(fit, betas=fit.betas[:3]),
        replace(fit, poses=fit.poses * np.nan),
        replace(fit, poses=fit.poses[:2], translations=fit.translations[:2]),
    ):
        write_fit(request.out / "fit" / "body.npz", other)
        with pytest.raises(ValueError, match="remove .*body.npz"):
            fit_capture(request, quiet)


def test_the_body_is_posed_a_frame_at_a_time_and_as_the_scene_was(scene, body_path):
    """Of a camera that is half a frame late it lies between two frames."""
    betas = scene.motion["betas"].ravel().astype(np.float32)
    offsets = np.zeros(len(scene.vertices[0]), np.float32)
    moves = scene.motion["transl"].astype(np.float32)
    fit = BodyFit(betas, scene.poses, moves, offsets, np.ones((4, FRAMES), np.float32))
    on_time = body_in_time(read_fitted_body(body_path), fit, 0.0)
    for frame in range(FRAMES):
        assert on_time(frame).shape == scene.vertices[frame].shape
        assert np.abs(on_time(frame) - scene.vertices[frame]).max() < 2e-4
    between = body_in_time(read_fitted_body(body_path), fit, 0.5)(1)
    assert np.abs(between - (scene.vertices[1] + scene.vertices[2]) / 2).max() < 2e-4
