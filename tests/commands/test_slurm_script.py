"""script/slurm_train.sh with stand-ins for SLURM's commands and for training, on a cluster of this machine."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "script" / "slurm_train.sh"
SECONDS = 20
COMMANDS = {
    # Starts the tasks, passes SIGUSR1 on to them, and ends with the highest of their statuses.
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        for ((task = 0; task < SLURM_NTASKS; task++)); do
            SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & tasks+=($!)
        done
        trap 'passed_on=yes; kill -USR1 "${tasks[@]}"' USR1
        highest=0
        for task in "${tasks[@]}"; do
            while true; do
                passed_on=; status=0
                wait "$task" || status=$?
                [[ $passed_on ]] || break
            done
            ((status > highest)) && highest=$status
        done
        exit "$highest"
    """,
    "scontrol": """
        if [[ $1 == show ]]; then echo node7; echo node8; else echo "$@" >>"$RECORD/asked_for"; fi
    """,
    # In the place of Python: records how it was called; ends as told, or with 75 when it is signalled.
    "training": """
        trap 'exit 75' USR1
        echo "$@" >"$RECORD/arguments.$RANK"
        echo "$LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT" >"$RECORD/place.$RANK.part"
        mv "$RECORD/place.$RANK.part" "$RECORD/place.$RANK"
        [[ $END == signal ]] || exit "$END"
        while true; do sleep 0.02; done
    """,
}


@pytest.fixture
def submit(tmp_path):
    """Runs the script as job 4711 of two tasks."""
    for name, body in COMMANDS.items():
        path = tmp_path / name
        path.write_text(f"#!/usr/bin/env bash\n{body}")
        path.chmod(0o755)
    (tmp_path / "train.py").touch()
    slurm = {
        "SUBMIT_DIR": tmp_path,
        "JOB_ID": 4711,
        "JOB_NODELIST": "node[7-8]",
        "NTASKS": 2,
        "NTASKS_PER_NODE": 2,
    }
    environment = {
        **os.environ,
        **{f"SLURM_{key}": str(value) for key, value in slurm.items()},
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": str(tmp_path / "training"),
        "RECORD": str(tmp_path),
    }

    def start(end: str) -> subprocess.Popen:
        words = ["bash", str(SCRIPT), "--config", "c.yaml", "--out_dir", "a model", "lambda_l1=2"]
        return subprocess.Popen(words, env={**environment, "END": end}, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)  # fmt: skip

    return start


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_preempted_job_goes_back_into_the_queue(submit, tmp_path, number):
    job = submit("signal")
    end = time.monotonic() + SECONDS
    while len(list(tmp_path.glob("place.?"))) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    job.send_signal(number)
    out, _ = job.communicate(timeout=SECONDS)
    assert job.returncode == 75, out
    assert (tmp_path / "asked_for").read_text() == "requeue 4711\n"
    for rank in range(2):
        assert (tmp_path / f"place.{rank}").read_text() == f"{rank} 2 2 node7 24711\n"
        arguments = (tmp_path / f"arguments.{rank}").read_text()
        assert arguments == "train.py --resume auto --config c.yaml --out_dir a model lambda_l1=2\n"


def test_a_job_that_was_signalled_before_it_listened_goes_back_too(submit, tmp_path):
    training = tmp_path / "training"
    training.write_text(training.read_text().replace("trap 'exit 75' USR1\n", ""))
    job = submit("signal")
    end = time.monotonic() + SECONDS
    while len(list(tmp_path.glob("place.?"))) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    out, _ = job.communicate(timeout=SECONDS)
    assert job.returncode == 128 + signal.SIGUSR1, out
    assert (tmp_path / "asked_for").read_text() == "requeue 4711\n"


@pytest.mark.parametrize("status", [0, 1])
def test_a_finished_or_failed_job_does_not(submit, tmp_path, status):
    job = submit(str(status))
    out, _ = job.communicate(timeout=SECONDS)
    assert job.returncode == status, out
    assert not (tmp_path / "asked_for").exists()


def test_outside_the_project_s_folder_is_one_line(submit, tmp_path):
    (tmp_path / "train.py").unlink()
    job = submit("0")
    out, _ = job.communicate(timeout=SECONDS)
    assert job.returncode == 1 and out.startswith("error: ") and len(out.splitlines()) == 1


def test_slurm_is_asked_to_warn_and_to_requeue():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    options = [
        line.removeprefix("#SBATCH ")
        for line in SCRIPT.read_text().splitlines()
        if line.startswith("#SBATCH ")
    ]
    assert {"--signal=B:USR1@120", "--requeue", "--open-mode=append"} <= set(options)
