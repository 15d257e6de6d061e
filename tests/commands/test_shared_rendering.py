"""test.py and script/eval.py by several processes: the files and scores of one, and one line where one fails."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch

from mmlphuman.animation.camera_file import CameraView, write_camera_file
from mmlphuman.avatar.pose_space import PoseSpace
from mmlphuman.avatar.trained import TrainedAvatar
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.config import default_config
from mmlphuman.evaluation.fid import Inception
from tests.builders import look_at_origin, randomise, save_checkpoint, small_avatar
from tests.commands.runs import call, start_fork
from tests.local_processes import environment_of_rank, free_port

WORLD = 2
SETTINGS = "test: {cam_ids: [3, 1], begin_ith_frame: 22, num_frame: 3}\ndevice: cpu\nvgg_path: none.pth\n"
# Several commands one after the other in each process: [["test.py", ...], ...], a port each.
COMMANDS_IN_ONE = """
import json, os, runpy, sys
for port, words in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"], sys.argv = str(port), words
    runpy.run_path(words[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def files(synthetic_body, tiny_capture, tmp_path_factory) -> dict[str, Path]:
    """An untrained avatar, what it can be drawn and scored with."""
    folder = tmp_path_factory.mktemp("shared")
    settings = {"train_cam_ids": [0, 1, 2], "num_train_frame": 24, "pca_components": 5}
    avatar = randomise(small_avatar(synthetic_body, **settings))
    poses = torch.from_numpy(read_smpl_params(tiny_capture / "smpl_params.npz").poses[:24])
    config = default_config(init_num_gs=600, num_verts=120, num_features=10, **settings)
    trained = TrainedAvatar(avatar, PoseSpace.fit(poses, 5), config, config.iterations)
    save_checkpoint(folder / "model", trained, {}, keep=1)
    (folder / "settings.yaml").write_text(SETTINGS)
    for number, w2c in enumerate(look_at_origin(2.5, views=2).w2c.double().numpy()):
        write_camera_file(folder / f"camera{number}.json", CameraView(w2c, 40.0, 48, 40))
    (folder / "commands.py").write_text(COMMANDS_IN_ONE)
    torch.save(Inception.with_random_weights(0).state_dict(), folder / "inception.pth")
    return {"folder": folder, "capture": tiny_capture}


def commands(files, out) -> list[list[str]]:
    """Every way to render and to score that ranks can share."""
    folder, capture = files["folder"], files["capture"]
    model = ["--model_dir", folder / "model"]
    of_config = ["--config", folder / "settings.yaml", "--data_dir", capture, *model]
    cameras = ["--cam_path", folder / "camera0.json", folder / "camera1.json"]
    poses = ["--pose_path", capture / "smpl_params.npz", "--begin", 23, "--count", 3, "--video", 10]
    lists = [
        ["test.py", *of_config, "--out_dir", out / "capture"],
        ["test.py", *model, *cameras, *poses, "--show_distance", "--out_dir", out / "poses", "device=cpu"],
        ["script/eval.py", *of_config, "--out_dir", out / "eval", "--inception_path", folder / "inception.pth"]
        + ["test.begin_ith_frame=24", "test.num_frame=1"],
        ["script/eval.py", "--truth", out / "capture/gt", "--render", out / "capture/render"]
        + ["--out_dir", out / "folders", "device=cpu", "vgg_path=none.pth"],
    ]  # fmt: skip
    return [[str(word) for word in words] for words in lists]


def run_in_one(script, lists, rank=0, world=1) -> subprocess.Popen:
    """One process that runs the commands, as torchrun would start it if there are several."""
    environment = (
        environment_of_rank(rank, world, port=0) if world > 1 else {}
    )  # each command sets its own port
    return start_fork(script, json.dumps(lists), env=environment)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_two_processes_write_and_say_what_one_does(files, tmp_path):
    """Byte for byte: pictures, contact sheet, videos, scores with FID. At last a mistake, which one of them tells."""

    def run(world, *more, status=0):
        out = tmp_path / "out"  # the same names, which stand in the scores
        lists = [(free_port(), words) for words in [*commands(files, out), *more]]
        processes = [run_in_one(files["folder"] / "commands.py", lists, rank, world) for rank in range(world)]
        said = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [status] * world, said
        written = contents(out)
        shutil.rmtree(out)
        return written, said

    alone, [(said_alone, _)] = run(1)
    animation = commands(files, tmp_path)[1]
    one_camera = animation[: animation.index("--cam_path") + 2]
    speed = [
        *one_camera,
        "--pose_path",
        str(files["capture"] / "smpl_params.npz"),
        "--test_speed",
        "device=cpu",
    ]
    together, [(said_together, bar), (said_by_second, no_bar)] = run(WORLD, speed, status=1)
    names = ["capture/contact_sheet.png", "poses/cam000.mp4", "poses/cam001.mp4", "eval/scores.json"]
    assert set(names) < set(alone) and len(alone) == 18 + 2 + 6 + 3 + 2 + 4
    assert list(together) == list(alone)
    assert [name for name in alone if together[name] != alone[name]] == []
    assert json.loads(alone["eval/scores.json"])["results"]["novel poses"]["overall"]["fid"] > 0
    assert said_together == said_alone and "contact_sheet.png" in said_alone
    assert said_by_second == no_bar == "" and "1 of 2 processes" in bar
    assert bar.endswith("error: --test_speed measures one process; start it without torchrun\n")


def test_where_one_process_fails_all_end_with_its_line(files, tmp_path):
    """By torchrun: the second process meets a damaged picture while the first has work left or waits."""
    capture = shutil.copytree(files["capture"], tmp_path / "capture")
    [damaged] = capture.glob("*1/00000022.jpg")  # the second of the pairs
    damaged.write_bytes(damaged.read_bytes()[:500])
    words = commands({**files, "capture": capture}, tmp_path / "out")[0]
    began = time.monotonic()
    status, out, err = call(
        "-m", "torch.distributed.run", f"--nproc_per_node={WORLD}", f"--master_port={free_port()}", *words
    )
    lines = [line for line in err.splitlines() if "error: process" in line]  # the rest is torchrun's report
    assert status != 0 and time.monotonic() - began < 60
    assert len(lines) == 1 and "process 1 of 2" in lines[0] and "cut short" in lines[0], err
    assert err.count("Traceback") <= 1, err  # torchrun's own
    assert not (tmp_path / "out" / "scores.json").exists()
