#!/usr/bin/env bash
# Trains on a SLURM cluster, and comes back by itself after it was preempted or its time was up.
#
#   sbatch [options of sbatch] script/slurm_train.sh --config config/avrex_zzr.yaml --data_dir CAPTURE --out_dir MODEL \
#       [key=value ...]
#
# The arguments are train.py's; `--resume auto` is added. Submit from the project's folder, to a file system that all
# hosts share. Options of sbatch go over those below; one task is one GPU:
#   --nodes=N --ntasks-per-node=G --gpus-per-node=G     N hosts with G GPUs each
#   --cpus-per-task=C                                    num_workers and one more
#   --time=T --partition=P --account=A                   as the cluster wants them
# Environment: PYTHON, the interpreter (default .venv/bin/python).
#
# 120 seconds before the end SLURM signals this script, which passes it on: every process finishes its step, the first
# one writes a checkpoint, all end with status 75, and the job is put back into the queue. Any other status of theirs is final.
# srun starts the processes without torchrun, which dies of that signal and makes 1 of their status.
#SBATCH --job-name=mmlphuman
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=9
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail

readonly COME_AGAIN=75
readonly ENDED_BY_USR1=138 # before training had begun to listen: nothing was done yet
readonly FIRST_PORT=20000 PORTS=20000

cd "${SLURM_SUBMIT_DIR:-.}"
if [[ ! -f train.py ]]; then
    echo "error: $PWD holds no train.py; call sbatch from the project's folder" >&2
    exit 1
fi

read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_PORT=$((FIRST_PORT + SLURM_JOB_ID % PORTS)) # jobs that share a host differ
export MASTER_ADDR MASTER_PORT
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not take it over by itself

pass_on() {
    interrupted=yes
    kill -USR1 "$srun_pid" 2>/dev/null || true
}

# All GPUs of a host are visible to each of its tasks, which takes the one of its number. Tasks end together by
# themselves; the first to end must not take the others with it.
# shellcheck disable=SC2016  # the tasks expand these
srun --kill-on-bad-exit=0 --gpu-bind=none bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
    export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
    exec "$@"' task "${PYTHON:-.venv/bin/python}" train.py --resume auto "$@" &
srun_pid=$!
trap pass_on USR1 TERM

while true; do
    interrupted=
    status=0
    wait "$srun_pid" || status=$?
    if [[ -z $interrupted ]] || ((status <= 128)); then
        break # otherwise it was only the waiting that the signal ended
    fi
done

if ((status == COME_AGAIN || status == ENDED_BY_USR1)); then
    echo "asked to stop (status $status); back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
