"""Study files: how settings lie over each other, which poses are novel, and one line for what does not fit."""

from pathlib import Path

import pytest

from mmlphuman.config import load_config
from mmlphuman.evaluation.study import load_study, runs_of, select

STUDY = """
seeds: [0, 3]
subjects:
  one:
    data_dir: somewhere
    smpl_path: body/SMPLX_NEUTRAL.npz
    settings: {light: normal, num_train_frame: 10, frame_interval: 2}
    sets:
      views: {cam_ids: [4, 5], num_frame: 5, frame_interval: 4}
      near: {cam_ids: [4], begin_ith_frame: 20, num_frame: 3}
variants:
  default: {}
  plain: {config: [PLAIN], settings: {pca_components: 7}, test_mode: [pca, none], against: dark}
  dark: {settings: {light: none}}
"""


@pytest.fixture
def study_file(tmp_path):
    (tmp_path / "plain.yaml").write_text("light: none\npca_components: 9\nnovel_poses: pca\n")
    (tmp_path / "study.yaml").write_text(STUDY.replace("PLAIN", str(tmp_path / "plain.yaml")))
    return tmp_path / "study.yaml"


def test_every_run_has_its_settings(study_file, tmp_path):
    runs = runs_of(load_study([study_file]), tmp_path)
    names = [run.name for run in runs]
    assert names[:3] == ["one/default/seed0", "one/plain/seed0", "one/dark/seed0"]
    assert names[3:] == [name.replace("seed0", "seed3") for name in names[:3]]
    default, plain = runs[0].config, runs[4].config
    assert (default.seed, default.light, default.pca_components) == (0, "normal", 20)
    # The variant's file lies over the subject's settings, its own settings over its file.
    assert (plain.seed, plain.light, plain.pca_components) == (3, "none", 7)
    assert default.smpl_pkl_path == "body/SMPLX_NEUTRAL.npz"
    assert default.test.cam_ids == [4, 5] and default.test.num_frame == 5  # shown while it trains
    assert runs[4].folder == tmp_path / "one" / "plain" / "seed3" and runs[0].data_dir == Path("somewhere")


def test_novel_poses_are_drawn_in_every_test_mode_and_seen_ones_once(study_file, tmp_path):
    default, plain, _ = runs_of(load_study([study_file], ["seeds=[0]"]), tmp_path)
    drawn = [(part.folder, part.test_mode, part.part.project_pose) for part in default.parts]
    assert drawn == [("views", "none", False), ("near_clamp", "clamp", True)]
    drawn = [(part.folder, part.test_mode, part.part.project_pose) for part in plain.parts]
    assert drawn == [("views", "none", False), ("near_pca", "pca", True), ("near", "none", False)]
    assert plain.test_modes == ("pca", "none")
    assert list(default.parts[0].part.frames) == [0, 4, 8, 12, 16] and default.parts[0].part.cameras == (4, 5)
    assert list(default.parts[1].part.frames) == [20, 21, 22]


def test_a_set_of_seen_and_novel_poses_is_refused(study_file, tmp_path):
    study = load_study([study_file], ["subjects.one.sets.near.begin_ith_frame=17"])
    with pytest.raises(ValueError, match=r"subjects\.one\.sets\.near: 1 of its 3 frames .* make two sets"):
        runs_of(study, tmp_path)


def test_later_files_and_the_command_line_lie_over_the_first(study_file, tmp_path):
    (tmp_path / "more.yaml").write_text(
        "subjects: {two: {make_demo: --size 64, sets: {views: {cam_ids: [1], num_frame: 1}}}}\n"
        "variants: {default: {settings: {num_features: 12}}}\n"
    )
    study = load_study(
        [study_file, tmp_path / "more.yaml"], ["variants.default.settings.hidden_widths=[8,9]"]
    )
    assert list(study.subjects) == ["one", "two"] and list(study.variants) == ["default", "plain", "dark"]
    run = runs_of(select(study, ["two"], ["default"], [5]), tmp_path)
    assert [r.name for r in run] == ["two/default/seed5"]
    assert run[0].config.num_features == 12 and run[0].config.hidden_widths == [8, 9]
    assert run[0].data_dir == tmp_path / "two" / "capture"
    assert run[0].config.smpl_pkl_path == str(tmp_path / "two" / "SMPLX_NEUTRAL.npz")


def test_only_names_of_the_study_can_be_selected(study_file):
    with pytest.raises(ValueError, match="--variants bright: the study has default, plain, dark"):
        select(load_study([study_file]), None, ["bright"], None)
    with pytest.raises(ValueError, match="--seeds -1"):
        select(load_study([study_file]), None, None, [-1])


@pytest.mark.parametrize(
    "override, message",
    [
        ("subject.one=3", "subject: .*config/study.yaml"),
        ("subjects.one.cameras=3", "cameras"),
        ("subjects.one.sets.near.num_frame=many", "num_frame"),
        ("subjects.one.sets.near.num_frame=0", r"subjects\.one\.sets\.near: needs"),
        ("subjects.one.sets.near.cam_ids=[]", r"subjects\.one\.sets\.near: needs"),
        ("subjects.two.sets={}", r"subjects\.two: give data_dir"),
        ("subjects.two={data_dir: x, sets: {}}", r"subjects\.two\.sets: none"),
        ("subjects.one.make_demo='--out_dir x'", r"make_demo: --out_dir is not for it"),
        ("variants.dark.test_mode=[clip]", r"variants\.dark\.test_mode: \['clip'\]"),
        ("variants.dark.test_mode=clamp", "test_mode"),
        ("variants.dark.against=nobody", r"variants\.dark\.against: nobody is no variant"),
        ("variants.ceiling={}", r"variants\.ceiling: this is the name"),
        ("variants={'../up': {}}", r"name '\.\./up'"),
        ("seeds=[1,1]", r"seeds: \[1, 1\]"),
        ("seeds=[]", "seeds: none"),
        ("--seeds", "'--seeds' is not understood"),
        (
            "subjects.one.data_dir='${oc.env:HOME}'",
            r"command line: subjects\.one\.data_dir: .* stands for a value",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(study_file, override, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_study([study_file], [override])
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml does not exist"):
        load_study([tmp_path / "none.yaml"])
    (tmp_path / "bad.yaml").write_text("seeds: [0\n")
    with pytest.raises(ValueError, match=r"bad\.yaml: not a readable YAML"):
        load_study([tmp_path / "bad.yaml"])
    with pytest.raises(ValueError, match="subjects: none is given"):
        load_study([], ["seeds=[0]"])


def test_unknown_settings_name_their_variant(study_file, tmp_path):
    study = load_study([study_file], ["variants.dark.settings.lihgt=none"])
    with pytest.raises(ValueError, match=r"variants\.dark\.settings: lihgt"):
        runs_of(study, tmp_path)
    study = load_study([study_file], ["variants.dark.settings.light=blue"])
    with pytest.raises(ValueError, match=r"variants\.dark\.settings: light: blue is not allowed"):
        runs_of(study, tmp_path)


@pytest.mark.parametrize("files", [["study"], ["study", "study_cpu"]])
def test_the_committed_studies(files, tmp_path):
    study = load_study([Path("config") / f"{name}.yaml" for name in files], ["seeds=[0]"])
    runs = {run.name: run for run in runs_of(study, tmp_path)}
    assert len(runs) == 2 * len(study.variants)
    published = load_config([Path(study.subjects["demo"].config[0]), Path("config/published.yaml")])
    for key in ("pose_inputs", "hidden_widths", "light", "novel_poses"):
        assert getattr(runs["demo/published/seed0"].config, key) == getattr(published, key)
    for name, run in runs.items():
        frames = 1 + max(max(part.part.frames) for part in run.parts)
        words = study.subjects[run.subject].make_demo.split()
        options = dict(zip(words, words[1:], strict=False))
        sets = 3 if run.subject == "hard" else 1
        assert frames == int(options["--frames"]) + sets * int(options["--novel_frames"]), name
        assert run.config.num_train_frame == int(options["--frames"]), name
        cameras = {camera for part in run.parts for camera in part.part.cameras}
        assert cameras.isdisjoint(run.config.train_cam_ids), name
        assert max(*cameras, *run.config.train_cam_ids) == int(options["--cameras"]) - 1
        static = runs[f"{run.subject}/{study.variants[run.variant].against}/seed{run.seed}"].config
        assert static.light == run.config.light, f"{name} is compared under another light"
        assert static.iteration_dxyz_basis > static.iterations < static.iteration_gsparam_basis


def test_a_study_file_is_not_interpolated(tmp_path):
    """It may be a stranger's, and what it comes to is saved beside the scores."""
    (tmp_path / "sly.yaml").write_text("variants: {default: {settings: {vgg_path: '${oc.env:HOME}'}}}\n")
    with pytest.raises(
        ValueError, match=r"sly\.yaml: variants\.default\.settings\.vgg_path: .* stands for a"
    ):
        load_study([tmp_path / "sly.yaml"])
