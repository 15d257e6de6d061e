"""Protocols: what is published, what a config's test part becomes, and what training saw of it."""

import json
from pathlib import Path

import pytest

from mmlphuman.capture.dataset import select_frames
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import default_config, load_config
from mmlphuman.evaluation.protocols import (
    PROTOCOLS,
    Part,
    TrainingViews,
    config_protocol,
    named_protocol,
    novelty_notes,
    part_dataset,
    training_note,
    training_views,
)

ROOT = Path(__file__).resolve().parents[2]
SEEN = TrainingViews(frozenset({0, 1, 2}), frozenset(range(24)))


def pairs(part):
    return [(frame, camera) for frame in part.frames for camera in part.cameras]


@pytest.mark.parametrize(
    ("name", "cameras_of_capture", "file"), [("subject00", 24, "subject00"), ("zzr", 16, "avrex_zzr")]
)
def test_a_model_of_the_published_config_fits_its_protocol(name, cameras_of_capture, file):
    protocol = named_protocol(name)
    training = training_views(load_config(ROOT / "config" / f"{file}.yaml"), cameras_of_capture)
    assert training_note(protocol, training) is None
    for part in protocol.parts:
        assert not any("WARNING" in note for note in novelty_notes(part, pairs(part), training))
        assert part.project_pose == (part.name == "novel poses")
    json.dumps(protocol.to_json())


def test_the_published_pictures():
    (poses,) = named_protocol("subject00").parts
    assert poses.cameras == (18,) and list(poses.frames) == list(range(2000, 2500)) and poses.project_pose
    (views,) = named_protocol("zzr").parts
    assert views.cameras == (7, 13) and list(views.frames) == list(range(2000)) and not views.project_pose


def test_an_unknown_protocol_lists_the_known():
    with pytest.raises(ValueError, match="--protocol nobody") as caught:
        named_protocol("nobody")
    assert all(name in str(caught.value) for name in PROTOCOLS)


def test_another_training_set_is_said_loudly():
    protocol = named_protocol("subject00")
    everything = TrainingViews(frozenset(range(24)), frozenset(range(2000)))
    note = training_note(protocol, everything)
    assert note.startswith("WARNING") and "cameras 0-6, 8-23" in note and "cameras 0-23" in note


def test_a_config_is_split_into_seen_and_novel_poses():
    config = default_config(test=dict(cam_ids=[3], begin_ith_frame=20, num_frame=8, image_scaling=0.5))
    protocol = config_protocol(config, "mine", SEEN)
    views, poses = protocol.parts
    assert (views.name, list(views.frames), views.project_pose) == ("novel views", [20, 21, 22, 23], False)
    assert (poses.name, list(poses.frames), poses.project_pose) == ("novel poses", [24, 25, 26, 27], True)
    assert protocol.image_scaling == 0.5
    config.test.cam_ids = [2, 3]
    assert config_protocol(config, "mine", SEEN).parts[0].name == "test views"
    config.test.begin_ith_frame = 24
    assert [part.name for part in config_protocol(config, "mine", SEEN).parts] == ["novel poses"]


def test_training_views_are_those_of_the_recorded_settings():
    config = default_config(begin_ith_frame=4, num_train_frame=5, frame_interval=3, skip_frames=[[6, 12]])
    views = training_views(config, cameras_of_capture=3)
    assert views.cameras == {0, 1, 2} and views.frames == {4, 13, 16}
    assert training_views(default_config(train_cam_ids=[2]), 3).cameras == {2}
    assert set(select_frames(4, 5, 3)) == {4, 7, 10, 13, 16}


def test_what_training_saw_is_said_loudly():
    part = Part("novel views", (2, 3), range(22, 26), project_pose=False)
    both, view = novelty_notes(part, pairs(part), SEEN)
    assert both.startswith("WARNING") and "2 of 8 images" in both and "camera 2, frame 22-23" in both
    assert view.startswith("WARNING") and "camera 2" in view and "not novel views" in view
    pose = novelty_notes(Part("test views", (3,), range(22, 24), False), [(22, 3), (23, 3)], SEEN)
    assert len(pose) == 1 and not pose[0].startswith("WARNING") and "frame 22-23" in pose[0]
    assert novelty_notes(part, [(24, 3), (25, 3)], SEEN) == []
    poses = Part("novel poses", (3,), range(24), project_pose=True)
    assert novelty_notes(poses, pairs(poses), SEEN)[0].startswith("WARNING")


def test_what_the_capture_lacks_names_the_part(tiny_capture):
    layout = open_capture(tiny_capture)
    poses = read_smpl_params(layout.pose_path)
    config = default_config(test=dict(cam_ids=[3], begin_ith_frame=20, num_frame=5))
    protocol = config_protocol(config, "mine", SEEN)
    views, novel = protocol.parts
    assert part_dataset(novel, protocol, layout, poses).pairs == [(24, 3)]
    with pytest.raises(ValueError, match="mine, novel views: camera 9"):
        part_dataset(Part("novel views", (9,), range(3), False), protocol, layout, poses)
    with pytest.raises(ValueError, match="mine, novel poses: frame 28"):
        part_dataset(Part("novel poses", (3,), range(26, 40), True), protocol, layout, poses)
