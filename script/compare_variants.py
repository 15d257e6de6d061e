"""Trains and scores variants of the method over subjects and seeds, and prints a table.

    python script/compare_variants.py --study config/study.yaml --out_dir output/study --jobs 4
    python script/compare_variants.py --study config/study.yaml --study mine.yaml --subjects mine --out_dir ...

config/study.yaml says how a study is written. Started again the same command goes on where it stopped: captures,
finished runs and their pictures are kept, unfinished runs are resumed. In --out_dir:
SUBJECT/VARIANT/seedN/ with model/, log.txt and pictures/; scores.csv, a line for each picture; table.txt, table.md.
"""

from __future__ import annotations

import mmlphuman  # isort: skip  # noqa: F401  before torch: see there
import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmlphuman.command import run_command


def parse_arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--study", type=Path, action="append", default=[], help="YAML file; given again, over the ones before"
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="folder of captures, runs and tables")
    parser.add_argument("--subjects", type=comma_separated, metavar="A,B", help="of the study; default all")
    parser.add_argument("--variants", type=comma_separated, metavar="A,B", help="of the study; default all")
    parser.add_argument("--seeds", type=seed_list, metavar="0,1", help="default the study's")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once, shared out over the GPUs")
    parser.add_argument("--list", action="store_true", help="only say what there is to do")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="over the study, e.g. subjects.mine.data_dir=CAPTURE",
    )
    return parser.parse_intermixed_args()  # key=value may stand between flags


def comma_separated(words: str) -> list[str]:
    return words.split(",")


def seed_list(words: str) -> list[int]:
    return [int(word) for word in words.split(",")]


if __name__ == "__main__":  # wrong words end here, before torch is loaded, which takes seconds
    ARGUMENTS = run_command(parse_arguments)

import torch
from omegaconf import OmegaConf

from mmlphuman.backend import choose_backend
from mmlphuman.body.smplx_model import load_body
from mmlphuman.body.weight_volume import find_or_make_weight_volume
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.command import choose_device
from mmlphuman.config import load_config, save_config
from mmlphuman.evaluation.image_folders import read_mask, read_picture
from mmlphuman.evaluation.metrics import ImagePair, score_picture
from mmlphuman.evaluation.protocols import Protocol, novelty_notes, part_dataset, training_views
from mmlphuman.evaluation.render_to_files import render_capture
from mmlphuman.evaluation.study import CEILING, GIVEN, Run, Study, load_study, runs_of, select
from mmlphuman.evaluation.variant_table import (
    HEADER,
    ScoredPicture,
    StudyScores,
    as_markdown,
    as_text,
    read_scores,
    write_scores,
)
from mmlphuman.files import atomic_write
from mmlphuman.json_file import read_json
from mmlphuman.measures.lpips import load_lpips
from mmlphuman.model_folder import NAME, list_checkpoints, load_model, poses_to_score
from mmlphuman.output_folder import require_output
from mmlphuman.picture_files import image_name
from mmlphuman.processes import started_processes
from mmlphuman.resources import available_cores
from mmlphuman.text import ranges
from mmlphuman.training.guarding import EXIT_STATUS, Preemption
from mmlphuman.training.resume import check_same_run
from mmlphuman.training.run_setup import apply_determinism

ROOT = Path(__file__).resolve().parent.parent
RECORD = "study.yaml"
SCORES, STAMP, LOG, PICTURES = "scores.csv", "scored.json", "log.txt", "pictures"
POLL_SECONDS, STATUS_SECONDS = 0.2, 60
LOG_END = 2000  # bytes, in which a log's last line is looked for
PROTOCOL = Protocol("study", "the study's sets", ())  # on white, at full size


def main(args: argparse.Namespace) -> None:
    if args.jobs < 1:
        raise ValueError(f"--jobs {args.jobs}: must be at least 1")
    if started_processes() > 1:
        raise ValueError("start it without torchrun; --jobs trains several runs at once, on all GPUs")
    study = select(load_study(args.study, args.overrides), args.subjects, args.variants, args.seeds)
    out_dir = args.out_dir.absolute()
    runs = runs_of(study, out_dir)
    for run in runs:
        refuse_other_settings(run)
    say_what_there_is(runs, args.jobs)
    if args.list:
        return
    require_output(out_dir, "compare_variants.py", mark=RECORD)
    OmegaConf.save(OmegaConf.structured(study), out_dir / RECORD)
    torch.backends.cudnn.allow_tf32 = False  # scores in full single precision
    for name in study.subjects:
        own = [run for run in runs if run.subject == name]  # one that needs a weight volume, if any does
        prepare_subject(study, name, max(own, key=lambda run: run.config.skinning_weights == "volume"))
    failures = train_and_score(study, runs, out_dir, args.jobs)
    table = write_tables(study, runs, out_dir)
    print(f"\n{table}\n{out_dir / SCORES}, table.txt and table.md")
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(runs)} runs failed, the same command tries them again: {'; '.join(failures)}"
        )


def reached(run: Run) -> int | None:
    """Iteration of the newest checkpoint; None for a run that was not begun."""
    checkpoints = list_checkpoints(run.model_dir)
    found = NAME.fullmatch(checkpoints[-1].name) if checkpoints else None
    return int(found[1]) if found else None


def finished(run: Run) -> bool:
    return (reached(run) or 0) >= run.config.iterations


def refuse_other_settings(run: Run) -> None:
    """ValueError where the run's folder holds one with other settings."""
    recorded = run.model_dir / "config.yaml"
    if recorded.is_file():
        given = apply_determinism(run.config)
        check_same_run(load_config(recorded), given, run.model_dir, longer=False)  # variants are compared


def say_what_there_is(runs: Sequence[Run], jobs: int) -> None:
    for run in runs:
        iteration = reached(run)
        state = (
            "not begun" if iteration is None else f"at iteration {iteration:,} of {run.config.iterations:,}"
        )
        print(f"{run.name}: {'trained' if finished(run) else state}")
    to_train = sum(not finished(run) for run in runs)
    print(f"{len(runs)} runs, {to_train} to train, {jobs} at once", flush=True)


def prepare_subject(study: Study, name: str, run: Run) -> None:
    """Makes its capture where the study says how, and its weight volume, before several runs would; sees to it that its
    sets are there."""
    options = study.subjects[name].make_demo
    if options is not None:
        words = [
            *(str(ROOT / "script" / "make_demo.py"), "--out_dir", str(run.data_dir)),
            *("--smplx_path", run.config.smpl_pkl_path, *shlex.split(options)),
        ]
        print(f"\n$ python {shlex.join(words)}", flush=True)
        status = subprocess.run([sys.executable, *words]).returncode
        if status != 0:
            sys.exit(status)  # it has said why
    layout = open_capture(run.data_dir)
    poses = read_smpl_params(layout.pose_path, model_file=run.config.smpl_pkl_path)
    if run.config.skinning_weights == "volume" or layout.template_path.is_file():  # once for all runs
        body = load_body(run.config.smpl_pkl_path, poses.betas)
        find_or_make_weight_volume(layout.weight_volume_path, body, run.config.weight_volume_resolution)
    training = training_views(run.config, len(layout.cameras))
    for part in run.parts:
        pairs = part_dataset(part.part, PROTOCOL, layout, poses).pairs
        for note in novelty_notes(part.part, pairs, training):
            if note.startswith("WARNING"):
                print(f"{name}: {note}")


@dataclass
class Training:
    run: Run
    process: subprocess.Popen
    slot: int
    started: float

    @classmethod
    def start(cls, run: Run, slot: int, jobs: int) -> Training:
        """Runs train.py, its output in the run's log. slot: 0 to jobs - 1, for its GPU."""
        settings = run.folder / "settings.yaml"
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / STAMP).unlink(missing_ok=True)  # of a model that was here before
        save_config(run.config, settings)
        cores = max(1, available_cores() // jobs)
        words = [
            *(str(ROOT / "train.py"), "--config", str(settings), "--data_dir", str(run.data_dir)),
            *("--out_dir", str(run.model_dir), "--resume", "--no_viewer", "checkpoints_kept=1"),
            f"num_workers={min(run.config.num_workers, cores)}",
        ]
        environment = {"OMP_NUM_THREADS": str(cores)} | os.environ | gpu_of(slot)
        with (run.folder / LOG).open("ab") as log:
            log.write(f"$ python {shlex.join(words)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        return cls(run, process, slot, time.monotonic())

    def last_line(self) -> str:
        """Of its log; of an ended one the error, if there is one."""
        with (self.run.folder / LOG).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_END))
            lines = log.read().decode(errors="replace").replace("\r", "\n").splitlines()
        said = [line.strip() for line in lines if line.strip()]
        errors = [line for line in said if line.startswith("error: ")]
        return (errors or said or ["nothing was said"])[-1]


def gpu_of(slot: int) -> dict[str, str]:
    """The environment that gives a training one of several GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    return {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if len(gpus) > 1 else {}


def train_and_score(study: Study, runs: Sequence[Run], out_dir: Path, jobs: int) -> list[str]:
    """Trains what is not trained, `jobs` at once; scores each run when it is trained, and writes the tables anew.

    Returns what failed, a text for each run. A request to stop (Ctrl-C, SIGTERM) is passed on to the trainings, which
    save themselves; the program then ends with status 75.
    """
    failures = []
    with Preemption() as preemption:
        for run in filter(finished, runs):
            if preemption.asked_by is None:
                score_run(run)
        for training in trainings([run for run in runs if not finished(run)], jobs, preemption):
            run, minutes = training.run, (time.monotonic() - training.started) / 60
            if training.process.returncode != 0:
                failures.append(f"{run.name}: {training.last_line()} ({run.folder / LOG})")
                print(f"{run.name}: FAILED after {minutes:.1f} min: {training.last_line()}", flush=True)
                continue
            print(f"{run.name}: trained in {minutes:.1f} min", flush=True)
            score_run(run)
            write_tables(study, runs, out_dir)
        if preemption.asked_by is not None:
            print(f"stopped by {preemption.asked_by}; the same command goes on", file=sys.stderr)
            sys.exit(EXIT_STATUS)
    return failures


def trainings(runs: Sequence[Run], jobs: int, preemption: Preemption) -> Iterator[Training]:
    """Each training as it ends, while the next ones go on. Whatever ends this ends them too; they save themselves."""
    queue, running, said = list(runs), [], time.monotonic()
    try:
        while preemption.asked_by is None and (queue or running):
            ended = [training for training in running if training.process.poll() is not None]
            running = [training for training in running if training not in ended]
            while queue and len(running) < jobs:
                slot = min(set(range(jobs)) - {training.slot for training in running})
                running.append(Training.start(queue.pop(0), slot, jobs))
                print(f"{running[-1].run.name}: training, {len(queue)} more to come", flush=True)
            yield from ended
            if time.monotonic() - said > STATUS_SECONDS:
                said = time.monotonic()
                for training in running:
                    print(f"  {training.run.name}: {training.last_line()}", flush=True)
            if not ended:
                time.sleep(POLL_SECONDS)
    finally:
        for training in running:
            training.process.terminate()
        for training in running:
            training.process.wait()


def score_run(run: Run) -> None:
    """Draws and scores every set once, into the run's folder; nothing is done where that is there already."""
    vgg = Path(run.config.vgg_path)
    stamp = stamp_of(run) | {"iteration": reached(run), "lpips": vgg.is_file()}
    if already_scored(run.folder, stamp):
        return
    started = time.monotonic()
    device = choose_device(run.config.device)
    backend = choose_backend(run.config.rasterizer, run.config.kernels, device)
    lpips = load_lpips(vgg).to(device) if vgg.is_file() else None
    trained, layout = load_model(run.model_dir), open_capture(run.data_dir)
    poses = read_smpl_params(layout.pose_path, trained.config.face, run.config.smpl_pkl_path)
    poses, _ = poses_to_score(run.model_dir, trained.config, poses)
    shutil.rmtree(run.folder / PICTURES, ignore_errors=True)  # of sets as they were before
    pictures = []
    for part in run.parts:
        mode = trained.config.novel_poses if part.test_mode == GIVEN else part.test_mode
        table = render_capture(
            trained.with_novel_poses_of(replace(trained.config, novel_poses=mode)).prepared(device, backend),
            part_dataset(part.part, PROTOCOL, layout, poses),
            training_cameras=trained.config.train_cam_ids or range(len(layout.cameras)),
            out_dir=run.folder / PICTURES / part.folder,
            background=list(PROTOCOL.background),
            backend=backend,
            project_pose=part.part.project_pose,
            title=f"{run.name}, {part.folder}",
            lpips=lpips,
            quiet=True,
        )
        assert table is not None, "one process gets its table"
        keys = run.subject, run.variant, run.seed, part.set, part.test_mode
        pictures += [ScoredPicture(*keys, score) for score in table.scores]
        print(f"  {part.folder}: {table.summary()}", flush=True)
    write_scored(run.folder, pictures, stamp)
    print(f"{run.name}: scored in {time.monotonic() - started:.0f} s", flush=True)


def score_ceiling(run: Run, folder: Path) -> None:
    """Scores make_demo's --ceiling pictures on the pixels of a scored run, for sets that have them all."""
    vgg, true = Path(run.config.vgg_path), run.data_dir / CEILING
    stamp = stamp_of(run) | {"lpips": vgg.is_file()}
    if not true.is_dir() or already_scored(folder, stamp):
        return
    device = choose_device(run.config.device)
    lpips = load_lpips(vgg).to(device) if vgg.is_file() else None
    scored, pictures = read_scores(run.folder / SCORES), []
    for part in {part.set: part for part in run.parts}.values():
        keys = part.set, part.test_mode
        drawn = [picture.score for picture in scored if (picture.set, picture.test_mode) == keys]
        names = [image_name("gt", int(score.camera), int(score.frame)).name for score in drawn]
        if missing := [name for name in names if not (true / name).is_file()]:
            print(f"{run.subject}: no ceiling for {part.set}: {true / missing[0]} is not there")
            continue
        for score, name in zip(drawn, names, strict=True):
            truth, mask = (run.folder / PICTURES / part.folder / kind / name for kind in ("gt", "mask"))
            true_picture = read_picture(true / name)
            pair = ImagePair(score.camera, score.frame, read_picture(truth), true_picture, read_mask(mask))
            own = score_picture(pair, lpips, device)
            pictures.append(ScoredPicture(run.subject, CEILING, None, part.set, GIVEN, own))
    write_scored(folder, pictures, stamp)


def stamp_of(run: Run) -> dict:
    """What decides about a run's scores, beside its model."""
    parts = [[part.folder, list(part.part.cameras), ranges(part.part.frames)] for part in run.parts]
    return {"capture": str(run.data_dir), "parts": parts, "columns": list(HEADER)}


def already_scored(folder: Path, stamp: dict) -> bool:
    path = folder / STAMP
    return path.is_file() and (folder / SCORES).is_file() and read_json(path) == stamp


def write_scored(folder: Path, pictures: Sequence[ScoredPicture], stamp: dict) -> None:
    (folder / STAMP).unlink(missing_ok=True)
    write_scores(folder / SCORES, pictures)
    with atomic_write(folder / STAMP) as file:
        file.write(json.dumps(stamp, indent=1).encode())


def write_tables(study: Study, runs: Sequence[Run], out_dir: Path) -> str:
    """Puts the pictures of all scored runs into one file, and makes the tables of it."""
    scored = [run for run in runs if finished(run) and (run.folder / STAMP).is_file()]
    folders = [run.folder for run in scored]
    for subject, run in {run.subject: run for run in reversed(scored)}.items():
        folder = out_dir / subject / CEILING
        score_ceiling(run, folder)
        folders += [folder] * (folder / STAMP).is_file()
    write_scores(
        out_dir / SCORES, [picture for folder in folders for picture in read_scores(folder / SCORES)]
    )
    rows = [(run.variant, mode) for run in runs for mode in run.test_modes]
    tables = StudyScores(study, rows, read_scores(out_dir / SCORES)).tables()
    for name, text in (("table.txt", as_text(tables)), ("table.md", as_markdown(tables))):
        with atomic_write(out_dir / name) as file:
            file.write(text.encode())
    return as_text(tables)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
