"""test.py with cameras and poses, as a user runs it: pictures, video, speed, and one line for every mistake."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from mmlphuman.animation.camera_file import read_camera_file, read_camera_list, write_camera_file
from mmlphuman.animation.pose_bar import add_pose_bar
from mmlphuman.animation.pose_file import read_pose_file
from mmlphuman.animation.render_sequence import to_cameras
from mmlphuman.evaluation.speed import STAGES
from mmlphuman.model_folder import load_model
from mmlphuman.output_folder import begin_output
from mmlphuman.render.rasterize import rasterize
from tests.commands.runs import call, call_here, one_error_line

NOVEL = 24  # the first frame that training never saw


@pytest.fixture(scope="module")
def inputs(files, model, tmp_path_factory) -> dict[str, Path]:
    """Camera files, and the capture's poses."""
    folder = tmp_path_factory.mktemp("inputs")
    for number, view in read_camera_list(model / "cameras.json", trained_only=True).items():
        write_camera_file(folder / f"{number}.json", view)
    return {
        "poses": files["data"] / "smpl_params.npz",
        **{f"camera{number}": folder / f"{number}.json" for number in (0, 1, 2)},
    }


@pytest.fixture
def animate(model, inputs):
    """Runs test.py within this process. Flags override the ones given here."""

    def run(*words, **paths) -> tuple[int, str, str]:
        given = {"model_dir": model, "cam_path": inputs["camera0"], "pose_path": inputs["poses"], **paths}
        flags = [word for name, path in given.items() if path is not None for word in (f"--{name}", path)]
        return call_here("test.py", *flags, *words)

    return run


def by_hand(model, inputs, frame, camera="camera0", project=False):
    """(H, W, 3) RGB uint8."""
    trained, pose = load_model(model), read_pose_file(inputs["poses"]).pose(frame)
    with torch.no_grad():
        posed = trained.avatar(pose, trained.active, trained.features(pose, project)).posed
        view = to_cameras(read_camera_file(inputs[camera]), "cpu")
        image = rasterize(posed, view, torch.ones(3)).colors[0]
    return (image.clamp(0, 1).numpy() * 255).round().astype(np.uint8)


def picture(path):
    return cv2.imread(str(path))[..., ::-1]


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_published_command_line(files, model, inputs, tmp_path):
    """In a process of its own, with --config and --test: pictures as drawn by hand, distances told and listed."""
    out = tmp_path / "out"
    status, said, err = call(
        *("test.py", "--config", files["short"], "--model_dir", model, "--out_dir", out),
        *("--cam_path", inputs["camera0"], "--pose_path", inputs["poses"], "--begin", NOVEL, "--test"),
    )
    assert status == 0, err
    pictures = [f"render/frame{frame:08d}.png" for frame in range(NOVEL, NOVEL + 4)]
    assert names(out) == ["output.json", "poses.json", *pictures]
    for frame in (NOVEL, NOVEL + 3):
        expected = by_hand(model, inputs, frame, project=True)
        assert np.array_equal(picture(out / f"render/frame{frame:08d}.png"), expected)
    listed = json.loads((out / "poses.json").read_text())["poses"]
    assert [entry["frame"] for entry in listed] == list(range(NOVEL, NOVEL + 4))
    trained, poses = load_model(model), read_pose_file(inputs["poses"])
    for entry in listed:
        distance = float(trained.pose_space.distance(poses.pose(entry["frame"]).body))
        assert entry["distance"] == pytest.approx(distance, abs=1e-3) and distance > 1
    worst = max(listed, key=lambda entry: entry["distance"])
    assert f"{worst['frame']} ({worst['distance']:.1f})" in said


def test_several_cameras_are_kept_apart(model, inputs, animate, tmp_path):
    status, _, err = animate(
        "--cam_path", inputs["camera0"], inputs["camera2"], "--count", 2, out_dir=tmp_path
    )
    assert status == 0, err
    assert names(tmp_path) == ["output.json", "poses.json"] + [
        f"render/cam{camera:03d}_frame{frame:08d}.png" for camera in (0, 1) for frame in (0, 1)
    ]
    expected = by_hand(model, inputs, 1, "camera2")
    assert np.array_equal(picture(tmp_path / "render/cam001_frame00000001.png"), expected)


def test_a_training_camera_goes_by_its_id(animate, inputs, tmp_path):
    """The synthetic cameras have their principal point in the middle, so that the file says the same."""
    assert animate("--count", 1, cam_path=2, out_dir=tmp_path / "id")[0] == 0
    assert animate("--count", 1, cam_path=inputs["camera2"], out_dir=tmp_path / "file")[0] == 0
    name = "render/frame00000000.png"
    assert (picture(tmp_path / "id" / name) == picture(tmp_path / "file" / name)).all()
    one_error_line(animate(cam_path=99, out_dir=tmp_path / "none"), "--cam_path 99", "has the cameras 0-3")


def test_a_held_out_camera_is_known_to_the_model_and_to_its_compact_file(animate, files, compact, tmp_path):
    """Camera 3 was never trained on: by id of both, and as a camera of the capture's calibration, it is the same."""
    name = "render/frame00000000.png"
    for out, flags in (("id", {"cam_path": 3}), ("capture", {"cam_path": f"{files['data']}#3"}),
                       ("compact", {"cam_path": 3, "model_dir": compact})):  # fmt: skip
        status, _, err = animate("--count", 1, out_dir=tmp_path / out, **flags)
        assert status == 0, err
    by_id, by_calibration, of_compact = (
        picture(tmp_path / out / name) for out in ("id", "capture", "compact")
    )
    assert np.abs(by_id.astype(int) - by_calibration).max() <= 1
    assert np.abs(by_id.astype(int) - of_compact).mean() < 2 and (by_id != 255).any()


def test_a_list_of_cameras_is_several(animate, inputs, tmp_path):
    content = [json.loads(inputs[f"camera{number}"].read_text()) for number in (0, 2)]
    (tmp_path / "list.json").write_text(json.dumps(content))
    status, _, err = animate(
        "--count", 1, "--follow", cam_path=tmp_path / "list.json", out_dir=tmp_path / "out"
    )
    assert status == 0, err
    assert names(tmp_path / "out")[2:] == [f"render/cam{camera:03d}_frame00000000.png" for camera in (0, 1)]


def test_a_turntable_video_with_the_bar(animate, tmp_path):
    status, said, err = animate(
        "--begin", NOVEL - 2, "--turntable", "--video", 12, "--show_distance", out_dir=tmp_path
    )  # fmt: skip
    assert status == 0 and "video.mp4" in said, err
    rate, frames = decode(tmp_path / "video.mp4")
    listed = json.loads((tmp_path / "poses.json").read_text())["poses"]
    assert rate == 12 and len(frames) == 6
    for entry, frame in zip(listed, frames, strict=True):
        shown = add_pose_bar(picture(tmp_path / f"render/frame{entry['frame']:08d}.png"), entry["distance"])
        assert shown.shape == frame.shape
        assert -10 * np.log10(np.square((shown - frame.astype(float)) / 255).mean()) > 30
    assert (frames[0] != frames[3]).any()


def test_a_camera_path_ends_at_the_last_camera_in_the_wanted_size(animate, inputs, tmp_path):
    cameras = [inputs[f"camera{number}"] for number in range(3)]
    status, _, err = animate(
        "--cam_path", *cameras, "--count", 5, "--camera_path", "--video", "--width", 33, "--height", 47,
        out_dir=tmp_path / "path",
    )  # fmt: skip
    assert status == 0, err
    rate, frames = decode(tmp_path / "path" / "video.mp4")
    assert rate == 30 and len(frames) == 5 and frames[0].shape == (48, 34, 3)  # even for the encoder
    flags = ("--width", 33, "--height", 47, "--begin", 4, "--count", 1)
    assert animate("--cam_path", cameras[2], *flags, out_dir=tmp_path / "held")[0] == 0
    last = [picture(tmp_path / name / "render/frame00000004.png") for name in ("path", "held")]
    assert last[0].shape == (47, 33, 3) and np.abs(last[0].astype(int) - last[1]).max() <= 1


def test_speed_is_the_last_line_and_nothing_is_written(animate, tmp_path, monkeypatch):
    status, said, err = animate("--test_speed", "--test", "--speed_frames", 3)
    assert status == 0, err
    speed = json.loads(said.splitlines()[-1])["test_speed"]
    assert set(speed["stages_ms"]) == set(STAGES) and speed["projected"] and speed["frames"] == 3
    assert speed["frame_ms"]["median"] > 0 and "whole frame" in said


def test_overrides_apply_without_a_config(animate, tmp_path):
    for name, colour in (("black", 0), ("white", 255)):
        settings = (f"background={name}", "--count", 1, "rasterizer=torch")  # flags may stand between them
        status, _, err = animate(*settings, out_dir=tmp_path / name)
        assert status == 0, err
        assert (picture(tmp_path / name / "render/frame00000000.png")[0, 0] == colour).all()


def camera(**changes):
    content = {"w2c": np.eye(4).ravel().tolist(), "fovx": 40, "height": 48, "width": 48, **changes}
    return json.dumps(content)


@pytest.mark.parametrize(
    ("words", "paths", "parts"),
    [
        ((), {"cam_path": None, "pose_path": None}, ["--data_dir", "--cam_path"]),
        ((), {"cam_path": None}, ["--cam_path and --pose_path"]),
        ((), {"data_dir": "anything"}, ["either --data_dir"]),
        ((), {"cam_path": None, "pose_path": None, "data_dir": "nowhere"}, ["nowhere", "--data_dir"]),
        ((), {"out_dir": None}, ["--out_dir is needed"]),
        (("--show_distance",), {}, ["--show_distance", "--video"]),
        (("--turntable", "--camera_path"), {}, ["exclude each other"]),
        (("--camera_path",), {}, ["two or more"]),
        (("--test_speed", "--video"), {}, ["--test_speed"]),
        (("--test_speed", "--speed_frames", 0), {}, ["--speed_frames: 0"]),
        (("--video", -3), {}, ["--video: -3"]),
        (("--width", 0), {}, ["--width: 0"]),
        (("--height", 60_000), {}, ["--height: 60000"]),
        (("--begin", 28), {}, ["begin: 28", "0 to 27"]),
        (("colour_lr=1",), {}, ["colour_lr"]),
        ((), {"model_dir": "nowhere"}, ["nowhere", "does not exist"]),
        ((), {"model_dir": "nowhere.safetensors"}, ["nowhere.safetensors"]),
        ((), {"cam_path": "nowhere.json"}, ["nowhere.json"]),
        ((), {"pose_path": "nowhere.npz"}, ["nowhere.npz"]),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(animate, tmp_path, words, paths, parts):
    result = animate(*words, **{"out_dir": tmp_path / "out", **paths})
    one_error_line(result, *parts)
    assert result[0] == 1 and result[1] == "" and list(tmp_path.iterdir()) == []


def test_absurd_files_are_one_line(animate, tmp_path):
    out = tmp_path / "out"
    for changes, part in (({"fovx": 180}, "fovx is 180"), ({"width": 60_000}, "width is 60000")):
        (tmp_path / "cam.json").write_text(camera(**changes))
        one_error_line(animate(cam_path=tmp_path / "cam.json", out_dir=out), "cam.json", part)
    np.savez(tmp_path / "poses.npz", poses=np.zeros((4, 73)), trans=np.zeros((4, 3)))
    one_error_line(animate(pose_path=tmp_path / "poses.npz", out_dir=out), "poses.npz", "(4, 73)")
    assert not out.exists()


def test_places_that_cannot_be_written_are_one_line(animate, tmp_path):
    (tmp_path / "file").write_text("")
    one_error_line(animate(out_dir=tmp_path / "file"), "--out_dir", "cannot be written to")
    one_error_line(animate(out_dir=tmp_path / "file" / "deeper"), "--out_dir", "cannot be written to")


def test_a_writer_that_fails_stops_the_run_and_leaves_nothing_half(animate, tmp_path):
    """`render` is a file where the folder should be: the first picture fails while the video is under way."""
    (tmp_path / "render").write_text("")
    begin_output(tmp_path / "of_old", "test.py --pose_path", [])
    (tmp_path / "of_old" / "output.json").rename(
        tmp_path / "output.json"
    )  # an earlier output's, with that file in it
    (tmp_path / "of_old").rmdir()
    status, _, err = animate("--video", out_dir=tmp_path)
    assert status == 1 and "frame00000000.png" in err.splitlines()[-1]
    assert names(tmp_path) == ["output.json", "render"]


def estimated(folder: Path, files, **changes) -> Path:
    """The capture's motion as a video estimator gives it: no hands, no jaw."""
    with np.load(files["data"] / "smpl_params.npz") as motion:
        arrays = {key: motion[key][:4] for key in ("global_orient", "body_pose", "transl")}
    np.savez(
        folder / "estimated.npz",
        **{key: changes.get(key, lambda array: array)(array) for key, array in arrays.items()},
    )
    return folder / "estimated.npz"


def test_what_the_pose_file_is_taken_for_is_told(animate, files, tmp_path):
    path = estimated(tmp_path, files)
    status, said, err = animate("--hands", "relaxed", pose_path=path, out_dir=tmp_path / "out")
    assert status == 0 and "warning" not in err, err
    assert said.splitlines()[0] == f"poses of {path}: SMPL-X, 4 frames, hands replaced, no expression"


def test_a_person_who_lies_is_told_of(animate, files, tmp_path):
    lying = estimated(tmp_path, files, global_orient=lambda turns: 0 * turns + [np.pi / 2, 0, 0])
    status, _, err = animate(pose_path=lying, out_dir=tmp_path / "out")
    assert status == 0 and err.startswith(f"warning: {lying}: the person lies") and "try --up=z" in err


def test_a_person_out_of_the_picture_is_told_of_or_refused(animate, files, tmp_path):
    walks = estimated(tmp_path, files, transl=lambda places: places + np.float32([[0], [0], [9], [9]]))
    status, _, err = animate(pose_path=walks, out_dir=tmp_path / "out")
    assert (
        status == 0 and "warning: the camera: the person is out of the picture in 2 of 4 frames (2-3)" in err
    )
    out = tmp_path / "none"
    far = estimated(tmp_path, files, transl=lambda places: places + 10)
    one_error_line(animate(pose_path=far, out_dir=out), str(far), "out of the picture in all 4 frames")
    centimetres = estimated(tmp_path, files, transl=lambda places: 100 * (places + [0, 1, 0]))
    one_error_line(
        animate(pose_path=centimetres, out_dir=out), str(centimetres), "'transl' lies", "--units cm"
    )
    assert not out.exists()
